#include "server/client_sessions.hpp"

#include <spdlog/spdlog.h>

#include "server/worker_codec.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kOutcomesFrame = limits::kFrame / 4;  // a frame of outcomes is sent when it has grown to this
constexpr std::size_t kSessions = limits::kConnections;
constexpr std::size_t kFollowedJobs = 10'000;
constexpr Micros kRetry{500'000};  // after a look at the store that failed

void fill(pb::Outcome& out, const core::ResultBody& body) {
  if (!body.value.empty()) out.set_value(body.value);
  if (!body.value_sha256.empty()) out.set_value_sha256(body.value_sha256);
  if (!body.message.empty()) out.set_message(body.message);
  if (!body.traceback.empty()) out.set_traceback(body.traceback);
  out.set_exit_code(body.exit_code);
  if (!body.files.empty()) {
    pb::TaskResult only;
    if (only.ParseFromString(body.files)) out.mutable_files()->Swap(only.mutable_files());
  }
}

std::size_t size_of(const core::ResultBody& body) {
  return 64 + body.value.size() + body.message.size() + body.traceback.size() + body.files.size();
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
}

// ---------------------------------------------------------------------------------------------------- all of them

void ClientSessions::hello(SocketPtr socket, const pb::Frame& frame) {
  const pb::Hello& hello = frame.hello();
  if (const auto it = sessions_.find(hello.session_id()); it != sessions_.end()) {
    const auto session = it->second;
    if (session->can_resume(hello)) return session->resume(std::move(socket), hello);
    session->retire(close_code::normal, "");
  }
  if (sessions_.size() >= kSessions) return socket->close(close_code::try_again, "too many sessions");
  const auto session = std::make_shared<ClientSession>(*this, s_, operations_, hello.session_id());
  sessions_[hello.session_id()] = session;
  session->begin(std::move(socket));
}

void ClientSessions::deliver(const queue::Delivery& delivery) {
  if (followers_.empty()) return;
  std::vector<std::shared_ptr<ClientSession>> touched;
  JobNo job{};
  std::vector<std::shared_ptr<ClientSession>>* list = nullptr;
  const auto of = [&](JobNo wanted) {
    if (wanted == job) return list;
    job = wanted;
    const auto it = followers_.find(wanted);
    list = it == followers_.end() ? nullptr : &it->second;
    return list;
  };
  for (const queue::Ended& ended : delivery.ended) {
    if (of(ended.task.job()) == nullptr) continue;
    for (const auto& session : *list) {
      session->outcome(ended);
      if (!session->touched) {
        session->touched = true;
        touched.push_back(session);
      }
    }
  }
  for (const auto& session : touched) {
    session->touched = false;
    session->flush();
  }
  for (const queue::JobChange& change : delivery.jobs) {
    const auto it = followers_.find(change.job);
    if (it == followers_.end()) continue;
    const auto copy = it->second;  // finishing takes followers off the list
    for (const auto& session : copy) session->job_changed(change);
  }
}

void ClientSessions::tick(Now now) {
  std::vector<std::shared_ptr<ClientSession>> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  for (const auto& session : all) session->tick(now);
}

void ClientSessions::goodbye_all(const std::string& reason) {
  for (const auto& [id, session] : sessions_) session->say_goodbye(reason);
}

void ClientSessions::followed(JobNo job, const std::shared_ptr<ClientSession>& session) {
  followers_[job].push_back(session);
}

void ClientSessions::unfollowed(JobNo job, const ClientSession* session) {
  const auto it = followers_.find(job);
  if (it == followers_.end()) return;
  std::erase_if(it->second, [session](const auto& one) { return one.get() == session; });
  if (it->second.empty()) followers_.erase(it);
}

void ClientSessions::dropped(const ClientSession* session) {
  const auto it = sessions_.find(session->session_id());
  if (it != sessions_.end() && it->second.get() == session) sessions_.erase(it);
}

// ---------------------------------------------------------------------------------------------------- one of them

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
  if (!binary)
    return refuse({ErrorClass::invalid_argument, "This session speaks Protobuf; text frames are for the JSON dialect."},
                  false);
  pb::Frame& frame = owner_.scratch();
  if (auto read = wire::decode(bytes, frame); !read) return refuse(read.error(), false);
  switch (session_.arrived(frame)) {
    case wire::Session::Verdict::repeat:
      return;
    case wire::Session::Verdict::gap: {
      const auto self = shared_from_this();
      socket_->close(close_code::protocol, "a frame is missing; connect again to resume");
      return closed({ErrorClass::invalid_argument, "a frame is missing"});
    }
    case wire::Session::Verdict::fresh:
      break;
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
      const std::string job = cancel.job_id();
      return operations_.cancel(
          principal_, job, cancel.one_task() ? std::optional(cancel.index()) : std::nullopt, cancel.reason(),
          [this, self, id, job](Result<std::uint32_t> n) {
            if (!n) return answer(id, n.error());
            operations_.status(principal_, job, [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
          });
    }
    case pb::Request::kRetry: {
      const std::string job = request.retry().job_id();
      return operations_.retry(principal_, job, [this, self, id, job](Result<std::uint32_t> n) {
        if (!n) return answer(id, n.error());
        operations_.status(principal_, job, [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
      });
    }
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

void ClientSession::submit(std::uint64_t id, pb::SubmitJob& in) {
  SubmitInput input;
  input.pages.reserve(static_cast<std::size_t>(in.payloads_size()));
  for (pb::Payload& payload : *in.mutable_payloads()) {
    input.pages.push_back({.first = payload.first(),
                           .sizes = {payload.sizes().begin(), payload.sizes().end()},
                           .bytes = std::move(*payload.mutable_bytes())});
  }
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

// ---------------------------------------------------------------------------------------------------- following

void ClientSession::follow(std::uint64_t id, const pb::FollowRequest& request) {
  if (request.have_first_size() != request.have_end_size()) {
    return answer(id, Error{ErrorClass::invalid_argument, "have_first and have_end must have the same length."});
  }
  s_.jobs->resolve(request.job_id(), [this, self = shared_from_this(), id, request](Result<JobMetaPtr> meta) {
    if (retired_) return;
    if (!meta) return answer(id, meta.error());
    operations_.status_of((*meta)->job, [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
    start_following(*meta, false, &request);
  });
}

void ClientSession::start_following(const JobMetaPtr& meta, bool complete_so_far, const pb::FollowRequest* request) {
  if (following_.contains(meta->job)) return;
  if (following_.size() >= kFollowedJobs)
    return refuse({ErrorClass::rate_limited, "One session follows at most 10,000 jobs."}, false);
  Following following{.meta = meta, .follow = Follow(meta->count, complete_so_far), .ended = {}};
  for (int i = 0; request != nullptr && i < request->have_first_size(); ++i)
    following.follow.has(request->have_first(i), request->have_end(i));
  following_.emplace(meta->job, std::move(following));
  owner_.followed(meta->job, shared_from_this());
  if (complete_so_far) return;
  look_for_end(meta->job);
}

// From now on its changes are heard; whether it had ended before is the store's to say.
void ClientSession::look_for_end(JobNo job) {
  operations_.status_of(job, [this, self = shared_from_this(), job](Result<JobFigures> figures) {
    const auto it = following_.find(job);
    if (it == following_.end() || retired_) return;
    if (!figures) {
      if (figures.error().cls == ErrorClass::not_found) {  // deleted meanwhile: there is nothing to follow
        refuse(figures.error(), false);
        following_.erase(it);
        return owner_.unfollowed(job, this);
      }
      it->second.look_again = true;
      return try_later();
    }
    if (core::ended(figures->row.state) && !it->second.ended) {
      to_wire(*figures, it->second.ended.emplace());
      it->second.follow.job_ended();
    }
    go_on();
  });
}

// A look at the store failed: too many questions wait there, or worse. The tick asks again.
void ClientSession::try_later() {
  if (!retry_at_) retry_at_ = s_.clock.now().mono + kRetry;
}

void ClientSession::retry() {
  retry_at_.reset();
  std::vector<JobNo> jobs;
  for (auto& [job, following] : following_) {
    if (std::exchange(following.look_again, false) && !following.ended) jobs.push_back(job);
  }
  for (const JobNo job : jobs) look_for_end(job);
  go_on();
}

bool ClientSession::can_send() const {
  return writable_ && session_.waiting_bytes() < limits::kOutboxBytes / 2 &&
         session_.waiting() < limits::kOutboxFrames / 2;
}

// A place for one more outcome of a job in the frame at hand.
pb::Outcome& ClientSession::next_outcome(const Following& f, std::size_t bytes) {
  if (out_.outcomes().job() != f.meta->job.value || out_bytes_ + bytes > kOutcomesFrame) flush();
  pb::Outcomes& outcomes = *out_.mutable_outcomes();
  if (outcomes.job() == 0) {
    outcomes.set_job(f.meta->job.value);
    outcomes.set_job_id(f.meta->id);
  }
  out_bytes_ += bytes;
  return *outcomes.add_outcomes();
}

void ClientSession::flush() {
  if (out_bytes_ == 0) return;
  send(out_, true);
  out_.mutable_outcomes()->Clear();
  out_bytes_ = 0;
}

void ClientSession::outcome(const queue::Ended& ended) {
  const auto it = following_.find(ended.task.job());
  if (it == following_.end() || !it->second.follow.take(ended.task.index(), can_send())) return;
  pb::Outcome& out = next_outcome(it->second, ended.body == nullptr ? 64 : size_of(*ended.body));
  out.set_index(ended.task.index());
  out.set_end(static_cast<pb::TaskEnd>(ended.end));
  out.set_failure(to_wire(ended.failure));
  out.set_attempt(ended.attempt);
  out.set_run_us(ended.run_us);
  if (ended.worker.value != 0) out.set_worker(s_.workers->name_of(ended.worker));
  if (ended.body != nullptr) fill(out, *ended.body);
}

void ClientSession::job_changed(const queue::JobChange& change) {
  if (!core::ended(change.state)) return;
  const auto it = following_.find(change.job);
  if (it == following_.end()) return;
  pb::JobStatus& status = it->second.ended.emplace();
  status.set_job_id(it->second.meta->id);
  status.set_job(change.job.value);
  status.set_state(std::string(core::name(change.state)));
  status.set_count(change.count);
  status.set_completed(change.counts.completed);
  status.set_failed(change.counts.failed);
  status.set_cancelled(change.counts.cancelled);
  it->second.follow.job_ended();
  go_on();
}

void ClientSession::go_on() {
  if (retired_ || !can_send()) return;
  std::vector<JobNo> jobs;
  for (const auto& [job, following] : following_) {
    if (following.follow.finished() || following.follow.behind()) jobs.push_back(job);
  }
  for (const JobNo job : jobs) {
    const auto it = following_.find(job);
    if (it == following_.end()) continue;
    if (it->second.follow.finished()) {
      finish(job);
    } else if (const auto from = it->second.follow.begin_sweep()) {
      sweep(job, *from);
    }
  }
}

void ClientSession::sweep(JobNo job, std::uint32_t from) {
  const auto it = following_.find(job);
  if (it == following_.end()) return;
  const std::uint32_t limit = it->second.page;
  s_.readers->read<std::vector<store::OutcomeRow>>(
      [job, from, limit](store::Reader& reader) { return reader.outcomes(job, from, limit, true); },
      [this, self = shared_from_this(), job, from, limit](Result<std::vector<store::OutcomeRow>> rows) {
        swept(job, from, limit, std::move(rows));
      });
}

void ClientSession::swept(JobNo job, std::uint32_t from, std::uint32_t limit,
                          Result<std::vector<store::OutcomeRow>> rows) {
  const auto it = following_.find(job);
  if (it == following_.end() || retired_) return;
  Following& f = it->second;
  if (!rows) {
    f.follow.pause_sweep();
    try_later();
    if (rows.error().cls == ErrorClass::rate_limited) return;
    return refuse(rows.error(), false);
  }
  std::size_t bytes = 0;
  for (const store::OutcomeRow& row : *rows) {
    bytes += size_of(row.body);
    if (!f.follow.take(row.task.index(), can_send())) continue;
    pb::Outcome& out = next_outcome(f, size_of(row.body));
    out.set_index(row.task.index());
    out.set_end(static_cast<pb::TaskEnd>(row.end));
    out.set_failure(to_wire(row.failure));
    out.set_attempt(row.attempt);
    out.set_run_us(row.run_us);
    if (row.worker.value != 0) out.set_worker(s_.workers->name_of(row.worker));
    fill(out, row.body);
  }
  flush();
  f.page = bytes > 8 * MiB ? std::max(16u, f.page / 2) : std::min(4096u, f.page * 2);
  if (!can_send()) return f.follow.pause_sweep();
  const std::uint32_t reached = rows->empty() ? from : rows->back().task.index() + 1;
  const auto next = rows->size() < limit ? std::nullopt : f.follow.sweep_on(reached);
  if (next) return sweep(job, *next);
  f.follow.end_sweep();
  go_on();
}

// All that has an outcome was sent. What has none was cancelled before a worker ever had it: said here, then the end.
void ClientSession::finish(JobNo job) {
  const auto it = following_.find(job);
  if (it == following_.end() || !it->second.ended) return;
  Following& f = it->second;
  while (can_send()) {
    const auto range = f.follow.next_unsent(50'000);
    if (!range) break;
    for (std::uint32_t index = range->first; index < range->second; ++index) {
      pb::Outcome& out = next_outcome(f, 16);
      out.set_index(index);
      out.set_end(pb::TASK_CANCELLED);
      out.set_failure(pb::FAILURE_CANCELLED);
    }
    f.follow.has(range->first, range->second);
    flush();
  }
  if (f.follow.sent() < f.follow.count()) return;  // the rest when there is room
  flush();
  pb::Frame frame;
  frame.mutable_outcomes()->set_job(job.value);
  frame.mutable_outcomes()->set_job_id(f.meta->id);
  *frame.mutable_outcomes()->mutable_ended() = *f.ended;
  send(frame, true);
  following_.erase(it);
  owner_.unfollowed(job, this);
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
  pb::Frame frame;
  frame.mutable_error()->set_code(std::string(code(error.cls)));
  frame.mutable_error()->set_message(error.message);
  frame.mutable_error()->set_details_json(error.details);
  frame.mutable_error()->set_fatal(fatal);
  send(frame, false);
}

}  // namespace grange::server
