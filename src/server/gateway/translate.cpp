#include "server/gateway/translate.hpp"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <deque>

#include "ai/json.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

namespace json = boost::json;

Error not_ollama(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

bool any_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Ollama's tool calls have no ids, and its tools' answers name none; OpenAI's must agree.
void give_ids(json::array& messages) {
  std::size_t number = 0;
  struct Open {
    std::string id, name;
  };
  std::deque<Open> open;
  for (json::value& entry : messages) {
    json::object& message = entry.get_object();
    if (json::value* calls = message.if_contains("tool_calls"); calls != nullptr && calls->is_array()) {
      for (json::value& one : calls->get_array()) {
        if (!one.is_object()) continue;
        json::object& call = one.get_object();
        if (!ai::text_at(call, "id")) call["id"] = "call_" + std::to_string(number++);
        const json::object* function = ai::object_at(call, "function");
        open.push_back({std::string(ai::text_at(call, "id").value_or("")),
                        std::string(function == nullptr ? "" : ai::text_at(*function, "name").value_or(""))});
      }
    }
    if (ai::text_at(message, "role") != "tool") continue;
    std::string name(ai::text_at(message, "tool_name").value_or(ai::text_at(message, "name").value_or("")));
    message.erase("tool_name");
    if (message.contains("tool_call_id") || open.empty()) continue;
    auto match = std::find_if(open.begin(), open.end(), [&](const Open& one) { return one.name == name; });
    if (match == open.end()) match = open.begin();
    message["tool_call_id"] = match->id;
    open.erase(match);
  }
}

Result<json::array> messages_in(const json::object& body) {
  const json::value* found = body.if_contains("messages");
  if (found == nullptr || found->is_null()) return json::array();
  if (!found->is_array()) return not_ollama("\"messages\" must be a list.");
  for (const json::value& one : found->get_array()) {
    if (!one.is_object() || !ai::text_at(one.get_object(), "role"))
      return not_ollama("Each of the \"messages\" must be an object with a \"role\".");
  }
  return found->get_array();
}

Result<std::vector<std::string>> texts_in(const json::object& body, std::string_view key) {
  std::vector<std::string> out;
  const json::value* found = body.if_contains(key);
  if (found == nullptr || found->is_null()) return out;
  if (found->is_string()) {
    out.emplace_back(found->get_string());
    return out;
  }
  const json::array* list = found->if_array();
  if (list == nullptr) return not_ollama("\"" + std::string(key) + "\" must be a text, or a list of texts.");
  for (const json::value& one : *list) {
    if (!one.is_string()) return not_ollama("\"" + std::string(key) + "\" must be a text, or a list of texts.");
    out.emplace_back(one.get_string());
  }
  return out;
}

std::string text_in(const json::object& body, std::string_view key) {
  return std::string(ai::text_at(body, key).value_or(""));
}

// Options that only llama.cpp's family knows.
bool of_llamacpp(std::string_view key) {
  return any_of(key, {"repeat_last_n", "tfs_z", "mirostat", "mirostat_tau", "mirostat_eta", "typical_p",
                      "penalize_newline", "num_keep"});
}

// What a request says beside its "options", not in them.
bool of_request(std::string_view key) {
  return any_of(key, {"model",         "stream",  "stream_options",  "messages", "prompt",           "system",
                      "suffix",        "input",   "images",          "tools",    "tool_choice",      "functions",
                      "function_call", "format",  "response_format", "think",    "reasoning_effort", "raw",
                      "template",      "context", "keep_alive",      "logprobs", "top_logprobs",     "dimensions",
                      "options",       "extra"});
}

void take_options(const json::object& body, ai::LlmCall& call) {
  const json::object* options = ai::object_at(body, "options");
  if (options == nullptr) return;
  for (const auto& [key, value] : *options) {
    const std::string_view name = key;
    const auto count = ai::count_of(value);
    if (name == "num_predict") {
      if (count && *count > 0) call.max_tokens = *count;
    } else if (name == "num_ctx") {
      if (count) call.num_ctx = *count;
    } else if (name == "seed") {
      if (count) call.seed = *count;
    } else if (!of_request(name)) {
      call.options[key] = value;
    }
  }
}

// OpenAI's calls, with their arguments as the object that Ollama has.
json::array ollama_calls(json::array calls) {
  for (json::value& entry : calls) {
    json::object& call = entry.get_object();
    json::object& function = call["function"].get_object();
    auto arguments = wire::parse_json(ai::text_at(function, "arguments").value_or("{}"));
    function["arguments"] = arguments && arguments->is_object() ? *arguments : json::value(json::object{});
    call.erase("type");
  }
  return calls;
}

std::optional<std::uint64_t> ns(std::optional<double> count, std::optional<double> per_second) {
  if (!count || !per_second || !(*per_second > 0)) return std::nullopt;
  return static_cast<std::uint64_t>(*count / *per_second * 1e9);
}

template <class T>
void put(json::object& out, std::string_view key, const std::optional<T>& value) {
  if (value) out[key] = *value;
}

}  // namespace

