// The answer of a service, on its way to the client.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "ai/classify.hpp"
#include "base/http_time.hpp"
#include "server/api/rest.hpp"
#include "server/gateway/stream.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

constexpr std::int64_t kSlack = 1 * MiB;  // beyond its credit, in all: what was read before the worker counted
constexpr std::size_t kHeaders = 64;

Fault fault_of_worker(const pb::ErrorInfo& error, const std::string& worker) {
  const std::string message = cut_utf8(is_utf8(error.message()) ? error.message() : "", 1024);
  if (error.code() == "timeout") return {504, "server_error", "upstream_timeout", message};
  return {502, "server_error", "upstream_unreachable",
          message.empty() ? fmt::format("The service on {} broke off.", worker) : message};
}

std::uint32_t retry_after_s(const std::map<std::string, std::string>& headers, WallMs now) {
  const auto it = headers.find("retry-after");
  if (it == headers.end()) return 0;
  if (const auto value = to_number(it->second))
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(*value, 3600));
  const auto until = http_time(it->second);
  return until ? static_cast<std::uint32_t>(std::clamp<std::int64_t>((until->ms - now.ms + 999) / 1000, 0, 3600)) : 0;
}

// What a service that loads a model tells of it beside the error; "": nothing.
std::string loading_of(std::string_view body) {
  const auto value = wire::parse_json(body);
  const boost::json::value* said = value && value->is_object() ? value->get_object().if_contains("loading") : nullptr;
  return said != nullptr && said->is_object() ? boost::json::serialize(*said) : "";
}

bool is_packed(const std::map<std::string, std::string>& headers) {
  const auto it = headers.find("content-encoding");
  return it != headers.end() && !it->second.empty() && it->second != "identity";
}

// Streams of both dialects say when they are complete. The last line of Ollama may be long: then its figures tell.
bool ended_whole(Framing framing, std::string_view tail) {
  const auto line = [tail](std::string_view wanted) {
    return tail.starts_with(wanted) || tail.find('\n' + std::string(wanted)) != std::string_view::npos;
  };
  const auto any = [tail](std::string_view wanted) { return tail.find(wanted) != std::string_view::npos; };
  if (framing == Framing::sse) return line("data: [DONE]") || line("data:[DONE]");
  if (framing == Framing::ndjson) return any("\"done\":true") || any("\"done\": true") || any("\"total_duration\":");
  return true;
}

// An error frame as the last thing said, under a status of 200.
bool ended_in_error(std::string_view tail) {
  for (const std::string_view frame : {"\ndata: {\"error\"", "\n{\"error\"", "\ndata:{\"error\"", "\nerror: {"}) {
    if (tail.find(frame) != std::string_view::npos || tail.starts_with(frame.substr(1))) return true;
  }
  return false;
}

}  // namespace

void Gateway::heard(WorkerNo worker, pb::Relay& relay) {
  if (const auto log = logs_.find(relay.stream()); log != logs_.end()) {
    if (log->second.worker == worker) log_heard(log->first, log->second, relay);
    return;
  }
  const auto it = relays_.find(relay.stream());
  if (it == relays_.end() || it->second->worker != worker) return;  // over, or another's
  Stream& stream = *it->second;
  switch (relay.what_case()) {
    case pb::Relay::kHead:
      return head(stream, *relay.mutable_head());
    case pb::Relay::kBody:
      return body(stream, std::move(*relay.mutable_body()));
    case pb::Relay::kEnd:
      return end(stream, relay.end());
    default:
      return;
  }
}

