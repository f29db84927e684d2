// The worker's end of its session with the server: Hello and Welcome, numbering and resending, batching, heartbeats,
// noticing silence. What is said comes from its owner; this class knows when and how.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/clock.hpp"
#include "net/connection_manager.hpp"
#include "wire/session.hpp"
#include "worker/core.hpp"

namespace grange::worker {

class SessionOwner {
 public:
  virtual ~SessionOwner() = default;
  virtual void fill_hello(pb::WorkerHello& hello) = 0;
  virtual void welcomed(const pb::Welcome& welcome) = 0;
  virtual void orders(pb::WorkerOrders& orders) = 0;
  // Moves results and the like into the report. True: there is more.
  virtual bool take_report(pb::WorkerReport& report, Bytes limit) = 0;
  virtual void fill_manifest(pb::Manifest& manifest) = 0;
  virtual void fill_heartbeat(pb::Heartbeat& heartbeat) = 0;
  virtual void room_for_output() = 0;  // after log() had answered false
  virtual void relay(pb::Relay& relay) = 0;
  virtual void link_writable() = 0;            // after relay() had answered false
  virtual void refused(const Error& why) = 0;  // the server will never take us as we are
  virtual void link_changed(net::LinkState state) = 0;
};

class SessionClient {
 public:
  SessionClient(net::Loop& loop, SessionOwner& owner, std::unique_ptr<net::Dialer> dialer, net::LinkOptions link,
                std::string session_id, std::uint64_t seed);
  ~SessionClient();
  void start();
  void stop();
  void say_goodbye(std::string reason);    // sends what there is and the Goodbye
  void reconnect(const std::string& why);  // with a new Hello

  void flush_soon();  // at the end of this turn of the loop
  // Output of a task. False: taken, but hold back.
  bool log(pb::LogChunk chunk);
  void progress(pb::Progress progress);  // a newer one of the same attempt replaces one not yet sent
  void checkpoint(pb::Checkpoint checkpoint);
  void event(pb::EngineEvent event);  // too many unsent: the oldest go
  void manifest_changed();            // the server hears of the new one soon
  bool relay(pb::Relay relay);  // at once, unnumbered. False: hold back until link_writable; nothing without a link

  bool online() const { return welcomed_; }  // a Welcome was heard on this connection
  Bytes inline_limit() const { return inline_limit_; }
  net::LinkState link_state() const { return manager_->state(); }
  net::LinkCounters counters() const { return manager_->counters(); }
  std::size_t unacknowledged() const { return session_.waiting(); }
  bool everything_said() const;  // nothing pending, and all of it acknowledged

 private:
  void up(net::ConnectionPtr connection);
  void down(const Error& why);
  void message(std::string bytes, bool binary);
  void welcome(const pb::Welcome& welcome);
  void start_over();
  void flush();
  void watch();
  void drop(const std::string& why);
  bool room() const;

  net::Loop& loop_;
  SessionOwner& owner_;
  std::string session_id_;
  SystemClock clock_;
  wire::Session session_;
  std::unique_ptr<net::ConnectionManager> manager_;
  net::ConnectionPtr connection_;
  std::unique_ptr<net::Timer> watch_;
  Instant last_heard_{}, connected_at_{}, last_beat_{};
  Millis heartbeat_ = limits::kHeartbeat, lease_ = limits::kLease;
  Bytes inline_limit_ = limits::kInline;
  std::uint64_t peer_has_ = 0;  // of what we numbered
  bool welcomed_ = false, blocked_ = false, flush_posted_ = false, held_back_ = false, more_ = false;
  std::deque<pb::LogChunk> logs_;
  Bytes log_bytes_ = 0;
  std::unordered_map<TaskId, pb::Progress> progress_;
  std::deque<pb::Checkpoint> checkpoints_;
  std::deque<pb::EngineEvent> events_;
  Bytes event_bytes_ = 0;
  bool manifest_unsaid_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace grange::worker
