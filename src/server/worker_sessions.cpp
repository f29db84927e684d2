#include "server/worker_sessions.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "server/api/validate.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Micros kAnswer{5'000'000};  // how long an old session has to show that it lives

Error taken(const std::string& worker_id) {
  return Error{ErrorClass::conflict,
               "The worker id \"" + worker_id +
                   "\" is already connected. Give each worker its own --data folder, or stop the other one."};
}

void refuse(const SocketPtr& socket, const Error& error) {
  pb::Frame frame;
  frame.mutable_error()->set_code(std::string(code(error.cls)));
  frame.mutable_error()->set_message(error.message);
  frame.mutable_error()->set_details_json(error.details);
  frame.mutable_error()->set_fatal(true);
  socket->send(wire::encode(frame), true);
  socket->close(close_code::policy, error.message.substr(0, 120));
}

}  // namespace

// ---------------------------------------------------------------------------------------------------- all of them

void WorkerSessions::hello(SocketPtr socket, pb::Frame frame) {
  const pb::Hello& hello = frame.hello();
  const std::string& id = hello.worker().worker_id();
  if (auto may = authorize_message(frame_rules(), socket->principal(), "hello.worker", {"worker", id}); !may)
    return refuse(socket, may.error());
  if (!valid_name(id)) {
    return refuse(socket,
                  {ErrorClass::invalid_argument,
                   fmt::format("A worker id has 1 to {} bytes, and none that cannot be seen.", limits::kNameBytes)});
  }
  if (auto capacity = to_capacity(hello.worker().manifest()); !capacity) return refuse(socket, capacity.error());
  if (static_cast<std::uint32_t>(hello.worker().held_size()) > 2 * limits::kWindow) {
    return refuse(socket, {ErrorClass::too_large, fmt::format("A worker may hold {} attempts.", limits::kWindow)});
  }
  if (const auto it = sessions_.find(id); it != sessions_.end() && it->second->session_id() == hello.session_id()) {
    const auto session = it->second;
    if (session->can_resume(hello)) return session->resume(std::move(socket), hello);
    // The session is the same, but its numbers do not fit (or the lease ended): begin anew, with what the worker says
    // it holds.
    session->retire(close_code::normal, "");
  }
  if (sessions_.size() >= limits::kWorkers) {
    return refuse(socket, {ErrorClass::rate_limited, fmt::format("This server takes {} workers.", limits::kWorkers)});
  }
  auto held_frame = std::make_shared<pb::Frame>(std::move(frame));
  claim(id, [this, socket, held_frame](Result<> granted) {
    if (!granted) return refuse(socket, granted.error());
    if (!socket->open()) return;
    const pb::Hello& h = held_frame->hello();
    const auto session = std::make_shared<WorkerSession>(*this, s_, output_, h.worker().worker_id(), h.session_id());
    sessions_[h.worker().worker_id()] = session;
    session->begin(socket, h);
  });
}

void WorkerSessions::claim(const std::string& worker_id, std::function<void(Result<>)> done) {
  if (json_ids_.contains(worker_id)) return done(taken(worker_id));
  const auto it = sessions_.find(worker_id);
  if (it == sessions_.end()) return done({});
  const auto old = it->second;
  if (!old->connected()) {
    old->retire(close_code::normal, "");
    return done({});
  }
  const Instant now = s_.clock.now().mono;
  const Micros silence = std::chrono::duration_cast<Micros>(s_.options.heartbeat) * 3 / 2;
  old->challenge();
  claims_.emplace_back(
      worker_id,
      Claim{
          .old = old, .asked = now, .until = std::max(now + kAnswer, old->seen() + silence), .done = std::move(done)});
}

void WorkerSessions::tick(Now now) {
  std::vector<std::shared_ptr<WorkerSession>> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  for (const auto& session : all) session->tick(now);
  auto claims = std::move(claims_);
  claims_.clear();
  for (auto& [id, claim] : claims) {
    const auto old = claim.old.lock();
    if (old == nullptr || old->retired() || !old->connected()) {
      if (old != nullptr && !old->retired()) old->retire(close_code::normal, "");
      claim.done(json_ids_.contains(id) || sessions_.contains(id) ? Result<>(taken(id)) : Result<>());
    } else if (old->seen() > claim.asked) {
      claim.done(taken(id));
    } else if (now.mono >= claim.until) {
      old->retire(close_code::policy, "another worker with this id took over");
      claim.done(sessions_.contains(id) ? Result<>(taken(id)) : Result<>());
    } else {
      claims_.emplace_back(id, std::move(claim));
    }
  }
}

