#include "ai/llm_stream.hpp"

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "ai/llm_stream_impl.hpp"
#include "ai/stats.hpp"

namespace grange::ai {
namespace {

double ms(Micros time) {
  return static_cast<double>(time.count()) / 1000.0;
}

std::optional<double> per_second(std::optional<std::uint64_t> count, double seconds) {
  if (!count || !(seconds > 0)) return std::nullopt;
  return static_cast<double>(*count) / seconds;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

}  // namespace

LlmStream::Impl::Impl(Dialect dialect, LlmOp op, bool streamed, Micros started, Keep keep)
    : dialect_(dialect),
      op_(op),
      streamed_(streamed && op != LlmOp::embed),
      started_(started),
      keep_(keep),
      sse_([this](const wire::SseEvent& event) { sse_event(event.data); }, kLlmLineBytes,
           [this](std::string_view field, std::string_view value) {
             if (field == "error" && !ended_) fail(value);  // as llama.cpp once wrote it
           }) {
  if (!streamed_) form_ = Form::body;
}

void LlmStream::Impl::feed(std::string_view bytes, Micros at, std::vector<LlmEvent>& events) {
  if (ended_) return;
  now_ = at;
  events_ = &events;
  take(bytes);
  events_ = nullptr;
}

void LlmStream::Impl::take(std::string_view bytes) {
  if (status_ >= 400) form_ = Form::body;
  if (form_ == Form::unknown) {
    while (!bytes.empty() && is_space(bytes.front())) bytes.remove_prefix(1);
    if (bytes.empty()) return;
    // A server that cannot stream answers as if it had not been asked to.
    form_ = dialect_ == Dialect::ollama ? Form::lines : bytes.front() == '{' ? Form::body : Form::sse;
  }
  switch (form_) {
    case Form::body:
      if (bytes.size() > kLlmBodyBytes - body_.size()) {
        fail_plainly("The service's answer is larger than 64 MiB.");
        return;
      }
      body_ += bytes;
      return;
    case Form::lines:
      lines_.feed(bytes, [this](std::string_view line) {
        object_text(line);
        return !ended_;
      });
      if (lines_.full()) fail_plainly("The service sent a line of more than 4 MiB.");
      return;
    default:
      sse_.feed(bytes);
      if (sse_.full()) fail_plainly("The service sent an event of more than 4 MiB.");
  }
}

void LlmStream::Impl::end(Micros at, std::vector<LlmEvent>& events) {
  if (ended_) return;
  now_ = at;
  events_ = &events;
  if (status_ >= 400) {
    fail(body_);
  } else if (form_ == Form::lines) {
    if (const std::string last = lines_.take(); !last.empty()) object_text(last);
  } else if (form_ == Form::sse) {
    sse_.finish();
    if (!ended_ && sse_.full()) fail_plainly("The service sent an event of more than 4 MiB.");
  } else if (form_ == Form::body) {
    whole_body(body_);
  }
  body_ = {};
  if (!ended_ && finished_) done();  // no [DONE]: not all servers say it
  if (!ended_) fail_plainly("The service ended its answer before it was complete.");
  events_ = nullptr;
}

void LlmStream::Impl::sse_event(std::string_view data) {
  if (ended_ || data.empty()) return;
  if (data.substr(0, 6) == "[DONE]") {
    done();
    return;
  }
  object_text(data);
}

void LlmStream::Impl::object_text(std::string_view text) {
  if (std::all_of(text.begin(), text.end(), is_space)) return;
  const auto value = parse_json(text);
  if (!value || !value->is_object()) {
    fail_plainly("The service sent something in its answer that is not a JSON object.");
    return;
  }
  const json::object& object = value->get_object();
  if (const json::value* error = object.if_contains("error"); error != nullptr && !error->is_null()) {
    fail(text);
    return;
  }
  if (dialect_ == Dialect::ollama) {
    ollama(object);
  } else {
    openai(object);
  }
}

void LlmStream::Impl::whole_body(std::string_view text) {
  const auto value = parse_json(text);
  const json::object* object = value ? value->if_object() : nullptr;
  if (object == nullptr) {
    fail_plainly("The service's answer is not a JSON object.");
    return;
  }
  if (const json::value* error = object->if_contains("error"); error != nullptr && !error->is_null()) {
    fail(text);
    return;
  }
  streamed_ = false;  // nothing is known of when its tokens were written
  if (op_ == LlmOp::embed) {
    embeddings(*object);
  } else if (dialect_ == Dialect::ollama) {
    ollama(*object);
  } else {
    openai(*object);
    if (!ended_ && finished_) done();
  }
}

// ------------------------------------------------------------------------------------------------------------ output

void LlmStream::Impl::token() {
  if (!first_) {
    first_ = now_;
  } else if (last_ && streamed_ && keep_ == Keep::all && result_.metrics.itl_ms.size() < kLlmGaps) {
    result_.metrics.itl_ms.push_back(ms(now_ - *last_));
  }
  last_ = now_;
}

void LlmStream::Impl::add(LlmEvent::Type type, std::string_view text) {
  if (text.empty() || ended_) return;
  const bool keeps = keep_ == Keep::all;
  if (keeps && text.size() > kLlmBodyBytes - bytes_) {
    fail_plainly("The service's answer is larger than 64 MiB.");
    return;
  }
  token();
  if (keeps) {
    bytes_ += text.size();
    (type == LlmEvent::Type::text ? result_.text : result_.thinking) += text;
  }
  LlmEvent event;
  event.type = type;
  event.text = text;
  events_->push_back(std::move(event));
}

void LlmStream::Impl::give_calls() {
  for (auto& [index, call] : calls_) {
    LlmEvent event;
    event.type = LlmEvent::Type::tool_call;
    event.call = {{"id", call.id.empty() ? "call_" + std::to_string(index) : call.id},
                  {"type", "function"},
                  {"function", json::object{{"name", call.name}, {"arguments", call.arguments}}}};
    if (keep_ == Keep::all) {
      result_.tool_calls.push_back(event.call);
    } else {
      bytes_ -= call.size();
    }
    ++given_;
    events_->push_back(std::move(event));
  }
  calls_.clear();
}

std::size_t LlmStream::Impl::held() const {
  std::size_t out =
      body_.capacity() + lines_.held() + sse_.held() + result_.model.capacity() + result_.finish_reason.capacity();
  for (const auto& [index, call] : calls_)
    out += sizeof(Call) + call.id.capacity() + call.name.capacity() + call.arguments.capacity();
  return out;
}

void LlmStream::Impl::done() {
  if (ended_) return;
  give_calls();
  ended_ = true;
  close();
  LlmEvent event;
  event.type = LlmEvent::Type::done;
  event.text = result_.finish_reason;
  events_->push_back(std::move(event));
}

void LlmStream::Impl::fail(std::string_view text) {
  if (ended_) return;
  ended_ = failed_ = true;
  close();
  LlmEvent event;
  event.type = LlmEvent::Type::error;
  event.error = classify(name(dialect_), status_ >= 400 ? status_ : 0, text);
  event.text = event.error.sentence();
  events_->push_back(std::move(event));
}

void LlmStream::Impl::fail_plainly(std::string sentence) {
  fail(json::serialize(json::object{{"error", sentence}}));
}

void LlmStream::Impl::close() {
  Metrics& m = result_.metrics;
  m.total_ms = ms(now_ - started_);
  if (streamed_ && first_) m.ttft_ms = ms(*first_ - started_);
  if (!m.prompt_tokens_per_s && prompt_ns_) {
    m.prompt_tokens_per_s = per_second(m.prompt_tokens, static_cast<double>(*prompt_ns_) / 1e9);
  }
  // llama.cpp reads the last token of a cached prompt again; the rate of one token says nothing.
  if (m.cached_tokens && *m.cached_tokens > 0 && m.prompt_tokens && *m.cached_tokens + 1 >= *m.prompt_tokens)
    m.prompt_tokens_per_s.reset();
  if (engine_rate_) {
    m.gen_tokens_per_s = engine_rate_;
  } else if (gen_ns_) {
    m.gen_tokens_per_s = per_second(m.gen_tokens, static_cast<double>(*gen_ns_) / 1e9);
  }
  if (m.gen_tokens_per_s) {
    m.gen_rate_by = "engine";
  } else if (streamed_ && first_ && last_ && m.gen_tokens && *m.gen_tokens > 1) {
    m.gen_tokens_per_s = per_second(*m.gen_tokens - 1, ms(*last_ - *first_) / 1000);
    if (m.gen_tokens_per_s) m.gen_rate_by = "client";
  }
  if (op_ != LlmOp::embed) m.e2e_tokens_per_s = per_second(m.gen_tokens, *m.total_ms / 1000);
}

// ------------------------------------------------------------------------------------------------------ the outside

LlmStream::LlmStream(Dialect dialect, LlmOp op, bool streamed, Micros started, Keep keep)
    : impl_(std::make_unique<Impl>(dialect, op, streamed, started, keep)) {}
LlmStream::~LlmStream() = default;
LlmStream::LlmStream(LlmStream&&) noexcept = default;
LlmStream& LlmStream::operator=(LlmStream&&) noexcept = default;

void LlmStream::status(int http_status) {
  impl_->status(http_status);
}
void LlmStream::feed(std::string_view bytes, Micros at, std::vector<LlmEvent>& events) {
  impl_->feed(bytes, at, events);
}
void LlmStream::end(Micros at, std::vector<LlmEvent>& events) {
  impl_->end(at, events);
}
bool LlmStream::ended() const {
  return impl_->ended();
}
bool LlmStream::failed() const {
  return impl_->failed();
}
bool LlmStream::begun() const {
  return impl_->begun();
}
const LlmResult& LlmStream::result() const {
  return impl_->result();
}
std::size_t LlmStream::held() const {
  return impl_->held();
}

boost::json::object result_json(const LlmResult& result, std::string_view engine, std::string_view service,
                                std::string_view model, std::string_view mock_reason) {
  const Metrics& m = result.metrics;
  json::object out{{"engine", engine}, {"service", service}, {"model", model}, {"text", result.text}};
  if (!result.thinking.empty()) out["thinking"] = result.thinking;
  if (!result.tool_calls.empty()) out["tool_calls"] = result.tool_calls;
  if (!result.embeddings.empty()) {
    json::array all;
    all.reserve(result.embeddings.size());
    for (const auto& one : result.embeddings) all.push_back(json::array(one.begin(), one.end()));
    out["embeddings"] = std::move(all);
  }
  out["finish_reason"] = result.finish_reason.empty() ? json::value(nullptr) : json::value(result.finish_reason);
  out["prompt_tokens"] = or_null(m.prompt_tokens);
  out["gen_tokens"] = or_null(m.gen_tokens);
  if (m.cached_tokens) out["cached_tokens"] = *m.cached_tokens;
  out["ttft_ms"] = or_null(m.ttft_ms);
  out["total_ms"] = or_null(m.total_ms);
  out["load_ms"] = or_null(m.load_ms);
  out["prompt_tokens_per_s"] = or_null(m.prompt_tokens_per_s);
  out["gen_tokens_per_s"] = or_null(m.gen_tokens_per_s);
  out["gen_rate_by"] = m.gen_rate_by.empty() ? json::value(nullptr) : json::value(m.gen_rate_by);
  out["e2e_tokens_per_s"] = or_null(m.e2e_tokens_per_s);
  const Summary gaps = summarize(m.itl_ms);
  out["itl_ms"] = json::object{{"mean", or_null(gaps.mean)}, {"p50", or_null(gaps.p50)}, {"p99", or_null(gaps.p99)}};
  if (!mock_reason.empty()) out["mock_reason"] = mock_reason;
  return out;
}

}  // namespace grange::ai
