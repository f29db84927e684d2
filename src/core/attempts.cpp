// What workers say about the attempts that they hold. Each word carries a fence, and counts only while it is the
// current one.
#include "base/mark.hpp"
#include "base/mutant.hpp"
#include "core/fair.hpp"
#include "core/state.hpp"

namespace grange::core {
namespace {

// What an attempt can fail with; a worker that says anything else is taken at "engine error".
FailureClass counted(FailureClass c) {
  const auto n = static_cast<std::size_t>(c);
  return n == 0 || n >= kCountedClasses ? FailureClass::engine : c;
}

StepAnswer illegal(AttemptState from, std::string_view to) {
  return {Error{ErrorClass::invalid_state_transition,
                "Cannot transition from " + std::string(name(from)) + " to " + std::string(to),
                {}},
          0,
          {}};
}

// A worker that stops what it runs and gives it back, over and over, is as bad as one that fails it.
constexpr std::uint8_t kUnasked = 5;

void avoid(Task& task, WorkerNo w) {
  if (w.value == 0 || task.avoids(w)) return;
  std::move_backward(task.avoid.begin(), task.avoid.end() - 1, task.avoid.end());
  task.avoid[0] = w;
}

}  // namespace

StepAnswer stale(const Fence& fence) {
  return {Error{ErrorClass::stale,
                "Attempt " + std::to_string(fence.attempt) +
                    " of this task is not the current one; its report was not taken.",
                {}},
          0,
          {}};
}

void Farm::State::drop_one(Job& job, Task& hold) {
  if (hold.extra) {
    GRANGE_MARK("second_dropped");
    drop_extra(job, hold);
  } else {
    GRANGE_MARK("second_promoted");
    promote(job, hold);
  }
  touch(job);
}

void Farm::State::give_back(Job& job, Task& task, bool parked, Millis wait, WorkerNo by, Now now, Effects& effects) {
  if (const HeldBy* held = task.held()) {
    if (held->worker != by) effects.cancel.push_back({held->worker, task.id, task.attempt, kNoBody});
    fair::charge_lost(*this, job, task, now);
    drop_extras(job, task, by, kNoBody, now, effects);
  }
  leave(job, task);
  next_attempt(task, effects, wait.count() > 0 ? WallMs{now.wall.ms + wait.count()} : WallMs{}, parked);
  if (parked) GRANGE_MARK("given_back_for_a_pause");
  if (parked) {
    park(job, task);
  } else if (wait.count() > 0) {
    delay(job, task, wait, now);
  } else {
    make_ready(job, task);
  }
  touch(job);
}

StepAnswer Farm::State::on(const AttemptStarted& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) {
    GRANGE_MARK("late_start_refused");
    effects.cancel.push_back({e.worker, e.fence.task, e.fence.attempt, kNoBody});
    return stale(e.fence);
  }
  HeldBy& held = *t->held();
  if (held.state != AttemptState::assigned) return illegal(held.state, "running");  // only a resume thaws
  auto moved = transition(held.state, AttemptState::running);
  GRANGE_ASSERT(moved.ok());
  held.started = now.mono;
  Job& j = *job(t->id.job());
  // Later attempts wait for a back-off, and tasks let go one by one for each other: these say nothing of the queue.
  const auto& after = j.header.after;
  const bool let_go = std::any_of(after.begin(), after.end(), [](const Dependency& d) { return d.each; });
  if (!t->extra && t->attempt == 1 && !let_go)
    effects.waits.add(std::max(Micros{0}, now.mono - std::max(j.ready_from, gives_since)));
  if (!t->extra) {
    j.assigned -= 1;
    j.running += 1;
  }
  Worker& w = *worker(e.worker);
  w.running += 1;
  no_longer_asked(w, held);
  if (held.freezing && task(t->id)->by_hand != HandPause::requeue) {
    held.preempting = false;
    freeze(*t, effects);
  } else if (held.preempting) {
    held.told = true;
    effects.pause.push_back({e.worker, t->id, t->attempt, PauseHow::requeue});
  }
  watch_run(j, *t);
  touch(j);
  return {};
}

StepAnswer Farm::State::on(const AttemptReturned& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  const HeldBy held = *t->held();
  if (held.state != AttemptState::assigned) return illegal(held.state, "pending");
  Job& j = *job(t->id.job());
  Task& whole = *task(t->id);
  const bool parking = whole.by_hand != HandPause::none;
  const bool asked = held.asked_back || parking || worker(e.worker)->draining;
  const bool unwanted = !asked && !e.unsent;
  if (unwanted) avoid(whole, e.worker);
  if (!unwanted) fair::unstart(*j.user, now);
  if (!gang(j) && whole.has_extras) {
    whole.no_second = whole.no_second || unwanted;
    drop_one(j, *t);
    return {};
  }
  give_back(j, whole, parking, asked ? Millis{0} : limits::kReturnWait, e.worker, now, effects);
  return {};
}

