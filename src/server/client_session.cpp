// One client: its requests and their answers.
#include <spdlog/spdlog.h>

#include "server/client_sessions.hpp"

namespace grange::server {
namespace {

std::vector<core::ArgumentPage> take_pages(google::protobuf::RepeatedPtrField<pb::Payload>& payloads) {
  std::vector<core::ArgumentPage> out;
  out.reserve(static_cast<std::size_t>(payloads.size()));
  for (pb::Payload& payload : payloads) {
    out.push_back({.first = payload.first(),
                   .sizes = {payload.sizes().begin(), payload.sizes().end()},
                   .bytes = std::move(*payload.mutable_bytes())});
  }
  return out;
}

}  // namespace

void to_wire(const JobFigures& job, pb::JobStatus& out) {
  out.set_job_id(job.row.id.empty() ? std::to_string(job.row.job.value) : job.row.id);
  out.set_job(job.row.job.value);
  out.set_state(std::string(core::name(job.row.state)));
  out.set_count(job.row.count);
  out.set_completed(job.row.counts.completed);
  out.set_failed(job.row.counts.failed);
  out.set_cancelled(job.row.counts.cancelled);
  out.set_running(job.running);
  out.set_assigned(job.assigned);
  out.set_paused(job.row.paused);
  out.set_open(job.row.open);
}

ClientSession::ClientSession(ClientSessions& owner, Services& services, Operations& operations, std::string session_id)
    : owner_(owner), s_(services), operations_(operations), session_id_(std::move(session_id)) {}

void ClientSession::begin(SocketPtr socket) {
  socket_ = std::move(socket);
  principal_ = socket_->principal();
  socket_->set_peer(shared_from_this());
  pb::Frame frame;
  pb::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_protocol(wire::kProtocol);
  welcome.set_server_id(s_.queue->server_id());
  welcome.set_incarnation(s_.queue->incarnation());
  welcome.set_heartbeat_ms(static_cast<std::uint32_t>(s_.options.heartbeat.count()));
  welcome.set_lease_ms(static_cast<std::uint32_t>(s_.options.lease.count()));
  welcome.set_inline_limit_bytes(limits::kInline);
  send(frame, false);
}

void ClientSession::resume(SocketPtr socket, const pb::Hello& hello) {
  if (socket_ != nullptr) socket_->close(close_code::normal, "the session went on over a newer connection");
  socket_ = std::move(socket);
  principal_ = socket_->principal();
  socket_->set_peer(shared_from_this());
  writable_ = true;
  std::vector<std::string> unsent;
  session_.resend(hello.received(), unsent);
  pb::Frame frame;
  pb::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_protocol(wire::kProtocol);
  welcome.set_server_id(s_.queue->server_id());
  welcome.set_incarnation(s_.queue->incarnation());
  welcome.set_resumed(true);
  welcome.set_received(session_.received());
  welcome.set_heartbeat_ms(static_cast<std::uint32_t>(s_.options.heartbeat.count()));
  welcome.set_lease_ms(static_cast<std::uint32_t>(s_.options.lease.count()));
  welcome.set_inline_limit_bytes(limits::kInline);
  send(frame, false);
  for (std::string& bytes : unsent) writable_ = socket_->send(std::move(bytes), true);
  go_on();
}

void ClientSession::retire(std::uint16_t close_code, const std::string& why) {
  if (retired_) return;
  const auto self = shared_from_this();
  retired_ = true;
  for (const auto& [job, following] : following_) owner_.unfollowed(job, this);
  following_.clear();
  owner_.dropped(this);
  if (socket_ != nullptr) socket_->close(close_code, why);
  socket_ = nullptr;
}

void ClientSession::revoked(const Error& why) {
  const auto self = shared_from_this();
  refuse(why, true);
  retire(close_code::policy, why.message.substr(0, 120));
}

void ClientSession::closed(const Error&) {
  socket_ = nullptr;
  away_since_ = s_.clock.now().mono;
}

void ClientSession::tick(Now now) {
  if (socket_ == nullptr) {
    if (now.mono - away_since_ > std::chrono::duration_cast<Micros>(s_.options.lease)) retire(close_code::normal, "");
    return;
  }
  if (retry_at_ && now.mono >= *retry_at_) retry();
  if (session_.owes_ack() || now.mono - spoke_ > std::chrono::duration_cast<Micros>(s_.options.heartbeat)) {
    pb::Frame frame;
    frame.mutable_only_ack();
    send(frame, false);
  }
}

void ClientSession::say_goodbye(const std::string& reason) {
  pb::Frame frame;
  frame.mutable_goodbye()->set_reason(reason);
  send(frame, false);
}

void ClientSession::message(std::string bytes, bool binary) {
  pb::Frame& frame = owner_.scratch();
  auto verdict = read_frame(session_, bytes, binary, frame);
  if (!verdict) return refuse(verdict.error(), false);
  if (*verdict == wire::Session::Verdict::repeat) return;
  if (*verdict == wire::Session::Verdict::gap) {
    const auto self = shared_from_this();
    socket_->close(close_code::protocol, std::string(kGapReason));
    return closed({ErrorClass::invalid_argument, std::string(kGapReason)});
  }
  switch (frame.body_case()) {
    case pb::Frame::kRequest:
      request(*frame.mutable_request());
      break;
    case pb::Frame::kHeartbeat: {
      pb::Frame echo;
      echo.mutable_heartbeat()->set_sent_us(frame.heartbeat().sent_us());
      send(echo, false);
      break;
    }
    case pb::Frame::kOnlyAck:
      break;
    case pb::Frame::kError:
      break;
    case pb::Frame::kGoodbye:
      return retire(close_code::normal, "goodbye");
    default:
      refuse({ErrorClass::invalid_argument, "A client does not send this kind of frame."}, false);
      break;
  }
  if (!following_.empty()) go_on();  // its acknowledgement may have made room
}

void ClientSession::request(pb::Request& request) {
  const std::uint64_t id = request.id();
  static const google::protobuf::Descriptor* descriptor = pb::Request::descriptor();
  const auto* field = descriptor->FindFieldByNumber(static_cast<int>(request.op_case()));
  if (request.op_case() == pb::Request::OP_NOT_SET || field == nullptr) {
    return answer(id, Error{ErrorClass::invalid_argument, "This request has no operation that protocol 1 knows."});
  }
  if (auto may = authorize_message(frame_rules(), principal_, "request." + field->name(), {"job"}); !may)
    return answer(id, may.error());
  const auto self = shared_from_this();
  switch (request.op_case()) {
    case pb::Request::kSubmit:
      return submit(id, *request.mutable_submit());
    case pb::Request::kFollow:
      return follow(id, request.follow());
    case pb::Request::kCancel: {
      const pb::CancelRequest& cancel = request.cancel();
      return operations_.cancel(principal_, cancel.job_id(),
                                cancel.one_task() ? std::optional(cancel.index()) : std::nullopt, cancel.reason(),
                                then_status(id, cancel.job_id()));
    }
    case pb::Request::kRetry:
      return operations_.retry(principal_, request.retry().job_id(), {}, then_status(id, request.retry().job_id()));
    case pb::Request::kPause:
      return pause(id, request.pause());
    case pb::Request::kExtend:
      return extend(id, *request.mutable_extend());
    case pb::Request::kStatus:
      return operations_.status(principal_, request.status().job_id(),
                                [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
    case pb::Request::kUnfollow:
      return s_.jobs->resolve(request.unfollow().job_id(), [this, self, id](Result<JobMetaPtr> meta) {
        if (!meta) return answer(id, meta.error());
        following_.erase((*meta)->job);
        owner_.unfollowed((*meta)->job, this);
        answer_status(id, *meta, false);
      });
    case pb::Request::OP_NOT_SET:
      break;
  }
}

Done<std::uint32_t> ClientSession::then_status(std::uint64_t id, const std::string& job) {
  return [this, self = shared_from_this(), id, job](Result<std::uint32_t> n) {
    if (!n) return answer(id, n.error());
    operations_.status(principal_, job, [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
  };
}

void ClientSession::pause(std::uint64_t id, const pb::PauseRequest& request) {
  Operations::Pause what{.index = request.one_task() ? std::optional(request.index()) : std::nullopt};
  what.pause = request.how() != pb::PAUSE_RESUME;
  what.freeze = request.how() == pb::PAUSE_FREEZE;
  what.requeue = request.how() == pb::PAUSE_REQUEUE;
  operations_.pause(principal_, request.job_id(), what, then_status(id, request.job_id()));
}

void ClientSession::extend(std::uint64_t id, pb::ExtendRequest& request) {
  operations_.extend(principal_, request.job_id(),
                     {.pages = take_pages(*request.mutable_payloads()),
                      .count = request.count(),
                      .close = request.close(),
                      .key = request.key()},
                     then_status(id, request.job_id()));
}

void ClientSession::submit(std::uint64_t id, pb::SubmitJob& in) {
  SubmitInput input;
  input.pages = take_pages(*in.mutable_payloads());
  input.spec = std::move(*in.mutable_spec());
  operations_.submit(principal_, std::move(input),
                     [this, self = shared_from_this(), id, follow = in.follow()](Result<SubmitAnswer> submitted) {
                       if (retired_) return;
                       if (!submitted) return answer(id, submitted.error());
                       answer_status(id, submitted->meta, submitted->existed);
                       if (follow) start_following(submitted->meta, !submitted->existed, nullptr);
                     });
}

// The figures of a submit's answer are those of a new job; who wants more asks for the status.
void ClientSession::answer_status(std::uint64_t id, const JobMetaPtr& meta, bool existed) {
  pb::Frame frame;
  pb::Response& response = *frame.mutable_response();
  response.set_id(id);
  response.set_existed(existed);
  pb::JobStatus& job = *response.mutable_job();
  job.set_job(meta->job.value);
  job.set_job_id(meta->id);
  job.set_count(meta->count);
  job.set_state("pending");
  send(frame, true);
}

void ClientSession::answer(std::uint64_t id, const Result<JobFigures>& job, bool existed) {
  if (retired_) return;
  pb::Frame frame;
  pb::Response& response = *frame.mutable_response();
  response.set_id(id);
  response.set_existed(existed);
  if (job) {
    to_wire(*job, *response.mutable_job());
  } else {
    response.mutable_error()->set_code(std::string(code(job.error().cls)));
    response.mutable_error()->set_message(job.error().message);
    response.mutable_error()->set_details_json(job.error().details);
  }
  send(frame, true);
}

void ClientSession::send(pb::Frame& frame, bool numbered) {
  std::string bytes = numbered ? session_.number(frame) : session_.unnumbered(frame);
  if (socket_ != nullptr && socket_->open()) {
    spoke_ = s_.clock.now().mono;
    writable_ = socket_->send(std::move(bytes), true);
  }
  if (session_.full()) {
    spdlog::warn("a client does not read what is sent to it; closing its session");
    s_.post([self = shared_from_this()] {
      self->retire(close_code::try_again, "the client does not read what is sent to it");
    });
  }
}

void ClientSession::refuse(const Error& error, bool fatal) {
  pb::Frame frame = error_frame(error, fatal);
  send(frame, false);
}

}  // namespace grange::server
