#include "ai/llm_request.hpp"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"
#include "ai/llm_options.hpp"
#include "ai/words.hpp"

namespace grange::ai {
namespace {

constexpr std::size_t kMessages = 100'000;

bool are_messages(const json::value& value) {
  const json::array* list = value.if_array();
  if (list == nullptr || list->empty()) return false;
  return std::all_of(list->begin(), list->end(), [](const json::value& one) {
    const json::object* message = one.if_object();
    return message != nullptr && text_at(*message, "role").has_value();
  });
}

std::string text_of_content(const json::value& content) {
  if (content.is_string()) return std::string(content.get_string());
  std::string out;
  if (const json::array* parts = content.if_array()) {
    for (const json::value& part : *parts) {
      const json::object* object = part.if_object();
      if (object == nullptr) continue;
      if (const auto text = text_at(*object, "text")) out += *text;
    }
  }
  return out;
}

Result<Unit> read_options(std::string_view text, LlmCall& call) {
  if (text.empty()) return {};
  const auto parsed = parse_json(text);
  if (!parsed || !parsed->is_object()) return wrong("The options of an llm job must be a JSON object.");
  if (auto known = check_options(text); !known.ok()) return known;
  call.options = parsed->get_object();
  const auto count = [&](std::string_view key, std::optional<std::uint64_t>& into) -> Result<Unit> {
    const json::value* value = call.options.if_contains(key);
    if (value == nullptr) return {};
    if (value->is_null() || (value->is_int64() && value->get_int64() < 0)) {  // "as much as there is"
      call.options.stable_erase(key);
      return {};
    }
    const auto number = count_of(*value);
    if (!number || *number > (std::uint64_t{1} << 53))
      return wrong("'" + std::string(key) + "' must be a whole number.");
    into = number;
    call.options.stable_erase(key);
    return {};
  };
  for (const std::string_view key : {"num_predict", "max_tokens"}) {
    if (auto read = count(key, call.max_tokens); !read.ok()) return read;
  }
  if (auto read = count("num_ctx", call.num_ctx); !read.ok()) return read;
  if (auto read = count("seed", call.seed); !read.ok()) return read;
  if (const json::value* stream = call.options.if_contains("stream")) {
    if (!stream->is_bool()) return wrong("'stream' must be true or false.");
    call.stream = stream->get_bool();
    call.options.stable_erase("stream");
  }
  if (const json::value* stop = call.options.if_contains("stop"); stop != nullptr && !stop->is_null()) {
    const json::array* list = stop->if_array();
    const bool texts = list != nullptr &&
                       std::all_of(list->begin(), list->end(), [](const json::value& one) { return one.is_string(); });
    if (!stop->is_string() && !texts) return wrong("'stop' must be a text or a list of texts.");
  }
  return {};
}

// What each dialect has at the top of a request, beside what all have.
bool ollama_top(std::string_view key) {
  return is_one_of(key, {"keep_alive", "think", "format", "raw", "template", "suffix", "images", "truncate", "shift",
                         "logprobs", "top_logprobs", "dimensions", "tools", "context"});
}
bool ollama_only(std::string_view key) {
  return is_one_of(key, {"keep_alive", "think", "raw", "template", "shift", "context", "images", "num_gpu", "main_gpu",
                         "num_batch", "num_thread", "num_keep", "use_mmap", "numa", "low_vram", "vocab_only"});
}
bool openai_only(std::string_view key) {
  return is_one_of(key, {"n", "user", "stream_options", "parallel_tool_calls", "store", "metadata", "service_tier",
                         "logit_bias", "encoding_format", "tool_choice", "max_completion_tokens", "best_of", "echo",
                         "modalities", "prompt_cache_key", "safety_identifier"});
}
// Of the request itself, which decided where it goes and how its answer is read: no option takes their place.
bool openai_own(std::string_view key) {
  return is_one_of(key, {"model", "stream", "stream_options", "messages", "prompt", "input"});
}
bool llamacpp_only(std::string_view key) {
  return is_one_of(key, {"cache_prompt", "timings_per_token", "return_progress", "id_slot", "n_probs", "samplers",
                         "post_sampling_probs", "grammar", "json_schema", "t_max_predict_ms", "lora", "n_indent"});
}

// ---------------------------------------------------------------------------------------------------------- messages

// OpenAI's parts and texts -> Ollama's text, images and objects.
json::object message_for_ollama(const json::object& from) {
  json::object out = from;
  if (const json::array* parts = array_at(from, "content")) {
    json::array images;
    for (const json::value& part : *parts) {
      const json::object* object = part.if_object();
      const json::object* image = object == nullptr ? nullptr : object_at(*object, "image_url");
      const auto url = image == nullptr ? std::nullopt : text_at(*image, "url");
      const std::size_t comma = url ? url->find(";base64,") : std::string_view::npos;
      if (comma != std::string_view::npos) images.emplace_back(json::string(url->substr(comma + 8)));
    }
    out["content"] = text_of_content(from.at("content"));
    if (!images.empty()) out["images"] = std::move(images);
  } else if (const json::value* content = from.if_contains("content"); content != nullptr && content->is_null()) {
    out["content"] = "";
  }
  if (json::value* calls = out.if_contains("tool_calls"); calls != nullptr && calls->is_array()) {
    for (json::value& call : calls->get_array()) {
      json::value* function = call.is_object() ? call.get_object().if_contains("function") : nullptr;
      if (function == nullptr || !function->is_object()) continue;
      const auto arguments = text_at(function->get_object(), "arguments");
      if (!arguments) continue;
      const auto parsed = parse_json(*arguments);
      function->get_object()["arguments"] = parsed && parsed->is_object() ? *parsed : json::value(json::object{});
    }
  }
  return out;
}

json::object message_for_openai(const json::object& from) {
  json::object out = from;
  if (const json::array* images = array_at(from, "images")) {
    json::array parts;
    if (const auto text = text_at(from, "content"); text && !text->empty()) {
      parts.push_back(json::object{{"type", "text"}, {"text", *text}});
    }
    for (const json::value& image : *images) {
      if (!image.is_string()) continue;
      const std::string url = "data:image/png;base64," + std::string(image.get_string());
      parts.push_back(json::object{{"type", "image_url"}, {"image_url", json::object{{"url", url}}}});
    }
    out.erase("images");
    out["content"] = std::move(parts);
  }
  if (json::value* calls = out.if_contains("tool_calls"); calls != nullptr && calls->is_array()) {
    std::size_t number = 0;
    for (json::value& call : calls->get_array()) {
      if (!call.is_object()) continue;
      json::object& object = call.get_object();
      if (!object.contains("type")) object["type"] = "function";
      if (!object.contains("id")) object["id"] = "call_" + std::to_string(number);
      ++number;
      json::value* function = object.if_contains("function");
      if (function == nullptr || !function->is_object()) continue;
      json::value* arguments = function->get_object().if_contains("arguments");
      if (arguments != nullptr && !arguments->is_string()) *arguments = json::serialize(*arguments);
    }
  }
  return out;
}

json::array messages_for(const LlmCall& call, Dialect dialect) {
  json::array out;
  for (const json::value& message : call.messages) {
    const json::object& object = message.get_object();
    out.push_back(dialect == Dialect::ollama ? message_for_ollama(object) : message_for_openai(object));
  }
  return out;
}

// --------------------------------------------------------------------------------------------------------- dialects

// {"type":"json_schema","json_schema":{"schema":{…}}} | {"type":"json_object"} -> a schema | "json" | null
json::value format_of(const json::value& response_format) {
  const json::object* object = response_format.if_object();
  if (object == nullptr) return nullptr;
  const auto type = text_at(*object, "type");
  if (type == "json_schema") {
    const json::object* outer = object_at(*object, "json_schema");
    const json::object* schema = outer == nullptr ? nullptr : object_at(*outer, "schema");
    return schema == nullptr ? json::value("json") : json::value(*schema);
  }
  if (type != "json_object") return nullptr;
  const json::object* schema = object_at(*object, "schema");
  return schema == nullptr ? json::value("json") : json::value(*schema);
}

json::value response_format_of(const json::value& format) {
  if (format.is_string() && format.get_string() == "json") return json::object{{"type", "json_object"}};
  if (!format.is_object()) return nullptr;
  return json::object{{"type", "json_schema"},
                      {"json_schema", json::object{{"name", "answer"}, {"strict", true}, {"schema", format}}}};
}

json::value inputs(const LlmCall& call) {
  if (call.input.size() == 1) return json::value(json::string(call.input.front()));
  json::array out;
  for (const std::string& one : call.input) out.emplace_back(json::string(one));
  return out;
}

LlmHttp for_ollama(const LlmCall& call) {
  LlmHttp out;
  json::object body{{"model", call.model}};
  json::object options;
  for (const auto& [key, value] : call.options) {
    const std::string_view name = key;
    if (value.is_null()) continue;
    if (name == "response_format") {
      json::value format = format_of(value);
      if (!format.is_null()) body["format"] = std::move(format);
    } else if (name == "max_completion_tokens") {
      if (!call.max_tokens) options["num_predict"] = value;
    } else if (openai_only(name) || llamacpp_only(name)) {
      out.dropped.emplace_back(name);
    } else if ((name == "options" || name == "extra") && value.is_object()) {
      for (const auto& [inner, one] : value.get_object()) options[inner] = one;
    } else if (name == "reasoning_effort") {
      body["think"] = value;
    } else if (ollama_top(name)) {
      body[key] = value;
    } else if (name == "stop" && value.is_string()) {
      options["stop"] = json::array{value};
    } else {
      options[key] = value;
    }
  }
  if (call.max_tokens) options["num_predict"] = *call.max_tokens;
  if (call.num_ctx) options["num_ctx"] = *call.num_ctx;
  if (call.seed) options["seed"] = *call.seed;
  if (!options.empty()) body["options"] = std::move(options);
  switch (call.op) {
    case LlmOp::chat:
      out.path = "/api/chat";
      body["messages"] = messages_for(call, Dialect::ollama);
      break;
    case LlmOp::generate:
      out.path = "/api/generate";
      body["prompt"] = call.prompt;
      if (!call.system.empty()) body["system"] = call.system;
      break;
    case LlmOp::embed:
      out.path = "/api/embed";
      body["input"] = inputs(call);
      break;
  }
  out.stream = call.stream && call.op != LlmOp::embed;
  if (call.op != LlmOp::embed) body["stream"] = out.stream;  // its default is true
  out.body = json::serialize(body);
  return out;
}

LlmHttp for_openai(const LlmCall& call, Dialect dialect) {
  LlmHttp out;
  json::object body{{"model", call.model}};
  out.stream = call.stream && call.op != LlmOp::embed;
  const auto put = [&](std::string_view key, const json::value& value, bool known) {
    if (known && !openai_own(key)) {
      body[key] = value;
    } else {
      out.dropped.emplace_back(key);
    }
  };
  for (const auto& [key, value] : call.options) {
    const std::string_view name = key;
    if (value.is_null()) continue;
    if (name == "format") {
      json::value format = response_format_of(value);
      if (!format.is_null()) body["response_format"] = std::move(format);
    } else if (ollama_only(name) || (llamacpp_only(name) && dialect != Dialect::llamacpp)) {
      out.dropped.emplace_back(name);
    } else if (name == "options" && value.is_object()) {
      for (const auto& [inner, one] : value.get_object()) put(inner, one, !ollama_only(inner));
    } else if (name == "extra" && value.is_object()) {
      for (const auto& [inner, one] : value.get_object()) put(inner, one, true);  // as it is: who writes it knows why
    } else if (name != "stream_options") {
      put(name, value, true);
    }
  }
  if (call.max_tokens && !body.contains("max_completion_tokens")) body["max_tokens"] = *call.max_tokens;
  if (call.seed) body["seed"] = *call.seed;
  if (call.num_ctx) out.dropped.emplace_back("num_ctx");
  switch (call.op) {
    case LlmOp::chat:
      out.path = "/v1/chat/completions";
      body["messages"] = messages_for(call, dialect);
      break;
    case LlmOp::generate:
      out.path = "/v1/completions";
      body["prompt"] = call.system.empty() ? call.prompt : call.system + "\n\n" + call.prompt;
      break;
    case LlmOp::embed:
      out.path = "/v1/embeddings";
      body["input"] = inputs(call);
      break;
  }
  if (out.stream) {
    body["stream"] = true;
    json::object stream_options;
    if (const json::object* given = object_at(call.options, "stream_options")) stream_options = *given;
    stream_options["include_usage"] = true;  // the engine's counts come no other way
    body["stream_options"] = std::move(stream_options);
  }
  out.body = json::serialize(body);
  return out;
}

}  // namespace

std::string as_text(const json::value& value) {
  if (value.is_null()) return {};
  if (value.is_string()) return std::string(value.get_string());
  return json::serialize(value);
}

std::string_view name(Dialect dialect) {
  switch (dialect) {
    case Dialect::ollama:
      return "ollama";
    case Dialect::openai:
      return "openai";
    case Dialect::llamacpp:
      return "llamacpp";
  }
  return {};
}

std::optional<Dialect> dialect_of(std::string_view kind) {
  if (kind == "ollama") return Dialect::ollama;
  if (kind == "openai") return Dialect::openai;
  if (kind == "llamacpp") return Dialect::llamacpp;
  return std::nullopt;
}

std::string_view name(LlmOp op) {
  switch (op) {
    case LlmOp::chat:
      return "chat";
    case LlmOp::generate:
      return "generate";
    case LlmOp::embed:
      return "embed";
  }
  return {};
}

std::string filled(std::string_view text, std::string_view with) {
  std::string out;
  for (;;) {
    const std::size_t at = text.find("{}");
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += with;
    text.remove_prefix(at + 2);
  }
}

bool overfills(std::string_view text, std::string_view with) {
  std::size_t bytes = text.size();
  for (std::size_t at = text.find("{}"); at != std::string_view::npos; at = text.find("{}", at + 2)) {
    if (bytes > kFilledBytes || with.size() > kFilledBytes - bytes) return true;
    bytes += with.size();
  }
  return false;
}

std::string LlmCall::text() const {
  if (op == LlmOp::generate) return system.empty() ? prompt : system + "\n" + prompt;
  std::string out;
  const auto add = [&](std::string_view more) {
    if (!out.empty()) out += '\n';
    out += more;
  };
  for (const std::string& one : input) add(one);
  for (const json::value& message : messages) {
    if (const json::value* content = member(message, "content")) add(text_of_content(*content));
  }
  return out;
}

Result<LlmCall> read_call(std::string_view op, std::string_view model, std::string_view prompt, std::string_view system,
                          std::string_view options_json, const boost::json::value& argument) {
  LlmCall call;
  if (op.empty() || op == "chat") {
    call.op = LlmOp::chat;
  } else if (op == "generate") {
    call.op = LlmOp::generate;
  } else if (op == "embed") {
    call.op = LlmOp::embed;
  } else {
    return wrong("The op of an llm job is chat, generate or embed, not '" + std::string(op) + "'.");
  }
  if (model.empty()) return wrong("An llm job needs the name of a model.");
  call.model = model;
  if (auto read = read_options(options_json, call); !read.ok()) return std::move(read).error();

  const std::string given = as_text(argument);
  if (overfills(prompt, given) || overfills(system, given)) {
    return wrong("With the argument in place of each {} the prompt is longer than 64 MiB.");
  }
  call.system = filled(system, given);
  const bool listed = prompt.empty() && argument.is_array();
  if (call.op == LlmOp::embed) {
    if (listed) {
      for (const json::value& one : argument.get_array()) call.input.push_back(as_text(one));
    } else {
      call.input.push_back(prompt.empty() ? given : filled(prompt, given));
    }
    if (call.input.empty() || (call.input.size() == 1 && call.input.front().empty())) {
      return wrong("There is nothing to embed: give a prompt, or a text as the task's argument.");
    }
    return call;
  }
  if (call.op == LlmOp::chat && listed && are_messages(argument)) {
    if (argument.get_array().size() > kMessages) return wrong("A chat takes at most 100,000 messages.");
    call.messages = argument.get_array();
  } else {
    call.prompt = prompt.empty() ? given : filled(prompt, given);
    if (call.prompt.empty()) {
      return wrong("There is no prompt: give one, or a text as the task's argument.");
    }
    if (call.op == LlmOp::chat) call.messages.push_back(json::object{{"role", "user"}, {"content", call.prompt}});
  }
  if (call.op == LlmOp::chat && !call.system.empty()) {
    call.messages.insert(call.messages.begin(), json::object{{"role", "system"}, {"content", call.system}});
  }
  return call;
}

LlmHttp http_of(const LlmCall& call, Dialect dialect) {
  return dialect == Dialect::ollama ? for_ollama(call) : for_openai(call, dialect);
}

}  // namespace grange::ai
