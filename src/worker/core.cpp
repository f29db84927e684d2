#include "worker/core.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/assert.hpp"

namespace grange::worker {

namespace {
constexpr std::uint32_t kOvertakes = 8;
constexpr double kSmoothing = 0.05;  // of the mean run time
constexpr double kBacklogUs = 50'000;
constexpr double kLongRunUs = 1'000'000;  // tasks so long need no backlog
constexpr std::size_t kResultOverhead = 64;

void fill(pb::Fence& out, const Fence& fence) {
  out.set_task(fence.task.packed);
  out.set_attempt(fence.attempt);
  out.set_epoch(fence.epoch);
}

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

WorkerCore::WorkerCore(CoreOptions options) : options_(std::move(options)), allocator_(options_.total) {
  window_ = window_for(options_.total.slots, mean_us_);
  window_told_ = window_;  // the Hello says it
}

void WorkerCore::step(const Event& event, Instant now, Effects& effects) {
  if (const auto* e = std::get_if<OrdersArrived>(&event)) {
    orders(*e->orders, now, effects);
  } else if (const auto* end = std::get_if<AttemptEnded>(&event)) {
    ended(*end, now, effects);
  } else if (const auto* hello = std::get_if<Welcomed>(&event)) {
    welcomed(*hello->welcome, effects);
  } else if (std::holds_alternative<Ticked>(event)) {
    tick(now, effects);
  } else {
    start_drain(effects);
  }
  pump(now, effects);
  count_window();
  if (!results_unsaid_.empty() || !starts_unsaid_.empty() || !returns_unsaid_.empty() || window_ != window_told_ ||
      drain_unsaid_) {
    effects.report = true;
  }
  if (drained()) effects.drained = true;
}

void WorkerCore::orders(pb::WorkerOrders& orders, Instant now, Effects& effects) {
  for (const pb::SpecOrder& spec : orders.specs()) {
    auto info = std::make_shared<JobInfo>(read_job(spec));
    info->need_class = line_of(info->need);
    jobs_[spec.job()] = {std::move(info), next_order_};
  }
  for (const pb::ResultAck& ack : orders.acks()) {
    const auto it = held_.find(TaskId{ack.task()});
    if (it != held_.end() && it->second.state == State::finished && it->second.fence.attempt == ack.attempt())
      held_.erase(it);
  }
  for (pb::Assignment& order : *orders.mutable_assign()) assign(order, now, effects);
  for (const pb::CancelOrder& order : orders.cancel()) cancel(order, now, effects);
  for (const std::uint64_t task : orders.take_back()) {
    const auto it = held_.find(TaskId{task});
    if (it != held_.end() && it->second.state == State::waiting) return_waiting(it->second, effects);
  }
  if (orders.drain()) start_drain(effects);
  forget_specs();
}

void WorkerCore::assign(pb::Assignment& order, Instant now, Effects& effects) {
  const Fence fence{TaskId{order.task()}, order.attempt(), order.epoch()};
  if (const auto known = held_.find(fence.task); known != held_.end()) {
    Held& old = known->second;
    if (old.fence.attempt > fence.attempt) return;  // of the past
    if (old.fence.attempt == fence.attempt) {       // said again: the lease may be a newer one
      if (old.fence.epoch == fence.epoch) return;
      old.fence = fence;
      old.run.fence = fence;
      if (old.state == State::finished) results_unsaid_.push_back(fence.task);
      return;
    }
    disown(old, effects);  // a newer attempt: the older one lost its lease
  }
  if (draining_ || held_.size() >= 2 * std::size_t{limits::kWindow}) {
    returns_unsaid_.push_back(fence);
    return;
  }
  const auto job = jobs_.find(fence.task.job().value);
  if (job == jobs_.end()) {  // forgotten, or never told: the server sends the spec with the next one
    returns_unsaid_.push_back(fence);
    return;
  }
  Held& held = held_[fence.task];
  held.fence = fence;
  held.arrived = now;
  held.order = next_order_++;
  held.job = job->second.info;
  job->second.used = held.order;
  held.run.fence = fence;
  held.run.job = held.job;
  held.run.args = std::move(*order.mutable_args());
  if (!order.args_sha256().empty()) held.run.args_sha256 = order.args_sha256();
  if (order.has_checkpoint()) {
    held.run.has_checkpoint = true;
    held.run.checkpoint = std::move(*order.mutable_checkpoint());
    held.run.checkpoint_sha256 = order.checkpoint_sha256();
  }
  ++waiting_;
  if (held.job->kind == Kind::refused) {
    finish_failed(held, pb::FAILURE_REFUSED, held.job->refusal, true, now, effects);
  } else if (held.job->kind == Kind::python && !options_.python) {
    finish_failed(held, pb::FAILURE_ENGINE, "This worker has no Python engine; its notes say why.", false, now,
                  effects);
  } else if (!allocator_.ever_fits(held.job->need)) {
    finish_failed(held, pb::FAILURE_REFUSED, "The task asks for more than this worker has in all.", false, now,
                  effects);
  } else {
    enqueue(held);
  }
}

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
    stop_softly(held, now, effects);
  }
}

