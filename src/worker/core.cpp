#include "worker/core.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace grange::worker {

namespace {

// What came with an assignment is input. "": all is well.
std::string bad_extras(const Run& run) {
  if (run.inputs.size() > limits::kInputs) {
    return "The task has " + std::to_string(run.inputs.size()) + " inputs; at most " + std::to_string(limits::kInputs) +
           " can be handed to one task.";
  }
  for (const pb::Input& input : run.inputs) {
    if (!pb::Encoding_IsValid(input.encoding())) return "An input of the task has an encoding that is not known here.";
  }
  if (run.gang.size() > limits::kNodes || (run.gang.empty() ? run.rank != 0 : run.rank >= run.gang.size()))
    return "The task's place in its gang makes no sense.";
  for (const std::string& host : run.gang) {
    if (host.find_first_of(std::string_view(",\0\n", 3)) != std::string::npos)
      return "A host name of the task's gang holds a character that no host name has.";
  }
  return {};
}

}  // namespace

WorkerCore::WorkerCore(CoreOptions options) : options_(std::move(options)), allocator_(options_.total, options_.gpus) {
  window_ = window_for(options_.total.slots, mean_us_);
  window_told_ = window_;  // the Hello says it
}

void WorkerCore::step(const Event& event, Instant now, Effects& effects) {
  if (const auto* e = std::get_if<OrdersArrived>(&event)) {
    orders(*e->orders, now, effects);
  } else if (const auto* end = std::get_if<AttemptEnded>(&event)) {
    ended(*end, now, effects);
  } else if (const auto* stage = std::get_if<StageEntered>(&event)) {
    Held* held = find(stage->task, stage->attempt);
    if (held != nullptr && held->state == State::running) enter(*held, stage->stage, now);
    return;  // nothing became free, and there is nothing to tell
  } else if (const auto* hello = std::get_if<Welcomed>(&event)) {
    welcomed(*hello->welcome, now, effects);
  } else if (std::holds_alternative<Ticked>(event)) {
    tick(now, effects);
  } else {
    start_drain(now, effects);
  }
  pump(now, effects);
  count_window();
  if (!results_unsaid_.empty() || !starts_unsaid_.empty() || !returns_unsaid_.empty() || !preempted_unsaid_.empty() ||
      !pauses_unsaid_.empty() || window_ != window_told_ || drain_unsaid_) {
    effects.report = true;
  }
  if (drained()) effects.drained = true;
}

void WorkerCore::orders(pb::WorkerOrders& orders, Instant now, Effects& effects) {
  for (const pb::SpecOrder& spec : orders.specs()) {
    auto info = std::make_shared<JobInfo>(read_job(spec));
    for (const Need& need : info->needs) info->need_classes.push_back(line_of(need));
    jobs_[spec.job()] = {std::move(info), next_order_};
  }
  for (const pb::ResultAck& ack : orders.acks()) {
    const auto it = held_.find(TaskId{ack.task()});
    if (it != held_.end() && it->second.state == State::finished && it->second.fence.attempt == ack.attempt())
      held_.erase(it);
  }
  for (pb::Assignment& order : *orders.mutable_assign()) assign(order, now, effects);
  for (const pb::CancelOrder& order : orders.cancel()) cancel(order, now, effects);
  for (const pb::PauseOrder& order : orders.pause()) pause(order, now, effects);
  for (const std::uint64_t task : orders.take_back()) {
    const auto it = held_.find(TaskId{task});
    if (it != held_.end() && it->second.state == State::waiting) return_waiting(it->second, effects);
  }
  if (orders.drain()) start_drain(now, effects);
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
  held.run.rank = order.rank();
  for (std::string& host : *order.mutable_gang()) held.run.gang.push_back(std::move(host));
  for (pb::Input& input : *order.mutable_inputs()) held.run.inputs.push_back(std::move(input));
  if (order.has_checkpoint()) {
    held.run.has_checkpoint = true;
    held.run.checkpoint = std::move(*order.mutable_checkpoint());
    held.run.checkpoint_sha256 = order.checkpoint_sha256();
  }
  ++waiting_;
  enter(held, pb::STAGE_RESERVE, now);
  held.alternative = order.alternative();
  const bool there = held.alternative < held.job->needs.size();
  if (held.job->kind == Kind::refused) {
    finish_failed(held, pb::FAILURE_REFUSED, held.job->refusal, true, now, effects);
  } else if (held.job->kind == Kind::python && !options_.python) {
    finish_failed(held, pb::FAILURE_ENGINE, "This worker has no Python engine; its notes say why.", false, now,
                  effects);
  } else if (std::string wrong = bad_extras(held.run); !wrong.empty()) {
    finish_failed(held, pb::FAILURE_REFUSED, std::move(wrong), true, now, effects);
  } else if (!there) {
    finish_failed(held, pb::FAILURE_REFUSED, "The task was given for an alternative that its job does not have.", true,
                  now, effects);
  } else if (!allocator_.ever_fits(held.job->needs[held.alternative])) {
    finish_failed(held, pb::FAILURE_REFUSED, "The task asks for more than this worker has in all.", false, now,
                  effects);
  } else {
    held.need_class = held.job->need_classes[held.alternative];
    enqueue(held);
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

void WorkerCore::welcomed(const pb::Welcome& welcome, Instant, Effects& effects) {
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
  pauses_unsaid_.clear();
  preempted_unsaid_.clear();  // no longer in `held`: that says it
  for (const Held* one : in_order()) {
    Held& held = held_.find(one->fence.task)->second;
    if (held.state == State::finished) results_unsaid_.push_back(held.fence.task);
    held.pause_untold = false;
    if (held.state != State::running) continue;
    held.start_told = false;
    starts_unsaid_.push_back(held.fence.task);
    if (held.frozen) say_pause(held);
  }
}

void WorkerCore::start_drain(Instant now, Effects& effects) {
  if (draining_) return;
  draining_ = drain_unsaid_ = true;
  for (const Held* one : in_order()) {
    Held& held = held_.find(one->fence.task)->second;
    if (held.state == State::waiting) {
      return_waiting(held, effects);
    } else if (held.state == State::running && held.frozen) {
      preempt(held, now, effects);  // it would not end by itself
    }
  }
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

WorkerCore::Held* WorkerCore::find(TaskId task, Attempt attempt) {
  const auto it = held_.find(task);
  return it == held_.end() || it->second.fence.attempt != attempt ? nullptr : &it->second;
}

std::vector<const WorkerCore::Held*> WorkerCore::in_order() const {
  std::vector<const Held*> all;
  all.reserve(held_.size());
  for (const auto& [task, held] : held_) all.push_back(&held);
  std::sort(all.begin(), all.end(), [](const Held* a, const Held* b) { return a->order < b->order; });
  return all;
}

}  // namespace grange::worker
