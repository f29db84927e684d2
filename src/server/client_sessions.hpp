// Clients that speak Protobuf: requests and answers, and the outcomes of the jobs that they follow.
#pragma once

#include "server/api/operations.hpp"
#include "server/follow.hpp"
#include "server/frame_gate.hpp"
#include "server/socket.hpp"
#include "server/worker_hub.hpp"
#include "wire/session.hpp"

namespace grange::server {

class ClientSessions;

class ClientSession final : public Peer, public std::enable_shared_from_this<ClientSession> {
 public:
  ClientSession(ClientSessions& owner, Services& services, Operations& operations, std::string session_id);

  void begin(SocketPtr socket);
  bool can_resume(const pb::Hello& hello) const { return session_.can_resend(hello.received()); }
  void resume(SocketPtr socket, const pb::Hello& hello);
  void retire(std::uint16_t close_code, const std::string& why);

  void outcome(const queue::Ended& ended);
  void job_grew(const queue::JobChange& change);
  void job_changed(const queue::JobChange& change);
  void flush();
  void tick(Now now);
  void say_goodbye(const std::string& reason);

  void message(std::string bytes, bool binary) override;
  void closed(const Error& why) override;
  void writable() override {
    writable_ = true;
    go_on();
  }
  void revoked(const Error& why) override;
  const Principal& principal() const { return principal_; }
  const std::string& session_id() const { return session_id_; }
  bool away() const { return socket_ == nullptr; }
  Instant away_since() const { return away_since_; }
  bool touched = false;

 private:
  struct Following {
    JobMetaPtr meta;
    Follow follow;
    std::optional<pb::JobStatus> ended;
    std::uint32_t page = 1024;
    bool look_again = false;  // whether it has ended could not be read
  };
  void request(pb::Request& request);
  void submit(std::uint64_t id, pb::SubmitJob& submit);
  void pause(std::uint64_t id, const pb::PauseRequest& request);
  void extend(std::uint64_t id, pb::ExtendRequest& request);
  // The answer to what changed a job: its status, or why not.
  Done<std::uint32_t> then_status(std::uint64_t id, const std::string& job);
  void follow(std::uint64_t id, const pb::FollowRequest& request);
  void start_following(const JobMetaPtr& meta, bool complete_so_far, const pb::FollowRequest* request);
  void answer(std::uint64_t id, const Result<JobFigures>& job, bool existed = false);
  void answer_status(std::uint64_t id, const JobMetaPtr& meta, bool existed);
  void look_for_end(JobNo job);
  void try_later();
  void retry();
  void go_on();
  void sweep(JobNo job, std::uint32_t from);
  void swept(JobNo job, std::uint32_t from, std::uint32_t limit, Result<std::vector<store::OutcomeRow>> rows);
  void finish(JobNo job);
  pb::Outcome& next_outcome(const Following& f, std::size_t bytes);
  bool can_send() const;
  void send(pb::Frame& frame, bool numbered);
  void refuse(const Error& error, bool fatal);

  ClientSessions& owner_;
  Services& s_;
  Operations& operations_;
  std::string session_id_;
  wire::Session session_;
  SocketPtr socket_;
  Principal principal_;
  bool writable_ = true;
  bool retired_ = false;
  Instant away_since_{}, spoke_{};
  std::optional<Instant> retry_at_;
  std::unordered_map<JobNo, Following> following_;
  pb::Frame out_;  // outcomes of one job
  std::size_t out_bytes_ = 0;
};

class ClientSessions {
 public:
  ClientSessions(Services& services, Operations& operations, std::size_t most = limits::kConnections)
      : s_(services), operations_(operations), most_(most) {}

  void hello(SocketPtr socket, const pb::Frame& frame);
  void deliver(const queue::Delivery& delivery);
  void tick(Now now);
  void goodbye_all(const std::string& reason);
  std::size_t size() const { return sessions_.size(); }
  std::shared_ptr<ClientSession> find(const std::string& session_id) const {
    const auto it = sessions_.find(session_id);
    return it == sessions_.end() ? nullptr : it->second;
  }

  void followed(JobNo job, const std::shared_ptr<ClientSession>& session);
  void unfollowed(JobNo job, const ClientSession* session);
  void dropped(const ClientSession* session);
  pb::Frame& scratch() { return scratch_; }

 private:
  bool make_room();
  Services& s_;
  Operations& operations_;
  std::size_t most_;
  std::unordered_map<std::string, std::shared_ptr<ClientSession>> sessions_;
  std::unordered_map<JobNo, std::vector<std::shared_ptr<ClientSession>>> followers_;
  pb::Frame scratch_;
};

void to_wire(const JobFigures& job, pb::JobStatus& out);

}  // namespace grange::server