// Specs of jobs that nothing is held of go, but for the most recently used. The server keeps count alike; should it
// still think that one is here, the assignment is returned.
void WorkerCore::forget_specs() {
  if (jobs_.size() < forget_at_) return;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> idle;
  for (const auto& [job, spec] : jobs_) {
    if (spec.info.use_count() == 1) idle.emplace_back(spec.used, job);
  }
  if (idle.size() > limits::kSpecsKept) {
    std::sort(idle.begin(), idle.end());
    idle.resize(idle.size() - limits::kSpecsKept);
    for (const auto& [used, job] : idle) jobs_.erase(job);
  }
  forget_at_ = jobs_.size() + limits::kSpecsKept;  // not at every order: a look costs as much as there are jobs
}

void WorkerCore::welcomed(const pb::Welcome& welcome, Effects& effects) {
  for (const pb::Held& refused : welcome.refused()) {
    Held* held = find(TaskId{refused.task()}, refused.attempt());
    if (held != nullptr && held->fence.epoch == refused.epoch()) disown(*held, effects);
  }
  if (welcome.resumed()) return;
  // The server knows nothing of this session: it heard `held` in the Hello, and hears the rest again.
  jobs_.clear();
  returns_unsaid_.clear();
  starts_unsaid_.clear();
  results_unsaid_.clear();
  for (auto& [task, held] : held_) {
    if (held.state == State::finished) results_unsaid_.push_back(task);
    if (held.state == State::running) {
      held.start_told = false;
      starts_unsaid_.push_back(task);
    }
  }
}

