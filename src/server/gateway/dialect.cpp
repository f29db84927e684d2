#include "server/gateway/dialect.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cstring>

#include "base/utf8.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

namespace json = boost::json;

constexpr std::size_t kTail = 8 * KiB;    // holds the last frames, and the figures at the end of a whole answer
constexpr std::size_t kPrefix = 4 * KiB;  // of a first message: tells conversations apart

constexpr std::array kPassed{
    Passed{"/v1/chat/completions", "/v1/chat/completions", Dialect::openai},
    Passed{"/v1/completions", "/v1/completions", Dialect::openai},
    Passed{"/v1/embeddings", "/v1/embeddings", Dialect::openai, false, true},
    Passed{"/ollama/api/chat", "/api/chat", Dialect::ollama},
    Passed{"/ollama/api/generate", "/api/generate", Dialect::ollama},
    Passed{"/ollama/api/embed", "/api/embed", Dialect::ollama},
    Passed{"/ollama/api/embeddings", "/api/embeddings", Dialect::ollama},
    Passed{"/ollama/api/show", "/api/show", Dialect::ollama, true},
};

std::string_view text_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
}

std::uint64_t mix(std::uint64_t seed, std::string_view text) {
  for (const char c : text.substr(0, kPrefix)) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return (seed ^ 0xFF) * 0x100000001B3ull;
}

std::uint64_t mix_content(std::uint64_t seed, const json::value& content) {
  if (content.is_string()) return mix(seed, content.get_string());
  if (!content.is_array()) return seed;
  for (const json::value& part : content.get_array()) {
    if (part.is_object()) seed = mix(seed, text_of(part.get_object(), "text"));
  }
  return seed;
}

// A conversation keeps its beginning: all up to its first question.
std::uint64_t conversation(const json::object& body, std::string_view session) {
  std::uint64_t seed = mix(0xCBF29CE484222325ull, text_of(body, "model"));
  if (!session.empty()) return mix(seed, session) | 1;
  for (const char* key : {"prompt_cache_key", "user"}) {
    if (const auto name = text_of(body, key); !name.empty()) return mix(mix(seed, key), name) | 1;
  }
  if (const json::value* messages = body.if_contains("messages"); messages != nullptr && messages->is_array()) {
    bool any = false;
    for (const json::value& message : messages->get_array()) {
      const json::object* one = message.if_object();
      if (one == nullptr) continue;
      if (const json::value* content = one->if_contains("content")) seed = mix_content(seed, *content);
      any = true;
      if (text_of(*one, "role") == "user") break;
    }
    return any ? seed | 1 : 0;
  }
  if (const json::value* prompt = body.if_contains("prompt"); prompt != nullptr && prompt->is_string())
    return mix(seed, prompt->get_string()) | 1;
  return 0;
}

std::string_view trimmed(std::string_view text) {
  const auto from = text.find_first_not_of(" \t\r\n");
  return from == std::string_view::npos ? std::string_view() : text.substr(from);
}

// As OpenAI sorts its errors.
std::string_view type_of(int status) {
  if (status == 429) return "rate_limit_error";
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

// The number behind the last "key": in the text.
std::optional<std::uint64_t> number_after(std::string_view text, std::string_view key) {
  const std::string quoted = '"' + std::string(key) + '"';
  std::optional<std::uint64_t> last;
  // memmem, since find and rfind compare at every quote or byte: a stall for all streams at the end of each.
  for (auto rest = text; !rest.empty();) {
    const void* found = ::memmem(rest.data(), rest.size(), quoted.data(), quoted.size());
    if (found == nullptr) break;
    rest.remove_prefix(static_cast<std::size_t>(static_cast<const char*>(found) - rest.data()) + quoted.size());
    auto behind = trimmed(rest);
    if (!behind.starts_with(':')) continue;
    behind = trimmed(behind.substr(1));
    std::uint64_t value = 0;
    const auto [end, bad] = std::from_chars(behind.data(), behind.data() + behind.size(), value);
    // The number must end in the text, or digits of it may be missing.
    if (bad == std::errc{} && end != behind.data() + behind.size()) last = value;
  }
  return last;
}

}  // namespace

const Passed* passed(std::string_view path) {
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const auto it =
      std::find_if(kPassed.begin(), kPassed.end(), [path](const Passed& one) { return one.pattern == path; });
  return it == kPassed.end() ? nullptr : &*it;
}