void Gateway::head(Stream& stream, pb::RelayHead& head) {
  Stream::Answer& answer = stream.answer;
  if (answer.status != 0) return;
  if (head.status() < 200 || head.status() > 599)
    return broken(stream, {502, "server_error", "upstream_error", "The service answered with no status of HTTP."});
  // A client that follows it would send its request, and its token, to where the service likes.
  if (head.status() >= 300 && head.status() < 400)
    return broken(stream, {502, "server_error", "upstream_error",
                           "The service sent the request to another address, which is not followed."});
  answer.status = static_cast<int>(head.status());
  for (pb::RelayHeader& one : *head.mutable_headers()) {
    if (answer.headers.size() >= kHeaders || one.name().empty() || one.name().size() > 256) continue;
    std::string name = std::move(*one.mutable_name());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 127 && c != ':'; });
    if (plain && goes_down(name)) answer.headers[name] = cut_utf8(std::move(*one.mutable_value()), 4 * KiB);
  }
  const auto type = answer.headers.find("content-type");
  answer.framing = type == answer.headers.end() ? Framing::whole : framing_of(type->second);
  answer.collects = answer.status >= 400 || stream.asked.base64;
  if (stream.translated && answer.status < 400) {
    if (is_packed(answer.headers)) {
      return broken(stream, {502, "server_error", "upstream_error",
                             fmt::format("The service packed its answer (content-encoding: {}), so it cannot be told "
                                         "in Ollama's dialect. Let the service answer unpacked, or ask at /v1.",
                                         for_log(answer.headers["content-encoding"], 64))});
    }
    answer.headers.erase("content-encoding");
    const bool lines = stream.translated->streamed();
    answer.headers["content-type"] = lines ? "application/x-ndjson" : "application/json";
    answer.framing = lines ? Framing::ndjson : Framing::whole;
  }
}

void Gateway::body(Stream& stream, std::string bytes) {
  Stream::Answer& answer = stream.answer;
  if (answer.status == 0)
    return broken(stream, {502, "server_error", "upstream_error", "The worker sent a body without its head."});
  if (answer.status == 204 && !bytes.empty())
    return broken(stream, {502, "server_error", "upstream_error", "The service sent a body where none may be."});
  stream.allowed -= static_cast<std::int64_t>(bytes.size());
  if (stream.allowed < -kSlack)
    return broken(stream, {502, "server_error", "upstream_error", "The worker sent more than it was asked for."});
  stream.taken += bytes.size();
  if (answer.collects) {
    const bool error = answer.status >= 400;
    const Bytes limit = error ? kErrorBody : kEmbeddingBody;
    if (answer.held.size() + bytes.size() <= limit && (error || collected_ + bytes.size() <= kCollected)) {
      answer.held += bytes;
      collects(stream, answer.held.size());
      return grant(stream);
    }
    // Too long to wait for its end: it goes as it is.
    answer.collects = false;
    collects(stream, 0);
    return pass(stream, std::exchange(answer.held, {}) + bytes);
  }
  if (stream.translated) {
    if (!stream.translated->streamed()) {
      const Bytes all = stream.collected + bytes.size();
      if (all > kTranslated || collected_ + bytes.size() > kCollected)
        return broken(stream,
                      {502, "server_error", "too_large",
                       "The answer is too large to be told in Ollama's dialect as a whole. Ask for a stream, or "
                       "at /v1."});
      collects(stream, all);
    }
    auto piece = stream.translated->feed(bytes, Micros{now().us}, s_.clock.now().wall);
    if (stream.translated->streamed() && piece.failure.empty()) {
      const Bytes held = stream.translated->held();
      if (held > kTranslated || (held > kComments && collected_ - stream.collected + held > kCollected))
        return broken(stream, {502, "server_error", "too_large",
                               "The answer comes in pieces too large to be told in Ollama's dialect. Ask at /v1."});
      collects(stream, held);
    }
    return told(stream, std::move(piece));
  }
  if (!stream.started && answer.framing == Framing::sse) {
    // Comments keep a connection open; they are no answer yet, and another service may still take over.
    answer.held += bytes;
    if (after_comments(answer.held).empty() && answer.held.size() <= kComments) {
      collects(stream, answer.held.size());
      return grant(stream);
    }
    bytes = std::exchange(answer.held, {});
    collects(stream, 0);
  }
  if (!stream.started &&
      begins_with_error(answer.framing == Framing::sse ? after_comments(bytes) : std::string_view(bytes))) {
    auto but = stream.tried;
    but.push_back(stream.place);
    if (stream.failures + 1 < kTries && board_.choose(stream.asked.ask, but, now()).why == Choice::Why::chosen) {
      return try_elsewhere(stream, {502, "server_error", "upstream_error", "The service answered with an error."});
    }
  }
  pass(stream, std::move(bytes));
}

