#include "server/json_sessions.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/json/serialize.hpp>

#include "server/api/job_file.hpp"
#include "server/api/views.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kCodeBytes = 64 * MiB;

// All outcomes of a job that ended, as the data of job_result. On a reader's thread.
Result<std::string> read_results(store::Reader& reader, const JobMeta& meta, const store::BlobStore& blobs) {
  auto row = reader.job(meta.job);
  if (!row) return std::move(row).error();
  if (!row->has_value()) return no_such_job(meta.id);
  json::array results(meta.count, nullptr);
  json::array errors;
  std::size_t bytes = 0;
  for (std::uint32_t from = 0; from < meta.count;) {
    auto page = reader.outcomes(meta.job, from, 1000, true);
    if (!page) return std::move(page).error();
    for (const store::OutcomeRow& outcome : *page) {
      const std::uint32_t index = outcome.task.index();
      if (index >= meta.count) continue;
      bytes += outcome.body.value.size() + outcome.body.message.size() + 8;
      if (outcome.end == core::TaskEnd::completed) {
        ValueLook look = look_at_value(meta.spec->encoding(), outcome.body, blobs);
        if (look.in_blob) {
          results[index] = json::object{{"value_sha256", outcome.body.value_sha256}};
        } else if (!look.base64.empty()) {
          bytes += look.base64.size();
          results[index] = json::object{{"value_base64", std::move(look.base64)}};
        } else {
          results[index] = std::move(look.value);
        }
      } else {
        errors.push_back(json::object{{"index", index},
                                      {"failure", core::name(outcome.failure)},
                                      {"message", outcome.body.message},
                                      {"traceback", outcome.body.traceback}});
        bytes += outcome.body.traceback.size() + 64;
      }
    }
    if (bytes > limits::kFrame) {
      return Error{
          ErrorClass::too_large,
          fmt::format(
              "The results of job {} do not fit into one message; read them page by page: GET /api/jobs/{}/results",
              meta.id, meta.id)};
    }
    if (page->size() < 1000) break;
    from = page->back().task.index() + 1;
  }
  const json::object data{{"job_id", meta.id},
                          {"status", core::name((*row)->state)},
                          {"results", std::move(results)},
                          {"errors", std::move(errors)},
                          {"total_tasks", meta.count}};
  return json::serialize(data);
}

}  // namespace

void JsonSessions::begin(const SocketPtr& socket, std::string first) {
  const auto session = std::make_shared<JsonSession>(*this, s_, socket);
  socket->set_peer(session);
  session->message(std::move(first), false);
}

void JsonSessions::code(const std::string& sha256, Done<Code> done) {
  if (const auto it = codes_.find(sha256); it != codes_.end()) return done(it->second);
  s_.files->read<Code>(
      [blobs = s_.blobs, sha256](store::Reader&) -> Result<Code> {
        auto bytes = blobs->get(sha256);
        if (!bytes) return std::move(bytes).error();
        return Code(std::make_shared<std::string>(to_hex(*bytes)));
      },
      [this, sha256, done = std::move(done)](Result<Code> code) {
        if (code && (*code)->size() < kCodeBytes / 4 && !codes_.contains(sha256)) {
          if (code_bytes_ + (*code)->size() > kCodeBytes) {
            codes_.clear();
            code_bytes_ = 0;
          }
          code_bytes_ += (*code)->size();
          codes_[sha256] = *code;
        }
        done(std::move(code));
      });
}

JsonSession::JsonSession(JsonSessions& owner, Services& services, SocketPtr socket)
    : owner_(owner), s_(services), socket_(std::move(socket)), principal_(socket_->principal()) {
  figures_.dialect = "json";
  figures_.peer = socket_->address();
}

void JsonSession::message(std::string bytes, bool binary) {
  if (binary)
    return refuse({ErrorClass::invalid_argument,
                   "This session began with text; Protobuf wants a connection of its own, with Hello first."},
                  "");
  auto message = wire::decode_json(bytes);
  if (!message) return refuse(message.error(), "");
  if (auto may = authorize_message(json_rules(), principal_, message->type, {"message", message->type}); !may)
    return refuse(may.error(), message->job_id);
  act(*message);
}

