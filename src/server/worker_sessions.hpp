// Workers that speak Protobuf: their sessions, which outlive a connection by one lease, and the rule of one session a
// worker id.
#pragma once

#include <list>
#include <unordered_set>

#include "server/frame_gate.hpp"
#include "server/live_events.hpp"
#include "server/socket.hpp"
#include "server/task_output.hpp"
#include "server/worker_codec.hpp"
#include "server/worker_hub.hpp"
#include "wire/session.hpp"

namespace grange::server {

namespace pb = ::grange::v1;

class WorkerSessions;

inline constexpr Micros kBetweenManifests{1'000'000};

class WorkerSession final : public WorkerChannel, public Peer, public std::enable_shared_from_this<WorkerSession> {
 public:
  WorkerSession(WorkerSessions& owner, Services& services, TaskOutput& output, std::string worker_id,
                std::string session_id);

  // A connection whose first frame was this Hello: of a new session, or (resume) of this one again.
  void begin(SocketPtr socket, const pb::Hello& hello);
  bool can_resume(const pb::Hello& hello) const;
  void resume(SocketPtr socket, const pb::Hello& hello);
  // Ends it here. tell: what the peer hears, when a socket is still there.
  void retire(std::uint16_t close_code, const std::string& tell);
  void say_goodbye(const std::string& reason);

  // WorkerChannel
  void assign(queue::Assign& assign, const JobMetaPtr& meta) override;
  void cancel(const queue::Order& order) override;
  void pause(const queue::PauseOrder& order) override;
  void take_back(const queue::Order& order) override;
  void acknowledge(const queue::AckOrder& ack) override;
  void drain() override;
  bool relay(pb::Relay& relay) override;
  void flush() override;
  void lost() override;
  const std::string& id() const override { return worker_id_; }
  const std::string& host() const override { return host_; }
  WorkerFigures figures() const override;
  // Peer
  void message(std::string bytes, bool binary) override;
  void closed(const Error& why) override;
  void writable() override;
  void alive() override;
  void revoked(const Error& why) override;

  void tick(Now now);
  bool connected() const { return socket_ != nullptr && socket_->open(); }
  bool retired() const { return retired_; }
  Instant seen() const { return seen_; }
  Instant away_since() const { return away_since_; }
  const std::string& session_id() const { return session_id_; }
  const Principal& principal() const { return principal_; }
  void challenge();  // asks for a sign of life
  void heard_from(const pb::WorkerHello& hello);

 private:
  struct Held {
    Attempt attempt = 0;
    LeaseEpoch epoch = 0;
    bool started = false;
    Bytes logged = 0;
    LiveGate live = {};
    std::uint32_t alternative = 0;
  };
  void ask_queue(const pb::Hello& hello, bool resumed);
  void welcome(Result<queue::HelloCall::Answer> answer, bool resumed, std::uint64_t round);
  void report(pb::WorkerReport& report);
  void logs(pb::WorkerReport& report);
  void live_events(const pb::WorkerReport& report);
  void heartbeat(const pb::Heartbeat& beat);
  bool offers(const pb::Manifest& manifest);
  void take_manifest(const pb::Manifest& manifest, queue::ReportCall& call);
  void tell_gateway();
  void link_lost();
  void send(pb::Frame& frame, bool numbered);
  void push(std::string bytes);
  void refuse(const Error& error, bool fatal);
  pb::WorkerOrders& orders() { return *out_.mutable_orders(); }
  void add_spec(const JobMeta& known);
  void add_inputs(pb::Assignment& order, std::vector<queue::Input>& inputs);
  void close_frame();
  void note(std::string_view what, std::string_view words);
  void renew();
  void drains_itself();
  bool remember_spec(JobNo job);
  void forget_spec(JobNo job);
  void hand_back(JobNo job, const Error& why);

  WorkerSessions& owner_;
  Services& s_;
  TaskOutput& output_;
  std::string worker_id_, session_id_, name_, host_, manifest_;
  core::Capacity capacity_;
  WorkerNo number_{};
  std::uint64_t queue_session_ = 0;
  std::uint64_t round_ = 0;  // of hellos: an answer to an older one is of no use
  wire::Session session_;
  SocketPtr socket_;
  Principal principal_;
  bool welcomed_ = false;
  bool retired_ = false;
  bool draining_ = false;
  bool told_queue_ = false;  // that it left for good
  bool offered_ = false;     // the gateway knows of this connection
  Instant seen_{}, renewed_{}, spoke_{}, away_since_{};
  std::optional<Instant> offered_at_;          // its newest manifest was looked at
  std::optional<pb::Manifest> next_manifest_;  // came too soon after that
  std::unordered_map<TaskId, Held> held_;
  std::list<JobNo> specs_order_;  // newest first
  std::unordered_map<JobNo, std::list<JobNo>::iterator> specs_sent_;
  std::vector<pb::Frame> closed_;  // orders that go before those at hand, and wait for a spec
  pb::Frame out_;                  // orders of the delivery at hand
  std::size_t out_bytes_ = 0;
  std::size_t out_items_ = 0;
  std::uint32_t specs_awaited_ = 0;  // orders wait until these were read, to keep their order
  WorkerFigures figures_;
  PeerLog log_;
};

class WorkerSessions {
 public:
  WorkerSessions(Services& services, TaskOutput& output) : s_(services), output_(output) {}

  void hello(SocketPtr socket, pb::Frame frame);
  void tick(Now now);
  void goodbye_all(const std::string& reason);
  void dropped(const std::string& worker_id, const WorkerSession* session);
  // For the JSON dialect too: may a new session take this id? Answers after at most a few seconds.
  void claim(const std::string& worker_id, std::function<void(Result<>)> done);
  bool full() const { return sessions_.size() + json_ids_.size() >= limits::kWorkers; }
  void hold(const std::string& worker_id) { json_ids_.insert(worker_id); }
  void let_go(const std::string& worker_id) { json_ids_.erase(worker_id); }
  pb::Frame& scratch() { return scratch_; }

 private:
  struct Claim {
    std::weak_ptr<WorkerSession> old;
    Instant asked, until;
    std::function<void(Result<>)> done;
  };
  Services& s_;
  TaskOutput& output_;
  std::unordered_map<std::string, std::shared_ptr<WorkerSession>> sessions_;  // by worker id
  std::unordered_set<std::string> json_ids_;
  std::vector<std::pair<std::string, Claim>> claims_;
  pb::Frame scratch_;
};

}  // namespace grange::server
