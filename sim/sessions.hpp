// The server's side of the door. Shared with src/server: worker_codec, validate. Mirrored, because there it hangs on
// sockets and threads: the rules of worker_sessions.cpp (one session a worker id, claims, resume, leases) and the part
// of client_sessions.cpp that answers requests and follows jobs.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <unordered_map>

#include "server.hpp"
#include "wire/session.hpp"

namespace grange::sim {

class Sessions;

class WorkerSession : public std::enable_shared_from_this<WorkerSession> {
 public:
  WorkerSession(Sessions& owner, std::string worker_id, std::string session_id);
  void begin(ConnId conn, const pb::Hello& hello);
  bool can_resume(const pb::Hello& hello) const;
  void resume(ConnId conn, const pb::Hello& hello);
  void retire(std::string_view why);
  void lost();
  void assign(queue::Assign& assign);
  void cancel(const queue::Order& order);
  void pause(const queue::PauseOrder& order);
  void take_back(const queue::Order& order);
  void acknowledge(const queue::AckOrder& ack);
  void flush();
  void message(ConnId conn, pb::Frame& frame);
  void alive();
  void closed(ConnId conn);
  void tick(Instant now);
  void challenge();
  bool connected() const { return conn_ != 0; }
  bool retired() const { return retired_; }
  Instant seen() const { return seen_; }
  ConnId conn() const { return conn_; }
  const std::string& session_id() const { return session_id_; }
  std::size_t unsaid() const { return session_.waiting(); }

 private:
  struct Held {
    Attempt attempt = 0;
    LeaseEpoch epoch = 0;
    bool started = false;
    std::uint32_t alternative = 0;
  };
  void heard_from(const pb::WorkerHello& hello);
  void ask_queue(bool resumed);
  void welcome(Result<queue::HelloCall::Answer> answer, bool resumed, std::uint64_t round);
  void report(pb::WorkerReport& in);
  void send(pb::Frame& frame, bool numbered);
  void push(std::string bytes);
  pb::WorkerOrders& orders() { return *out_.mutable_orders(); }
  bool remember_spec(JobNo job);
  void forget_spec(JobNo job);
  void renew();

  Sessions& owner_;
  std::string worker_id_, session_id_;
  core::Capacity capacity_;
  WorkerNo number_{};
  std::uint64_t queue_session_ = 0, round_ = 0;
  std::uint32_t window_ = 1;
  wire::Session session_;
  ConnId conn_ = 0;
  bool welcomed_ = false, retired_ = false, draining_ = false, told_queue_ = false;
  Instant seen_{}, renewed_{}, spoke_{}, away_since_{};
  std::map<TaskId, Held> held_;
  std::list<JobNo> specs_order_;
  std::map<JobNo, std::list<JobNo>::iterator> specs_sent_;
  pb::Frame out_;
  std::size_t out_items_ = 0;
};

class Sessions {
 public:
  explicit Sessions(Server& server);
  void listen();
  void deliver(queue::Delivery delivery);

  Server& server() { return server_; }
  void bind(WorkerNo worker, std::shared_ptr<WorkerSession> session);
  void unbind(WorkerNo worker, const WorkerSession* session);
  void dropped(const std::string& worker_id, const WorkerSession* session);
  std::shared_ptr<const pb::JobSpec> spec(JobNo job);
  void put(queue::Call call) { server_.put(std::move(call)); }
  Instant now() { return server_.world().mono(); }
  void send(ConnId conn, std::string bytes) { server_.net().send(conn, false, std::move(bytes)); }
  // An answer of the queue: only while this process lives.
  template <class T, class F>
  std::function<void(Result<T>)> answer(F f) {
    return [life = server_.life(), &server = server_, f = std::move(f)](Result<T> r) mutable {
      if (life == server.life()) f(std::move(r));
    };
  }

 private:
  struct Conn {
    std::uint32_t host = 0;
    std::weak_ptr<WorkerSession> worker;
    bool client = false;
    Instant seen{};
  };
  struct Claim {
    std::weak_ptr<WorkerSession> old;
    Instant asked, until;
    ConnId conn = 0;
    pb::Hello hello;
  };
  struct Following {
    std::map<std::uint32_t, std::pair<Attempt, int>> sent;  // what it has, and of which end
    bool end_told = false;
  };

  void message(ConnId conn, std::string bytes);
  void hello(ConnId conn, pb::Frame& frame);
  void claim(ConnId conn, const pb::Hello& hello);
  void granted(ConnId conn, const pb::Hello& hello);
  void refuse(ConnId conn, const Error& error);
  void closed(ConnId conn);
  void tick();
  // Clients.
  void request(ConnId conn, pb::Request& request);
  void submit(ConnId conn, std::uint64_t id, pb::SubmitJob& submit);
  void graph(ConnId conn, std::string_view text);
  void admin(ConnId conn, std::string_view text);
  void respond(ConnId conn, std::uint64_t id, const Result<std::uint32_t>& result, bool existed = false);
  void follow(ConnId conn, const pb::FollowRequest& request);
  void sweep(ConnId conn, JobNo job, Following& f);  // all that the store has and the client lacks

  Server& server_;
  Dice dice_;
  std::map<ConnId, Conn> conns_;
  std::map<std::string, std::shared_ptr<WorkerSession>> by_id_;
  std::map<WorkerNo, std::shared_ptr<WorkerSession>> by_no_;
  std::vector<std::pair<std::string, Claim>> claims_;
  std::map<JobNo, std::shared_ptr<const pb::JobSpec>> specs_;
  std::map<std::pair<JobNo, ConnId>, Following> following_;
};

// What a client wants of a job, in the queue's words. `siblings`: places of a graph's jobs by name.
core::JobHeader header_of(const pb::JobSpec& spec, const std::map<std::string, std::uint32_t>& siblings);

}  // namespace grange::sim