void JsonSession::act(const wire::JsonMessage& message) {
  using wire::JsonKind;
  switch (message.kind) {
    case JsonKind::submit_job:
      return submit(message);
    case JsonKind::get_job_status:
      return send_status(message.job_id);
    case JsonKind::get_results:
      return owner_.operations_.status(
          principal_, message.job_id,
          [self = shared_from_this(), job = message.job_id, type = message.type](Result<JobFigures> figures) {
            if (!figures) return self->refuse(figures.error(), job);
            if (!core::ended(figures->row.state)) {
              return self->send(wire::json_frame("job_status", job, "", json::serialize(job_json(*figures))));
            }
            self->s_.jobs->with(figures->row.job, [self, type](Result<JobMetaPtr> meta) {
              if (meta) self->send_results(*meta, type == "get_results" ? "job_results" : "job_result");
            });
          });
    case JsonKind::cancel_job:
      return owner_.operations_.cancel(principal_, message.job_id, std::nullopt, "cancelled by a client",
                                       [self = shared_from_this(), job = message.job_id](Result<std::uint32_t> n) {
                                         if (!n) return self->refuse(n.error(), job);
                                         self->send_status(job);
                                       });
    case JsonKind::register_worker:
      return register_worker(message, false);
    case JsonKind::task_request:
      return register_worker(message, true);
    case JsonKind::task_result:
    case JsonKind::task_failure:
      return task_end(message);
    case JsonKind::progress:
      return progress(message);
    case JsonKind::heartbeat:
      return send(wire::json_frame("heartbeat_ack", "", worker_id_,
                                   fmt::format(R"({{"time":"{}"}})", iso_time(s_.clock.now().wall))));
    case JsonKind::ping:
      return send(wire::json_frame("pong", message.job_id, worker_id_, json::serialize(message.data)));
    case JsonKind::pong:
      return;
    case JsonKind::subscribe:
      return subscribe(message);
    case JsonKind::unsubscribe:
      if (follower_) s_.events->unfollow(*follower_);
      follower_.reset();
      return send(wire::json_frame("unsubscribed", "", "", "{}"));
  }
}

// ---------------------------------------------------------------------------------------------------- as a client

void JsonSession::submit(const wire::JsonMessage& message) {
  auto read = wire::read_submit(message);
  if (!read) return refuse(read.error(), message.job_id);
  auto in = std::make_shared<wire::JsonSubmit>(std::move(*read));
  auto input = std::make_shared<SubmitInput>();
  input->id = in->job_id;
  pb::JobSpec& spec = input->spec;
  spec.set_engine("python");
  spec.set_encoding(pb::ENCODING_JSON);
  spec.set_count(static_cast<std::uint32_t>(in->args.size()));
  spec.set_name(in->name.empty() ? in->job_id : in->name);
  spec.set_user(in->user);
  if (in->priority < limits::kPriorityMin || in->priority > limits::kPriorityMax) {
    return refuse({ErrorClass::invalid_argument,
                   fmt::format("\"data.priority\" must be from {} to {}.", limits::kPriorityMin, limits::kPriorityMax)},
                  in->job_id);
  }
  spec.set_priority(static_cast<std::int32_t>(in->priority));
  if (in->max_attempts)
    spec.mutable_retry()->set_max_attempts(
        static_cast<std::uint32_t>(std::clamp<std::uint64_t>(*in->max_attempts, 1, limits::kMaxAttempts)));
  if (in->time_limit_ms)
    spec.set_time_limit_ms(static_cast<std::uint32_t>(std::min<std::uint64_t>(*in->time_limit_ms, UINT32_MAX)));
  spec.set_fail_fast(in->fail_fast);
  // The code becomes a blob first (and large arguments too), on a thread that may wait for the disk.
  s_.files->read<std::string>(
      [in, input, blobs = s_.blobs](store::Reader&) -> Result<std::string> {
        auto sha = blobs->put(in->code);
        if (!sha) return sha;
        core::ArgumentPage* page = nullptr;
        for (std::size_t i = 0; i < in->args.size(); ++i) {
          std::string& arg = in->args[i];
          std::uint32_t size = static_cast<std::uint32_t>(arg.size());
          if (arg.size() > limits::kInline) {
            auto stored = blobs->put(arg);
            if (!stored) return stored;
            arg = std::move(*stored);
            size = core::ArgumentPage::kBlobSize;
          }
          if (page == nullptr || page->bytes.size() + arg.size() > 1 * MiB || page->sizes.size() >= 16'384) {
            page = &input->pages.emplace_back();
            page->first = static_cast<std::uint32_t>(i);
          }
          page->sizes.push_back(size);
          page->bytes += arg;
        }
        return sha;
      },
      [self = shared_from_this(), in, input](Result<std::string> sha) {
        if (!sha) return self->refuse(sha.error(), in->job_id);
        input->spec.mutable_python()->set_code_sha256(*sha);
        self->owner_.operations_.submit(
            self->principal_, std::move(*input), [self, in](Result<SubmitAnswer> submitted) {
              if (!submitted) return self->refuse(submitted.error(), in->job_id);
              if (in->ack) {
                self->send(wire::json_frame(
                    "job_accepted", submitted->meta->id, "",
                    fmt::format(R"({{"job_id":{},"total_tasks":{},"existed":{}}})", wire::quoted(submitted->meta->id),
                                submitted->meta->count, submitted->existed)));
              }
              self->when_ended(submitted->meta);
            });
      });
}