StepAnswer Farm::State::on(const AttemptPreempted& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  const HeldBy held = *t->held();
  if (held.state == AttemptState::assigned) return illegal(held.state, "pending");
  Job& j = *job(t->id.job());
  Task& whole = *task(t->id);
  Worker& w = *worker(e.worker);
  const bool parking = whole.by_hand != HandPause::none;
  const bool asked = held.told || parking || w.draining;
  if (!asked) {
    avoid(whole, e.worker);
    whole.unasked += 1;
    if (whole.unasked >= kUnasked) {
      GRANGE_MARK("given_back_too_often");
      did_badly(w, j, Fault::system, now, effects);
      // The worker waits for no acknowledgement: for it, this attempt is over.
      return on(AttemptEnded{.worker = e.worker,
                             .fence = e.fence,
                             .ok = false,
                             .failure = FailureClass::engine,
                             .stage = Stage::execute,
                             .unsent = true},
                now, effects);
    }
  }
  if (!gang(j) && whole.has_extras) {
    whole.no_second = whole.no_second || !asked;
    fair::charge_lost(*this, j, *t, now);
    drop_one(j, *t);
    return {};
  }
  give_back(j, whole, parking, asked ? Millis{0} : limits::kReturnWait, e.worker, now, effects);
  return {};
}

StepAnswer Farm::State::on(const AttemptEnded& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (!e.unsent) effects.acks.push_back({e.worker, e.fence.task, e.fence.attempt, t != nullptr});
  if (t == nullptr) return stale(e.fence);
  Job& j = *job(t->id.job());
  Worker& w = *worker(e.worker);
  HeldBy& held = *t->held();
  // Moves that were not told yet are made here, by the same table: a short task ends before its start was told, a
  // frozen one was thawed.
  if (held.state == AttemptState::assigned) {
    GRANGE_MARK("ended_before_its_start_was_told");
    held.preempting = held.freezing = false;
    (void)on(AttemptStarted{e.worker, e.fence}, now, effects);
  } else if (held.state == AttemptState::paused) {
    (void)on(AttemptPaused{e.worker, e.fence, false}, now, effects);
  }
  auto ending = held.state;
  const auto moved = transition(ending, e.ok ? AttemptState::completed : AttemptState::failed);
  GRANGE_ASSERT(moved.ok());  // leave() counts it where it was
  // A worker's word on its time counts as far as its lease, beyond that our clock.
  const auto ours = std::max((now.mono - held.started).count(), Micros{options.lease}.count());
  const std::uint64_t run_us = std::min(e.run_us, static_cast<std::uint64_t>(ours));
  if (e.unsent) {
    fair::charge_lost(*this, j, *t, now);
  } else {
    fair::charge_end(*this, j, w, *t, e.ok, run_us);
  }
  Task& whole = t->extra ? *task(t->id) : *t;
  const bool parking = whole.by_hand != HandPause::none;

  if (e.ok) {
    did_well(w, effects);
    if (t->extra && gang(j)) {  // rank 0 says how it went
      GRANGE_MARK("gang_rank_left_early");
      drop_extra(j, *t);
      touch(j);
      return {};
    }
    if (t->extra) {  // the second was first
      GRANGE_MARK("second_was_first");
      effects.cancel.push_back({whole.held()->worker, whole.id, whole.attempt, kNoBody});
      fair::charge_lost(*this, j, whole, now);
      promote(j, whole);
    }
    drop_extras(j, whole, e.worker, kNoBody, now, effects);
    end_task(j, whole, TaskEnd::completed, FailureClass::none, e.worker, e.body, e.run_us, now, effects);
    return {};
  }

  const FailureClass failure = counted(e.failure);
  effects.records.push_back(AttemptFailed{t->id, t->attempt, e.worker, failure, e.stage, e.body, now.wall});
  if (!e.unsent) {
    avoid(whole, e.worker);
    did_badly(w, j, fault_of(failure, e.stage), now, effects);
  }
  const Verdict verdict = count_failure(j, whole, failure, e.exception, e.permanent);
  if (!gang(j) && whole.has_extras) {
    // The other of the pair has its chance even when this one used up the last; then it is the last.
    if (verdict.last) GRANGE_MARK("last_try_of_a_pair");
    whole.last_try = verdict.last;
    keep(whole, effects, false);
    effects.failed.push_back({t->id, t->attempt, e.worker, failure, e.stage, e.body, true, Millis{0}});
    drop_one(j, *t);
    return {};
  }
  effects.failed.push_back({t->id, t->attempt, e.worker, failure, e.stage, e.body, !verdict.last, verdict.wait});
  if (t != &whole) effects.cancel.push_back({whole.held()->worker, whole.id, whole.attempt, kNoBody});
  if (t != &whole) fair::charge_lost(*this, j, whole, now);
  drop_extras(j, whole, e.worker, kNoBody, now, effects);
  if (verdict.last) {
    GRANGE_MARK("attempts_used_up");
    end_task(j, whole, TaskEnd::failed, failure, e.worker, e.body, e.run_us, now, effects);
    fail_fast(j, now, effects);
    return {};
  }
  leave(j, whole);
  next_attempt(whole, effects, parking ? WallMs{} : WallMs{now.wall.ms + verdict.wait.count()}, parking);
  if (parking) {
    park(j, whole);
  } else {
    delay(j, whole, verdict.wait, now);
  }
  touch(j);
  return {};
}

