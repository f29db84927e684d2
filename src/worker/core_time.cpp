// Stages of an attempt with their one running deadline, and everything else that falls due.
#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "worker/core.hpp"

namespace grange::worker {

namespace {

struct StageName {
  pb::Stage stage;
  const char* name;
};
constexpr StageName kStages[] = {{pb::STAGE_RESERVE, "reserve"},
                                 {pb::STAGE_STARTUP, "startup"},
                                 {pb::STAGE_DOWNLOAD, "download"},
                                 {pb::STAGE_EXECUTE, "execute"},
                                 {pb::STAGE_UPLOAD, "upload"}};

std::uint32_t limit_ms(const pb::Stages& stages, pb::Stage stage) {
  switch (stage) {
    case pb::STAGE_RESERVE:
      return stages.reserve_ms();
    case pb::STAGE_STARTUP:
      return stages.startup_ms();
    case pb::STAGE_DOWNLOAD:
      return stages.download_ms();
    case pb::STAGE_EXECUTE:
      return stages.execute_ms();
    case pb::STAGE_UPLOAD:
      return stages.upload_ms();
    default:
      return 0;
  }
}

std::string stage_message(const pb::Stages& stages, pb::Stage at, std::uint32_t entered) {
  std::string sum;
  for (const StageName& one : kStages) {
    if ((entered & (1u << one.stage)) == 0 || limit_ms(stages, one.stage) == 0) continue;
    sum +=
        (sum.empty() ? "" : ", ") + std::string(one.name) + " " + std::to_string(limit_ms(stages, one.stage)) + " ms";
  }
  return "The deadline passed in stage " + std::string(stage_name(at)) + " (limits so far: " + sum + ").";
}

}  // namespace

const char* stage_name(pb::Stage stage) {
  for (const StageName& one : kStages) {
    if (one.stage == stage) return one.name;
  }
  return "";
}

// A stage adds its limit once, to what those before it left. One without a limit costs and gives nothing.
void WorkerCore::enter(Held& held, pb::Stage stage, Instant now) {
  const pb::Stages& stages = held.job->spec.stages();
  const bool first = (held.stages_entered & (1u << stage)) == 0;
  if (held.stage == stage && !first) return;
  const Instant from = held.frozen ? held.frozen_at : now;  // an engine may speak just as it is frozen
  if (held.stages_entered != 0 && limit_ms(stages, held.stage) > 0)
    held.budget = std::max(Micros{0}, held.budget - (from - held.stage_at));
  held.stage = stage;
  held.stage_at = from;
  held.stages_entered |= 1u << stage;
  const std::uint32_t limit = limit_ms(stages, stage);
  if (first) held.budget += std::chrono::duration_cast<Micros>(Millis{limit});
  set_due(held, DueKind::stage_over, limit > 0 ? from + held.budget : Instant::never());
}

void WorkerCore::tick(Instant now, Effects& effects) {
  while (!due_.empty() && due_.front().at <= now) {
    const Due due = due_.front();
    std::pop_heap(due_.begin(), due_.end(), std::greater<>{});
    due_.pop_back();
    if (!stands(due)) continue;
    Held& held = *find(due.task, due.attempt);
    if (held.frozen && due.kind != DueKind::patience_over) continue;  // thaw sets it anew
    due_at(held, due.kind) = Instant::never();
    if (due.kind == DueKind::sleep_over) {
      pb::TaskResult result;
      result.set_ok(true);
      finish(held, &result, now, effects);
    } else if (due.kind == DueKind::patience_over) {
      stop(held, StopHow::hard, effects);
    } else if (due.kind == DueKind::stage_over) {
      over(held, stage_message(held.job->spec.stages(), held.stage, held.stages_entered), now, effects);
    } else {
      over(held,
           "The task ran longer than its time limit of " + std::to_string(held.job->spec.time_limit_ms()) + " ms.", now,
           effects);
    }
  }
}

void WorkerCore::over(Held& held, std::string message, Instant now, Effects& effects) {
  if (!held.over.empty() || held.cancelled || held.preempted) return;  // being stopped already
  if (held.state == State::waiting) {
    dequeue(held);
    finish_failed(held, pb::FAILURE_TIME_LIMIT, std::move(message), false, now, effects);
    return;
  }
  if (held.job->kind == Kind::sleep) {
    finish_failed(held, pb::FAILURE_TIME_LIMIT, std::move(message), false, now, effects);
    return;
  }
  held.over = std::move(message);
  if (held.job->kind == Kind::python && held.job->grace.count() == 0) {
    stop(held, StopHow::hard, effects);  // user code that hangs seldom minds a polite signal
  } else {
    stop_softly(held, now, effects);
  }
}

Instant& WorkerCore::due_at(Held& held, DueKind kind) {
  switch (kind) {
    case DueKind::sleep_over:
      return held.sleep_over;
    case DueKind::time_over:
      return held.time_over;
    case DueKind::stage_over:
      return held.stage_over;
    case DueKind::patience_over:
      break;
  }
  return held.patience_over;
}

// What was put off or ended leaves its old entry in the heap.
bool WorkerCore::stands(const Due& due) {
  Held* held = find(due.task, due.attempt);
  return held != nullptr && held->state != State::finished && due_at(*held, due.kind) == due.at;
}

void WorkerCore::set_due(Held& held, DueKind kind, Instant at) {
  due_at(held, kind) = at;
  if (at == Instant::never()) return;
  if (due_.size() > 64 + 8 * (std::size_t{running_} + waiting_)) {
    std::erase_if(due_, [this](const Due& due) { return !stands(due); });
    std::make_heap(due_.begin(), due_.end(), std::greater<>{});
  }
  due_.push_back({at, held.fence.task, held.fence.attempt, kind});
  std::push_heap(due_.begin(), due_.end(), std::greater<>{});
}

Instant WorkerCore::next_wake() const {
  return due_.empty() ? Instant::never() : due_.front().at;
}

}  // namespace grange::worker
