// Binds a plan's counts to tasks. What the state no longer allows is left out: a stale plan is harmless.
#include <algorithm>

#include "base/mark.hpp"
#include "core/fair.hpp"
#include "core/fit.hpp"

namespace grange::core {
namespace {

// A ready task of the job: the one that is named, or else what came back, then the range. Its row leaves the queues.
Task* take_task(Farm::State& s, Job& job, TaskId wanted, bool picky_too) {
  const auto take = [&](std::deque<std::uint32_t>& queue, std::size_t at) {
    Task* task = s.task(TaskId::of(job.no, queue[at]));
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(at));
    return task;
  };
  if (wanted.packed != 0) {
    const auto it = std::find(job.picky.begin(), job.picky.end(), wanted.index());
    return it == job.picky.end() ? nullptr : take(job.picky, static_cast<std::size_t>(it - job.picky.begin()));
  }
  if (!job.again.empty()) return take(job.again, 0);
  if (!job.each() && job.fresh() > 0) return &s.add_task(job, job.take_fresh());
  if (picky_too && !job.picky.empty()) return take(job.picky, 0);
  return nullptr;
}

void began(Farm::State& s, Job& job, Worker& w, Now now) {
  w.last_used = ++s.use_counter;
  if (job.started.ms == 0) job.started = now.wall;
  s.touch(job);
}

void count_start(Farm::State& s, Job& job, Now now) {
  User& user = *job.user;
  s.book->assigned += 1;
  if (user.limits.starts_per_minute == 0) return;
  refill(user.starts, user.limits.starts_per_minute, now);
  user.starts.tokens = std::max(0.0, user.starts.tokens - 1);
}

bool room_by_quota(const Job& job, const Request& r, Now now) {
  return quota_room(*job.user, r, job.header.nodes, {}, now) > 0;
}

void apply_grant(Farm::State& s, const Plan::Grant& grant, Now now, Effects& effects) {
  Job* job = s.job(grant.job);
  Worker* w = s.worker(grant.worker);
  if (job == nullptr || w == nullptr || job->gated() || grant.alternative >= job->requests.size()) return;
  if (!takes_work(*w, now) || job->header.nodes > 1) return;
  fair::lift(s, *job);
  std::uint32_t given = 0;
  const Request& r = s.request(*job, grant.alternative);
  for (; given < grant.count && w->held.size() < w->window; ++given) {
    if (job->header.max_running > 0 && job->assigned + job->running >= job->header.max_running) break;
    if (!room_by_quota(*job, r, now)) break;
    Task* task = take_task(s, *job, grant.task, false);
    if (task == nullptr) break;
    const LeaseEpoch epoch = s.next_epoch++;
    s.hold(*job, *task, *w, epoch, AttemptState::assigned, grant.alternative);
    count_start(s, *job, now);
    effects.assign.push_back({.worker = w->no,
                              .fence = {task->id, task->attempt, epoch},
                              .checkpoint = task->attempt > 1,
                              .alternative = grant.alternative});
  }
  if (given == 0) return;
  began(s, *job, *w, now);
  s.index(*job);
  s.served(*job);
}

void apply_gang(Farm::State& s, const Plan::GangGrant& gang, Now now, Effects& effects) {
  Job* job = s.job(gang.job);
  if (job == nullptr || job->ready() == 0 || gang.alternative >= job->requests.size()) return;
  if (gang.workers.size() != job->header.nodes) return;
  const Request& r = s.request(*job, gang.alternative);
  if (!room_by_quota(*job, r, now)) return;
  for (const WorkerNo no : gang.workers) {
    Worker* w = s.worker(no);
    if (w == nullptr || !takes_work(*w, now)) return;
    Spare spare = Spare::of(*w);
    if (!fits_now(s, spare, r)) return;
  }
  fair::lift(s, *job);
  Task* task = take_task(s, *job, gang.task, true);
  if (task == nullptr) return;
  GRANGE_MARK("gang_started");
  const LeaseEpoch epoch = s.next_epoch;
  s.next_epoch += gang.workers.size();
  const auto number = static_cast<std::uint32_t>(effects.gangs.size());
  effects.gangs.push_back(gang.workers);
  for (std::uint32_t rank = 0; rank < gang.workers.size(); ++rank) {
    Worker& w = *s.worker(gang.workers[rank]);
    if (rank == 0) {
      s.hold(*job, *task, w, epoch, AttemptState::assigned, gang.alternative);
    } else {
      s.add_extra(*job, *task, w, epoch + rank, task->attempt, rank, gang.alternative);
    }
    effects.assign.push_back({.worker = w.no,
                              .fence = {task->id, task->attempt, epoch + rank},
                              .checkpoint = task->attempt > 1,
                              .gang = number,
                              .rank = rank,
                              .alternative = gang.alternative});
    began(s, *job, w, now);
  }
  count_start(s, *job, now);
  s.index(*job);
  s.served(*job);
}

void apply_second(Farm::State& s, const Plan::Second& second, Now now, Effects& effects) {
  Task* task = s.task(second.task);
  Worker* w = s.worker(second.worker);
  if (task == nullptr || w == nullptr || task->has_extras || !takes_work(*w, now)) return;
  const HeldBy* held = task->held();
  if (held == nullptr || held->state != AttemptState::running || held->worker == w->no || held->freezing) return;
  if (task->stays_alone()) return;
  Job& job = *s.job(task->id.job());
  const Request& r = s.request(job, held->alternative);
  Spare spare = Spare::of(*w);
  if (job.gated() || !room_by_quota(job, r, now) || !fits_now(s, spare, r)) return;
  s.start_second(*task, *w, held->alternative, effects);
  count_start(s, job, now);
}

void apply_take_back(Farm::State& s, const Plan::TakeBack& order, Effects& effects) {
  Worker* w = s.worker(order.worker);
  if (w == nullptr) return;
  std::uint32_t left = order.count;
  for (auto it = w->held.rbegin(); it != w->held.rend() && left > 0; ++it) {
    HeldBy& held = *(*it)->held();
    if (order.task.packed != 0 && (*it)->id != order.task) continue;
    if (held.state != AttemptState::assigned || held.asked_back || (*it)->extra || (*it)->has_extras) continue;
    held.asked_back = true;
    effects.take_back.push_back({w->no, (*it)->id});
    w->taking_back += 1;
    left -= 1;
  }
}

}  // namespace

void Farm::apply(const Plan& plan, Now now, Effects& effects) {
  s_->clock = now.mono;
  if (s_->paused) return;
  // Gangs first: they need the room that is free now, and backlog hides it.
  for (const auto& gang : plan.gangs) apply_gang(*s_, gang, now, effects);
  for (const auto& grant : plan.grants) apply_grant(*s_, grant, now, effects);
  for (const auto& second : plan.seconds) apply_second(*s_, second, now, effects);
  for (const auto& order : plan.take_backs) apply_take_back(*s_, order, effects);
}

}  // namespace grange::core