void WorkerSessions::goodbye_all(const std::string& reason) {
  for (const auto& [id, session] : sessions_) session->say_goodbye(reason);
}

void WorkerSessions::dropped(const std::string& worker_id, const WorkerSession* session) {
  const auto it = sessions_.find(worker_id);
  if (it != sessions_.end() && it->second.get() == session) sessions_.erase(it);
}

// ---------------------------------------------------------------------------------------------------- one of them

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
  socket_->set_peer(shared_from_this());
  heard_from(hello.worker());
  for (const pb::Held& held : hello.worker().held()) {
    const Fence fence = to_fence(held);
    held_[fence.task] = {.attempt = fence.attempt, .epoch = fence.epoch, .started = held.running()};
  }
  ask_queue(hello, false);
}

bool WorkerSession::can_resume(const pb::Hello& hello) const {
  return !retired_ && number_.value != 0 && session_.can_resend(hello.received());
}

void WorkerSession::resume(SocketPtr socket, const pb::Hello& hello) {
  if (socket_ != nullptr) socket_->close(close_code::normal, "the session went on over a newer connection");
  socket_ = std::move(socket);
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
    if (auto capacity = to_capacity(hello.manifest())) capacity_ = std::move(*capacity);
  }
}

void WorkerSession::ask_queue(const pb::Hello&, bool resumed) {
  queue::HelloCall call;
  call.body = {.id = worker_id_, .name = name_, .manifest = manifest_};
  call.capacity = capacity_;
  call.window = figures_.window;
  for (const auto& [task, held] : held_) call.held.push_back({Fence{task, held.attempt, held.epoch}, held.started});
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
}

void WorkerSession::retire(std::uint16_t close_code, const std::string& tell) {
  if (retired_) return;
  const auto self = shared_from_this();
  retired_ = true;
  if (number_.value != 0) s_.workers->unbind(number_, this);
  owner_.dropped(worker_id_, this);
  if (socket_ != nullptr) {
    socket_->close(close_code, tell.substr(0, 120));
    socket_ = nullptr;
    if (number_.value != 0 && !told_queue_) s_.queue->gone(number_, queue_session_, false);
  }
}

void WorkerSession::say_goodbye(const std::string& reason) {
  if (!connected()) return;
  pb::Frame frame;
  frame.mutable_goodbye()->set_reason(reason);
  send(frame, false);
}

// ---------------------------------------------------------------------------------------------------- orders to it

void WorkerSession::assign(queue::Assign& assign, const JobMetaPtr& meta) {
  const JobNo job = assign.fence.task.job();
  held_[assign.fence.task] = {.attempt = assign.fence.attempt, .epoch = assign.fence.epoch};
  const std::size_t bytes = 48 + assign.args.size() + assign.checkpoint.size();
  if (out_bytes_ + bytes > limits::kFrame / 4 && specs_awaited_ == 0) send_orders();
  if (remember_spec(job)) {
    const auto add = [this](const JobMeta& known) {
      pb::SpecOrder& order = *orders().add_specs();
      order.set_job(known.job.value);
      order.set_job_id(known.id);
      *order.mutable_spec() = *known.spec;
      out_bytes_ += known.bytes + 64;
    };
    if (meta != nullptr) {
      add(*meta);
    } else {
      ++specs_awaited_;
      s_.jobs->with(job, [weak = weak_from_this(), job, add](Result<JobMetaPtr> known) {
        const auto self = weak.lock();
        if (self == nullptr || self->retired_) return;
        --self->specs_awaited_;
        if (known) {
          add(**known);
        } else {
          self->hand_back(job, known.error());
        }
        self->flush();
      });
    }
  }
  pb::Assignment& order = *orders().add_assign();
  order.set_task(assign.fence.task.packed);
  order.set_attempt(assign.fence.attempt);
  order.set_epoch(assign.fence.epoch);
  if (!assign.args.empty()) order.set_args(std::move(assign.args));
  if (!assign.args_sha256.empty()) order.set_args_sha256(std::move(assign.args_sha256));
  if (assign.has_checkpoint) {
    order.set_has_checkpoint(true);
    order.set_checkpoint(std::move(assign.checkpoint));
    order.set_checkpoint_sha256(std::move(assign.checkpoint_sha256));
  }
  out_bytes_ += bytes;
  ++out_items_;
}

// True: the worker is not known to have it. Counts as the worker does (its core forgets the least recently used).
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