Result<OllamaCall> read_ollama(const Passed& route, std::string_view body) {
  auto parsed = wire::parse_json(body);
  if (!parsed || !parsed->is_object()) return not_ollama("The body must be a JSON object.");
  const json::object& object = parsed->get_object();
  OllamaCall out;
  const std::string_view path = route.upstream;
  out.kind = path == "/api/chat"         ? OllamaCall::Kind::chat
             : path == "/api/generate"   ? OllamaCall::Kind::generate
             : path == "/api/embed"      ? OllamaCall::Kind::embed
             : path == "/api/embeddings" ? OllamaCall::Kind::embeddings
                                         : OllamaCall::Kind::show;
  ai::LlmCall& call = out.call;
  call.model = text_in(object, "model");
  if (out.kind == OllamaCall::Kind::show) return out;
  if (const json::value* stream = object.if_contains("stream"); stream != nullptr && !stream->is_null()) {
    if (!stream->is_bool()) return not_ollama("\"stream\" must be true or false.");
    call.stream = stream->get_bool();
  }
  if (out.kind == OllamaCall::Kind::embed || out.kind == OllamaCall::Kind::embeddings) {
    call.op = ai::LlmOp::embed;
    call.stream = false;
    auto input = texts_in(object, out.kind == OllamaCall::Kind::embed ? "input" : "prompt");
    if (!input) return std::move(input).error();
    call.input = std::move(*input);
    out.loads = call.input.empty();
    if (const json::value* dimensions = object.if_contains("dimensions")) call.options["dimensions"] = *dimensions;
    return out;
  }
  for (const char* key : {"tools", "format", "logprobs", "top_logprobs"}) {
    if (const json::value* value = object.if_contains(key)) call.options[key] = *value;
  }
  if (const json::value* think = object.if_contains("think"); think != nullptr && think->is_string())
    call.options["reasoning_effort"] = *think;
  take_options(object, call);
  if (out.kind == OllamaCall::Kind::chat) {
    auto messages = messages_in(object);
    if (!messages) return std::move(messages).error();
    call.messages = std::move(*messages);
    give_ids(call.messages);
    out.loads = call.messages.empty();
    return out;
  }
  const std::string prompt = text_in(object, "prompt"), system = text_in(object, "system");
  out.loads = prompt.empty();
  const json::value* raw = object.if_contains("raw");
  if ((raw != nullptr && raw->is_bool() && raw->get_bool()) || !text_in(object, "suffix").empty()) {
    call.op = ai::LlmOp::generate;
    call.prompt = prompt;
    call.system = system;
    if (const std::string suffix = text_in(object, "suffix"); !suffix.empty()) call.options["suffix"] = suffix;
    return out;
  }
  // Ollama puts a prompt into the model's template; a chat of one message is the same.
  if (!system.empty()) call.messages.push_back(json::object{{"role", "system"}, {"content", system}});
  json::object message{{"role", "user"}, {"content", prompt}};
  if (const json::array* images = ai::array_at(object, "images"); images != nullptr && !images->empty())
    message["images"] = *images;
  call.messages.push_back(std::move(message));
  return out;
}

ai::LlmHttp asked_of(const OllamaCall& from, std::string_view kind, std::string_view model) {
  ai::LlmCall call = from.call;
  call.model = model;
  if (kind != "llamacpp") {
    std::vector<std::string> foreign;
    for (const auto& [key, value] : call.options) {
      if (of_llamacpp(key)) foreign.emplace_back(key);
    }
    for (const std::string& key : foreign) call.options.erase(key);
  }
  return ai::http_of(call, ai::dialect_of(kind).value_or(ai::Dialect::openai));
}

OllamaAnswer::OllamaAnswer(const OllamaCall& call, std::string_view service_kind, std::string model, bool streamed,
                           Micros started)
    : kind_(call.kind),
      op_(call.call.op),
      model_(std::move(model)),
      streamed_(streamed),
      stream_(ai::dialect_of(service_kind).value_or(ai::Dialect::openai), op_, streamed, started,
              streamed ? ai::LlmStream::Keep::figures : ai::LlmStream::Keep::all) {}

OllamaAnswer::Piece OllamaAnswer::feed(std::string_view bytes, Micros at, WallMs wall) {
  std::vector<ai::LlmEvent> events;
  stream_.feed(bytes, at, events);
  return told(std::move(events), wall);
}

OllamaAnswer::Piece OllamaAnswer::end(Micros at, WallMs wall) {
  std::vector<ai::LlmEvent> events;
  stream_.end(at, events);
  return told(std::move(events), wall);
}

json::object OllamaAnswer::piece(WallMs wall) const {
  return {{"model", model_}, {"created_at", iso_time(wall)}};
}

