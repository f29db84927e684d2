#include "worker/session_client.hpp"

#include <spdlog/spdlog.h>

namespace grange::worker {

namespace {
constexpr Bytes kReport = 4 * MiB;       // of one frame; a frame may have 16
constexpr Bytes kLogsPending = 4 * MiB;  // then executors hold back
constexpr Bytes kEventsPending = 4 * MiB;
constexpr std::size_t kFence = 48;
constexpr Millis kWatch{500};
}  // namespace

SessionClient::SessionClient(net::Loop& loop, SessionOwner& owner, std::unique_ptr<net::Dialer> dialer,
                             net::LinkOptions link, std::string session_id, std::uint64_t seed)
    : loop_(loop), owner_(owner), session_id_(std::move(session_id)) {
  net::LinkEvents events;
  events.on_up = [this](net::ConnectionPtr connection) { up(std::move(connection)); };
  events.on_down = [this](const Error& why) { down(why); };
  events.on_state = [this](net::LinkState state) { owner_.link_changed(state); };
  manager_ = std::make_unique<net::ConnectionManager>(loop, std::move(dialer), link, std::move(events), seed);
}

SessionClient::~SessionClient() {
  watch_.reset();
  if (connection_) connection_->set_events({});
  connection_.reset();
  manager_.reset();
}

void SessionClient::start() {
  watch_ = loop_.every(kWatch, [this] { watch(); });
  manager_->start();
}

void SessionClient::stop() {
  watch_.reset();
  welcomed_ = false;
  connection_.reset();
  manager_->stop();
}

void SessionClient::up(net::ConnectionPtr connection) {
  connection_ = std::move(connection);
  welcomed_ = blocked_ = false;
  last_heard_ = connected_at_ = clock_.now().mono;
  net::ConnectionEvents events;
  // A connection that was given up may still speak: only the current one is heard.
  const std::weak_ptr<net::Connection> mine = connection_;
  const auto current = [this, mine, alive = std::weak_ptr<bool>(alive_)] {
    return !alive.expired() && connection_ && mine.lock() == connection_;
  };
  events.on_message = [this, current](std::string bytes, bool binary) {
    if (current()) message(std::move(bytes), binary);
  };
  events.on_closed = [this, current](Error why) {
    if (!current()) return;
    connection_.reset();
    welcomed_ = false;
    manager_->lost(std::move(why));
  };
  events.on_writable = [this, current] {
    if (!current()) return;
    blocked_ = false;
    owner_.link_writable();
    flush();
  };
  events.on_alive = [this, current] {
    if (current()) last_heard_ = clock_.now().mono;
  };
  pb::Frame frame;
  pb::Hello& hello = *frame.mutable_hello();
  hello.set_protocol(wire::kProtocol);
  hello.set_role(pb::ROLE_WORKER);
  hello.set_version("0.1.0");
  hello.set_session_id(session_id_);
  hello.set_received(session_.received());
  owner_.fill_hello(*hello.mutable_worker());
  const net::ConnectionPtr keep = connection_;
  keep->set_events(std::move(events));
  keep->send(session_.unnumbered(frame), true);
}

void SessionClient::down(const Error& why) {
  connection_.reset();
  welcomed_ = false;
  spdlog::warn("No connection to the server: {} Trying again in {} ms; tasks go on.", why.message,
               manager_->next_delay().count());
}

void SessionClient::message(std::string bytes, bool binary) {
  last_heard_ = clock_.now().mono;
  pb::Frame frame;
  if (!binary) return drop("the server sent text where a binary frame was due");
  if (auto read = wire::decode(bytes, frame); !read) return drop(read.error().message);
  if (frame.has_welcome()) return welcome(frame.welcome());
  if (frame.has_error()) {
    spdlog::error("The server says: {} ({})", frame.error().message(), frame.error().code());
    if (frame.error().fatal() && frame.error().code() == code(ErrorClass::version_mismatch)) {
      owner_.refused(Error{ErrorClass::version_mismatch, frame.error().message()});
    } else if (frame.error().fatal()) {
      drop("the server refused the session: " + frame.error().message());
    }
    return;
  }
  if (!welcomed_) return drop("the server spoke before its Welcome");
  if (frame.has_relay()) return owner_.relay(*frame.mutable_relay());
  const auto verdict = session_.arrived(frame);
  peer_has_ = std::max(peer_has_, frame.ack());
  if (verdict == wire::Session::Verdict::gap) return drop("a frame is missing");
  if (verdict == wire::Session::Verdict::fresh && frame.has_orders()) owner_.orders(*frame.mutable_orders());
  if (frame.has_goodbye()) return drop("the server is closing: " + frame.goodbye().reason());
  if (session_.owes_ack() || held_back_ || more_) flush_soon();
}

void SessionClient::welcome(const pb::Welcome& welcome) {
  if (welcomed_) return drop("a second Welcome");
  if (welcome.protocol() != wire::kProtocol) {
    return owner_.refused(Error{ErrorClass::version_mismatch,
                                "The server speaks protocol " + std::to_string(welcome.protocol()) + ", this worker " +
                                    std::to_string(wire::kProtocol) + ": update the older one."});
  }
  heartbeat_ = Millis{std::clamp<std::uint32_t>(welcome.heartbeat_ms(), 10, 600'000)};
  lease_ = Millis{std::clamp<std::uint32_t>(welcome.lease_ms(), 100, 3'600'000)};
  if (welcome.inline_limit_bytes() > 0) inline_limit_ = std::min<Bytes>(welcome.inline_limit_bytes(), limits::kInline);
  std::vector<std::string> again;
  if (!welcome.resumed()) {
    start_over();
  } else if (!session_.resend(welcome.received(), again)) {
    // It claims to have what was never sent, or forgets what it had: nothing to go on from.
    session_id_ += session_id_.size() < 60 ? "x" : "";
    start_over();
    return drop("the session cannot be resumed; starting a new one");
  } else {
    peer_has_ = std::max(peer_has_, welcome.received());
  }
  welcomed_ = true;
  spdlog::info("Connected to the server{}.", welcome.resumed() ? ", session resumed" : "");
  last_beat_ = clock_.now().mono;
  for (std::string& bytes : again) {
    if (!connection_->send(std::move(bytes), true)) blocked_ = true;
  }
  owner_.welcomed(welcome);
  flush_soon();
}

// A new session. Results are said again by the owner; output that may not have arrived is ours to save from the old
// outbox.
void SessionClient::start_over() {
  std::vector<std::string> lost;
  session_.resend(peer_has_, lost);
  std::deque<pb::LogChunk> logs;
  std::deque<pb::Checkpoint> checkpoints;
  for (const std::string& bytes : lost) {
    pb::Frame frame;
    if (!wire::decode(bytes, frame) || !frame.has_report()) continue;
    for (pb::LogChunk& chunk : *frame.mutable_report()->mutable_logs()) logs.push_back(std::move(chunk));
    for (pb::Checkpoint& one : *frame.mutable_report()->mutable_checkpoints()) checkpoints.push_back(std::move(one));
  }
  for (auto it = logs.rbegin(); it != logs.rend(); ++it) {
    log_bytes_ += it->data().size() + kFence;
    logs_.push_front(std::move(*it));
  }
  for (auto it = checkpoints.rbegin(); it != checkpoints.rend(); ++it) checkpoints_.push_front(std::move(*it));
  session_.reset();
  peer_has_ = 0;
}

void SessionClient::flush_soon() {
  if (flush_posted_) return;
  flush_posted_ = true;
  loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    flush_posted_ = false;
    flush();
  });
}

void SessionClient::flush() {
  if (!welcomed_ || !connection_) return;
  more_ = true;
  bool said = false;
  while (more_ && !blocked_ && !session_.full()) {
    pb::Frame frame;
    pb::WorkerReport& report = *frame.mutable_report();
    Bytes bytes = 0;
    // Output first: a result ends its log.
    while (!logs_.empty() && bytes < kReport) {
      const Bytes size = logs_.front().data().size() + kFence;
      bytes += size;
      log_bytes_ -= size;
      *report.add_logs() = std::move(logs_.front());
      logs_.pop_front();
    }
    while (!checkpoints_.empty() && bytes < kReport) {
      bytes += checkpoints_.front().data().size() + kFence;
      *report.add_checkpoints() = std::move(checkpoints_.front());
      checkpoints_.pop_front();
    }
    while (!events_.empty() && bytes < kReport) {
      const Bytes size = events_.front().data_json().size() + kFence;
      bytes += size;
      event_bytes_ -= size;
      *report.add_events() = std::move(events_.front());
      events_.pop_front();
    }
    if (std::exchange(manifest_unsaid_, false)) owner_.fill_manifest(*report.mutable_manifest());
    for (auto& [task, one] : progress_) *report.add_progress() = std::move(one);
    progress_.clear();
    more_ = !logs_.empty() || !checkpoints_.empty() || !events_.empty();
    if (!more_) more_ = owner_.take_report(report, kReport - std::min(bytes, kReport - 1));
    if (report.ByteSizeLong() == 0) break;
    said = true;
    if (!connection_->send(session_.number(frame), true)) blocked_ = true;
  }
  if (!said && session_.owes_ack() && connection_) {
    pb::Frame frame;
    frame.mutable_only_ack();
    connection_->send(session_.unnumbered(frame), true);
  }
  if (held_back_ && room()) {
    held_back_ = false;
    owner_.room_for_output();
  }
}

bool SessionClient::room() const {
  return log_bytes_ < kLogsPending / 2;
}

bool SessionClient::log(pb::LogChunk chunk) {
  // Small pieces of one stream become one chunk.
  if (!logs_.empty()) {
    pb::LogChunk& last = logs_.back();
    if (last.task() == chunk.task() && last.attempt() == chunk.attempt() && last.stream() == chunk.stream() &&
        last.data().size() + chunk.data().size() <= limits::kLogChunk) {
      log_bytes_ += chunk.data().size();
      last.mutable_data()->append(chunk.data());
      chunk.clear_data();
    }
  }
  if (!chunk.data().empty()) {
    log_bytes_ += chunk.data().size() + kFence;
    logs_.push_back(std::move(chunk));
  }
  flush_soon();
  if (log_bytes_ < kLogsPending) return true;
  held_back_ = true;
  return false;
}

void SessionClient::progress(pb::Progress progress) {
  progress_[TaskId{progress.task()}] = std::move(progress);
  flush_soon();
}

void SessionClient::checkpoint(pb::Checkpoint checkpoint) {
  std::erase_if(checkpoints_, [&](const pb::Checkpoint& old) { return old.task() == checkpoint.task(); });
  checkpoints_.push_back(std::move(checkpoint));
  flush_soon();
}

void SessionClient::event(pb::EngineEvent event) {
  event_bytes_ += event.data_json().size() + kFence;
  events_.push_back(std::move(event));
  while (event_bytes_ > kEventsPending) {
    event_bytes_ -= events_.front().data_json().size() + kFence;
    events_.pop_front();
  }
  flush_soon();
}

void SessionClient::manifest_changed() {
  manifest_unsaid_ = true;
  flush_soon();
}

bool SessionClient::relay(pb::Relay relay) {
  if (!welcomed_ || !connection_) return true;
  pb::Frame frame;
  *frame.mutable_relay() = std::move(relay);
  if (connection_->send(session_.unnumbered(frame), true)) return true;
  blocked_ = true;
  return false;
}

void SessionClient::watch() {
  if (!connection_) return;
  const Instant now = clock_.now().mono;
  if (!welcomed_ && now - connected_at_ > limits::kHandshake) return drop("no Welcome in time");
  if (now - last_heard_ > lease_) return drop("the server has been silent for a whole lease");
  if (welcomed_ && now - last_beat_ >= heartbeat_ - kWatch / 2) {
    last_beat_ = now;
    pb::Frame frame;
    pb::Heartbeat& beat = *frame.mutable_heartbeat();
    beat.set_sent_us(static_cast<std::uint64_t>(now.us));
    owner_.fill_heartbeat(beat);
    connection_->send(session_.unnumbered(frame), true);
  }
}

void SessionClient::drop(const std::string& why) {
  if (!connection_) return;
  const net::ConnectionPtr old = std::move(connection_);
  connection_.reset();
  welcomed_ = false;
  old->close(1002, why.substr(0, 100));
  manager_->lost(Error{ErrorClass::unavailable, why});
}

void SessionClient::reconnect(const std::string& why) {
  drop(why);
}

void SessionClient::say_goodbye(std::string reason) {
  if (!connection_ || !welcomed_) return;
  flush();
  if (!connection_) return;
  pb::Frame frame;
  frame.mutable_goodbye()->set_reason(std::move(reason));
  connection_->send(session_.unnumbered(frame), true);
}

bool SessionClient::everything_said() const {
  return logs_.empty() && checkpoints_.empty() && progress_.empty() && session_.waiting() == 0;
}

}  // namespace grange::worker