// Its spec cannot be read now: what waits for it goes back to the queue instead of to the worker.
void WorkerSession::hand_back(JobNo job, const Error& why) {
  forget_spec(job);
  queue::ReportCall call;
  call.worker = number_;
  auto& waiting = *orders().mutable_assign();
  const auto first = std::stable_partition(waiting.pointer_begin(), waiting.pointer_end(),
                                           [job](const pb::Assignment* a) { return TaskId{a->task()}.job() != job; });
  for (auto it = first; it != waiting.pointer_end(); ++it) {
    const Fence fence{{(*it)->task()}, (*it)->attempt(), (*it)->epoch()};
    held_.erase(fence.task);
    call.returned.push_back(fence);
    --out_items_;
  }
  waiting.DeleteSubrange(static_cast<int>(first - waiting.pointer_begin()), static_cast<int>(call.returned.size()));
  spdlog::error("worker {}: {} tasks of job {} are not sent: {}", worker_id_, call.returned.size(), job.value,
                why.message);
  if (!call.returned.empty()) s_.queue->report(std::move(call));
}

void WorkerSession::cancel(const queue::Order& order) {
  pb::CancelOrder& out = *orders().add_cancel();
  out.set_task(order.task.packed);
  out.set_attempt(order.attempt);
  ++out_items_;
}

void WorkerSession::take_back(const queue::Order& order) {
  orders().add_take_back(order.task.packed);
  ++out_items_;
}

void WorkerSession::acknowledge(const queue::AckOrder& ack) {
  const auto it = held_.find(ack.task);
  if (it != held_.end() && it->second.attempt == ack.attempt) held_.erase(it);
  pb::ResultAck& out = *orders().add_acks();
  out.set_task(ack.task.packed);
  out.set_attempt(ack.attempt);
  out.set_verdict(ack.accepted ? pb::VERDICT_ACCEPTED : pb::VERDICT_STALE);
  ++out_items_;
}

void WorkerSession::drain() {
  draining_ = true;
  orders().set_drain(true);
  ++out_items_;
}

void WorkerSession::flush() {
  if (retired_ || out_items_ == 0 || specs_awaited_ != 0 || number_.value == 0) return;
  send_orders();
}

void WorkerSession::send_orders() {
  send(out_, true);
  out_.mutable_orders()->Clear();  // keeps its memory for the next
  out_bytes_ = 0;
  out_items_ = 0;
  if (session_.full()) {
    // It reads nothing. What it was given comes back to the queue with its next Hello, or when its lease ends.
    spdlog::warn("worker {}: does not read what is sent to it; closing", worker_id_);
    retire(close_code::try_again, "the worker does not read what is sent to it");
  }
}

void WorkerSession::lost() {
  spdlog::warn("worker {}: its lease ended", worker_id_);
  held_.clear();
  retire(close_code::try_again, "the lease ended: no sign of life in time");
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
  pb::Frame frame;
  frame.mutable_error()->set_code(std::string(code(error.cls)));
  frame.mutable_error()->set_message(error.message);
  frame.mutable_error()->set_details_json(error.details);
  frame.mutable_error()->set_fatal(fatal);
  send(frame, false);
}

// ---------------------------------------------------------------------------------------------------- what it says

void WorkerSession::message(std::string bytes, bool binary) {
  alive();
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
    case pb::Frame::kReport:
      if (auto may = authorize_message(frame_rules(), socket_->principal(), "report", {"worker", worker_id_}); !may)
        return refuse(may.error(), true);
      return report(*frame.mutable_report());
    case pb::Frame::kHeartbeat:
      return heartbeat(frame.heartbeat());
    case pb::Frame::kOnlyAck:
      return;
    case pb::Frame::kGoodbye: {
      spdlog::info("worker {}: goodbye{}{}", worker_id_, frame.goodbye().reason().empty() ? "" : ": ",
                   frame.goodbye().reason());
      const auto self = shared_from_this();
      if (number_.value != 0) s_.queue->gone(number_, queue_session_, true);
      told_queue_ = true;
      return retire(close_code::normal, "goodbye");
    }
    case pb::Frame::kBlobRefused:
      spdlog::warn("worker {}: blob {}: {}", worker_id_, frame.blob_refused().sha256(), frame.blob_refused().reason());
      return;
    case pb::Frame::kError:
      spdlog::warn("worker {}: {}", worker_id_, frame.error().message());
      return;
    default:
      return refuse({ErrorClass::invalid_argument, "A worker does not send this kind of frame."}, false);
  }
}

