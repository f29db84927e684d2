#include "core/state.hpp"

#include <algorithm>

namespace grange::core {

bool Farm::State::can_ever_run(const Request& r, const Capacity& c) {
  if (!Load{}.fits(r, c)) return false;
  if (!std::binary_search(c.engines.begin(), c.engines.end(), r.engine)) return false;
  return std::includes(c.labels.begin(), c.labels.end(), r.labels.begin(), r.labels.end());
}

bool Farm::State::eligible(const Worker& w, RequestId r) const {
  if (w.eligible.size() <= r.value) w.eligible.resize(requests.size(), 0);
  auto& known = w.eligible[r.value];
  if (known == 0) known = can_ever_run(requests[r.value], w.capacity) ? 1 : -1;
  return known > 0;
}

RequestId Farm::State::intern(const Request& request) {
  const auto [it, fresh] = request_ids.try_emplace(request, RequestId{static_cast<std::uint32_t>(requests.size())});
  if (fresh) requests.push_back(request);
  return it->second;
}

void Farm::State::touch(Job& job) {
  if (job.dirty) return;
  job.dirty = true;
  dirty.push_back(job.no);
}

void Farm::State::index(Job& job, std::uint32_t ready_before) {
  const std::uint32_t now = job.ready();
  if ((ready_before == 0) == (now == 0)) return;
  const int at = level(job);
  if (now != 0) {
    ready[at][job.request].insert(job.no);
    return;
  }
  const auto by_level = ready.find(at);
  GRANGE_ASSERT(by_level != ready.end());
  const auto group = by_level->second.find(job.request);
  GRANGE_ASSERT(group != by_level->second.end());
  group->second.erase(job.no);
  if (group->second.empty()) by_level->second.erase(group);
  if (by_level->second.empty()) ready.erase(by_level);
}

void Farm::State::reindex() {
  ready.clear();
  for (const auto& [no, job] : jobs) {
    if (job->ready() > 0) ready[level(*job)][job->request].insert(no);
  }
}

Task& Farm::State::add_task(Job& job, std::uint32_t index) {
  const TaskId id = TaskId::of(job.no, index);
  const auto [it, fresh] = tasks.try_emplace(id);
  GRANGE_ASSERT(fresh);
  Task& task = it->second;
  task.id = id;
  task.job_position = static_cast<std::uint32_t>(job.live.size());
  job.live.push_back(&task);
  return task;
}

void Farm::State::drop_task(Job& job, Task& task) {
  Task* last = job.live.back();
  job.live[task.job_position] = last;
  last->job_position = task.job_position;
  job.live.pop_back();
  tasks.erase(task.id);
}

void Farm::State::leave(Job& job, Task& task) {
  if (HeldBy* held = task.held()) {
    Worker* w = worker(held->worker);
    GRANGE_ASSERT(w != nullptr);
    const bool ran = held->state == AttemptState::running;
    no_longer_asked(*w, *held);
    Task* last = w->held.back();
    w->held[held->position] = last;
    last->held()->position = held->position;
    w->held.pop_back();
    w->load.remove(request(job));
    (ran ? job.running : job.assigned) -= 1;
    if (ran) w->running -= 1;
    active -= 1;
    queued += 1;
  } else if (std::holds_alternative<Delayed>(task.where)) {
    job.delayed -= 1;
  } else if (std::holds_alternative<Recovering>(task.where)) {
    job.recovering -= 1;
    recovering -= 1;
  } else {
    const auto before = job.ready();
    // From the back: a cancelled job empties its queue from there.
    const auto it = std::find(job.again.rbegin(), job.again.rend(), task.id.index());
    GRANGE_ASSERT(it != job.again.rend());
    job.again.erase(std::next(it).base());
    index(job, before);
  }
}

void Farm::State::hold(Job& job, Task& task, Worker& w, LeaseEpoch epoch, AttemptState state) {
  task.where = HeldBy{w.no, static_cast<std::uint32_t>(w.held.size()), epoch, state};
  w.held.push_back(&task);
  w.load.add(request(job));
  const bool runs = state == AttemptState::running;
  (runs ? job.running : job.assigned) += 1;
  if (runs) w.running += 1;
  active += 1;
  queued -= 1;
}

void Farm::State::make_ready(Job& job, Task& task) {
  const auto before = job.ready();
  task.where = Ready{};
  job.again.push_back(task.id.index());
  index(job, before);
}

void Farm::State::delay(Job& job, Task& task, Millis wait, Now now) {
  const Instant at = now.mono + wait;
  task.where = Delayed{at, {now.wall.ms + wait.count()}};
  job.delayed += 1;
  timers.push({at, task.id, task.attempt});
}

Task* Farm::State::fenced(WorkerNo worker_no, const Fence& fence) {
  Task* t = task(fence.task);
  if (t == nullptr || t->attempt != fence.attempt) return nullptr;
  const HeldBy* held = t->held();
  if (held == nullptr || held->worker != worker_no || held->epoch != fence.epoch) return nullptr;
  return t;
}

void Farm::State::next_attempt(Task& task, Effects& effects, WallMs ready_at) {
  task.attempt += 1;
  effects.records.push_back(TaskKept{task.id, task.attempt, task.failures, task.crashes, ready_at});
}

void Farm::State::end_task(Job& job, Task& task, TaskEnd end, FailureClass failure, WorkerNo by, BodyRef body,
                           std::uint64_t run_us, Now now, Effects& effects) {
  leave(job, task);
  effects.records.push_back(TaskEnded{task.id, end, failure, task.attempt, by, body, now.wall, run_us});
  queued -= 1;
  switch (end) {
    case TaskEnd::completed:
      job.counts.completed += 1;
      break;
    case TaskEnd::failed:
      job.counts.failed += 1;
      break;
    case TaskEnd::cancelled:
      job.counts.cancelled += 1;
      break;
  }
  touch(job);
  drop_task(job, task);
}

// The attempt is gone with its worker. `charge`: it ran there, so it may be what killed it.
void Farm::State::lose_attempt(Task& task, bool charge, Now now, Effects& effects) {
  Job& job = *this->job(task.id.job());
  const WorkerNo lost_with = task.held() != nullptr ? task.held()->worker : WorkerNo{};
  const Attempt attempt = task.attempt;
  if (charge) task.crashes += 1;
  const bool poison = task.crashes >= job.header.retry.crash_limit;
  if (charge) {
    effects.records.push_back(AttemptFailed{task.id, attempt, lost_with, FailureClass::worker_lost, kNoBody, now.wall});
    effects.failed.push_back({task.id, attempt, lost_with, FailureClass::worker_lost, kNoBody, !poison, Millis{0}});
  }
  if (poison) {
    end_task(job, task, TaskEnd::failed, FailureClass::worker_lost, lost_with, kNoBody, 0, now, effects);
    if (job.header.fail_fast) cancel_rest(job, now, effects);
    return;
  }
  leave(job, task);
  next_attempt(task, effects, now.wall);
  make_ready(job, task);
  touch(job);
}

std::uint32_t Farm::State::lose_worker(Worker& w, bool charge, Now now, Effects& effects, WorkerNews news) {
  std::uint32_t requeued = 0;
  // fail_fast may cancel other tasks of this worker while we walk, so take from the end until it is empty.
  while (!w.held.empty()) {
    Task& task = *w.held.back();
    lose_attempt(task, charge && task.held()->state == AttemptState::running, now, effects);
    requeued += 1;
  }
  effects.records.push_back(WorkerSeen{w.no, false, kNoBody, now.wall});
  effects.workers.push_back({w.no, news, requeued});
  workers.erase(w.no);
  return requeued;
}

std::uint32_t Farm::State::cancel_rest(Job& job, Now now, Effects& effects) {
  if (job.cancelled) return 0;
  const std::uint32_t fresh = job.fresh();
  std::uint32_t n = fresh;
  while (!job.live.empty()) {
    Task& task = job.again.empty() ? *job.live.back() : *this->task(TaskId::of(job.no, job.again.back()));
    WorkerNo by{};
    if (const HeldBy* held = task.held()) {
      by = held->worker;
      effects.cancel.push_back({by, task.id, task.attempt});
    }
    end_task(job, task, TaskEnd::cancelled, FailureClass::cancelled, by, kNoBody, 0, now, effects);
    n += 1;
  }
  job.counts.cancelled += fresh;
  queued -= fresh;
  const auto ready_left = job.ready();
  job.cancelled = true;
  index(job, ready_left);
  touch(job);
  return n;
}

void Farm::State::release_recovering(Now now, Effects& effects) {
  recover_until = Instant::never();
  expected.clear();
  if (recovering == 0) return;
  std::vector<TaskId> ids;
  for (const auto& [id, task] : tasks) {
    if (std::holds_alternative<Recovering>(task.where)) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());  // the map's order is not ours to depend on
  for (const TaskId id : ids) lose_attempt(*task(id), false, now, effects);
}

void Farm::State::tick(Now now, Effects& effects) {
  while (!timers.empty() && timers.top().at <= now.mono) {
    const Timer timer = timers.top();
    timers.pop();
    Task* t = task(timer.task);
    if (t == nullptr || t->attempt != timer.attempt || !std::holds_alternative<Delayed>(t->where)) continue;
    Job& j = *job(t->id.job());
    leave(j, *t);
    make_ready(j, *t);
    touch(j);
  }
  if (now.mono >= leases_checked_at) {
    std::vector<Worker*> lost;
    Instant next = Instant::never();
    for (auto& [no, w] : workers) {
      if (w->lease_until <= now.mono) {
        lost.push_back(w.get());
      } else {
        next = std::min(next, w->lease_until);
      }
    }
    leases_checked_at = next;
    for (Worker* w : lost) lose_worker(*w, true, now, effects, WorkerNews::lost);
  }
  if (now.mono >= recover_until) release_recovering(now, effects);
}

}  // namespace grange::core