void WorkerCore::ended(const AttemptEnded& event, Instant now, Effects& effects) {
  if (Held* held = find(event.task, event.attempt); held != nullptr && held->state == State::running) {
    pb::TaskResult& result = *event.result;
    if (!result.ok() && held->out_of_time) {
      result.set_failure(pb::FAILURE_TIME_LIMIT);
      result.set_message("The task ran longer than its time limit of " +
                         std::to_string(std::chrono::duration_cast<Millis>(held->job->time_limit).count()) + " ms.");
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

void WorkerCore::tick(Instant now, Effects& effects) {
  while (!due_.empty() && due_.front().at <= now) {
    const Due due = due_.front();
    std::pop_heap(due_.begin(), due_.end(), std::greater<>{});
    due_.pop_back();
    Held* held = find(due);
    if (held == nullptr || held->state != State::running) continue;
    if (due.kind == DueKind::sleep_over) {
      pb::TaskResult result;
      result.set_ok(true);
      finish(*held, &result, now, effects);
    } else if (due.kind == DueKind::patience_over) {
      stop(*held, StopHow::hard, effects);
    } else if (held->job->kind == Kind::sleep) {
      finish_failed(
          *held, pb::FAILURE_TIME_LIMIT,
          "The task ran longer than its time limit of " + std::to_string(held->job->spec.time_limit_ms()) + " ms.",
          false, now, effects);
    } else {
      held->out_of_time = true;
      if (held->job->kind == Kind::python) {
        stop(*held, StopHow::hard, effects);  // user code that hangs seldom minds a polite signal
      } else {
        stop_softly(*held, now, effects);
      }
    }
  }
}

void WorkerCore::start_drain(Effects& effects) {
  if (draining_) return;
  draining_ = drain_unsaid_ = true;
  std::vector<Held*> waiting;
  for (auto& [task, held] : held_) {
    if (held.state == State::waiting) waiting.push_back(&held);
  }
  std::sort(waiting.begin(), waiting.end(), [](const Held* a, const Held* b) { return a->order < b->order; });
  for (Held* held : waiting) return_waiting(*held, effects);
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
  const auto ticket = allocator_.allocate(held.job->need);
  GRANGE_ASSERT(ticket.has_value());
  held.ticket = *ticket;
  held.state = State::running;
  held.started = now;
  --waiting_;
  ++running_;
  const JobInfo& job = *held.job;
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
      add_due({now + std::chrono::duration_cast<Micros>(Millis{job.spec.builtin().ms()}), held.fence.task,
               held.fence.attempt, DueKind::sleep_over});
      break;
    case Kind::python:
    case Kind::command:
      effects.start.push_back(std::move(held.run));
      break;
    case Kind::refused:
      GRANGE_ASSERT(false && "a refused job never starts");
  }
  if (job.time_limit.count() > 0)
    add_due({now + job.time_limit, held.fence.task, held.fence.attempt, DueKind::time_over});
  starts_unsaid_.push_back(held.fence.task);
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
      result->set_run_us(static_cast<std::uint64_t>(std::max<std::int64_t>(0, (now - held.started).count())));
    measured(Micros{static_cast<std::int64_t>(result->run_us())});
    release(held);
    --running_;
  } else {
    --waiting_;
  }
  if (!result->ok()) {
    ++failed_;
    cut(*result->mutable_message(), limits::kMessageBytes);
    cut(*result->mutable_traceback(), limits::kTracebackBytes);
  }
  ++ended_;
  held.state = State::finished;
  held.result = std::move(result);
  held.run = Run{};
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

void WorkerCore::stop(const Held& held, StopHow how, Effects& effects) {
  effects.stop.push_back({held.fence.task, held.fence.attempt, held.job->kind, how});
}

void WorkerCore::stop_softly(const Held& held, Instant now, Effects& effects) {
  stop(held, StopHow::soft, effects);
  const Micros grace = held.job->kind == Kind::python ? options_.python_grace : options_.command_grace;
  add_due({now + grace, held.fence.task, held.fence.attempt, DueKind::patience_over});
}

void WorkerCore::disown(Held& held, Effects& effects) {
  if (held.state == State::waiting) {
    dequeue(held);
    --waiting_;
  } else if (held.state == State::running) {
    --running_;
    if (held.job->kind == Kind::sleep) {
      release(held);
    } else {
      stop(held, StopHow::hard, effects);
      stopping_.push_back({held.fence.task, held.fence.attempt, held.ticket});
    }
  }
  held_.erase(held.fence.task);
}

void WorkerCore::return_waiting(Held& held, Effects& effects) {
  dequeue(held);
  --waiting_;
  returns_unsaid_.push_back(held.fence);
  effects.report = true;
  held_.erase(held.fence.task);
}

void WorkerCore::enqueue(Held& held) {
  Line& line = lines_[held.job->need_class];
  held.before = line.tail;
  (line.tail != nullptr ? line.tail->after : line.head) = &held;
  line.tail = &held;
  if (!line.active) {
    line.active = true;
    active_.push_back(held.job->need_class);
  }
}

void WorkerCore::dequeue(Held& held) {
  Line& line = lines_[held.job->need_class];
  (held.before != nullptr ? held.before->after : line.head) = held.after;
  (held.after != nullptr ? held.after->before : line.tail) = held.before;
  held.before = held.after = nullptr;
  if (line.head == nullptr) {
    line.active = false;
    active_.erase(std::find(active_.begin(), active_.end(), held.job->need_class));
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

void WorkerCore::add_due(Due due) {
  if (due_.size() > 64 + 4 * std::size_t{running_}) {
    std::erase_if(due_, [this](const Due& d) {
      const Held* held = find(d);
      return held == nullptr || held->state != State::running;
    });
    std::make_heap(due_.begin(), due_.end(), std::greater<>{});
  }
  due_.push_back(due);
  std::push_heap(due_.begin(), due_.end(), std::greater<>{});
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

WorkerCore::Held* WorkerCore::find(TaskId task, Attempt attempt) {
  const auto it = held_.find(task);
  return it == held_.end() || it->second.fence.attempt != attempt ? nullptr : &it->second;
}

const Fence* WorkerCore::running_fence(TaskId task, Attempt attempt) const {
  const auto it = held_.find(task);
  if (it == held_.end() || it->second.fence.attempt != attempt || it->second.state != State::running) return nullptr;
  return &it->second.fence;
}

Instant WorkerCore::next_wake() const {
  return due_.empty() ? Instant::never() : due_.front().at;
}

bool WorkerCore::take_report(pb::WorkerReport& out, Bytes limit) {
  Bytes bytes = 0;
  for (const TaskId task : starts_unsaid_) {
    const auto it = held_.find(task);
    if (it == held_.end() || it->second.state != State::running || it->second.start_told) continue;
    it->second.start_told = true;
    fill(*out.add_started(), it->second.fence);
  }
  starts_unsaid_.clear();
  for (const Fence& fence : returns_unsaid_) fill(*out.add_returned(), fence);
  returns_unsaid_.clear();
  if (std::exchange(drain_unsaid_, false)) out.set_draining(true);
  if (window_ != window_told_) {
    out.set_window(window_);
    window_told_ = window_;
  }
  while (!results_unsaid_.empty() && bytes < limit) {
    const auto it = held_.find(results_unsaid_.front());
    results_unsaid_.pop_front();
    if (it == held_.end() || it->second.state != State::finished) continue;
    pb::TaskResult& result = *it->second.result;
    result.set_epoch(it->second.fence.epoch);
    bytes += result.value().size() + result.message().size() + result.traceback().size() + kResultOverhead;
    *out.add_results() = result;
  }
  return !results_unsaid_.empty();
}

void WorkerCore::list_held(google::protobuf::RepeatedPtrField<pb::Held>& out) const {
  for (const auto& [task, held] : held_) {
    pb::Held& one = *out.Add();
    one.set_task(task.packed);
    one.set_attempt(held.fence.attempt);
    one.set_epoch(held.fence.epoch);
    one.set_running(held.state != State::waiting);
  }
}

std::vector<WorkerCore::RunningView> WorkerCore::running_list() const {
  std::vector<RunningView> out;
  for (const auto& [task, held] : held_) {
    if (held.state == State::running) out.push_back({held.fence, held.job->id, held.job->spec.engine(), held.started});
  }
  return out;
}

void WorkerCore::check_invariants() const {
  std::uint32_t running = 0, waiting = 0, lined_up = 0;
  for (const auto& [task, held] : held_) {
    GRANGE_ASSERT(held.fence.task == task);
    GRANGE_ASSERT((held.state == State::finished) == (held.result != nullptr));
    GRANGE_ASSERT((held.state == State::running) == (held.ticket != 0));
    running += held.state == State::running ? 1 : 0;
    waiting += held.state == State::waiting ? 1 : 0;
  }
  for (const Line& line : lines_) {
    GRANGE_ASSERT((line.head != nullptr) == line.active);
    for (const Held* h = line.head; h != nullptr; h = h->after) {
      GRANGE_ASSERT(h->state == State::waiting && (h->after == nullptr || h->after->order > h->order));
      ++lined_up;
    }
  }
  GRANGE_ASSERT(running == running_ && waiting == waiting_ && waiting == lined_up);
  GRANGE_ASSERT(allocator_.held() == running + stopping_.size());
  const Need &used = allocator_.used(), &total = allocator_.total();
  GRANGE_ASSERT(used.slots <= total.slots && used.cpus_milli <= total.cpus_milli && used.memory <= total.memory);
}

}  // namespace grange::worker
