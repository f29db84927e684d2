// How often a task may fail, how long it waits then, and how an ended task runs again.
#include "base/mutant.hpp"
#include "core/fair.hpp"
#include "core/state.hpp"

namespace grange::core {
namespace {

bool matches(const RetryRule& rule, FailureClass failure, std::string_view exception) {
  if (rule.failure != failure) return false;
  if (rule.exception.empty() || rule.exception == exception) return true;
  const auto dot = exception.rfind('.');
  return dot != std::string_view::npos && rule.exception == exception.substr(dot + 1);
}

Millis backoff(Millis base, Millis cap, std::uint32_t failures, Prng& prng) {
  Millis wait = base;
  for (std::uint32_t n = 1; n < failures && wait < cap; ++n) wait *= 2;
  wait = std::min(wait, cap);
  // Up to a tenth later, so that tasks that failed together do not come back together.
  return wait + Millis{static_cast<std::int64_t>(static_cast<double>(wait.count()) * 0.1 * prng.unit())};
}

}  // namespace

Farm::State::Verdict Farm::State::count_failure(const Job& job, Task& task, FailureClass failure,
                                                std::string_view exception, bool permanent) {
  const RetryPolicy& retry = job.header.retry;
  auto& n = task.failures[static_cast<std::size_t>(failure)];
  if (n < UINT8_MAX) n = static_cast<std::uint8_t>(n + 1);
  if (GRANGE_MUTANT("retry_without_limit")) return {false, backoff(retry.base, retry.cap, n, prng)};
  task.unasked = 0;
  if (permanent || task.last_try) return {true, {}};
  for (const RetryRule& rule : retry.rules) {
    if (!matches(rule, failure, exception)) continue;
    if (n >= rule.max_attempts) return {true, {}};
    return {false, backoff(rule.base, rule.cap, n, prng)};
  }
  if (failure == FailureClass::worker_lost) return {n >= retry.crash_limit, {}};
  std::uint32_t all = 0;  // of the classes that have no rule of their own
  for (std::size_t c = 1; c < kCountedClasses; ++c) {
    const auto cls = static_cast<FailureClass>(c);
    if (cls == FailureClass::worker_lost) continue;
    if (std::any_of(retry.rules.begin(), retry.rules.end(),
                    [&](const RetryRule& r) { return r.failure == cls && r.exception.empty(); })) {
      continue;
    }
    all += task.failures[c];
  }
  if (all >= retry.max_attempts) return {true, {}};
  return {false, backoff(retry.base, retry.cap, all, prng)};
}

StepAnswer Farm::State::on(const CancelJob& e, Now now, Effects& effects) {
  Job* j = job(e.job);
  if (j == nullptr) return {Error{ErrorClass::not_found, "No such job is waiting or running.", {}}, 0, {}};
  return {Result<>{}, end_rest(*j, TaskEnd::cancelled, FailureClass::cancelled, e.body, now, effects), {}};
}

StepAnswer Farm::State::on(const CancelTask& e, Now now, Effects& effects) {
  Job* j = job(e.task.job());
  if (j == nullptr || e.task.index() >= j->header.count) {
    return {Error{ErrorClass::not_found, "No such task is waiting or running.", {}}, 0, {}};
  }
  if (Task* t = task(e.task)) {
    WorkerNo by{};
    if (const HeldBy* held = t->held()) {
      by = held->worker;
      effects.cancel.push_back({by, t->id, t->attempt, e.body});
      fair::charge_lost(*this, *j, *t, now);
      drop_extras(*j, *t, {}, e.body, now, effects);
    }
    end_task(*j, *t, TaskEnd::cancelled, FailureClass::cancelled, by, e.body, 0, now, effects);
    return {Result<>{}, 1, {}};
  }
  const auto at = e.task.index();
  if (j->cancelled || at < j->next_index || j->skipped.contains(at)) {
    return {Error{ErrorClass::invalid_state_transition, "This task has ended already.", {}}, 0, {}};
  }
  end_fresh(*j, at, TaskEnd::cancelled, FailureClass::cancelled, e.body, now, effects);
  return {Result<>{}, 1, {}};
}

StepAnswer Farm::State::on(const RetryTasks& e, Now now, Effects& effects) {
  Job* j = job(e.job);
  StepAnswer answer;
  bool returns = j == nullptr;
  if (j == nullptr) {
    if (!e.ended) return {Error{ErrorClass::not_found, "No such job.", {}}, 0, {}};
    JobHeader header = e.ended->header;
    const JobProgressed& progress = e.ended->progress;
    if (progress.count != 0) header.count = progress.count;
    header.open = false;
    if (header.deadline.ms != 0 && header.deadline <= now.wall) {
      return {
          Error{ErrorClass::conflict, "The deadline of this job has passed. Submit it again with another.", {}}, 0, {}};
    }
    if (jobs.size() >= limits::kLiveJobs || queued + active + header.count > limits::kQueuedTasks) {
      return {
          Error{ErrorClass::rate_limited, "The queue is full. Wait for some tasks to end, or cancel some.", {}}, 0, {}};
    }
    if (auto checked = check_requests({&header}); !checked.ok()) return {std::move(checked).error(), 0, {}};
    RangeSet skipped;
    for (const auto at : e.ended->skipped) {
      if (at >= progress.next_index && at < header.count) skipped.add(at);
    }
    for (const auto& again : e.tasks) {
      if (again.index >= progress.next_index && again.index < header.count) skipped.add(again.index);
    }
    // What was never handed out and has no outcome of its own was cancelled as a range, and is fresh again.
    const auto range = static_cast<std::uint32_t>(header.count - progress.next_index - skipped.size());
    if (range > progress.counts.cancelled) {
      return {Error{ErrorClass::internal, "The counts of this job do not add up; it was left as it is.", {}}, 0, {}};
    }
    if (range == 0 && e.tasks.empty()) return answer;
    j = &add_job(e.job, header, now);
    j->next_index = progress.next_index;
    j->counts = progress.counts;
    j->counts.cancelled -= range;
    j->started = progress.started;
    j->opened = j->opened || progress.opened;
    j->paused = progress.paused;
    j->skipped = std::move(skipped);
    j->skipped_ahead = static_cast<std::uint32_t>(j->skipped.size());
    count_in(*j, range);
    arm(*j, now);
    touch(*j);
    answer.count = range;
  }
  if (j->cancelled) {
    return {Error{ErrorClass::conflict, "This job is being cancelled; retry it when it has ended.", {}}, 0, {}};
  }
  returns = returns || j->all_ended();
  for (const auto& again : e.tasks) {
    if (again.index >= j->header.count || task(TaskId::of(j->no, again.index)) != nullptr) continue;
    GRANGE_ASSERT(again.end != TaskEnd::completed);
    (again.end == TaskEnd::failed ? j->counts.failed : j->counts.cancelled) -= 1;
    effects.records.push_back(TaskReopened{TaskId::of(j->no, again.index)});
    count_in(*j, 1);
    answer.count += 1;
    touch(*j);
    if (again.attempt == 0 && again.index >= j->next_index) {  // never handed out: back into the range
      j->unskip(again.index);
      index(*j);
      continue;
    }
    Task& t = add_task(*j, again.index);
    t.newest = again.attempt;
    next_attempt(t, effects, {});
    make_ready(*j, t);
  }
  if (returns && !j->all_ended()) {
    regate(*j);
    index(*j);
    relink_children(j->no, effects);
  }
  let_go_met(*j, effects);
  return answer;
}

}  // namespace grange::core
