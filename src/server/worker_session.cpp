// One worker: its connection, from Hello to goodbye.
#include <spdlog/spdlog.h>

#include "server/gateway/gateway.hpp"
#include "server/text.hpp"
#include "server/worker_sessions.hpp"

namespace grange::server {

WorkerSession::WorkerSession(WorkerSessions& owner, Services& services, TaskOutput& output, std::string worker_id,
                             std::string session_id)
    : owner_(owner),
      s_(services),
      output_(output),
      worker_id_(std::move(worker_id)),
      session_id_(std::move(session_id)) {
  seen_ = s_.clock.now().mono;
  figures_.dialect = "protobuf";
}

void WorkerSession::begin(SocketPtr socket, const pb::Hello& hello) {
  socket_ = std::move(socket);
  principal_ = socket_->principal();
  socket_->set_peer(shared_from_this());
  heard_from(hello.worker());
  for (const pb::Held& held : hello.worker().held()) {
    const Fence fence = to_fence(held);
    held_[fence.task] = {
        .attempt = fence.attempt, .epoch = fence.epoch, .started = held.running(), .alternative = held.alternative()};
  }
  ask_queue(hello, false);
}

bool WorkerSession::can_resume(const pb::Hello& hello) const {
  return !retired_ && number_.value != 0 && session_.can_resend(hello.received());
}

void WorkerSession::resume(SocketPtr socket, const pb::Hello& hello) {
  link_lost();
  if (socket_ != nullptr) socket_->close(close_code::normal, "the session went on over a newer connection");
  socket_ = std::move(socket);
  principal_ = socket_->principal();
  socket_->set_peer(shared_from_this());
  welcomed_ = false;
  std::vector<std::string> unsent;
  session_.resend(hello.received(), unsent);  // forgets what arrived; what did not is sent after the Welcome
  heard_from(hello.worker());
  ask_queue(hello, true);
}

void WorkerSession::heard_from(const pb::WorkerHello& hello) {
  const Now now = s_.clock.now();
  seen_ = now.mono;
  figures_.seen = now.wall;
  figures_.connected = true;
  figures_.peer = socket_->address();
  figures_.window = std::clamp<std::uint32_t>(hello.window(), 1, limits::kWindow);
  draining_ = draining_ || hello.draining();
  if (hello.has_manifest() || manifest_.empty()) {
    name_ = hello.name().empty() ? worker_id_
                                 : cut_utf8(is_utf8(hello.name()) ? hello.name() : worker_id_, limits::kNameBytes);
    manifest_ = hello.manifest().SerializeAsString();
    host_ = hello.manifest().hostname().empty() ? worker_id_ : hello.manifest().hostname();
    if (auto capacity = to_capacity(hello.manifest())) capacity_ = std::move(*capacity);
    label_as(capacity_, worker_id_);
    next_manifest_.reset();
  }
}

// False: it says what it said before, or what makes no sense.
bool WorkerSession::offers(const pb::Manifest& manifest) {
  std::string bytes = manifest.SerializeAsString();
  if (bytes == manifest_) return false;
  auto capacity = to_capacity(manifest);
  if (!capacity) {
    refuse(capacity.error(), false);
    return false;
  }
  manifest_ = std::move(bytes);
  capacity_ = std::move(*capacity);
  label_as(capacity_, worker_id_);
  if (!manifest.hostname().empty()) host_ = manifest.hostname();
  return true;
}

void WorkerSession::ask_queue(const pb::Hello&, bool resumed) {
  queue::HelloCall call;
  call.body = {.id = worker_id_, .name = name_, .manifest = manifest_};
  call.capacity = capacity_;
  call.window = figures_.window;
  for (const auto& [task, held] : held_) {
    call.held.push_back({Fence{task, held.attempt, held.epoch}, held.started, held.alternative});
  }
  call.done = [weak = weak_from_this(), post = s_.post, resumed,
               round = ++round_](Result<queue::HelloCall::Answer> answer) {
    post([weak, resumed, round, answer = std::move(answer)]() mutable {
      if (const auto self = weak.lock()) self->welcome(std::move(answer), resumed, round);
    });
  };
  s_.queue->hello(std::move(call));
}

void WorkerSession::welcome(Result<queue::HelloCall::Answer> answer, bool resumed, std::uint64_t round) {
  if (retired_ || round != round_) return;
  if (!answer) {
    refuse(answer.error(), true);
    return retire(close_code::try_again, answer.error().message);
  }
  number_ = answer->worker;
  queue_session_ = answer->session;
  s_.workers->bind(number_, shared_from_this());
  if (draining_) drains_itself();  // a Hello makes the queue forget it
  if (!connected()) {              // it left while the queue thought; it may come back within its lease
    s_.queue->gone(number_, queue_session_, false);
    return;
  }
  pb::Frame frame;
  pb::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_protocol(wire::kProtocol);
  welcome.set_server_id(s_.queue->server_id());
  welcome.set_incarnation(s_.queue->incarnation());
  welcome.set_resumed(resumed);
  welcome.set_received(session_.received());
  welcome.set_heartbeat_ms(static_cast<std::uint32_t>(s_.options.heartbeat.count()));
  welcome.set_lease_ms(static_cast<std::uint32_t>(s_.options.lease.count()));
  welcome.set_inline_limit_bytes(limits::kInline);
  for (const Fence& fence : answer->refused) {
    pb::Held& refused = *welcome.add_refused();
    refused.set_task(fence.task.packed);
    refused.set_attempt(fence.attempt);
    refused.set_epoch(fence.epoch);
    const auto it = held_.find(fence.task);
    if (it != held_.end() && it->second.attempt == fence.attempt) held_.erase(it);
  }
  send(frame, false);
  welcomed_ = true;
  if (resumed) {
    // From the outbox, which may have grown since the Hello: all that is in it, in order.
    for (std::string& bytes : session_.unacknowledged()) push(std::move(bytes));
  }
  flush();
  tell_gateway();
}

void WorkerSession::tell_gateway() {
  pb::Manifest manifest;
  if (s_.gateway == nullptr || !welcomed_ || !manifest.ParseFromString(manifest_)) return;
  offered_ = true;
  s_.gateway->offers(number_, worker_id_, manifest.services());
  if (draining_) s_.gateway->drains(number_);
}

// Relayed streams do not outlive a connection.
void WorkerSession::link_lost() {
  if (std::exchange(offered_, false)) s_.gateway->gone(number_);
}

bool WorkerSession::relay(pb::Relay& relay) {
  if (!welcomed_ || !connected()) return false;
  pb::Frame frame;
  frame.mutable_relay()->Swap(&relay);
  std::string bytes = session_.unnumbered(frame);
  frame.mutable_relay()->Swap(&relay);
  spoke_ = s_.clock.now().mono;
  return socket_->send(std::move(bytes), true);
}

void WorkerSession::writable() {
  if (offered_) s_.gateway->writable(number_);
}

void WorkerSession::retire(std::uint16_t close_code, const std::string& tell) {
  if (retired_) return;
  const auto self = shared_from_this();
  retired_ = true;
  if (number_.value != 0) s_.workers->unbind(number_, this);
  owner_.dropped(worker_id_, this);
  link_lost();
  if (socket_ != nullptr) {
    socket_->close(close_code, tell.substr(0, 120));
    socket_ = nullptr;
    if (number_.value != 0 && !told_queue_) s_.queue->gone(number_, queue_session_, false);
  }
}

// What it holds goes to others at once: nothing that it says of it would be heard.
void WorkerSession::revoked(const Error& why) {
  const auto self = shared_from_this();
  refuse(why, true);
  if (number_.value != 0 && !retired_) s_.queue->gone(number_, queue_session_, true);
  told_queue_ = true;
  retire(close_code::policy, why.message);
}

void WorkerSession::say_goodbye(const std::string& reason) {
  if (!connected()) return;
  pb::Frame frame;
  frame.mutable_goodbye()->set_reason(reason);
  send(frame, false);
}

void WorkerSession::send(pb::Frame& frame, bool numbered) {
  std::string bytes = numbered ? session_.number(frame) : session_.unnumbered(frame);
  // Before the Welcome nothing may pass it; numbered frames wait in the outbox.
  if (numbered && !welcomed_) return;
  push(std::move(bytes));
}

void WorkerSession::push(std::string bytes) {
  if (!connected()) return;
  spoke_ = s_.clock.now().mono;
  socket_->send(std::move(bytes), true);
}

void WorkerSession::refuse(const Error& error, bool fatal) {
  pb::Frame frame = error_frame(error, fatal);
  send(frame, false);
}

void WorkerSession::alive() {
  const Now now = s_.clock.now();
  seen_ = now.mono;
  figures_.seen = now.wall;
  renew();
}

// The queue need not hear of every frame: a fraction of the lease is enough.
void WorkerSession::renew() {
  if (number_.value == 0 || retired_) return;
  if (seen_ - renewed_ < std::chrono::duration_cast<Micros>(s_.options.lease) / 30) return;
  renewed_ = seen_;
  s_.queue->alive(number_);
}

void WorkerSession::closed(const Error& why) {
  if (socket_ == nullptr) return;
  if (log_.take(s_.clock.now().mono))
    spdlog::info("worker {}: connection lost: {}", for_log(worker_id_), for_log(why.message));
  socket_ = nullptr;
  welcomed_ = false;
  figures_.connected = false;
  away_since_ = s_.clock.now().mono;
  link_lost();
  if (number_.value != 0 && !retired_) s_.queue->gone(number_, queue_session_, false);
}

void WorkerSession::challenge() {
  pb::Frame frame;
  frame.mutable_heartbeat()->set_sent_us(static_cast<std::uint64_t>(s_.clock.now().mono.us));
  send(frame, false);
}

void WorkerSession::tick(Now now) {
  if (!connected()) {
    if (socket_ == nullptr && now.mono - away_since_ > std::chrono::duration_cast<Micros>(s_.options.lease))
      retire(close_code::normal, "");
    return;
  }
  if (!welcomed_) return;
  if (next_manifest_ && now.mono - offered_at_.value_or(Instant{}) >= kBetweenManifests) {
    const pb::Manifest manifest = std::move(*next_manifest_);
    queue::ReportCall call;
    call.worker = number_;
    take_manifest(manifest, call);
    if (call.offer) s_.queue->report(std::move(call));
    if (!connected()) return;
  }
  if (session_.owes_ack()) {
    pb::Frame frame;
    frame.mutable_only_ack();
    send(frame, false);
  } else if (now.mono - spoke_ > std::chrono::duration_cast<Micros>(s_.options.heartbeat) / 2) {
    pb::Frame frame;
    frame.mutable_heartbeat()->set_sent_us(static_cast<std::uint64_t>(now.mono.us));
    send(frame, false);
  }
}

WorkerFigures WorkerSession::figures() const {
  WorkerFigures out = figures_;
  out.connected = connected();
  out.draining = draining_;
  out.cpus_milli = capacity_.cpus_milli;
  return out;
}

}  // namespace grange::server
