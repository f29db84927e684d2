// Pause and resume: of the farm, of a job, of a task. What waits is held back here; what is out is told, and answers.
#include "core/state.hpp"

namespace grange::core {
namespace {

StepAnswer no_job() {
  return {Error{ErrorClass::not_found, "No such job is waiting or running.", {}}, 0, {}};
}
StepAnswer no_task() {
  return {Error{ErrorClass::not_found, "No such task is waiting or running.", {}}, 0, {}};
}
StepAnswer refused(std::string message) {
  return {Error{ErrorClass::invalid_state_transition, std::move(message), {}}, 0, {}};
}

}  // namespace

void Farm::State::ask_back(Worker& w, Task& hold, Effects& effects) {
  HeldBy& held = *hold.held();
  if (held.asked_back) return;
  held.asked_back = true;
  w.taking_back += 1;
  effects.take_back.push_back({w.no, hold.id});
}

void Farm::State::freeze(Task& hold, Effects& effects) {
  HeldBy& held = *hold.held();
  held.freezing = true;
  if (held.state == AttemptState::running) {
    effects.pause.push_back({held.worker, hold.id, hold.attempt, PauseHow::freeze});
  }
}

bool Farm::State::thaw(Task& hold, Effects& effects) {
  HeldBy& held = *hold.held();
  if (!held.freezing && held.state != AttemptState::paused) return false;
  held.freezing = false;
  if (held.state != AttemptState::assigned) {
    effects.pause.push_back({held.worker, hold.id, hold.attempt, PauseHow::resume});
  }
  return true;
}

void Farm::State::repeat_orders(Worker& w, Task& hold, Effects& effects) {
  HeldBy& held = *hold.held();
  const Job& j = *job(hold.id.job());
  if (held.state == AttemptState::assigned) {
    if (held.preempting || j.paused) ask_back(w, hold, effects);
  } else if (held.preempting) {
    held.told = true;
    effects.pause.push_back({w.no, hold.id, hold.attempt, PauseHow::requeue});
  } else if (held.freezing) {
    freeze(hold, effects);
  } else if (held.state == AttemptState::paused && !j.paused) {  // of a paused job: frozen before a restart
    effects.pause.push_back({w.no, hold.id, hold.attempt, PauseHow::resume});
  }
}

StepAnswer Farm::State::on(const PauseFarm& e, Now now, Effects& effects) {
  if (paused == e.pause) return {};
  if (!e.pause) gives_since = now.mono;
  paused = farm_kept.paused = e.pause;
  effects.records.push_back(farm_kept);
  return {};
}

StepAnswer Farm::State::on(const PauseJob& e, Now now, Effects& effects) {
  Job* j = job(e.job);
  if (j == nullptr) return no_job();
  if (j->all_ended()) return refused("This job has ended already.");
  StepAnswer answer;
  j->paused = e.pause;
  if (!e.pause) j->ready_from = now.mono;
  index(*j);
  touch(*j);
  for (Task* t : j->live) {
    if (t->held() == nullptr || (!e.pause && t->by_hand != HandPause::none)) continue;
    each_hold(*t, [&](Task& hold) {
      HeldBy& held = *hold.held();
      if (!e.pause) {
        answer.count += thaw(hold, effects) ? 1 : 0;
      } else if (held.state == AttemptState::assigned) {
        ask_back(*worker(held.worker), hold, effects);  // it started instead: it runs on, or is frozen then
        held.freezing = held.freezing || e.freeze;
      } else if (e.freeze) {
        freeze(hold, effects);
        answer.count += 1;
      }
    });
  }
  return answer;
}

StepAnswer Farm::State::on(const PauseTask& e, Now now, Effects& effects) {
  Job* j = job(e.task.job());
  if (j == nullptr || e.task.index() >= j->header.count) return no_task();
  return e.pause ? pause_task(*j, e, now, effects) : resume_task(*j, e, effects);
}

StepAnswer Farm::State::pause_task(Job& j, const PauseTask& e, Now now, Effects& effects) {
  const std::uint32_t at = e.task.index();
  Task* t = task(e.task);
  if (t == nullptr) {
    if (j.cancelled || at < j.next_index || j.skipped.contains(at)) return refused("This task has ended already.");
    if (j.one_by_one) return refused("Cannot transition from blocked to paused. Pause the job instead.");
    t = &materialize(j, at);
    park(j, *t);
    effects.records.push_back(TaskKept{.task = t->id, .parked = true});
    touch(j);
    return {};
  }
  if (std::holds_alternative<Parked>(t->where)) return {};
  const auto* delayed = std::get_if<Delayed>(&t->where);
  if (std::holds_alternative<Recovering>(t->where) || (delayed != nullptr && delayed->maybe_out)) {
    return {Error{ErrorClass::unavailable,
                  "The server was restarted, and this task may still run somewhere. Try again in half a minute.",
                  {}},
            0,
            {}};
  }
  touch(j);
  if (t->held() == nullptr) {  // ready, or in its back-off
    leave(j, *t);
    park(j, *t);
    effects.records.push_back(TaskKept{t->id, t->attempt, t->failures, true, {}});
    return {};
  }
  if (!gang(j)) drop_extras(j, *t, {}, kNoBody, now, effects);  // one of a pair is enough to keep
  const HandPause how = e.requeue ? HandPause::requeue : HandPause::freeze;
  if (std::exchange(t->by_hand, how) != how) keep(*t, effects, true);
  StepAnswer answer;
  each_hold(*t, [&](Task& hold) {
    HeldBy& held = *hold.held();
    if (held.state == AttemptState::assigned) {
      held.preempting = true;
      held.freezing = !e.requeue;
      ask_back(*worker(held.worker), hold, effects);
    } else if (e.requeue) {
      held.preempting = held.told = true;
      effects.pause.push_back({held.worker, hold.id, hold.attempt, PauseHow::requeue});
    } else {
      held.preempting = false;
      freeze(hold, effects);
    }
    answer.count += 1;
  });
  return answer;
}

StepAnswer Farm::State::resume_task(Job& j, const PauseTask& e, Effects& effects) {
  const std::uint32_t at = e.task.index();
  Task* t = task(e.task);
  if (t == nullptr) {
    if (j.cancelled || at < j.next_index || j.skipped.contains(at)) return refused("This task has ended already.");
    return {};  // it was not paused
  }
  if (const auto* parked = std::get_if<Parked>(&t->where)) {
    const bool maybe_out = parked->maybe_out;
    leave(j, *t);
    if (maybe_out && recover_until != Instant::never()) {  // its worker may still come back with it
      t->where = Recovering{};
      j.recovering += 1;
      recovering += 1;
      keep(*t, effects, false);
    } else {
      if (maybe_out) {
        next_attempt(*t, effects, {});
      } else {
        keep(*t, effects, false);
      }
      make_ready(j, *t);
    }
    touch(j);
    return {Result<>{}, 1, {}};
  }
  if (t->held() == nullptr) return {};
  StepAnswer answer;
  if (t->by_hand != HandPause::none) keep(*t, effects, false);
  t->by_hand = HandPause::none;
  each_hold(*t, [&](Task& hold) {
    // What was told to give it back does so, and it is ready again then.
    const bool told = std::exchange(hold.held()->preempting, false);
    if (thaw(hold, effects) || told) answer.count += 1;
  });
  touch(j);
  return answer;
}

StepAnswer Farm::State::on(const AttemptPaused& e, Now, Effects&) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  auto moved = transition(t->held()->state, e.paused ? AttemptState::paused : AttemptState::running);
  if (!moved.ok()) return {std::move(moved), 0, {}};
  Job& j = *job(t->id.job());
  if (!t->extra) j.frozen += e.paused ? 1u : static_cast<std::uint32_t>(-1);
  watch_run(j, *t);
  touch(j);
  return {};
}

}  // namespace grange::core