void Gateway::told(Stream& stream, OllamaAnswer::Piece piece) {
  if (!piece.failure.empty()) return broken(stream, {502, "server_error", "upstream_error", std::move(piece.failure)});
  if (!stream.translated->streamed()) {
    stream.answer.held += piece.bytes;
  } else if (!piece.bytes.empty()) {
    return pass(stream, std::move(piece.bytes));
  }
  grant(stream);
}

void Gateway::told_all(Stream& stream) {
  OllamaAnswer& answer = *stream.translated;
  if (!answer.over()) {
    OllamaAnswer::Piece piece = answer.end(Micros{now().us}, s_.clock.now().wall);
    if (!piece.failure.empty()) return told(stream, std::move(piece));
    told(stream, std::move(piece));
  }
  if (!answer.streamed()) return answered_whole(stream);
  stream.exchange->end_stream();
  finish(stream, End::completed, nullptr);
}

void Gateway::collects(Stream& stream, Bytes now) {
  collected_ = collected_ - stream.collected + now;
  stream.collected = now;
}

std::map<std::string, std::string> Gateway::answer_headers(const Stream& stream) const {
  auto headers = security_headers();
  headers["Cache-Control"] = "no-cache";
  headers["X-Accel-Buffering"] = "no";
  headers["x-request-id"] = stream.record.request_id;
  if (!stream.record.worker.empty()) headers["x-grange-worker"] = for_log(stream.record.worker, 256);
  if (!stream.record.service.empty()) headers["x-grange-service"] = for_log(stream.record.service, 256);
  return headers;
}

void Gateway::start_answer(Stream& stream) {
  stream.started = true;
  std::string().swap(stream.body);  // no other service will need it
  stream.record.status = stream.answer.status;
  stream.record.ttft_ms = static_cast<double>((now() - stream.arrived).count()) / 1000;
  auto headers = answer_headers(stream);
  for (const auto& [name, value] : stream.answer.headers) headers[name] = value;
  stream.exchange->start_stream({.status = stream.answer.status, .headers = std::move(headers), .body = {}});
}

void Gateway::pass(Stream& stream, std::string bytes) {
  if (!stream.started) start_answer(stream);
  stream.tail.add(bytes);
  stream.record.bytes += bytes.size();
  stream.held_back = !stream.exchange->write(std::move(bytes));
  grant(stream);
}

// What was passed on makes room for more: not for each piece, or there were as many messages back as forth.
void Gateway::grant(Stream& stream) {
  if (stream.held_back || stream.relay == 0 || stream.taken < kCredit / 2) return;
  pb::Relay relay;
  relay.mutable_credit()->set_bytes(stream.taken);
  stream.allowed += static_cast<std::int64_t>(stream.taken);
  stream.taken = 0;
  send(stream, relay);
}

