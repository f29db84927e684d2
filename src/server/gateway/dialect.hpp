// What the gateway must understand of the two dialects, and no more: what is asked for, how a fault is said, and what
// an answer says of its tokens. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "server/gateway/routing.hpp"

namespace grange::server::gateway {

// A route that is passed on.
struct Passed {
  std::string_view pattern;   // here: "/ollama/api/chat"
  std::string_view upstream;  // there: "/api/chat"
  Dialect dialect;
  bool light = false;
  bool embeds = false;  // OpenAI's: its client may want base64
};
const Passed* passed(std::string_view path);
// Of all paths at which a dialect is spoken, served or not.
std::optional<Dialect> dialect_at(std::string_view path);

struct Asked {
  Ask ask;
  bool base64 = false;  // embeddings as text
};
// `session`: what the header of that name said; "": none.
Result<Asked> read_ask(const Passed& route, std::string_view body, std::string_view session);

struct Fault {
  int status = 500;
  std::string type, code, message;
  std::uint32_t retry_after = 0;  // seconds; 0: not said
  std::string loading = {};       // a JSON object beside the error; "": none
};
std::string fault_body(Dialect dialect, const Fault& fault);
// Of a request that was refused here, by its class.
Fault fault_of(const Error& error);
// What a service answered with an error, in the words of the dialect; its message stays as it is. nullopt: it is in
// them already.
std::optional<std::string> error_in(Dialect dialect, int status, std::string_view answer);

// How an answer is framed, by its Content-Type.
enum class Framing : std::uint8_t { sse, ndjson, whole };
Framing framing_of(std::string_view content_type);
// What ends a stream that broke. `last`: the last bytes that went out.
std::string fault_in_stream(Framing framing, const Fault& fault, std::string_view last);
// Is this first piece of an answer of status 200 an error already?
bool begins_with_error(std::string_view piece);
// What follows the comments (": ping") with which an event stream begins; "": nothing yet.
std::string_view after_comments(std::string_view stream);

struct TokenCounts {
  std::optional<std::uint64_t> in, out;
};
// Keeps the end of an answer, where its token counts stand.
class Tail {
 public:
  void add(std::string_view piece);
  std::string_view text() const { return kept_; }
  TokenCounts counts() const;

 private:
  std::string kept_;
};

// Headers that go on; hop-by-hop ones, credentials, and what is this server's own to say stay behind. Names in lower
// case.
std::map<std::string, std::string> headers_up(const std::map<std::string, std::string>& from_client);
bool goes_down(std::string_view name);

// Vectors of an embeddings answer as base64 of little-endian floats, as they were asked for. nullopt: they are already,
// or it is no such answer.
std::optional<std::string> with_base64(std::string_view answer);

}  // namespace grange::server::gateway
