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
          .priority = job.header.priority,
          .started = job.started};
}

TaskView view_of(const Task& task) {
  TaskView v{.task = task.id, .attempt = task.attempt, .failures = task.failures, .crashes = task.crashes};
  if (const HeldBy* held = task.held()) {
    v.worker = held->worker;
    v.state = held->state == AttemptState::running ? LiveState::running : LiveState::assigned;
  } else if (const auto* delayed = std::get_if<Delayed>(&task.where)) {
    v.state = LiveState::delayed;
    v.ready_at = delayed->wall;
  } else if (std::holds_alternative<Recovering>(task.where)) {
    v.state = LiveState::recovering;
  }
  return v;
}

WorkerView view_of(const Worker& w) {
  return {
      .worker = w.no,
      .connected = w.connected,
      .draining = w.draining,
      .window = w.window,
      .running = w.running,
      .backlog = static_cast<std::uint32_t>(w.held.size()) - w.running,
      .cpus_used_milli = static_cast<std::uint32_t>(std::min<std::uint64_t>(w.load.cpus_milli, w.capacity.cpus_milli)),
      .capacity = w.capacity};
}

}  // namespace

FarmView Farm::view() const {
  FarmView v{
      .live_jobs = static_cast<std::uint32_t>(s_->jobs.size()), .queued_tasks = s_->queued, .active_tasks = s_->active};
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
  if (const Task* task = s_->task(id)) return view_of(*task);
  if (job->cancelled || id.index() < job->next_index || job->skipped.contains(id.index())) return std::nullopt;
  return TaskView{.task = id};
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
  for (const auto& [no, w] : s_->workers) out.push_back(view_of(*w));
  return out;
}

std::optional<WorkerView> Farm::worker(WorkerNo no) const {
  const Worker* w = s_->worker(no);
  if (w == nullptr) return std::nullopt;
  return view_of(*w);
}

std::vector<TaskView> Farm::held_by(WorkerNo no) const {
  std::vector<TaskView> out;
  if (const Worker* w = s_->worker(no)) {
    for (const Task* task : w->held) out.push_back(view_of(*task));
  }
  return out;
}

}  // namespace grange::core
