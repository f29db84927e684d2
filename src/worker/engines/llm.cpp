// The engine of language models. A task is one call of a service of this machine; its answer is read as it comes, shown
// in pieces, and measured by when each piece came.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>

#include "ai/llm_stream.hpp"
#include "ai/mock.hpp"
#include "net/http_client.hpp"
#include "worker/engines/failure.hpp"
#include "worker/engines/held_tasks.hpp"
#include "worker/engines/llm_task.hpp"
#include "worker/engines/remote_rules.hpp"
#include "worker/engines/token_buffer.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr Millis kLlmSilence{600'000};  // a cold model of a slow disk says nothing for minutes
constexpr Millis kEndOfAnswer{250};     // for the end of an answer that is complete already
constexpr Millis kMockPiece{4};

const std::vector<std::string_view> kLlmKinds{"ollama", "llamacpp", "openai"};

// GRANGE_STREAM_FLUSH_CHARS and GRANGE_STREAM_FLUSH_SECONDS: of what is shown, not of what is measured or relayed.
TokenBuffer::Limits buffer_limits() {
  TokenBuffer::Limits out;
  if (const char* text = std::getenv("GRANGE_STREAM_FLUSH_CHARS"))
    out.characters = static_cast<std::size_t>(std::clamp(std::atol(text), 1L, 65'536L));
  if (const char* text = std::getenv("GRANGE_STREAM_FLUSH_SECONDS"))
    out.wait = Micros(static_cast<std::int64_t>(std::clamp(std::atof(text), 0.0, 60.0) * 1e6));
  return out;
}

struct LlmTask {
  Run run;
  ai::LlmCall call;
  std::unique_ptr<InputFetch> input;
  std::set<std::string> tried;
  std::optional<EngineFailure> why;  // of the last try
  bool waits = false, frozen = false, shown = false;

  ServiceInfo service;
  bool holds = false;  // one of the service's places
  std::unique_ptr<ai::LlmStream> stream;
  std::unique_ptr<net::HttpClient::Call> http;
  std::unique_ptr<TokenBuffer> buffer;
  std::unique_ptr<net::Timer> flush, tail;
  std::string retry_after;

  std::optional<ai::MockReason> mock_reason;
  ai::MockAnswer mock;
  std::size_t mock_at = 0;
  Instant mock_began{}, mock_first{};
  std::unique_ptr<net::Timer> mock_timer;

  Blobs::WaitPtr put;
  pb::TaskResult result;
};
using LlmTaskPtr = std::shared_ptr<LlmTask>;

class LlmEngine final : public Engine {
 public:
  explicit LlmEngine(const EngineContext& context) : context_(context), limits_(buffer_limits()), tasks_(context) {}

  void run(Run run) override {
    const auto task = std::make_shared<LlmTask>();
    task->run = std::move(run);
    task->buffer = std::make_unique<TokenBuffer>(
        limits_, [this, weak = std::weak_ptr<LlmTask>(task)](const std::string& text, std::size_t n, bool thinking) {
          const LlmTaskPtr t = weak.lock();
          if (!t) return;
          json::object data{{"text", text}, {"n", n}};
          if (thinking) data["thinking"] = true;
          event(*t, "llm_token", data);
        });
    tasks_.start(task, [this](const LlmTaskPtr& t, Result<TaskInput> input) { begin(t, std::move(input)); });
  }

  void stop(TaskId id, Attempt attempt, StopHow) override {
    const LlmTaskPtr task = tasks_.find(id, attempt);
    if (!task) return;
    end(task, failure(pb::FAILURE_CANCELLED, "Stopped; the connection to the service was closed."));
  }

  void freeze(TaskId id, Attempt attempt, bool on) override {
    const LlmTaskPtr task = tasks_.find(id, attempt);
    if (!task || task->frozen == on) return;
    task->frozen = on;
    if (on) {
      task->buffer->flush();
      if (task->http) task->http->pause();
      task->mock_timer.reset();
    } else {
      if (task->http) task->http->resume();
      if (task->mock_reason && !task->put) mock_next(task);
      pump();
    }
  }

  void resume_output() override {}
  void watch() override { pump(); }  // services come and go

 private:
  const pb::LlmSpec& spec(const LlmTask& task) const { return task.run.job->spec.llm(); }
  Micros now() const { return Micros{context_.clock.now().mono.us}; }
  void event(const LlmTask& task, std::string type, const json::object& data) {
    tasks_.event(task, std::move(type), json::serialize(data));
  }

  void begin(const LlmTaskPtr& task, Result<TaskInput> input) {
    if (!input) return end(task, failure(pb::FAILURE_ENGINE, input.error().message));
    auto call = read_llm_task(spec(*task), task->run.fence.task.index(), *input);
    if (!call) return end(task, failure(pb::FAILURE_REFUSED, call.error().message, true));
    task->call = std::move(*call);
    tasks_.stage(*task, pb::STAGE_STARTUP);
    place(task);
  }

  // To the best service that was not tried yet; into the line when all of them are busy.
  void place(const LlmTaskPtr& task) {
    auto candidates = ranked(context_.services.list(), kLlmKinds, spec(*task).service(), task->call.model);
    std::erase_if(candidates, [&](const ServiceInfo& one) { return task->tried.count(one.shown.name()) != 0; });
    if (candidates.empty()) return nowhere(task);
    for (ServiceInfo& one : candidates) {
      if (task->frozen || !free_place(one)) continue;
      return send(task, std::move(one));
    }
    if (std::exchange(task->waits, true)) return;
    waiting_.push_back(task);
  }
  bool free_place(const ServiceInfo& service) const {
    if (service.shown.parallel() == 0) return true;  // not known: it keeps a line itself
    const auto it = busy_.find(service.shown.name());
    return it == busy_.end() || it->second < service.shown.parallel();
  }
  void pump() {
    auto line = std::exchange(waiting_, {});
    for (const LlmTaskPtr& task : line) {
      if (!tasks_.holds(task)) continue;
      task->waits = false;
      place(task);
    }
  }

  void nowhere(const LlmTaskPtr& task) {
    if (task->why) {
      if (spec(*task).allow_mock())
        return mock(task, task->why->name == "missing_model" ? ai::MockReason::missing_model
                          : task->why->name == "unreachable" ? ai::MockReason::ollama_unreachable
                                                             : ai::MockReason::stream_error);
      return fail(task, *task->why);
    }
    const std::string& model = task->call.model;
    const std::string& name = spec(*task).service();
    const bool any = !ranked(context_.services.list(), kLlmKinds, name, "").empty();
    if (spec(*task).allow_mock())
      return mock(task, any ? ai::MockReason::missing_model : ai::MockReason::ollama_unreachable);
    EngineFailure why;
    if (any) {
      why.name = "missing_model";
      why.message =
          "No service of this worker has the model \"" + model + "\". Get it with: grange models sync " + model;
    } else {
      why.name = "unreachable";
      why.message = name.empty() ? "This worker reaches no service for language models. Start Ollama or llama.cpp's "
                                   "server on it, or name one with --service KIND=URL."
                                 : "This worker does not reach a service called \"" + name + "\".";
    }
    fail(task, why);
  }

  void send(const LlmTaskPtr& task, ServiceInfo service) {
    const auto dialect = ai::dialect_of(service.shown.kind());
    if (!dialect) {
      task->tried.insert(service.shown.name());
      return place(task);
    }
    task->service = std::move(service);
    task->holds = true;
    ++busy_[task->service.shown.name()];
    const ai::LlmHttp http = ai::http_of(task->call, *dialect);
    net::ClientRequest request;
    request.method = "POST";
    request.url = task->service.url + http.path;
    request.headers["Content-Type"] = "application/json";
    request.headers["Accept"] =
        http.stream ? "text/event-stream, application/x-ndjson, application/json" : "application/json";
    if (!task->service.key.empty()) request.headers["Authorization"] = "Bearer " + task->service.key;
    request.body = http.body;
    request.idle = kLlmSilence;
    request.limit = 16 * ai::kLlmBodyBytes;  // of a stream each token has a line of its own
    const std::weak_ptr<LlmTask> weak = task;
    request.on_head = [weak](int status, const std::map<std::string, std::string>& headers) {
      const LlmTaskPtr t = weak.lock();
      if (!t || !t->stream) return;
      t->stream->status(status);
      const auto it = headers.find("retry-after");
      t->retry_after = it == headers.end() ? "" : it->second.substr(0, 64);
    };
    request.on_chunk = [this, weak](std::string_view bytes) {
      if (const LlmTaskPtr t = weak.lock(); t && t->stream) heard(t, bytes);
    };
    tasks_.stage(*task, pb::STAGE_EXECUTE);
    task->stream = std::make_unique<ai::LlmStream>(*dialect, task->call.op, http.stream, now());
    task->http = context_.http.send(
        std::move(request),
        tasks_.while_held(task, [this](const LlmTaskPtr& t, const Result<net::ClientResponse>& answer) {
          if (t->stream) over(t, answer);
        }));
  }

  void heard(const LlmTaskPtr& task, std::string_view bytes) {
    std::vector<ai::LlmEvent> events;
    task->stream->feed(bytes, now(), events);
    show(task, events);
    if (task->stream->ended() && !task->tail) {
      // Its answer is complete; what the connection still has to say is waited for a moment, so that it can be kept.
      task->tail = context_.loop.after(kEndOfAnswer, tasks_.while_held(task, [this](const LlmTaskPtr& t) {
        if (t->stream) settle(t);
      }));
    }
  }
  void show(const LlmTaskPtr& task, const std::vector<ai::LlmEvent>& events) {
    const Instant at = context_.clock.now().mono;
    for (const ai::LlmEvent& one : events) {
      if (one.type == ai::LlmEvent::Type::text || one.type == ai::LlmEvent::Type::thinking) {
        task->shown = true;
        task->buffer->add(one.text, one.type == ai::LlmEvent::Type::thinking, at);
      } else if (one.type == ai::LlmEvent::Type::tool_call) {
        task->shown = true;
      } else if (one.type == ai::LlmEvent::Type::error) {
        task->why = failure_of(one.error);
        if (!task->retry_after.empty())
          task->why->message += " It asks to be tried again after " + task->retry_after + " s.";
      }
    }
    flush_in_time(task);
  }
  void flush_in_time(const LlmTaskPtr& task) {
    if (task->buffer->empty()) return task->flush.reset();
    if (task->flush) return;
    const auto wait = std::chrono::ceil<Millis>(task->buffer->due() - context_.clock.now().mono);
    task->flush = context_.loop.after(std::max(wait, Millis{1}), [this, weak = std::weak_ptr<LlmTask>(task)] {
      const LlmTaskPtr t = weak.lock();
      if (!t) return;
      t->flush.reset();
      if (context_.clock.now().mono >= t->buffer->due()) t->buffer->flush();
      flush_in_time(t);
    });
  }

  // The exchange has ended, one way or the other.
  void over(const LlmTaskPtr& task, const Result<net::ClientResponse>& answer) {
    if (!task->stream->ended()) {
      std::vector<ai::LlmEvent> events;
      if (answer || task->stream->begun()) task->stream->end(now(), events);
      show(task, events);
      if (!answer) task->why = unreachable(task->service.shown.name(), answer.error(), task->shown);
    }
    settle(task);
  }

  void settle(const LlmTaskPtr& task) {
    task->tail.reset();
    leave_service(*task);
    const bool good = task->stream->ended() && !task->stream->failed();
    if (good) {
      task->buffer->flush();
      const auto stream = std::move(task->stream);
      finish(task, ai::result_json(stream->result(), task->service.shown.kind(), task->service.shown.name(),
                                   task->call.model));
    } else {
      if (!task->why) task->why = EngineFailure{"unknown", "The service's answer broke off.", false, true};
      task->why->message = redacted(task->why->message, task->service.key);  // it may repeat what it was sent
      const bool begun = task->stream->begun() || task->shown;
      task->stream.reset();
      task->tried.insert(task->service.shown.name());
      context_.services.look_again();
      if (!begun && task->why->elsewhere) {
        place(task);
      } else if (spec(*task).allow_mock()) {
        mock(task, ai::MockReason::stream_error);
      } else {
        fail(task, *task->why);
      }
    }
    pump();
  }

  // The answer of no model: at a pace of its own, in the same pieces.
  void mock(const LlmTaskPtr& task, ai::MockReason reason) {
    task->mock_reason = reason;
    if (task->shown) event(*task, "llm_restart", {{"engine", "mock"}, {"mock_reason", ai::name(reason)}});
    task->shown = false;
    task->mock_began = context_.clock.now().mono;
    if (task->call.op != ai::LlmOp::embed)
      task->mock = ai::mock_answer(task->call.text(), task->call.max_tokens.value_or(0), task->call.seed.value_or(0));
    tasks_.stage(*task, pb::STAGE_EXECUTE);
    if (!task->frozen) mock_next(task);
  }
  void mock_next(const LlmTaskPtr& task) {
    task->mock_timer = context_.loop.after(kMockPiece, tasks_.while_held(task, [this](const LlmTaskPtr& t) {
      if (t->mock_at == t->mock.tokens.size()) return mock_done(t);
      const Instant at = context_.clock.now().mono;
      if (t->mock_at == 0) t->mock_first = at;
      t->buffer->add(t->mock.tokens[t->mock_at++], false, at);
      flush_in_time(t);
      mock_next(t);
    }));
  }
  void mock_done(const LlmTaskPtr& task) {
    task->buffer->flush();
    ai::LlmResult result;
    const Instant at = context_.clock.now().mono;
    const auto ms = [&](Instant to) { return static_cast<double>((to - task->mock_began).count()) / 1000; };
    result.text = task->mock.text;
    result.model = task->call.model;
    result.finish_reason = "stop";
    result.metrics.total_ms = ms(at);
    if (task->call.op == ai::LlmOp::embed) {
      for (const std::string& text : task->call.input) result.embeddings.push_back(ai::mock_embedding(text));
    } else {
      result.metrics.gen_tokens = task->mock.tokens.size();
      if (task->mock_at > 0) result.metrics.ttft_ms = ms(task->mock_first);
    }
    finish(task, ai::result_json(result, "mock", "", task->call.model, ai::name(*task->mock_reason)));
  }

  void finish(const LlmTaskPtr& task, json::object value) {
    json::object done = value;
    for (const char* big : {"text", "thinking", "tool_calls", "embeddings"}) done.erase(big);
    done["ok"] = true;
    event(*task, "llm_done", done);
    task->flush.reset();
    task->tail.reset();
    task->mock_timer.reset();
    std::string bytes = json::serialize(value);
    if (tasks_.is_large(bytes)) tasks_.stage(*task, pb::STAGE_UPLOAD);
    tasks_.complete(task, std::move(bytes));
  }

  void fail(const LlmTaskPtr& task, const EngineFailure& why) {
    task->buffer->flush();
    event(*task, "llm_done", {{"ok", false}, {"error", why.name}, {"message", why.message}});
    end(task, to_result(why));
  }

  void leave_service(LlmTask& task) {
    task.http.reset();
    if (!std::exchange(task.holds, false)) return;
    const auto it = busy_.find(task.service.shown.name());
    if (it != busy_.end() && --it->second == 0) busy_.erase(it);
  }

  void end(const LlmTaskPtr& task, pb::TaskResult result) {
    const bool held = task->holds;
    leave_service(*task);
    // Nothing of it may call back any more.
    task->waits = false;
    task->input.reset();
    task->stream.reset();
    task->flush.reset();
    task->tail.reset();
    task->mock_timer.reset();
    task->put.reset();
    tasks_.end(task, std::move(result));
    if (held) pump();
  }

  EngineContext context_;
  TokenBuffer::Limits limits_;
  HeldTasks<LlmTask> tasks_;
  std::deque<LlmTaskPtr> waiting_;
  std::map<std::string, std::uint32_t> busy_;
};

}  // namespace

std::unique_ptr<Engine> make_llm_engine(const EngineContext& context) {
  return std::make_unique<LlmEngine>(context);
}

}  // namespace grange::worker
