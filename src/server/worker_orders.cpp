// One worker: what the queue tells it.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "server/gateway/gateway.hpp"
#include "server/text.hpp"
#include "server/worker_sessions.hpp"

namespace grange::server {

void WorkerSession::assign(queue::Assign& assign, const JobMetaPtr& meta) {
  const JobNo job = assign.fence.task.job();
  held_[assign.fence.task] = {
      .attempt = assign.fence.attempt, .epoch = assign.fence.epoch, .alternative = assign.alternative};
  std::size_t bytes = 48 + assign.args.size() + assign.checkpoint.size() + assign.gang.size() * 32;
  for (const queue::Input& input : assign.inputs) bytes += input.value.size() + 96;
  if (out_bytes_ + bytes > limits::kFrame / 4) close_frame();
  if (remember_spec(job)) {
    if (meta != nullptr) {
      add_spec(*meta);
    } else {
      ++specs_awaited_;
      s_.jobs->with(job, [weak = weak_from_this(), job](Result<JobMetaPtr> known) {
        const auto self = weak.lock();
        if (self == nullptr || self->retired_) return;
        --self->specs_awaited_;
        if (known) {
          self->add_spec(**known);
        } else {
          self->hand_back(job, known.error());
        }
        self->flush();
      });
    }
  }
  pb::Assignment& order = *orders().add_assign();
  order.set_task(assign.fence.task.packed);
  order.set_attempt(assign.fence.attempt);
  order.set_epoch(assign.fence.epoch);
  if (!assign.args.empty()) order.set_args(std::move(assign.args));
  if (!assign.args_sha256.empty()) order.set_args_sha256(std::move(assign.args_sha256));
  if (assign.has_checkpoint) {
    order.set_has_checkpoint(true);
    order.set_checkpoint(std::move(assign.checkpoint));
    order.set_checkpoint_sha256(std::move(assign.checkpoint_sha256));
  }
  for (const WorkerNo member : assign.gang) *order.add_gang() = s_.workers->host_of(member);
  order.set_rank(assign.rank);
  order.set_alternative(assign.alternative);
  out_bytes_ += bytes;
  ++out_items_;
  if (!assign.inputs.empty()) add_inputs(order, assign.inputs);
}

// A spec stands before what needs it: in the first frame that waits, or in the one at hand.
void WorkerSession::add_spec(const JobMeta& known) {
  pb::SpecOrder& order = *(closed_.empty() ? orders() : *closed_.front().mutable_orders()).add_specs();
  order.set_job(known.job.value);
  order.set_job_id(known.id);
  *order.mutable_spec() = *known.spec;
  if (closed_.empty()) out_bytes_ += known.bytes + 64;
}

// How a parent's results are to be read stands in its spec.
void WorkerSession::add_inputs(pb::Assignment& order, std::vector<queue::Input>& inputs) {
  std::vector<JobNo> unknown;
  JobNo last{};
  pb::Encoding encoding = pb::ENCODING_UNSPECIFIED;
  for (queue::Input& input : inputs) {
    if (input.task.job() != last) {
      last = input.task.job();
      const JobMetaPtr parent = s_.jobs->find(last);
      encoding = parent == nullptr ? pb::ENCODING_UNSPECIFIED : parent->spec->encoding();
      if (parent == nullptr && std::find(unknown.begin(), unknown.end(), last) == unknown.end())
        unknown.push_back(last);
    }
    pb::Input& out = *order.add_inputs();
    out.set_task(input.task.packed);
    out.set_encoding(encoding);
    if (!input.value.empty()) out.set_value(std::move(input.value));
    if (!input.sha256.empty()) out.set_value_sha256(std::move(input.sha256));
  }
  for (const JobNo parent : unknown) {
    ++specs_awaited_;
    s_.jobs->with(parent, [weak = weak_from_this(), parent](Result<JobMetaPtr> known) {
      const auto self = weak.lock();
      if (self == nullptr || self->retired_) return;
      --self->specs_awaited_;
      // A parent that was deleted meanwhile: its results are bytes.
      const pb::Encoding found = known ? (*known)->spec->encoding() : pb::ENCODING_RAW;
      const auto fill = [&](pb::WorkerOrders& frame) {
        for (pb::Assignment& one : *frame.mutable_assign()) {
          for (pb::Input& input : *one.mutable_inputs()) {
            if (TaskId{input.task()}.job() == parent) input.set_encoding(found);
          }
        }
      };
      for (pb::Frame& frame : self->closed_) fill(*frame.mutable_orders());
      fill(self->orders());
      self->flush();
    });
  }
}

// True: the worker is not known to have it. Counts as the worker does (its core forgets the least recently used).
bool WorkerSession::remember_spec(JobNo job) {
  if (const auto it = specs_sent_.find(job); it != specs_sent_.end()) {
    specs_order_.splice(specs_order_.begin(), specs_order_, it->second);
    return false;
  }
  specs_order_.push_front(job);
  specs_sent_[job] = specs_order_.begin();
  if (specs_sent_.size() > limits::kSpecsKept) forget_spec(specs_order_.back());
  return true;
}

void WorkerSession::forget_spec(JobNo job) {
  const auto it = specs_sent_.find(job);
  if (it == specs_sent_.end()) return;
  specs_order_.erase(it->second);
  specs_sent_.erase(it);
}

// Its spec cannot be read now: what waits for it goes back to the queue instead of to the worker.
void WorkerSession::hand_back(JobNo job, const Error& why) {
  forget_spec(job);
  queue::ReportCall call;
  call.worker = number_;
  const auto take_out = [&](pb::WorkerOrders& frame) {
    auto& waiting = *frame.mutable_assign();
    const auto first = std::stable_partition(waiting.pointer_begin(), waiting.pointer_end(),
                                             [job](const pb::Assignment* a) { return TaskId{a->task()}.job() != job; });
    int taken = 0;
    for (auto it = first; it != waiting.pointer_end(); ++it, ++taken) {
      const Fence fence{{(*it)->task()}, (*it)->attempt(), (*it)->epoch()};
      held_.erase(fence.task);
      call.returned.push_back(fence);
    }
    waiting.DeleteSubrange(static_cast<int>(first - waiting.pointer_begin()), taken);
    return static_cast<std::size_t>(taken);
  };
  for (pb::Frame& frame : closed_) take_out(*frame.mutable_orders());
  out_items_ -= take_out(orders());
  spdlog::error("worker {}: {} tasks of job {} are not sent: {}", for_log(worker_id_), call.returned.size(), job.value,
                why.message);
  if (!call.returned.empty()) s_.queue->report(std::move(call));
}

void WorkerSession::cancel(const queue::Order& order) {
  pb::CancelOrder& out = *orders().add_cancel();
  out.set_task(order.task.packed);
  out.set_attempt(order.attempt);
  if (!order.reason.empty()) out.set_reason(cut_utf8(order.reason, limits::kMessageBytes));
  ++out_items_;
}

void WorkerSession::pause(const queue::PauseOrder& order) {
  pb::PauseOrder& out = *orders().add_pause();
  out.set_task(order.task.packed);
  out.set_attempt(order.attempt);
  out.set_how(static_cast<pb::PauseHow>(order.how));
  ++out_items_;
}

void WorkerSession::take_back(const queue::Order& order) {
  orders().add_take_back(order.task.packed);
  ++out_items_;
}

void WorkerSession::acknowledge(const queue::AckOrder& ack) {
  const auto it = held_.find(ack.task);
  if (it != held_.end() && it->second.attempt == ack.attempt) held_.erase(it);
  pb::ResultAck& out = *orders().add_acks();
  out.set_task(ack.task.packed);
  out.set_attempt(ack.attempt);
  out.set_verdict(ack.accepted ? pb::VERDICT_ACCEPTED : pb::VERDICT_STALE);
  ++out_items_;
}

void WorkerSession::drain() {
  draining_ = true;
  if (offered_) s_.gateway->drains(number_);
  orders().set_drain(true);
  ++out_items_;
}

void WorkerSession::flush() {
  if (retired_ || specs_awaited_ != 0 || number_.value == 0) return;
  if (closed_.empty() && out_items_ == 0) return;
  auto closed = std::move(closed_);
  closed_.clear();
  for (pb::Frame& frame : closed) send(frame, true);
  if (out_items_ != 0) {
    send(out_, true);
    out_.mutable_orders()->Clear();  // keeps its memory for the next
    out_bytes_ = 0;
    out_items_ = 0;
  }
  if (session_.full()) {
    // It reads nothing. What it was given comes back to the queue with its next Hello, or when its lease ends.
    spdlog::warn("worker {}: does not read what is sent to it; closing", for_log(worker_id_));
    retire(close_code::try_again, "the worker does not read what is sent to it");
  }
}

// The frame at hand is large enough. It goes once the specs are here that it, or one before it, waits for.
void WorkerSession::close_frame() {
  if (out_items_ == 0) return;
  closed_.push_back(std::move(out_));
  out_ = pb::Frame();
  out_bytes_ = 0;
  out_items_ = 0;
  if (specs_awaited_ == 0) flush();
}

void WorkerSession::lost() {
  spdlog::warn("worker {}: its lease ended", for_log(worker_id_));
  held_.clear();
  retire(close_code::try_again, "the lease ended: no sign of life in time");
}

}  // namespace grange::server
