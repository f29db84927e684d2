// What the worker says, and what can be seen of it.
#include <utility>

#include "base/assert.hpp"
#include "worker/core.hpp"

namespace grange::worker {

namespace {
constexpr std::size_t kResultOverhead = 64;

void fill(pb::Fence& out, const Fence& fence) {
  out.set_task(fence.task.packed);
  out.set_attempt(fence.attempt);
  out.set_epoch(fence.epoch);
}
}  // namespace

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
  for (const Fence& fence : preempted_unsaid_) fill(*out.add_preempted(), fence);
  preempted_unsaid_.clear();
  for (const TaskId task : pauses_unsaid_) {
    const auto it = held_.find(task);
    if (it == held_.end() || !std::exchange(it->second.pause_untold, false)) continue;
    // As it is now: what happened in between is of no use to anyone.
    if (it->second.state == State::running)
      fill(it->second.frozen ? *out.add_paused() : *out.add_resumed(), it->second.fence);
  }
  pauses_unsaid_.clear();
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
  for (const Held* held : in_order()) {
    pb::Held& one = *out.Add();
    one.set_task(held->fence.task.packed);
    one.set_attempt(held->fence.attempt);
    one.set_epoch(held->fence.epoch);
    one.set_running(held->state != State::waiting);
    one.set_alternative(held->alternative);
  }
}

std::vector<WorkerCore::RunningView> WorkerCore::running_list() const {
  std::vector<RunningView> out;
  for (const Held* held : in_order()) {
    if (held->state != State::running) continue;
    out.push_back({held->fence, held->job->id, held->job->spec.engine(), held->started, held->stage, held->frozen});
  }
  return out;
}

const Fence* WorkerCore::running_fence(TaskId task, Attempt attempt) const {
  const auto it = held_.find(task);
  if (it == held_.end() || it->second.fence.attempt != attempt || it->second.state != State::running) return nullptr;
  return &it->second.fence;
}

bool WorkerCore::giving_back(TaskId task, Attempt attempt) const {
  const auto it = held_.find(task);
  return it != held_.end() && it->second.fence.attempt == attempt && it->second.preempted;
}

void WorkerCore::check_invariants() const {
  std::uint32_t running = 0, waiting = 0, lined_up = 0;
  for (const auto& [task, held] : held_) {
    GRANGE_ASSERT(held.fence.task == task);
    GRANGE_ASSERT((held.state == State::finished) == (held.result != nullptr));
    GRANGE_ASSERT((held.state == State::running) == (held.ticket != 0));
    GRANGE_ASSERT(!held.frozen || held.state == State::running);
    GRANGE_ASSERT(!held.preempted || held.state != State::waiting);
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