void Gateway::end(Stream& stream, const pb::RelayEnd& end) {
  leave_place(stream, false);
  const bool told_well = stream.translated && stream.translated->over();
  if (end.has_error() && !told_well) return broken(stream, fault_of_worker(end.error(), stream.record.worker));
  if (stream.answer.status == 0)
    return broken(stream, {502, "server_error", "upstream_error", "The service ended without an answer."});
  if (stream.answer.collects) {
    if (stream.answer.status >= 400) return upstream_refused(stream);
    if (auto converted = with_base64(stream.answer.held)) {
      stream.answer.held = std::move(*converted);
      stream.answer.headers.erase("content-encoding");
    }
    return answered_whole(stream);
  }
  if (stream.translated) return told_all(stream);
  if (!stream.started && stream.answer.framing == Framing::sse && stream.answer.status == 200)
    return broken(stream, {502, "server_error", "upstream_error", "The service ended its answer before it began."});
  if (!stream.started) start_answer(stream);  // a head without a body
  stream.exchange->end_stream();
  const bool error = stream.answer.status >= 400 || ended_in_error(stream.tail.text()) ||
                     !ended_whole(stream.answer.framing, stream.tail.text());
  const Fault said{.status = stream.answer.status, .type = {}, .code = "upstream_error", .message = {}};
  finish(stream, error ? End::failed : End::completed, error ? &said : nullptr);
}

// It said no before anything went out. Is it worth asking another, or later?
void Gateway::upstream_refused(Stream& stream) {
  const int status = stream.answer.status;
  const auto about = ai::classify(stream.kind, status, stream.answer.held);
  const std::uint32_t after = retry_after_s(stream.answer.headers, s_.clock.now().wall);
  const auto rest = std::max(limits_.cool, std::min(Millis{after * 1000ll}, limits_.wait));
  Fault fault{502, "server_error", "upstream_error",
              fmt::format("{} on {}: {}", stream.record.service, stream.record.worker, about.sentence())};
  if (about.error == ai::EngineError::loading) {
    board_.cool(stream.place, now() + rest, true);
    fault.code = "model_loading";
    fault.loading = loading_of(stream.answer.held);
  } else if (status == 429 || status == 503 || about.error == ai::EngineError::busy) {
    board_.cool(stream.place, now() + rest, false);
    fault.code = "busy";
  } else if (status == 401 || status == 403) {
    fault.code = "upstream_auth";  // the service's key, not the client's
  } else if (status == 404 || status == 408 || status >= 500 || about.error == ai::EngineError::missing_model) {
    stream.refusal = stream.answer;
  } else {
    return answered_whole(stream);  // the request itself is at fault
  }
  try_elsewhere(stream, std::move(fault));
}

void Gateway::answered_whole(Stream& stream) {
  auto headers = answer_headers(stream);
  for (const auto& [name, value] : stream.answer.headers) headers[name] = value;
  const int status = stream.answer.status;
  if (status >= 400) {
    if (auto said = error_in(stream.route->dialect, status, stream.answer.held)) {
      stream.answer.held = std::move(*said);
      headers.erase("content-encoding");
      headers.erase("content-type");
      headers["Content-Type"] = "application/json";
    }
  }
  stream.started = true;
  stream.record.status = status;
  stream.record.ttft_ms = static_cast<double>((now() - stream.arrived).count()) / 1000;
  stream.record.bytes += stream.answer.held.size();
  stream.tail.add(stream.answer.held);
  stream.exchange->respond({.status = status, .headers = std::move(headers), .body = std::move(stream.answer.held)});
  const Fault said{.status = status, .type = {}, .code = "upstream_error", .message = {}};
  finish(stream, status >= 400 ? End::failed : End::completed, status >= 400 ? &said : nullptr);
}

void Gateway::broken(Stream& stream, Fault fault) {
  if (!stream.started) return try_elsewhere(stream, std::move(fault));
  // Plain text amid packed bytes would be read by nobody.
  const Framing framing = is_packed(stream.answer.headers) ? Framing::whole : stream.answer.framing;
  const std::string last = fault_in_stream(framing, fault, stream.tail.text());
  if (!last.empty()) {
    stream.exchange->write(last);
    stream.exchange->end_stream();
  }
  // Else the answer is cut short, and the client sees that it is: no JSON could say so in the middle of JSON.
  finish(stream, End::failed, &fault);
}

}  // namespace grange::server::gateway
