#include <algorithm>

#include "core/state.hpp"

namespace grange::core {
namespace {

JobView view_of(const Job& job) {
  return {.job = job.no,
          .state = job.state(),
          .count = job.header.count,
          .next_index = job.next_index,
          .counts = job.counts,
          .assigned = job.assigned,
          .running = job.running,
          .waiting = job.ready(),
          .delayed = job.delayed,
          .paused = job.frozen + job.parked,
          .blocked = job.blocked(),
          .priority = job.header.priority,
          .started = job.started,
          .open = job.header.open,
          .is_paused = job.paused};
}

TaskView view_of(const Farm::State& s, const Task& task) {
  TaskView v{.task = task.id, .attempt = task.attempt};
  for (const auto n : task.failures) v.failures = static_cast<std::uint16_t>(v.failures + n);
  v.crashes = task.failures[static_cast<std::size_t>(FailureClass::worker_lost)];
  v.failures = static_cast<std::uint16_t>(v.failures - v.crashes);
  v.by_hand = task.by_hand != HandPause::none || std::holds_alternative<Parked>(task.where);
  if (const HeldBy* held = task.held()) {
    v.worker = held->worker;
    // Not the other ranks of a gang: a second has an attempt of its own.
    if (task.has_extras) {
      for (const auto& extra : s.extras.at(task.id)) {
        if (extra->attempt != task.attempt) v.second = extra->held()->worker;
      }
    }
    if (held->started.us != 0) v.started = {s.wall.ms - (s.clock - held->started).count() / 1000};
    v.state = held->state == AttemptState::running  ? LiveState::running
              : held->state == AttemptState::paused ? LiveState::paused
                                                    : LiveState::assigned;
  } else if (const auto* delayed = std::get_if<Delayed>(&task.where)) {
    v.state = LiveState::delayed;
    v.ready_at = delayed->wall;
  } else if (std::holds_alternative<Parked>(task.where)) {
    v.state = LiveState::paused;
  } else if (std::holds_alternative<Recovering>(task.where)) {
    v.state = LiveState::recovering;
  }
  return v;
}

WorkerView view_of(const Farm::State& s, const Worker& w) {
  WorkerView v{
      .worker = w.no,
      .connected = w.connected,
      .draining = w.draining,
      .window = w.window,
      .running = w.running,
      .backlog = static_cast<std::uint32_t>(w.held.size()) - w.running,
      .cpus_used_milli = static_cast<std::uint32_t>(std::min<std::uint64_t>(w.load.cpus_milli, w.capacity.cpus_milli)),
      .capacity = w.capacity,
      .slots_in_use = std::min(w.running, w.capacity.slots),
      .quarantined = w.quarantined_until > s.clock,
      .failed_in_a_row = w.failed_in_a_row,
      .success = w.success,
      .mean_run_us = w.mean_run_us,
      .paused = w.paused};
  if (v.quarantined) v.quarantined_until = {s.wall.ms + (w.quarantined_until - s.clock).count() / 1000};
  return v;
}

}  // namespace

std::string_view name(LiveState s) {
  switch (s) {
    case LiveState::pending:
      return "pending";
    case LiveState::assigned:
      return "assigned";
    case LiveState::running:
      return "running";
    case LiveState::delayed:
      return "delayed";
    case LiveState::recovering:
      return "recovering";
    case LiveState::paused:
      return "paused";
    case LiveState::blocked:
      return "blocked";
  }
  return "pending";
}

FarmView Farm::view() const {
  FarmView v{
      .live_jobs = static_cast<std::uint32_t>(s_->jobs.size()), .queued_tasks = s_->queued, .active_tasks = s_->active};
  v.paused = s_->paused;
  for (const auto& [no, job] : s_->jobs) v.blocked_tasks += job->blocked();
  for (const auto& [no, w] : s_->workers) {
    v.running_tasks += w->running;
    if (!w->connected) continue;
    v.connected_workers += 1;
    v.slots += w->capacity.slots;
  }
  return v;
}

std::optional<JobView> Farm::job(JobNo no) const {
  const Job* job = s_->job(no);
  if (job == nullptr) return std::nullopt;
  return view_of(*job);
}

std::optional<TaskView> Farm::task(TaskId id) const {
  const Job* job = s_->job(id.job());
  if (job == nullptr || id.index() >= job->header.count) return std::nullopt;
  if (const Task* task = s_->task(id)) return view_of(*s_, *task);
  if (job->cancelled || id.index() < job->next_index || job->skipped.contains(id.index())) return std::nullopt;
  return TaskView{.task = id, .state = job->each() || !job->opened ? LiveState::blocked : LiveState::pending};
}

std::vector<Dependency> Farm::after(JobNo no) const {
  const Job* job = s_->job(no);
  return job == nullptr ? std::vector<Dependency>{} : job->header.after;
}

std::vector<JobView> Farm::jobs() const {
  std::vector<JobView> out;
  out.reserve(s_->jobs.size());
  for (const auto& [no, job] : s_->jobs) out.push_back(view_of(*job));
  std::sort(out.begin(), out.end(), [](const JobView& a, const JobView& b) { return a.job < b.job; });
  return out;
}

std::vector<WorkerView> Farm::workers() const {
  std::vector<WorkerView> out;
  for (const auto& [no, w] : s_->workers) out.push_back(view_of(*s_, *w));
  return out;
}

std::optional<WorkerView> Farm::worker(WorkerNo no) const {
  const Worker* w = s_->worker(no);
  if (w == nullptr) return std::nullopt;
  return view_of(*s_, *w);
}

std::vector<TaskView> Farm::held_by(WorkerNo no) const {
  std::vector<TaskView> out;
  if (const Worker* w = s_->worker(no)) {
    for (const Task* task : w->held) out.push_back(view_of(*s_, *task));
  }
  return out;
}

}  // namespace grange::core