std::optional<Dialect> dialect_at(std::string_view path) {
  if (path == "/v1" || path.starts_with("/v1/")) return Dialect::openai;
  if (path == "/ollama" || path.starts_with("/ollama/")) return Dialect::ollama;
  return std::nullopt;
}

Result<Asked> read_ask(const Passed& route, std::string_view body, std::string_view session) {
  auto value = wire::parse_json(body);
  if (!value) return std::move(value).error();
  const json::object* object = value->if_object();
  if (object == nullptr) return Error{ErrorClass::invalid_argument, "The body must be a JSON object."};
  Asked out;
  out.ask.dialect = route.dialect;
  out.ask.light = route.light;
  out.ask.model = text_of(*object, "model");
  if (out.ask.model.empty() && route.light) out.ask.model = text_of(*object, "name");
  if (out.ask.model.empty())
    return Error{ErrorClass::invalid_argument, "The body needs a \"model\". See which there are: grange models ls"};
  if (out.ask.model.size() > 256) return Error{ErrorClass::invalid_argument, "A model's name has at most 256 bytes."};
  if (const json::value* options = object->if_contains("options"); options != nullptr && options->is_object()) {
    if (const json::value* n = options->get_object().if_contains("num_ctx"); n != nullptr && n->is_int64())
      out.ask.context = static_cast<std::uint32_t>(std::clamp<std::int64_t>(n->get_int64(), 0, UINT32_MAX));
  }
  if (!route.embeds && !route.light) out.ask.affinity = conversation(*object, session);
  out.base64 = route.embeds && text_of(*object, "encoding_format") == "base64";
  return out;
}

std::string fault_body(Dialect dialect, const Fault& fault) {
  json::object out;
  if (dialect == Dialect::ollama) {
    out["error"] = fault.message;
  } else {
    out["error"] =
        json::object{{"message", fault.message}, {"type", fault.type}, {"param", nullptr}, {"code", fault.code}};
  }
  if (!fault.loading.empty()) {
    if (auto loading = wire::parse_json(fault.loading)) out["loading"] = std::move(*loading);
  }
  return json::serialize(out);
}

Fault fault_of(const Error& error) {
  const int status = http_status(error.cls);
  Fault out{status, std::string(type_of(status)), std::string(code(error.cls)), error.message};
  if (error.cls == ErrorClass::unauthenticated) out.code = "invalid_api_key";
  return out;
}

std::optional<std::string> error_in(Dialect dialect, int status, std::string_view answer) {
  const auto value = wire::parse_json(answer);
  const json::object* object = value && value->is_object() ? &value->get_object() : nullptr;
  const json::value* error = object == nullptr ? nullptr : object->if_contains("error");
  const json::object* inner = error != nullptr && error->is_object() ? &error->get_object() : nullptr;
  const std::string_view inner_text = inner == nullptr ? std::string_view() : text_of(*inner, "message");
  const bool as_text = error != nullptr && error->is_string();
  if (dialect == Dialect::ollama ? as_text : !inner_text.empty()) return std::nullopt;
  Fault out{status, std::string(type_of(status)), "upstream_error", {}};
  if (inner != nullptr) {
    out.message = inner_text;
  } else if (as_text) {
    out.message = error->get_string();
  } else if (object != nullptr) {
    for (const char* key : {"message", "detail"}) {
      if (out.message.empty()) out.message = text_of(*object, key);
    }
  }
  if (out.message.empty()) out.message = is_utf8(std::string(answer)) ? answer : std::string_view();
  if (out.message.empty()) out.message = "The service answered with the status " + std::to_string(status) + ".";
  return fault_body(dialect, out);
}

Framing framing_of(std::string_view content_type) {
  if (content_type.starts_with("text/event-stream")) return Framing::sse;
  if (content_type.starts_with("application/x-ndjson")) return Framing::ndjson;
  return Framing::whole;
}

std::string fault_in_stream(Framing framing, const Fault& fault, std::string_view last) {
  if (framing == Framing::sse) {
    const std::string_view open = last.empty() || last.ends_with("\n\n") || last.ends_with("\r\n\r\n") ? "" : "\n\n";
    return std::string(open) + "data: " + fault_body(Dialect::openai, fault) + "\n\n";
  }
  if (framing == Framing::ndjson) {
    return (last.empty() || last.ends_with('\n') ? "" : "\n") + fault_body(Dialect::ollama, fault) + "\n";
  }
  return {};
}

