// An attempt from its start to its end: what starts when, and what becomes of it.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/assert.hpp"
#include "worker/core.hpp"

namespace grange::worker {

namespace {
constexpr std::uint32_t kOvertakes = 8;
constexpr double kSmoothing = 0.05;  // of the mean run time
constexpr double kBacklogUs = 50'000;
constexpr double kLongRunUs = 1'000'000;  // tasks so long need no backlog

void cut(std::string& text, std::size_t limit) {
  if (text.size() > limit) text.resize(limit);
  // A cut inside a character would make the message invalid text on the wire's JSON side.
  while (!text.empty() && text.size() == limit && (static_cast<unsigned char>(text.back()) & 0x80) != 0)
    text.pop_back();
}
}  // namespace

std::uint32_t window_for(std::uint32_t slots, double mean_run_us) {
  if (mean_run_us < 0) return std::min<std::uint32_t>(slots * 2, std::max(slots, limits::kWindow));
  if (mean_run_us > kLongRunUs) return slots;
  const double most = limits::kWindow > slots ? limits::kWindow - slots : 0;
  const double backlog = std::ceil(kBacklogUs * slots / std::max(mean_run_us, 1.0));
  return slots + static_cast<std::uint32_t>(std::clamp(backlog, 0.0, most));
}

void WorkerCore::pump(Instant now, Effects& effects) {
  while (!active_.empty()) {
    Held* best = nullptr;
    std::uint64_t barrier = UINT64_MAX;
    for (const std::size_t at : active_) {
      Line& line = lines_[at];
      if (allocator_.fits(line.need)) {
        if (best == nullptr || line.head->order < best->order) best = line.head;
      } else if (line.head->overtaken >= kOvertakes) {
        barrier = std::min(barrier, line.head->order);
      }
    }
    if (best == nullptr || best->order > barrier) return;
    if (active_.size() > 1) {
      for (const std::size_t at : active_) {
        if (lines_[at].head->order < best->order) ++lines_[at].head->overtaken;
      }
    }
    dequeue(*best);
    start(*best, now, effects);
  }
}

void WorkerCore::start(Held& held, Instant now, Effects& effects) {
  const auto ticket = allocator_.allocate(lines_[held.need_class].need);
  GRANGE_ASSERT(ticket.has_value());
  held.ticket = *ticket;
  held.state = State::running;
  held.started = now;
  --waiting_;
  ++running_;
  const JobInfo& job = *held.job;
  const bool builtin = !has_engine(job.kind);
  enter(held, builtin ? pb::STAGE_EXECUTE : pb::STAGE_STARTUP, now);
  switch (job.kind) {
    case Kind::noop:
    case Kind::echo: {
      pb::TaskResult result;
      result.set_ok(true);
      if (job.kind == Kind::echo) {
        if (held.run.args_sha256.empty()) {
          *result.mutable_value() = std::move(held.run.args);
        } else {
          result.set_value_sha256(held.run.args_sha256);
        }
      }
      finish(held, &result, now, effects);
      return;
    }
    case Kind::fail: {
      const std::string& text = job.spec.builtin().message();
      finish_failed(held, pb::FAILURE_EXCEPTION, text.empty() ? "The task was told to fail." : text,
                    job.spec.builtin().permanent(), now, effects);
      return;
    }
    case Kind::sleep:
      set_due(held, DueKind::sleep_over, now + std::chrono::duration_cast<Micros>(Millis{job.spec.builtin().ms()}));
      break;
    case Kind::python:
    case Kind::command:
    case Kind::compute:
    case Kind::llm:
    case Kind::image:
    case Kind::remote:
    case Kind::models:
      held.run.gpus = allocator_.devices(held.ticket);
      held.run.hides_gpus = allocator_.gpus() > 0;
      held.run.memory = lines_[held.need_class].need.memory;
      held.run.cpus_milli = lines_[held.need_class].need.cpus_milli;
      effects.start.push_back(std::move(held.run));
      break;
    case Kind::refused:
      GRANGE_ASSERT(false && "a refused job never starts");
  }
  if (job.time_limit.count() > 0) set_due(held, DueKind::time_over, now + job.time_limit);
  starts_unsaid_.push_back(held.fence.task);
}

void WorkerCore::ended(const AttemptEnded& event, Instant now, Effects& effects) {
  if (Held* held = find(event.task, event.attempt); held != nullptr && held->state == State::running) {
    pb::TaskResult& result = *event.result;
    if (!result.ok() && held->preempted) {
      given_back(*held, effects);
      return;
    }
    if (!result.ok() && !held->over.empty()) {
      result.set_failure(pb::FAILURE_TIME_LIMIT);
      result.set_permanent(false);
      result.set_message(held->over);
    } else if (!result.ok() && held->cancelled) {
      result.set_failure(pb::FAILURE_CANCELLED);
      result.set_permanent(true);
      result.set_message(held->cancel_reason.empty() ? "Cancelled." : held->cancel_reason);
    }
    finish(*held, event.result, now, effects);
    return;
  }
  const auto gone = std::find_if(stopping_.begin(), stopping_.end(),
                                 [&](const Stopping& s) { return s.task == event.task && s.attempt == event.attempt; });
  if (gone == stopping_.end()) return;
  const bool released = allocator_.release(gone->ticket);
  GRANGE_ASSERT(released);
  stopping_.erase(gone);
}

void WorkerCore::finish(Held& held, pb::TaskResult* given, Instant now, Effects& effects) {
  auto result = std::make_unique<pb::TaskResult>();
  result->Swap(given);
  result->set_task(held.fence.task.packed);
  result->set_attempt(held.fence.attempt);
  result->set_epoch(held.fence.epoch);
  const bool ran = held.state == State::running;
  if (ran) {
    result->set_queued_us(static_cast<std::uint64_t>(std::max<std::int64_t>(0, (held.started - held.arrived).count())));
    if (result->run_us() == 0)
      result->set_run_us(
          static_cast<std::uint64_t>(std::max<std::int64_t>(0, (now - held.started - held.still).count())));
    measured(Micros{static_cast<std::int64_t>(result->run_us())});
    release(held);
    --running_;
  } else {
    --waiting_;
  }
  if (!result->ok()) {
    ++failed_;
    result->set_stage(held.stage);
    // Of these it says what it was: a type of Python, or a class of engine error.
    if (result->failure() != pb::FAILURE_EXCEPTION && result->failure() != pb::FAILURE_ENGINE &&
        result->failure() != pb::FAILURE_OUT_OF_MEMORY)
      result->clear_exception();
    cut(*result->mutable_exception(), limits::kNameBytes);
    cut(*result->mutable_message(), limits::kMessageBytes);
    cut(*result->mutable_traceback(), limits::kTracebackBytes);
  }
  ++ended_;
  held.state = State::finished;
  held.result = std::move(result);
  held.run = Run{};
  held.frozen = false;
  held.sleep_over = held.time_over = held.stage_over = held.patience_over = Instant::never();
  results_unsaid_.push_back(held.fence.task);
  effects.report = true;
}

void WorkerCore::finish_failed(Held& held, pb::FailureClass failure, std::string message, bool permanent, Instant now,
                               Effects& effects) {
  pb::TaskResult result;
  result.set_failure(failure);
  result.set_message(std::move(message));
  result.set_permanent(permanent);
  finish(held, &result, now, effects);
}

void WorkerCore::enqueue(Held& held) {
  Line& line = lines_[held.need_class];
  held.before = line.tail;
  (line.tail != nullptr ? line.tail->after : line.head) = &held;
  line.tail = &held;
  if (!line.active) {
    line.active = true;
    active_.push_back(held.need_class);
  }
}

void WorkerCore::dequeue(Held& held) {
  Line& line = lines_[held.need_class];
  (held.before != nullptr ? held.before->after : line.head) = held.after;
  (held.after != nullptr ? held.after->before : line.tail) = held.before;
  held.before = held.after = nullptr;
  if (line.head == nullptr) {
    line.active = false;
    active_.erase(std::find(active_.begin(), active_.end(), held.need_class));
  }
}

void WorkerCore::release(Held& held) {
  const bool released = allocator_.release(held.ticket);
  GRANGE_ASSERT(released);
  held.ticket = 0;
}

void WorkerCore::measured(Micros run) {
  const auto us = static_cast<double>(run.count());
  mean_us_ = mean_us_ < 0 ? us : mean_us_ + kSmoothing * (us - mean_us_);
}

void WorkerCore::count_window() {
  const std::uint32_t wanted = window_for(options_.total.slots, mean_us_);
  // Small changes are not worth a word to the server.
  const std::uint32_t slack = window_ / 4;
  const bool edge = wanted != window_ && (wanted == options_.total.slots || wanted == limits::kWindow);
  if (edge || wanted > window_ + slack || wanted + slack < window_) window_ = wanted;
}

std::size_t WorkerCore::line_of(const Need& need) {
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    if (lines_[i].need == need) return i;
  }
  lines_.push_back({need});
  return lines_.size() - 1;
}

}  // namespace grange::worker
