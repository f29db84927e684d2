// One request to a language model, and the body that each kind of service takes it in.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace grange::ai {

enum class Dialect { ollama, openai, llamacpp };
std::string_view name(Dialect dialect);                    // as Service.kind and as "engine" of a result
std::optional<Dialect> dialect_of(std::string_view kind);  // of a Service.kind; nothing for one that serves no models

enum class LlmOp { chat, generate, embed };
std::string_view name(LlmOp op);

struct LlmCall {
  LlmOp op = LlmOp::chat;
  std::string model;
  std::string prompt;                       // generate; of chat it is already the last of `messages`
  std::string system;                       // generate; of chat it is already the first of `messages`
  boost::json::array messages;              // chat: in OpenAI's form, or Ollama's; each dialect gets its own
  std::vector<std::string> input;           // embed
  bool stream = true;                       // an embedding is never streamed
  std::optional<std::uint64_t> max_tokens;  // absent: the service's own
  std::optional<std::uint64_t> num_ctx;
  std::optional<std::uint64_t> seed;
  boost::json::object options;  // the others, as they were given

  // The text that a mock answers to, and whose length is looked at: all of the messages, or the prompt.
  std::string text() const;
};

// From a job's spec and a task's argument. "{}" in prompt and system stands for the argument; with prompt "" the
// argument is the prompt: a text, a list of messages, or (embed) a list of texts. An argument of another type stands as
// its JSON. options_json: "" or an object; "max_tokens", "num_predict", "num_ctx", "seed", "stream" and "stop" are
// checked.
Result<LlmCall> read_call(std::string_view op, std::string_view model, std::string_view prompt, std::string_view system,
                          std::string_view options_json, const boost::json::value& argument);

struct LlmHttp {
  std::string path;  // "/api/chat", "/v1/chat/completions" …
  std::string body;
  bool stream = false;               // whether the answer comes in pieces
  std::vector<std::string> dropped;  // options that this kind of service does not have
};

// Names that differ are translated: max_tokens <-> num_predict, response_format <-> format, arguments of tool calls as
// text <-> object, pictures of messages. num_ctx only goes to Ollama: elsewhere the server's start decides it.
LlmHttp http_of(const LlmCall& call, Dialect dialect);

// "{}" in `text` replaced by `with`. The caller makes sure, by overfills(), that it does not come to too much.
std::string filled(std::string_view text, std::string_view with);
inline constexpr std::size_t kFilledBytes = 64u << 20;
bool overfills(std::string_view text, std::string_view with);  // to more than kFilledBytes

}  // namespace grange::ai
