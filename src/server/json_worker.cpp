// The side of the JSON dialect that serves workers.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "server/json_sessions.hpp"
#include "server/text.hpp"

namespace grange::server {

void JsonSession::register_worker(const wire::JsonMessage& message, bool asks_for_task) {
  if (asks_for_task) asked_ = true;
  if (worker_ == Worker::yes) {
    if (owed_) settled();  // it asks for work, so it is not at work
    if (asks_for_task) say_no_task();
    return;
  }
  if (worker_ == Worker::joining) return;
  std::string id = message.worker_id;
  if (id.empty())
    return refuse(
        {ErrorClass::invalid_argument, "\"worker_id\" is missing: a name that stays the same for this worker."}, "");
  if (!valid_name(id))
    return refuse({ErrorClass::invalid_argument, "A worker_id has no characters that cannot be seen."}, "");
  if (owner_.workers_.full())
    return refuse({ErrorClass::rate_limited, fmt::format("This server takes {} workers.", limits::kWorkers)}, "");
  worker_ = Worker::joining;
  owner_.workers_.claim(id, [self = shared_from_this(), id](Result<> granted) {
    if (!granted || self->socket_ == nullptr) {
      self->worker_ = Worker::no;
      if (!granted) self->refuse(granted.error(), "");
      return;
    }
    self->worker_id_ = id;
    self->owner_.workers_.hold(id);
    pb::Manifest manifest;
    manifest.set_slots(1);
    manifest.set_cpus_milli(1000);
    manifest.add_engines(std::string(kPythonJson));
    manifest.set_sandbox("unknown");
    manifest.add_notes("speaks the JSON dialect: runs Python jobs with JSON arguments only");
    queue::HelloCall call;
    call.body = {.id = id, .name = id, .manifest = manifest.SerializeAsString()};
    // What it has is not known: it does not say. A seed's worker runs one task at a time.
    call.capacity = {.slots = 1,
                     .cpus_milli = 1'000'000,
                     .gpus_milli = 0,
                     .memory = 1ull << 50,
                     .disk = 1ull << 50,
                     .engines = {std::string(kPythonJson)}};
    label_as(call.capacity, id);
    call.window = 1;
    call.resumable = false;
    call.done = [weak = self->weak_from_this(), post = self->s_.post,
                 queue = self->s_.queue](Result<queue::HelloCall::Answer> answer) {
      post([weak, queue, answer = std::move(answer)] {
        const auto me = weak.lock();
        if (me == nullptr || me->socket_ == nullptr) {
          if (answer) queue->gone(answer->worker, answer->session, true);
          return;
        }
        if (!answer) {
          me->worker_ = Worker::no;
          me->owner_.workers_.let_go(me->worker_id_);
          return me->refuse(answer.error(), "");
        }
        me->number_ = answer->worker;
        me->queue_session_ = answer->session;
        me->worker_ = Worker::yes;
        me->figures_.window = 1;
        me->alive();
        me->owner_.here_.insert(me.get());
        me->s_.workers->bind(me->number_, me);
        if (me->asked_) me->say_no_task();
      });
    };
    self->s_.queue->hello(std::move(call));
  });
}

// A task_request is answered by a task when there is one; else by no_task, and by a task as soon as there is one.
void JsonSession::say_no_task() {
  asked_ = false;
  if (held_) return;
  s_.queue->inspect([weak = weak_from_this(), post = s_.post, number = number_](const core::Farm&, Now) {
    // Behind the deliveries of the steps before it.
    post([weak] {
      const auto self = weak.lock();
      if (self != nullptr && !self->held_) self->send(wire::json_frame("no_task", "", self->worker_id_, "{}"));
    });
  });
}

void JsonSession::assign(queue::Assign& assign, const JobMetaPtr&) {
  const Fence fence = assign.fence;
  // Its cancellation stands behind this in the same delivery.
  if (held_ && held_->sent) owed_ = std::move(held_);
  held_ = Held{.fence = fence,
               .job_id = {},
               .name = {},
               .by_number = fmt::format("{}/{}", fence.task.job().value, fence.task.index()),
               .since = {},
               .sent = false,
               .args = std::move(assign.args),
               .args_sha256 = std::move(assign.args_sha256)};
  if (!owed_) hand_out();
}

// Reads what the task needs, and sends it.
void JsonSession::hand_out() {
  const Fence fence = held_->fence;
  const auto self = shared_from_this();
  const auto give_back = [self, fence](const Error& why) {
    if (self->log_.take(self->s_.clock.now().mono)) {
      spdlog::warn("worker {}: task {}/{} cannot be handed out: {}", for_log(self->worker_id_), fence.task.job().value,
                   fence.task.index(), for_log(why.message));
    }
    if (self->held_ && self->held_->fence == fence) self->held_.reset();
    queue::ReportCall call;
    call.worker = self->number_;
    queue::ResultReport& report = call.results.emplace_back();
    report.fence = fence;
    report.ok = false;
    report.failure = core::FailureClass::engine;
    report.stage = report.body.stage = core::Stage::download;
    report.body.message = why.message;
    self->s_.queue->report(std::move(call));
  };
  struct Pending {
    std::string args, args_sha256;
  };
  auto pending = std::make_shared<Pending>(Pending{std::move(held_->args), std::move(held_->args_sha256)});
  s_.jobs->with(fence.task.job(), [self, fence, pending, give_back](Result<JobMetaPtr> meta) {
    if (!meta) return give_back(meta.error());
    const auto go = [self, fence, pending, meta = *meta, give_back](Result<JsonSessions::Code> code) {
      if (!code) return give_back(code.error());
      if (self->socket_ == nullptr || !self->held_ || !(self->held_->fence == fence)) return;
      Held& held = *self->held_;
      held.job_id = meta->id;
      held.name = fmt::format("{}/{}", meta->id, fence.task.index());
      held.since = self->s_.clock.now().mono;
      held.sent = true;
      self->busy(true);
      self->owner_.output_.started(fence, self->number_);
      queue::ReportCall call;
      call.worker = self->number_;
      call.started.push_back(fence);
      self->s_.queue->report(std::move(call));
      self->send(wire::json_assign({.job_id = meta->id,
                                    .worker_id = self->worker_id_,
                                    .task = held.name,
                                    .function = meta->spec->python().function(),
                                    .code_hex = **code,
                                    .args_json = pending->args,
                                    .attempt = fence.attempt,
                                    .epoch = fence.epoch}));
    };
    const std::string code_sha256 = (*meta)->spec->python().code_sha256();
    if (pending->args_sha256.empty()) return self->owner_.code(code_sha256, go);
    self->s_.files->read<std::string>(
        [blobs = self->s_.blobs, pending](store::Reader&) { return blobs->get(pending->args_sha256); },
        [self, pending, code_sha256, go, give_back](Result<std::string> args) {
          if (!args) return give_back(args.error());
          pending->args = std::move(*args);
          self->owner_.code(code_sha256, go);
        });
  });
}

// The dialect cannot stop a task that runs: until the worker has ended it, it gets no other.
void JsonSession::cancel(const queue::Order& order) {
  if (!held_ || held_->fence.task != order.task || held_->fence.attempt != order.attempt) return;
  if (held_->sent) owed_ = std::move(held_);
  held_.reset();
}

// What waits behind a cancelled task can go to another worker.
void JsonSession::take_back(const queue::Order& order) {
  if (!owed_ || !held_ || held_->sent || held_->fence.task != order.task) return;
  queue::ReportCall call;
  call.worker = number_;
  call.returned.push_back(held_->fence);
  held_.reset();
  s_.queue->report(std::move(call));
}

void JsonSession::settled() {
  owed_.reset();
  busy(false);
  if (held_ && !held_->sent) hand_out();
}

void JsonSession::busy(bool yes) {
  figures_.running = yes ? 1 : 0;
  if (socket_ != nullptr) socket_->set_idle(yes ? limits::kJsonWorkerSilence : limits::kIdle);
}

void JsonSession::acknowledge(const queue::AckOrder& ack) {
  if (ack.accepted) return;
  refuse({ErrorClass::stale,
          fmt::format("The result of task {}/{}, attempt {}, came too late: it is not this worker's any more.",
                      ack.task.job().value, ack.task.index(), ack.attempt)},
         "");
}

// Is it about this task? What is not said does not speak against it; a bare index means something only beside the job.
bool JsonSession::about(const Held& held, const std::string& job, const std::string& task) {
  const bool right_job = job == held.job_id || job == std::to_string(held.fence.task.job().value);
  if (!job.empty() && !right_job) return false;
  return task.empty() || task == held.name || task == held.by_number ||
         (right_job && task == std::to_string(held.fence.task.index()));
}

Result<Fence> JsonSession::fence_of(const wire::JsonTaskRef& ref, const std::string& job) const {
  if (worker_ != Worker::yes) return Error{ErrorClass::invalid_argument, "Send register_worker first."};
  if (!held_ || !held_->sent) return Error{ErrorClass::stale, "This worker holds no task."};
  if (!about(*held_, job, ref.task)) {
    return Error{ErrorClass::stale,
                 fmt::format("This worker holds task {} of job {}; what came is about {}{}{}.", held_->name,
                             held_->job_id, ref.task.empty() ? "another" : "\"" + ref.task.substr(0, 256) + "\"",
                             job.empty() ? "" : " of job ", job)};
  }
  if ((ref.attempt && *ref.attempt != held_->fence.attempt) || (ref.epoch && *ref.epoch != held_->fence.epoch)) {
    return Error{ErrorClass::stale, fmt::format("This worker holds attempt {} of the task; what came is about another.",
                                                held_->fence.attempt)};
  }
  return held_->fence;
}

// The end of a task that was cancelled while the worker ran it: nobody wants it, but now the worker is free. While
// one is owed nothing else was handed out, so an end that names no task can only be this one's.
bool JsonSession::ends_owed(const wire::JsonTaskRef& ref, const std::string& job) const {
  return owed_ && about(*owed_, job, ref.task) && (!ref.attempt || *ref.attempt == owed_->fence.attempt) &&
         (!ref.epoch || *ref.epoch == owed_->fence.epoch);
}

void JsonSession::task_end(const wire::JsonMessage& message) {
  auto end = wire::read_task_end(message);
  if (!end) return refuse(end.error(), message.job_id);
  if (ends_owed(end->ref, message.job_id)) return settled();
  auto fence = fence_of(end->ref, message.job_id);
  if (!fence) return refuse(fence.error(), message.job_id);
  queue::ResultReport report;
  report.fence = *fence;
  report.ok = end->ok;
  report.permanent = end->permanent;
  report.run_us = static_cast<std::uint64_t>(std::max<std::int64_t>(0, (s_.clock.now().mono - held_->since).count()));
  if (end->ok) {
    report.body.value = std::move(end->result);
    if (report.body.value.size() > limits::kInline) {
      report.ok = false;
      report.permanent = true;
      report.failure = core::FailureClass::refused;
      report.body.message = fmt::format("The result has {} bytes; the JSON dialect carries {}.",
                                        report.body.value.size(), limits::kInline);
      report.body.value.clear();
    }
  } else {
    report.failure = core::FailureClass::exception;
    report.stage = report.body.stage = core::Stage::execute;
    report.body.message = cut_utf8(std::move(end->message), limits::kMessageBytes);
    report.body.traceback = cut_utf8(std::move(end->traceback), limits::kTracebackBytes);
  }
  held_.reset();
  busy(false);
  queue::ReportCall call;
  call.worker = number_;
  call.results.push_back(std::move(report));
  s_.queue->report(std::move(call));
}

void JsonSession::progress(const wire::JsonMessage& message) {
  auto read = wire::read_progress(message);
  if (!read) return refuse(read.error(), message.job_id);
  if (ends_owed(read->ref, message.job_id)) return;  // of a task that nobody waits for
  auto fence = fence_of(read->ref, message.job_id);
  if (!fence) return refuse(fence.error(), message.job_id);
  owner_.output_.progress(*fence, number_, read->done, read->total, cut_utf8(read->text, 1024));
}

void JsonSession::lost() {
  held_.reset();
  owed_.reset();
  if (socket_ == nullptr) return;
  const auto self = shared_from_this();
  refuse({ErrorClass::timeout, "The lease ended: no sign of life in time. Register again."}, "");
  socket_->close(close_code::try_again, "the lease ended");
  closed({ErrorClass::timeout, "the lease ended"});
}

void JsonSession::alive() {
  const Now now = s_.clock.now();
  figures_.seen = now.wall;
  heard_ = now.mono;
  renew(now);
}

// Its lease lives as long as the connection is open and was not silent for too long. A worker that runs a task need
// not speak for a good while: a plain loop answers no ping meanwhile.
void JsonSession::renew(Now now) {
  if (worker_ != Worker::yes || socket_ == nullptr || !socket_->open()) return;
  const auto heartbeat = std::chrono::duration_cast<Micros>(s_.options.heartbeat);
  if (now.mono - heard_ > heartbeat && now.mono - asked_life_ > heartbeat) {
    asked_life_ = now.mono;
    socket_->ping();
  }
  if (now.mono - renewed_ < std::chrono::duration_cast<Micros>(s_.options.lease) / 30) return;
  const bool runs = owed_ || (held_ && held_->sent);
  if (now.mono - heard_ >= std::chrono::duration_cast<Micros>(runs ? limits::kJsonWorkerSilence : limits::kIdle))
    return;
  renewed_ = now.mono;
  s_.queue->alive(number_);
}

void JsonSessions::tick(Now now) {
  for (JsonSession* session : here_) session->renew(now);
  for (const auto& [session, job] : std::exchange(later_, {})) {
    if (const auto self = session.lock()) self->look_for_end(job);
  }
}

}  // namespace grange::server