void WorkerSession::report(pb::WorkerReport& in) {
  if (number_.value == 0) return refuse({ErrorClass::invalid_argument, "A report before the Welcome."}, false);
  if (in.draining()) drains_itself();  // before what it returns, which would come straight back
  if (in.logs_size() > 0) logs(in);
  for (const pb::Progress& p : in.progress()) {
    const auto it = held_.find({p.task()});
    if (it == held_.end() || it->second.attempt != p.attempt() || it->second.epoch != p.epoch()) continue;
    output_.progress({{p.task()}, p.attempt(), p.epoch()}, number_, p.done(), p.total(), cut_utf8(p.text(), 1024));
  }
  queue::ReportCall call;
  call.worker = number_;
  call.started.reserve(static_cast<std::size_t>(in.started_size()));
  for (const pb::Fence& fence : in.started()) {
    call.started.push_back(to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it == held_.end() || it->second.attempt != fence.attempt()) continue;
    if (!std::exchange(it->second.started, true)) output_.started(call.started.back(), number_);
  }
  call.results.reserve(static_cast<std::size_t>(in.results_size()));
  for (pb::TaskResult& result : *in.mutable_results()) call.results.push_back(to_report(result, *s_.blobs));
  for (const pb::Fence& fence : in.returned()) {
    call.returned.push_back(to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) held_.erase(it);
    forget_spec(TaskId{fence.task()}.job());  // it may be for want of it
  }
  for (pb::Checkpoint& checkpoint : *in.mutable_checkpoints()) {
    const Fence fence{{checkpoint.task()}, checkpoint.attempt(), checkpoint.epoch()};
    if (checkpoint.data().size() > limits::kInline ||
        (!checkpoint.data_sha256().empty() &&
         (!store::is_sha256(checkpoint.data_sha256()) || !s_.blobs->size(checkpoint.data_sha256())))) {
      refuse({ErrorClass::too_large,
              "A checkpoint was refused: above the inline limit it must be a blob that was uploaded before."},
             false);
      continue;
    }
    call.checkpoints.push_back(
        {fence, {.data = std::move(*checkpoint.mutable_data()), .data_sha256 = checkpoint.data_sha256()}});
  }
  if (in.window() != 0) {
    call.window = std::min(in.window(), limits::kWindow);
    figures_.window = call.window;
  }
  if (!call.started.empty() || !call.results.empty() || !call.returned.empty() || !call.checkpoints.empty() ||
      call.window != 0) {
    s_.queue->report(std::move(call));
  }
}

void WorkerSession::drains_itself() {
  draining_ = true;
  s_.queue->drain(number_);
}

void WorkerSession::logs(pb::WorkerReport& in) {
  const WallMs now = s_.clock.now().wall;
  for (pb::LogChunk& chunk : *in.mutable_logs()) {
    const auto it = held_.find({chunk.task()});
    if (it == held_.end() || it->second.attempt != chunk.attempt() || it->second.epoch != chunk.epoch())
      continue;  // not its task, or no more
    if (chunk.data().empty() || it->second.logged > limits::kLogPerTask) continue;
    std::string& data = *chunk.mutable_data();
    it->second.logged += data.size();
    store::LogLine line{.task = {chunk.task()},
                        .attempt = chunk.attempt(),
                        .stream = static_cast<std::uint8_t>(chunk.stream() & 3),
                        .at = chunk.time_ms() == 0 ? now : WallMs{static_cast<std::int64_t>(chunk.time_ms())},
                        .data = std::move(data)};
    const bool cut = it->second.logged > limits::kLogPerTask;
    const store::LogLine note{
        .task = line.task,
        .attempt = line.attempt,
        .stream = 3,
        .at = line.at,
        .data = fmt::format("The output was cut here: a task may write {} MiB.\n", limits::kLogPerTask / MiB)};
    output_.log(std::move(line));
    if (cut) output_.log(note);
  }
  output_.flush();
}

void WorkerSession::heartbeat(const pb::Heartbeat& beat) {
  figures_.running = beat.running();
  figures_.backlog = beat.backlog();
  figures_.cpu_percent = std::isfinite(beat.cpu_percent()) ? beat.cpu_percent() : 0;
  figures_.memory_used = beat.memory_used_bytes();
  figures_.disk_free = beat.disk_free_bytes();
  const std::uint32_t window = std::min(beat.window(), limits::kWindow);
  if (window != 0 && window != figures_.window && number_.value != 0) {
    figures_.window = window;
    queue::ReportCall call;
    call.worker = number_;
    call.window = window;
    s_.queue->report(std::move(call));
  }
  pb::Frame frame;
  frame.mutable_heartbeat()->set_sent_us(beat.sent_us());
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
  spdlog::info("worker {}: connection lost: {}", worker_id_, why.message);
  socket_ = nullptr;
  welcomed_ = false;
  figures_.connected = false;
  away_since_ = s_.clock.now().mono;
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
  return out;
}

}  // namespace grange::server