StepAnswer Farm::State::on(const CheckpointTaken& e, Now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  if (t->extra && gang(*job(t->id.job()))) return {};  // a gang's is rank 0's
  effects.records.push_back(CheckpointKept{t->id, t->attempt, e.body});
  return {};
}

// The attempt is gone with its worker, for all of its gang. `charge`: it ran there, so it may be what killed it.
void Farm::State::lose_attempt(Task& task, bool charge, WorkerNo lost_with, Now now, Effects& effects) {
  Job& job = *this->job(task.id.job());
  const Attempt attempt = task.attempt;
  const bool parking = task.by_hand != HandPause::none;
  Verdict verdict;
  if (charge) {
    avoid(task, lost_with);
    verdict = count_failure(job, task, FailureClass::worker_lost, {}, false);
    effects.records.push_back(
        AttemptFailed{task.id, attempt, lost_with, FailureClass::worker_lost, Stage::none, kNoBody, now.wall});
    effects.failed.push_back(
        {task.id, attempt, lost_with, FailureClass::worker_lost, Stage::none, kNoBody, !verdict.last, verdict.wait});
  }
  if (const HeldBy* held = task.held()) {
    if (held->worker != lost_with) effects.cancel.push_back({held->worker, task.id, attempt, kNoBody});
    fair::charge_lost(*this, job, task, now);
    drop_extras(job, task, lost_with, kNoBody, now, effects);
  }
  if (verdict.last) {
    GRANGE_MARK("crash_limit_reached");
    end_task(job, task, TaskEnd::failed, FailureClass::worker_lost, lost_with, kNoBody, 0, now, effects);
    fail_fast(job, now, effects);
    return;
  }
  leave(job, task);
  next_attempt(task, effects, verdict.wait.count() > 0 ? WallMs{now.wall.ms + verdict.wait.count()} : WallMs{},
               parking);
  if (parking) {
    park(job, task);
  } else if (verdict.wait.count() > 0) {
    delay(job, task, verdict.wait, now);
  } else {
    make_ready(job, task);
  }
  touch(job);
}

void Farm::State::lose_hold(Task& hold, bool charge, Now now, Effects& effects) {
  Job& job = *this->job(hold.id.job());
  Task& whole = *task(hold.id);
  const WorkerNo by = hold.held()->worker;
  charge = charge && hold.held()->state != AttemptState::assigned;
  if (gang(job) || !whole.has_extras) {
    lose_attempt(whole, charge, by, now, effects);
    return;
  }
  if (charge) {
    avoid(whole, by);
    const Verdict verdict = count_failure(job, whole, FailureClass::worker_lost, {}, false);
    effects.records.push_back(
        AttemptFailed{whole.id, hold.attempt, by, FailureClass::worker_lost, Stage::none, kNoBody, now.wall});
    effects.failed.push_back(
        {whole.id, hold.attempt, by, FailureClass::worker_lost, Stage::none, kNoBody, !verdict.last, Millis{0}});
    if (verdict.last) {
      if (&hold != &whole) effects.cancel.push_back({whole.held()->worker, whole.id, whole.attempt, kNoBody});
      fair::charge_lost(*this, job, whole, now);
      drop_extras(job, whole, by, kNoBody, now, effects);
      end_task(job, whole, TaskEnd::failed, FailureClass::worker_lost, by, kNoBody, 0, now, effects);
      fail_fast(job, now, effects);
      return;
    }
    keep(whole, effects, false);
  }
  fair::charge_lost(*this, job, hold, now);
  drop_one(job, hold);
}

}  // namespace grange::core
