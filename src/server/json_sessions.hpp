// Clients and workers that speak the JSON dialect. One connection is one session: nothing of it outlives the connection
// but what is on disk.
#pragma once

#include <set>

#include "server/api/operations.hpp"
#include "server/event_batch.hpp"
#include "server/socket.hpp"
#include "server/task_output.hpp"
#include "server/worker_hub.hpp"
#include "server/worker_sessions.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {

class JsonSessions;

class JsonSession final : public Peer, public WorkerChannel, public std::enable_shared_from_this<JsonSession> {
 public:
  JsonSession(JsonSessions& owner, Services& services, SocketPtr socket);

  void message(std::string bytes, bool binary) override;
  void closed(const Error& why) override;
  void writable() override;
  void alive() override;
  void revoked(const Error& why) override;

  void assign(queue::Assign& assign, const JobMetaPtr& meta) override;
  void cancel(const queue::Order& order) override;
  void pause(const queue::PauseOrder&) override {}  // the dialect cannot stop a task that runs
  void take_back(const queue::Order& order) override;
  void acknowledge(const queue::AckOrder& ack) override;
  void drain() override { figures_.draining = true; }
  void flush() override {}
  void lost() override;
  const std::string& id() const override { return worker_id_; }
  const std::string& host() const override { return figures_.peer; }
  WorkerFigures figures() const override;
  void renew(Now now);
  void look_for_end(const JobMetaPtr& meta);

 private:
  void act(const wire::JsonMessage& message);
  void submit(const wire::JsonMessage& message);
  void send_results(const JobMetaPtr& meta, std::string type);
  void send_status(const std::string& job);
  void when_ended(const JobMetaPtr& meta);
  void register_worker(const wire::JsonMessage& message, bool asks_for_task);
  void say_no_task();
  void task_end(const wire::JsonMessage& message);
  void progress(const wire::JsonMessage& message);
  void subscribe(const wire::JsonMessage& message);
  Events::Sink told_at_once();
  Events::Sink told_in_batches(Millis every);
  bool tell_batch();
  void unsubscribe();
  void hand_out();
  void settled();
  void busy(bool yes);
  Result<Fence> fence_of(const wire::JsonTaskRef& ref, const std::string& job) const;
  bool ends_owed(const wire::JsonTaskRef& ref, const std::string& job) const;
  void send(std::string text);
  void refuse(const Error& error, const std::string& job_id);

  JsonSessions& owner_;
  Services& s_;
  SocketPtr socket_;
  Principal principal_;
  // as a client
  std::map<JobNo, std::uint64_t> awaited_;  // job -> watch
  std::optional<Events::Follower> follower_;
  // Of a follower who wants to hear in batches.
  EventBatch batch_;
  std::unique_ptr<net::Timer> batch_due_;
  bool behind_ = false;  // does not read what it was sent
  // as a worker
  enum class Worker { no, joining, yes } worker_ = Worker::no;
  std::string worker_id_;
  WorkerNo number_{};
  std::uint64_t queue_session_ = 0;
  struct Held {
    Fence fence;
    std::string job_id, name, by_number;  // "job-123", "job-123/3", "7/3"
    Instant since{};
    bool sent = false;
    std::string args, args_sha256;  // until it is handed out
  };
  static bool about(const Held& held, const std::string& job, const std::string& task);
  std::optional<Held> held_;  // what the queue gave it
  std::optional<Held> owed_;  // was cancelled when the worker had it already: it runs until it ends
  bool asked_ = false;
  Instant heard_{}, renewed_{}, asked_life_{};
  WorkerFigures figures_;
  PeerLog log_;
};

class JsonSessions {
 public:
  JsonSessions(Services& services, Operations& operations, JobWatch& watch, WorkerSessions& workers, TaskOutput& output)
      : s_(services), operations_(operations), watch_(watch), workers_(workers), output_(output) {}
  void begin(const SocketPtr& socket, std::string first);
  void tick(Now now);

 private:
  friend class JsonSession;
  using Code = std::shared_ptr<const std::string>;
  // Function code as hexadecimal text; read once, kept while there is room.
  void code(const std::string& sha256, Done<Code> done);

  Services& s_;
  Operations& operations_;
  JobWatch& watch_;
  WorkerSessions& workers_;
  TaskOutput& output_;
  std::set<JsonSession*> here_;  // those that are workers
  std::vector<std::pair<std::weak_ptr<JsonSession>, JobMetaPtr>> later_;
  std::map<std::string, Code> codes_;
  std::size_t code_bytes_ = 0;
};

}  // namespace grange::server