bool begins_with_error(std::string_view piece) {
  piece = trimmed(piece);
  if (piece.starts_with("error:")) return true;  // as some servers wrote it
  if (piece.starts_with("data:")) piece = trimmed(piece.substr(5));
  if (!piece.starts_with('{')) return false;
  piece = trimmed(piece.substr(1));
  if (!piece.starts_with("\"error\"")) return false;
  piece = trimmed(piece.substr(7));
  return piece.starts_with(':') && !trimmed(piece.substr(1)).starts_with("null");
}

std::string_view after_comments(std::string_view stream) {
  if (stream.starts_with("\xEF\xBB\xBF")) stream.remove_prefix(3);
  while (!stream.empty()) {
    const char first = stream.front();
    if (first == '\n' || first == '\r') {
      stream.remove_prefix(1);
      continue;
    }
    if (first != ':') return stream;
    const auto end = stream.find_first_of("\r\n");
    if (end == std::string_view::npos) return {};
    stream.remove_prefix(end);
  }
  return {};
}

void Tail::add(std::string_view piece) {
  if (piece.size() >= kTail) {
    kept_.assign(piece.substr(piece.size() - kTail));
    return;
  }
  if (kept_.size() + piece.size() > 2 * kTail) kept_.erase(0, kept_.size() - kTail);
  kept_ += piece;
}

TokenCounts Tail::counts() const {
  TokenCounts out;
  const std::string_view text = kept_;
  // OpenAI's "usage" (not the null of earlier frames), Ollama's own counts, llama.cpp's timings.
  out.in = number_after(text, "prompt_tokens");
  out.out = number_after(text, "completion_tokens");
  if (!out.in && !out.out) {
    out.in = number_after(text, "prompt_eval_count");
    out.out = number_after(text, "eval_count");
  }
  if (!out.in && !out.out) {
    out.in = number_after(text, "prompt_n");
    if (const auto cached = number_after(text, "cache_n"); out.in && cached) *out.in += *cached;
    out.out = number_after(text, "predicted_n");
  }
  return out;
}

std::map<std::string, std::string> headers_up(const std::map<std::string, std::string>& from_client) {
  std::map<std::string, std::string> out;
  for (const char* name : {"content-type", "accept", "user-agent", "openai-beta", "traceparent", "tracestate"}) {
    if (const auto it = from_client.find(name); it != from_client.end()) out.insert(*it);
  }
  out.emplace("content-type", "application/json");
  return out;
}

bool goes_down(std::string_view name) {
  for (const std::string_view ours : {"connection",
                                      "keep-alive",
                                      "proxy-authenticate",
                                      "proxy-connection",
                                      "te",
                                      "trailer",
                                      "transfer-encoding",
                                      "upgrade",
                                      "content-length",
                                      "date",
                                      "server",
                                      "set-cookie",
                                      "www-authenticate",
                                      "cache-control",
                                      "x-accel-buffering",
                                      "x-request-id",
                                      "x-content-type-options",
                                      "content-security-policy",
                                      "referrer-policy",
                                      "cross-origin-resource-policy",
                                      "etag",
                                      "last-modified",
                                      "alt-svc",
                                      "strict-transport-security",
                                      "location",
                                      "refresh",
                                      "vary"}) {
    if (name == ours) return false;
  }
  return !name.starts_with("access-control-") && !name.starts_with("x-grange-");
}

std::optional<std::string> with_base64(std::string_view answer) {
  auto value = wire::parse_json(answer);
  if (!value || !value->is_object()) return std::nullopt;
  json::value* data = value->get_object().if_contains("data");
  if (data == nullptr || !data->is_array()) return std::nullopt;
  bool changed = false;
  for (json::value& one : data->get_array()) {
    json::value* vector = one.is_object() ? one.get_object().if_contains("embedding") : nullptr;
    if (vector == nullptr || !vector->is_array()) continue;
    std::string bytes;
    bytes.reserve(vector->get_array().size() * 4);
    for (const json::value& number : vector->get_array()) {
      if (!number.is_number()) return std::nullopt;
      const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(number.to_number<double>()));
      for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(bits >> shift & 0xFF));
    }
    *vector = to_base64(bytes);
    changed = true;
  }
  if (!changed) return std::nullopt;
  return json::serialize(*value);
}

}  // namespace grange::server::gateway
