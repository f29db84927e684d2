// One worker's session on the server: the rules of server/worker_sessions.cpp.
#include <algorithm>

#include "server/worker_codec.hpp"
#include "sessions.hpp"

namespace grange::sim {
namespace {

// Values in the simulator are small: there is no blob.
class NoBlobs final : public store::BlobStore {
 public:
  std::optional<Bytes> size(const std::string&) const override { return std::nullopt; }
  std::string path(const std::string&) const override { return {}; }
  Result<std::string> put(std::string_view) override { return none(); }
  Result<std::string> get(const std::string&) const override { return none(); }
  std::string part_path(const std::string&) const override { return {}; }
  Bytes received(const std::string&) const override { return 0; }
  Result<> finish(const std::string&) override { return none(); }
  Result<> remove(const std::string&) override { return none(); }
  Result<std::uint64_t> sweep(Millis, const std::function<bool(const std::string&)>&) override {
    return std::uint64_t{0};
  }

 private:
  static Error none() { return Error{ErrorClass::not_found, "There are no blobs here."}; }
};
const NoBlobs kNoBlobs;

}  // namespace

WorkerSession::WorkerSession(Sessions& owner, std::string worker_id, std::string session_id)
    : owner_(owner), worker_id_(std::move(worker_id)), session_id_(std::move(session_id)) {
  seen_ = owner_.now();
}

void WorkerSession::begin(ConnId conn, const pb::Hello& hello) {
  conn_ = conn;
  heard_from(hello.worker());
  for (const pb::Held& held : hello.worker().held()) {
    const Fence fence = server::to_fence(held);
    held_[fence.task] = {
        .attempt = fence.attempt, .epoch = fence.epoch, .started = held.running(), .alternative = held.alternative()};
  }
  ask_queue(false);
}

bool WorkerSession::can_resume(const pb::Hello& hello) const {
  return !retired_ && number_.value != 0 && session_.can_resend(hello.received());
}

void WorkerSession::resume(ConnId conn, const pb::Hello& hello) {
  GRANGE_MARK("session_resumed");
  if (conn_ != 0 && conn_ != conn) {
    GRANGE_MARK("session_went_on_over_newer_connection");
    owner_.server().net().close(conn_, true);
  }
  conn_ = conn;
  welcomed_ = false;
  std::vector<std::string> unsent;
  session_.resend(hello.received(), unsent);
  heard_from(hello.worker());
  ask_queue(true);
}

void WorkerSession::heard_from(const pb::WorkerHello& hello) {
  seen_ = owner_.now();
  window_ = std::clamp<std::uint32_t>(hello.window(), 1, limits::kWindow);
  draining_ = draining_ || hello.draining();
  if (auto capacity = server::to_capacity(hello.manifest())) capacity_ = std::move(*capacity);
}

void WorkerSession::ask_queue(bool resumed) {
  queue::HelloCall call;
  call.body = {.id = worker_id_, .name = worker_id_, .manifest = {}};
  call.capacity = capacity_;
  call.window = window_;
  for (const auto& [task, held] : held_) {
    call.held.push_back({Fence{task, held.attempt, held.epoch}, held.started, held.alternative});
  }
  call.done = owner_.answer<queue::HelloCall::Answer>(
      [weak = weak_from_this(), resumed, round = ++round_](Result<queue::HelloCall::Answer> answer) {
        if (const auto self = weak.lock()) self->welcome(std::move(answer), resumed, round);
      });
  owner_.put(std::move(call));
}

void WorkerSession::welcome(Result<queue::HelloCall::Answer> answer, bool resumed, std::uint64_t round) {
  if (retired_ || round != round_) return;
  if (!answer) return retire("refused");
  number_ = answer->worker;
  queue_session_ = answer->session;
  owner_.bind(number_, shared_from_this());
  if (draining_) owner_.put(queue::DrainCall{number_});
  if (!connected()) {
    owner_.put(queue::GoneCall{number_, queue_session_, false});
    return;
  }
  pb::Frame frame;
  pb::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_protocol(wire::kProtocol);
  welcome.set_server_id(owner_.server().turn().server_id());
  welcome.set_incarnation(owner_.server().turn().incarnation());
  welcome.set_resumed(resumed);
  welcome.set_received(session_.received());
  welcome.set_heartbeat_ms(static_cast<std::uint32_t>(owner_.server().heartbeat().count() / 1000));
  welcome.set_lease_ms(static_cast<std::uint32_t>(owner_.server().lease().count()));
  welcome.set_inline_limit_bytes(limits::kInline);
  for (const Fence& fence : answer->refused) {
    GRANGE_MARK("hello_refused_a_hold");
    pb::Held& refused = *welcome.add_refused();
    refused.set_task(fence.task.packed);
    refused.set_attempt(fence.attempt);
    refused.set_epoch(fence.epoch);
    const auto it = held_.find(fence.task);
    if (it != held_.end() && it->second.attempt == fence.attempt) held_.erase(it);
  }
  send(frame, false);
  welcomed_ = true;
  if (resumed && !GRANGE_MUTANT("resume_sends_nothing_again")) {
    for (std::string& bytes : session_.unacknowledged()) {
      GRANGE_MARK("orders_sent_again_after_resume");
      push(std::move(bytes));
    }
  }
  flush();
}

void WorkerSession::retire(std::string_view why) {
  if (retired_) return;
  const auto self = shared_from_this();
  retired_ = true;
  if (number_.value != 0) owner_.unbind(number_, this);
  owner_.dropped(worker_id_, this);
  if (conn_ != 0) {
    owner_.server().world().trace("server: session of {} ends: {}", worker_id_, why);
    owner_.server().net().close(conn_, true);
    conn_ = 0;
    if (number_.value != 0 && !told_queue_) owner_.put(queue::GoneCall{number_, queue_session_, false});
  }
}

void WorkerSession::lost() {
  GRANGE_MARK("lease_ended");
  held_.clear();
  retire("the lease ended");
}

// ---------------------------------------------------------------------------------------------------- orders

void WorkerSession::assign(queue::Assign& a) {
  const JobNo job = a.fence.task.job();
  held_[a.fence.task] = {.attempt = a.fence.attempt, .epoch = a.fence.epoch, .alternative = a.alternative};
  if (remember_spec(job)) {
    if (const auto spec = owner_.spec(job)) {
      pb::SpecOrder& order = *orders().add_specs();
      order.set_job(job.value);
      order.set_job_id(std::to_string(job.value));
      *order.mutable_spec() = *spec;
    } else {
      forget_spec(job);
    }
  }
  pb::Assignment& order = *orders().add_assign();
  order.set_task(a.fence.task.packed);
  order.set_attempt(a.fence.attempt);
  order.set_epoch(a.fence.epoch);
  order.set_alternative(a.alternative);
  if (!a.args.empty()) order.set_args(std::move(a.args));
  if (a.has_checkpoint) {
    GRANGE_MARK("assigned_with_checkpoint");
    order.set_has_checkpoint(true);
    order.set_checkpoint(std::move(a.checkpoint));
  }
  for (queue::Input& input : a.inputs) {
    pb::Input& in = *order.add_inputs();
    in.set_task(input.task.packed);
    in.set_value(std::move(input.value));
  }
  for (std::size_t i = 0; i < a.gang.size(); ++i) order.add_gang(fmt::format("host{}", a.gang[i].value));
  order.set_rank(a.rank);
  out_items_ += 1;
}

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

void WorkerSession::cancel(const queue::Order& order) {
  pb::CancelOrder& out = *orders().add_cancel();
  out.set_task(order.task.packed);
  out.set_attempt(order.attempt);
  out.set_reason(order.reason);
  out_items_ += 1;
}

void WorkerSession::pause(const queue::PauseOrder& order) {
  pb::PauseOrder& out = *orders().add_pause();
  out.set_task(order.task.packed);
  out.set_attempt(order.attempt);
  out.set_how(static_cast<pb::PauseHow>(order.how));
  out_items_ += 1;
}

void WorkerSession::take_back(const queue::Order& order) {
  GRANGE_MARK("take_back_sent");
  orders().add_take_back(order.task.packed);
  out_items_ += 1;
}

void WorkerSession::acknowledge(const queue::AckOrder& ack) {
  const auto it = held_.find(ack.task);
  if (it != held_.end() && it->second.attempt == ack.attempt) held_.erase(it);
  pb::ResultAck& out = *orders().add_acks();
  out.set_task(ack.task.packed);
  out.set_attempt(ack.attempt);
  out.set_verdict(ack.accepted ? pb::VERDICT_ACCEPTED : pb::VERDICT_STALE);
  out_items_ += 1;
}

void WorkerSession::flush() {
  if (retired_ || out_items_ == 0 || number_.value == 0) return;
  send(out_, true);
  out_.mutable_orders()->Clear();
  out_items_ = 0;
  if (session_.full()) retire("it does not read");
}

void WorkerSession::send(pb::Frame& frame, bool numbered) {
  std::string bytes = numbered ? session_.number(frame) : session_.unnumbered(frame);
  if (numbered && !welcomed_) return;
  push(std::move(bytes));
}

void WorkerSession::push(std::string bytes) {
  if (!connected()) return;
  spoke_ = owner_.now();
  owner_.send(conn_, std::move(bytes));
}

// ---------------------------------------------------------------------------------------------------- what it says

void WorkerSession::message(ConnId conn, pb::Frame& frame) {
  if (conn != conn_) return;
  const auto verdict = session_.arrived(frame);
  if (verdict == wire::Session::Verdict::repeat) {
    GRANGE_MARK("session_repeat_dropped");
    return;
  }
  if (verdict == wire::Session::Verdict::gap) {
    GRANGE_MARK("session_gap");
    owner_.server().net().close(conn_, true);
    return closed(conn_);
  }
  switch (frame.body_case()) {
    case pb::Frame::kReport:
      return report(*frame.mutable_report());
    case pb::Frame::kHeartbeat: {
      const std::uint32_t window = std::min(frame.heartbeat().window(), limits::kWindow);
      if (window != 0 && window != window_ && number_.value != 0) {
        window_ = window;
        queue::ReportCall call;
        call.worker = number_;
        call.window = window;
        owner_.put(std::move(call));
      }
      pb::Frame beat;
      beat.mutable_heartbeat()->set_sent_us(frame.heartbeat().sent_us());
      return send(beat, false);
    }
    case pb::Frame::kGoodbye:
      GRANGE_MARK("goodbye");
      if (number_.value != 0) owner_.put(queue::GoneCall{number_, queue_session_, true});
      told_queue_ = true;
      return retire("goodbye");
    default:
      return;
  }
}

void WorkerSession::report(pb::WorkerReport& in) {
  if (number_.value == 0) return;
  if (in.draining()) {
    draining_ = true;
    owner_.put(queue::DrainCall{number_});
  }
  queue::ReportCall call;
  call.worker = number_;
  for (const pb::Fence& fence : in.started()) {
    call.started.push_back(server::to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) it->second.started = true;
  }
  for (pb::TaskResult& result : *in.mutable_results()) {
    const pb::ResultAck early = [&] {
      pb::ResultAck ack;
      ack.set_task(result.task());
      ack.set_attempt(result.attempt());
      ack.set_verdict(pb::VERDICT_ACCEPTED);
      return ack;
    }();
    call.results.push_back(server::to_report(result, kNoBlobs));
    if (GRANGE_MUTANT("ack_before_durable")) {
      *orders().add_acks() = early;
      out_items_ += 1;
    }
  }
  for (const pb::Fence& fence : in.returned()) {
    call.returned.push_back(server::to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) held_.erase(it);
    forget_spec(TaskId{fence.task()}.job());
  }
  for (const pb::Fence& fence : in.paused()) call.paused.push_back(server::to_fence(fence));
  for (const pb::Fence& fence : in.resumed()) call.resumed.push_back(server::to_fence(fence));
  for (const pb::Fence& fence : in.preempted()) {
    call.preempted.push_back(server::to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) held_.erase(it);
  }
  for (pb::Checkpoint& c : *in.mutable_checkpoints())
    call.checkpoints.push_back(
        {Fence{{c.task()}, c.attempt(), c.epoch()}, {.data = std::move(*c.mutable_data()), .data_sha256 = {}}});
  call.window = std::min(in.window(), limits::kWindow);
  if (call.window != 0) window_ = call.window;
  if (in.has_manifest()) {
    if (auto capacity = server::to_capacity(in.manifest())) {
      GRANGE_MARK("worker_offers_something_else");
      capacity_ = *capacity;
      call.offer = {.body = {.id = worker_id_, .name = worker_id_, .manifest = {}}, .capacity = std::move(*capacity)};
    }
  }
  owner_.put(std::move(call));
  flush();
}

void WorkerSession::alive() {
  seen_ = owner_.now();
  renew();
}

void WorkerSession::renew() {
  if (number_.value == 0 || retired_) return;
  if (seen_ - renewed_ < std::chrono::duration_cast<Micros>(owner_.server().lease()) / 30) return;
  renewed_ = seen_;
  owner_.put(queue::AliveCall{number_});
}

void WorkerSession::closed(ConnId conn) {
  if (conn != conn_ || conn_ == 0) return;
  conn_ = 0;
  welcomed_ = false;
  away_since_ = owner_.now();
  if (number_.value != 0 && !retired_) owner_.put(queue::GoneCall{number_, queue_session_, false});
}

void WorkerSession::challenge() {
  pb::Frame frame;
  frame.mutable_heartbeat()->set_sent_us(static_cast<std::uint64_t>(owner_.now().us));
  send(frame, false);
}

void WorkerSession::tick(Instant now) {
  if (!connected()) {
    if (now - away_since_ > std::chrono::duration_cast<Micros>(owner_.server().lease()))
      retire("away for a whole lease");
    return;
  }
  if (!welcomed_) return;
  if (session_.owes_ack()) {
    pb::Frame frame;
    frame.mutable_only_ack();
    send(frame, false);
  } else if (now - spoke_ > owner_.server().heartbeat() / 2) {
    challenge();
  }
}

}  // namespace grange::sim
