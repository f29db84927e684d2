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
constexpr Millis kBatchLeast{100}, kBatchMost{5000};
constexpr std::size_t kBatchBytes = 1 * MiB;  // told before its time

std::string cancel_reason(const wire::JsonMessage& message) {
  const json::value* reason = message.data.if_contains("reason");
  return reason != nullptr && reason->is_string() && !reason->get_string().empty() ? std::string(reason->get_string())
                                                                                   : "cancelled by a client";
}

// All outcomes of a job that ended, as the data of job_result. On a reader's thread.
Result<std::string> read_results(store::Reader& reader, const JobMeta& meta, const store::BlobStore& blobs) {
  auto row = reader.job(meta.job);
  if (!row) return std::move(row).error();
  if (!row->has_value()) return no_such_job(meta.id);
  // Even an empty place takes five characters.
  const std::uint32_t count = (*row)->count;  // it may have grown
  if (Bytes{count} * 5 > limits::kFrame) {
    return Error{
        ErrorClass::too_large,
        "This job has too many results for one message; read them in pages from /api/jobs/" + meta.id + "/results."};
  }
  json::array results(count, nullptr);
  json::array errors;
  std::size_t bytes = 0;
  for (std::uint32_t from = 0; from < count;) {
    auto page = reader.outcomes(meta.job, from, 1000, true);
    if (!page) return std::move(page).error();
    for (const store::OutcomeRow& outcome : *page) {
      const std::uint32_t index = outcome.task.index();
      if (index >= count) continue;
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
                                      {"message", said(outcome.failure, outcome.body.message)},
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
                          {"total_tasks", count}};
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
      return owner_.operations_.cancel(principal_, message.job_id, std::nullopt, cancel_reason(message),
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
      unsubscribe();
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
  look_for_end(meta);
}

// It may have ended before: a repeat of a job that is long done.
void JsonSession::look_for_end(const JobMetaPtr& meta) {
  owner_.operations_.status_of(meta->job, [self = shared_from_this(), meta](Result<JobFigures> figures) {
    const auto it = self->awaited_.find(meta->job);
    if (it == self->awaited_.end()) return;
    if (!figures && figures.error().cls != ErrorClass::not_found) {
      self->owner_.later_.emplace_back(self, meta);  // too many questions wait at the store: the tick asks again
      return;
    }
    if (figures && !core::ended(figures->row.state)) return;
    self->owner_.watch_.unwatch(meta->job, it->second);
    self->awaited_.erase(it);
    if (!figures) return self->refuse(figures.error(), meta->id);
    self->send_results(meta, "job_result");
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
    return refuse(
        {ErrorClass::invalid_argument, "There is no topic \"" + bad.substr(0, 64) +
                                           "\"; there are jobs, tasks, workers, system, runs, job:ID and run:ID."},
        "");
  }
  std::optional<std::uint64_t> from;
  if (const json::value* number = message.data.if_contains("from");
      number != nullptr && number->is_int64() && number->get_int64() >= 0) {
    from = static_cast<std::uint64_t>(number->get_int64());
  }
  Millis every{0};
  if (const json::value* wish = message.data.if_contains("every_ms"); wish != nullptr && !wish->is_null()) {
    if (!wish->is_int64() || wish->get_int64() < kBatchLeast.count() || wish->get_int64() > kBatchMost.count()) {
      return refuse(
          {ErrorClass::invalid_argument, fmt::format("\"data.every_ms\" must be a whole number from {} to {}.",
                                                     kBatchLeast.count(), kBatchMost.count())},
          "");
    }
    every = Millis{wish->get_int64()};
  }
  unsubscribe();
  send(wire::json_frame("subscribed", "", "", fmt::format(R"({{"next":{}}})", from.value_or(s_.events->next()))));
  follower_ = s_.events->follow(std::move(*topics), from, every.count() == 0 ? told_at_once() : told_in_batches(every));
  if (!follower_) refuse({ErrorClass::rate_limited, "Too many followers of events."}, "");
}

Events::Sink JsonSession::told_at_once() {
  const std::weak_ptr<JsonSession> weak = weak_from_this();
  return {.fact =
              [weak](const Fact& fact) {
                const auto self = weak.lock();
                return self != nullptr && self->socket_ != nullptr &&
                       self->socket_->send(wire::json_frame("event", fact.job_id, "", fact.json), false);
              },
          .gap =
              [weak](std::uint64_t next) {
                const auto self = weak.lock();
                return self != nullptr && self->socket_ != nullptr &&
                       self->socket_->send(wire::json_frame("gap", "", "", fmt::format(R"({{"next":{}}})", next)),
                                           false);
              }};
}

Events::Sink JsonSession::told_in_batches(Millis every) {
  const std::weak_ptr<JsonSession> weak = weak_from_this();
  batch_due_ = s_.loop.every(every, [weak] {
    if (const auto self = weak.lock(); self != nullptr && !self->behind_) self->behind_ = !self->tell_batch();
  });
  Events::Sink sink;
  sink.gap = [weak](std::uint64_t next) {
    const auto self = weak.lock();
    if (self == nullptr || self->socket_ == nullptr) return false;
    self->batch_.clear();  // the snapshot that follows has it
    return self->socket_->send(wire::json_frame("gap", "", "", fmt::format(R"({{"next":{}}})", next)), false);
  };
  sink.keep = [weak](const std::shared_ptr<const Fact>& fact) {
    const auto self = weak.lock();
    if (self == nullptr || self->socket_ == nullptr) return false;
    self->batch_.add(fact);
    if (self->batch_.bytes() >= kBatchBytes && !self->behind_) self->behind_ = !self->tell_batch();
    return !self->behind_;
  };
  return sink;
}

// False: hold back until writable().
bool JsonSession::tell_batch() {
  if (batch_.empty() || socket_ == nullptr) return true;
  return socket_->send(wire::json_frame("events", "", "", batch_.take()), false);
}

void JsonSession::unsubscribe() {
  if (follower_) s_.events->unfollow(*follower_);
  follower_.reset();
  batch_due_.reset();
  batch_.clear();
  behind_ = false;
}

// ---------------------------------------------------------------------------------------------------- both

void JsonSession::writable() {
  behind_ = false;
  if (follower_) s_.events->writable(*follower_);
}

void JsonSession::revoked(const Error& why) {
  refuse(why, "");
  closed(why);
}

void JsonSession::closed(const Error&) {
  const auto self = shared_from_this();
  socket_ = nullptr;
  for (const auto& [job, watch] : awaited_) owner_.watch_.unwatch(job, watch);
  awaited_.clear();
  unsubscribe();
  if (!worker_id_.empty()) owner_.workers_.let_go(worker_id_);
  if (worker_ == Worker::yes) {
    worker_ = Worker::no;
    owner_.here_.erase(this);
    s_.workers->unbind(number_, this);
    s_.workers->left(number_, s_.clock.now().mono);
    s_.queue->gone(number_, queue_session_, true);
  }
  held_.reset();
  owed_.reset();
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