void JsonSession::when_ended(const JobMetaPtr& meta) {
  if (socket_ == nullptr || awaited_.contains(meta->job)) return;
  const auto finish = [self = shared_from_this(), meta] {
    if (self->awaited_.erase(meta->job) == 0) return;
    self->send_results(meta, "job_result");
  };
  awaited_[meta->job] = owner_.watch_.watch(meta->job, finish);
  // It may have ended before: a repeat of a job that is long done.
  owner_.operations_.status_of(meta->job, [self = shared_from_this(), meta, finish](Result<JobFigures> figures) {
    if (!figures || !core::ended(figures->row.state)) return;
    const auto it = self->awaited_.find(meta->job);
    if (it == self->awaited_.end()) return;
    self->owner_.watch_.unwatch(meta->job, it->second);
    finish();
  });
}

void JsonSession::send_results(const JobMetaPtr& meta, std::string type) {
  s_.files->read<std::string>(
      [meta, blobs = s_.blobs](store::Reader& reader) { return read_results(reader, *meta, *blobs); },
      [self = shared_from_this(), meta, type = std::move(type)](Result<std::string> data) {
        if (!data) return self->refuse(data.error(), meta->id);
        self->send(wire::json_frame(type, meta->id, "", *data));
      });
}

void JsonSession::send_status(const std::string& job) {
  owner_.operations_.status(principal_, job, [self = shared_from_this(), job](Result<JobFigures> figures) {
    if (!figures) return self->refuse(figures.error(), job);
    self->send(wire::json_frame("job_status", job, "", json::serialize(job_json(*figures))));
  });
}

