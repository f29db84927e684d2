// The answer of a language model, read as it arrives: its text, and what the engine itself measured.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ai/classify.hpp"
#include "ai/llm_request.hpp"
#include "base/units.hpp"

namespace grange::ai {

inline constexpr std::size_t kLlmLineBytes = 4 * MiB;   // of one line or event of a stream
inline constexpr std::size_t kLlmBodyBytes = 64 * MiB;  // of an answer that is not streamed; of all text of a stream
inline constexpr std::size_t kLlmToolCalls = 1024;
inline constexpr std::size_t kLlmGaps = 1'000'000;  // times between tokens that are kept

struct LlmEvent {
  enum class Type { text, thinking, tool_call, done, error };
  Type type = Type::text;
  std::string text;          // text, thinking: what is new. error: the sentence. done: the reason
  boost::json::object call;  // tool_call: {"id","type":"function","function":{"name","arguments": text}}
  Classified error;          // error
};

// Times are in milliseconds. What the engine did not say, or what cannot be known, is absent.
struct Metrics {
  std::optional<std::uint64_t> prompt_tokens, gen_tokens, cached_tokens;  // the engine's counts
  std::optional<double> ttft_ms;   // request to first token, thinking too; absent when not streamed
  std::optional<double> total_ms;  // request to the end of the answer
  std::optional<double> load_ms;
  std::optional<double> prompt_tokens_per_s;  // the engine's
  std::optional<double> gen_tokens_per_s;     // decode rate: after the first token
  std::string gen_rate_by;                    // "engine", or "client": (tokens - 1) / (last - first); "" when absent
  std::optional<double> e2e_tokens_per_s;     // gen_tokens / total
  std::vector<double> itl_ms;                 // gaps between the pieces as they came
};

struct LlmResult {
  std::string text, thinking;
  boost::json::array tool_calls;  // in OpenAI's form
  std::vector<std::vector<double>> embeddings;
  std::string finish_reason;  // stop | length | tool_calls | load …, as the engine said it; "" when it did not
  std::string model;          // as the engine calls it
  Metrics metrics;
};

class LlmStream {
 public:
  enum class Keep { all, figures };  // figures: the result has no text, calls or gaps; the events had them
  // started: when the request was sent, on the clock of all times that follow.
  LlmStream(Dialect dialect, LlmOp op, bool streamed, Micros started, Keep keep = Keep::all);
  ~LlmStream();
  LlmStream(LlmStream&&) noexcept;
  LlmStream& operator=(LlmStream&&) noexcept;

  // Of the answer's head. From 400 on the body is an error, and is classified when it ends.
  void status(int http_status);
  // Appends what the bytes complete. The same events come however the bytes are cut. After done or error: none.
  void feed(std::string_view bytes, Micros at, std::vector<LlmEvent>& events);
  // The answer has ended, or its connection has.
  void end(Micros at, std::vector<LlmEvent>& events);

  bool ended() const;               // done or error was given
  bool failed() const;              // error was given
  bool begun() const;               // a token came: from here on the answer cannot be had from elsewhere unseen
  const LlmResult& result() const;  // complete once ended; what there is of it before
  std::size_t held() const;         // bytes that wait for more before they are an event; of Keep::figures: all there is

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The value of an llm task. engine: name(Dialect), or "mock" with its reason.
boost::json::object result_json(const LlmResult& result, std::string_view engine, std::string_view service,
                                std::string_view model, std::string_view mock_reason = {});

}  // namespace grange::ai