OllamaAnswer::Piece OllamaAnswer::told(std::vector<ai::LlmEvent> events, WallMs wall) {
  Piece out;
  const bool chat = kind_ == OllamaCall::Kind::chat;
  const auto line = [&out](const json::object& object) { out.bytes += json::serialize(object) + "\n"; };
  for (const ai::LlmEvent& event : events) {
    using Type = ai::LlmEvent::Type;
    if (event.type == Type::error) {
      out.failure = event.error.text.empty() ? event.text : event.error.text;
      return out;
    }
    if (event.type == Type::done) {
      const bool embeds = op_ == ai::LlmOp::embed;
      out.bytes += json::serialize(embeds ? vectors() : last(wall)) + (streamed_ ? "\n" : "");
      return out;
    }
    if (!streamed_) continue;
    json::object one = piece(wall);
    if (chat) {
      json::object message{{"role", "assistant"}, {"content", event.type == Type::text ? event.text : ""}};
      if (event.type == Type::thinking) message["thinking"] = event.text;
      if (event.type == Type::tool_call) message["tool_calls"] = ollama_calls(json::array{event.call});
      one["message"] = std::move(message);
    } else {
      one["response"] = event.type == Type::text ? event.text : "";
      if (event.type == Type::thinking) one["thinking"] = event.text;
    }
    one["done"] = false;
    line(one);
  }
  return out;
}

// The last line of a stream, or the whole answer: with the service's own figures, and none that it did not give.
json::object OllamaAnswer::last(WallMs wall) const {
  const ai::LlmResult& result = stream_.result();
  const ai::Metrics& m = result.metrics;
  json::object out = piece(wall);
  const std::string text = streamed_ ? "" : result.text;
  if (kind_ == OllamaCall::Kind::chat) {
    json::object message{{"role", "assistant"}, {"content", text}};
    if (!streamed_ && !result.thinking.empty()) message["thinking"] = result.thinking;
    if (!streamed_ && !result.tool_calls.empty()) message["tool_calls"] = ollama_calls(result.tool_calls);
    out["message"] = std::move(message);
  } else {
    out["response"] = text;
    if (!streamed_ && !result.thinking.empty()) out["thinking"] = result.thinking;
  }
  out["done"] = true;
  out["done_reason"] = result.finish_reason == "length" ? "length" : "stop";
  if (m.total_ms) out["total_duration"] = static_cast<std::uint64_t>(*m.total_ms * 1e6);
  put(out, "prompt_eval_count", m.prompt_tokens);
  std::optional<double> evaluated, generated;
  if (m.prompt_tokens)
    evaluated = static_cast<double>(*m.prompt_tokens - std::min(*m.prompt_tokens, m.cached_tokens.value_or(0)));
  put(out, "prompt_eval_duration", ns(evaluated, m.prompt_tokens_per_s));
  put(out, "eval_count", m.gen_tokens);
  // As seen from here the first token's time is none of its own.
  if (m.gen_tokens) generated = static_cast<double>(*m.gen_tokens) - (m.gen_rate_by == "client" ? 1 : 0);
  put(out, "eval_duration", ns(generated, m.gen_tokens_per_s));
  return out;
}

json::object OllamaAnswer::vectors() const {
  const ai::LlmResult& result = stream_.result();
  json::array all;
  for (const auto& one : result.embeddings) all.push_back(json::array(one.begin(), one.end()));
  if (kind_ == OllamaCall::Kind::embeddings) return {{"embedding", all.empty() ? json::value(json::array()) : all[0]}};
  json::object out{{"model", model_}, {"embeddings", std::move(all)}};
  if (result.metrics.total_ms) out["total_duration"] = static_cast<std::uint64_t>(*result.metrics.total_ms * 1e6);
  put(out, "prompt_eval_count", result.metrics.prompt_tokens);
  return out;
}

std::string loaded_answer(const OllamaCall& call, std::string_view model, WallMs wall) {
  if (call.kind == OllamaCall::Kind::embeddings) return R"({"embedding":[]})";
  if (call.kind == OllamaCall::Kind::embed)
    return json::serialize(json::object{{"model", model}, {"embeddings", json::array()}});
  json::object out{{"model", model}, {"created_at", iso_time(wall)}};
  if (call.kind == OllamaCall::Kind::chat) {
    out["message"] = json::object{{"role", "assistant"}, {"content", ""}};
  } else {
    out["response"] = "";
  }
  out["done"] = true;
  out["done_reason"] = "load";
  return json::serialize(out) + (call.call.stream ? "\n" : "");
}

json::object ollama_details(const pb::Model& model) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", model.family()},
          {"families", model.family().empty() ? json::array{} : json::array{model.family()}},
          {"parameter_size", model.parameters()},
          {"quantization_level", model.quantization()}};
}

std::string show_answer(const pb::Model& model, WallMs modified) {
  json::object info;
  if (!model.family().empty()) {
    info["general.architecture"] = model.family();
    if (model.context() != 0) info[model.family() + ".context_length"] = model.context();
  }
  return json::serialize(
      json::object{{"modelfile", ""},
                   {"parameters", ""},
                   {"template", ""},
                   {"details", ollama_details(model)},
                   {"model_info", std::move(info)},
                   {"capabilities", json::array{json::value(model.kind() == "embedding" ? "embedding" : "completion")}},
                   {"modified_at", iso_time(modified)}});
}

}  // namespace grange::server::gateway
