// What ends or halts an attempt before its time: cancel, pause, give back.
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "worker/core.hpp"

namespace grange::worker {

void WorkerCore::cancel(const pb::CancelOrder& order, Instant now, Effects& effects) {
  const auto it = held_.find(TaskId{order.task()});
  if (it == held_.end()) return;
  Held& held = it->second;
  if (order.attempt() != 0 && order.attempt() != held.fence.attempt) return;
  if (held.state == State::finished || held.cancelled) return;
  held.cancelled = true;
  held.cancel_reason = order.reason();
  const std::string message = held.cancel_reason.empty() ? "Cancelled." : held.cancel_reason;
  if (held.state == State::waiting) {
    dequeue(held);
    finish_failed(held, pb::FAILURE_CANCELLED, message, true, now, effects);
  } else if (held.job->kind == Kind::sleep) {
    finish_failed(held, pb::FAILURE_CANCELLED, message, true, now, effects);
  } else {
    thaw(held, now, effects);  // a frozen one would not hear a polite word
    held.preempted = false;
    stop_softly(held, now, effects);
  }
}

void WorkerCore::pause(const pb::PauseOrder& order, Instant now, Effects& effects) {
  Held* held = find(TaskId{order.task()}, order.attempt());
  if (held == nullptr || held->state == State::finished || held->cancelled || !held->over.empty()) return;
  if (held->preempted) return;  // on its way back already
  switch (order.how()) {
    case pb::PAUSE_FREEZE:
      if (held->state == State::waiting) return return_waiting(*held, effects);
      freeze(*held, now, effects);
      say_pause(*held);
      return;
    case pb::PAUSE_RESUME:
      if (held->state == State::waiting) return;
      thaw(*held, now, effects);
      say_pause(*held);  // though it was not frozen: the server thinks that it is
      return;
    case pb::PAUSE_REQUEUE:
      if (held->state == State::waiting) return return_waiting(*held, effects);
      preempt(*held, now, effects);
      return;
    default:
      return;  // of a newer server
  }
}

void WorkerCore::freeze(Held& held, Instant now, Effects& effects) {
  if (held.frozen) return;
  held.frozen = true;
  held.frozen_at = now;
  if (held.job->kind != Kind::sleep)
    effects.freeze.push_back({held.fence.task, held.fence.attempt, held.job->kind, true});
}

// All that would have fallen due is put off by the time that it stood still.
void WorkerCore::thaw(Held& held, Instant now, Effects& effects) {
  if (!held.frozen) return;
  held.frozen = false;
  const Micros still = now - held.frozen_at;
  held.still += still;
  held.stage_at = held.stage_at + still;
  for (const DueKind kind : {DueKind::sleep_over, DueKind::time_over, DueKind::stage_over}) {
    const Instant at = due_at(held, kind);
    if (at != Instant::never()) set_due(held, kind, at + still);
  }
  if (held.job->kind != Kind::sleep)
    effects.freeze.push_back({held.fence.task, held.fence.attempt, held.job->kind, false});
}

void WorkerCore::preempt(Held& held, Instant now, Effects& effects) {
  if (held.preempted || held.cancelled || !held.over.empty()) return;
  thaw(held, now, effects);
  held.preempted = true;
  if (held.job->kind == Kind::sleep) {
    given_back(held, effects);
  } else {
    stop_softly(held, now, effects);
  }
}

void WorkerCore::given_back(Held& held, Effects& effects) {
  preempted_unsaid_.push_back(held.fence);
  release(held);
  --running_;
  effects.report = true;
  held_.erase(held.fence.task);
}

void WorkerCore::say_pause(Held& held) {
  if (std::exchange(held.pause_untold, true)) return;
  pauses_unsaid_.push_back(held.fence.task);
}

void WorkerCore::stop(const Held& held, StopHow how, Effects& effects) {
  effects.stop.push_back({held.fence.task, held.fence.attempt, held.job->kind, how});
}

void WorkerCore::stop_softly(Held& held, Instant now, Effects& effects) {
  stop(held, StopHow::soft, effects);
  const Micros usual = held.job->kind == Kind::python ? options_.python_grace : options_.command_grace;
  set_due(held, DueKind::patience_over, now + (held.job->grace.count() > 0 ? held.job->grace : usual));
}

}  // namespace grange::worker