void JsonSession::subscribe(const wire::JsonMessage& message) {
  std::vector<std::string> names;
  if (const json::value* topics = message.data.if_contains("topics"); topics != nullptr && topics->is_array()) {
    for (const json::value& one : topics->get_array()) {
      if (one.is_string()) names.emplace_back(one.get_string());
    }
  }
  std::string bad;
  auto topics = Topics::parse(names, bad);
  if (!topics) {
    return refuse({ErrorClass::invalid_argument, "There is no topic \"" + bad.substr(0, 64) +
                                                     "\"; there are jobs, tasks, workers, system and job:ID."},
                  "");
  }
  std::optional<std::uint64_t> from;
  if (const json::value* number = message.data.if_contains("from");
      number != nullptr && number->is_int64() && number->get_int64() >= 0) {
    from = static_cast<std::uint64_t>(number->get_int64());
  }
  if (follower_) s_.events->unfollow(*follower_);
  send(wire::json_frame("subscribed", "", "", fmt::format(R"({{"next":{}}})", from.value_or(s_.events->next()))));
  const std::weak_ptr<JsonSession> weak = weak_from_this();
  follower_ = s_.events->follow(
      std::move(*topics), from,
      {.fact =
           [weak](const Fact& fact) {
             const auto self = weak.lock();
             return self != nullptr && self->socket_ != nullptr &&
                    self->socket_->send(wire::json_frame("event", fact.job_id, "", fact.json), false);
           },
       .gap =
           [weak](std::uint64_t next) {
             const auto self = weak.lock();
             return self != nullptr && self->socket_ != nullptr &&
                    self->socket_->send(wire::json_frame("gap", "", "", fmt::format(R"({{"next":{}}})", next)), false);
           }});
  if (!follower_) refuse({ErrorClass::rate_limited, "Too many followers of events."}, "");
}

// ---------------------------------------------------------------------------------------------------- as a worker

void JsonSession::register_worker(const wire::JsonMessage& message, bool asks_for_task) {
  if (asks_for_task) asked_ = true;
  if (worker_ == Worker::yes) {
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
  s_.queue->inspect([weak = weak_from_this(), post = s_.post, number = number_](const core::Farm&) {
    // Behind the deliveries of the steps before it.
    post([weak] {
      const auto self = weak.lock();
      if (self != nullptr && !self->held_) self->send(wire::json_frame("no_task", "", self->worker_id_, "{}"));
    });
  });
}

void JsonSession::assign(queue::Assign& assign, const JobMetaPtr&) {
  const Fence fence = assign.fence;
  held_ = Held{.fence = fence,
               .name = {},
               .by_number = fmt::format("{}/{}", fence.task.job().value, fence.task.index()),
               .since = s_.clock.now().mono};
  const auto self = shared_from_this();
  const auto give_back = [self, fence](const Error& why) {
    spdlog::warn("worker {}: task {}/{} cannot be handed out: {}", self->worker_id_, fence.task.job().value,
                 fence.task.index(), why.message);
    queue::ReportCall call;
    call.worker = self->number_;
    queue::ResultReport& report = call.results.emplace_back();
    report.fence = fence;
    report.ok = false;
    report.failure = core::FailureClass::engine;
    report.body.message = why.message;
    self->s_.queue->report(std::move(call));
  };
  struct Pending {
    std::string args, args_sha256;
  };
  auto pending = std::make_shared<Pending>(Pending{std::move(assign.args), std::move(assign.args_sha256)});
  s_.jobs->with(fence.task.job(), [self, fence, pending, give_back](Result<JobMetaPtr> meta) {
    if (!meta) return give_back(meta.error());
    const auto go = [self, fence, pending, meta = *meta, give_back](Result<JsonSessions::Code> code) {
      if (!code) return give_back(code.error());
      if (self->socket_ == nullptr || !self->held_ || !(self->held_->fence == fence)) return;
      self->held_->name = fmt::format("{}/{}", meta->id, fence.task.index());
      self->held_->since = self->s_.clock.now().mono;
      self->figures_.running = 1;
      queue::ReportCall call;
      call.worker = self->number_;
      call.started.push_back(fence);
      self->s_.queue->report(std::move(call));
      self->send(wire::json_assign({.job_id = meta->id,
                                    .worker_id = self->worker_id_,
                                    .task = self->held_->name,
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

void JsonSession::cancel(const queue::Order& order) {
  // The dialect cannot stop a task that runs; its result will be refused as stale.
  if (held_ && held_->fence.task == order.task && held_->fence.attempt == order.attempt && held_->name.empty())
    held_.reset();
}

void JsonSession::acknowledge(const queue::AckOrder& ack) {
  if (ack.accepted) return;
  refuse({ErrorClass::stale,
          fmt::format("The result of task {}/{}, attempt {}, came too late: it is not this worker's any more.",
                      ack.task.job().value, ack.task.index(), ack.attempt)},
         "");
}

Result<Fence> JsonSession::fence_of(const wire::JsonTaskRef& ref) const {
  if (worker_ != Worker::yes) return Error{ErrorClass::invalid_argument, "Send register_worker first."};
  if (!held_ || (!ref.task.empty() && ref.task != held_->name && ref.task != held_->by_number &&
                 ref.task != std::to_string(held_->fence.task.index()))) {
    return Error{ErrorClass::stale, ref.task.empty()
                                        ? "This worker holds no task."
                                        : "The task \"" + ref.task.substr(0, 256) + "\" is not held by this worker."};
  }
  if ((ref.attempt && *ref.attempt != held_->fence.attempt) || (ref.epoch && *ref.epoch != held_->fence.epoch)) {
    return Error{ErrorClass::stale, fmt::format("This worker holds attempt {} of the task; what came is about another.",
                                                held_->fence.attempt)};
  }
  return held_->fence;
}

void JsonSession::task_end(const wire::JsonMessage& message) {
  auto end = wire::read_task_end(message);
  if (!end) return refuse(end.error(), message.job_id);
  auto fence = fence_of(end->ref);
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
    report.body.message = cut_utf8(std::move(end->message), limits::kMessageBytes);
    report.body.traceback = cut_utf8(std::move(end->traceback), limits::kTracebackBytes);
  }
  held_.reset();
  figures_.running = 0;
  queue::ReportCall call;
  call.worker = number_;
  call.results.push_back(std::move(report));
  s_.queue->report(std::move(call));
}

void JsonSession::progress(const wire::JsonMessage& message) {
  auto read = wire::read_progress(message);
  if (!read) return refuse(read.error(), message.job_id);
  auto fence = fence_of(read->ref);
  if (!fence) return refuse(fence.error(), message.job_id);
  owner_.output_.progress(*fence, number_, read->done, read->total, read->text.substr(0, 1024));
}

void JsonSession::lost() {
  held_.reset();
  if (socket_ == nullptr) return;
  const auto self = shared_from_this();
  refuse({ErrorClass::timeout, "The lease ended: no sign of life in time. Register again."}, "");
  socket_->close(close_code::try_again, "the lease ended");
  closed({ErrorClass::timeout, "the lease ended"});
}

// ---------------------------------------------------------------------------------------------------- both

void JsonSession::alive() {
  const Now now = s_.clock.now();
  figures_.seen = now.wall;
  if (worker_ != Worker::yes || now.mono - renewed_ < std::chrono::duration_cast<Micros>(s_.options.lease) / 30) return;
  renewed_ = now.mono;
  s_.queue->alive(number_);
}

void JsonSession::writable() {
  if (follower_) s_.events->writable(*follower_);
}

void JsonSession::closed(const Error&) {
  const auto self = shared_from_this();
  socket_ = nullptr;
  for (const auto& [job, watch] : awaited_) owner_.watch_.unwatch(job, watch);
  awaited_.clear();
  if (follower_) s_.events->unfollow(*follower_);
  follower_.reset();
  if (!worker_id_.empty()) owner_.workers_.let_go(worker_id_);
  if (worker_ == Worker::yes) {
    worker_ = Worker::no;
    s_.workers->unbind(number_, this);
    s_.queue->gone(number_, queue_session_, true);
  }
  held_.reset();
}

WorkerFigures JsonSession::figures() const {
  WorkerFigures out = figures_;
  out.connected = socket_ != nullptr && socket_->open();
  return out;
}

void JsonSession::send(std::string text) {
  if (socket_ == nullptr || !socket_->open()) return;
  if (!socket_->send(std::move(text), false) && !follower_) {
    spdlog::warn("a JSON client does not read what is sent to it; closing");
    const auto self = shared_from_this();
    socket_->close(close_code::try_again, "the client does not read what is sent to it");
    closed({ErrorClass::timeout, "does not read"});
  }
}

void JsonSession::refuse(const Error& error, const std::string& job_id) {
  send(wire::json_error(error, job_id));
}

}  // namespace grange::server
