#include "server/api/rest.hpp"

#include <fmt/format.h>

#include <charconv>

#include "server/api/job_keys.hpp"
#include "server/gateway/dialect.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {

std::map<std::string, std::string> security_headers() {
  return {{"Content-Security-Policy",
           "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
           "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Resource-Policy", "same-origin"}};
}

namespace {

// Seconds, as the error's own details have it ({"retry_in_ms": N}), or one.
std::uint64_t retry_after(const Error& error) {
  const auto details = wire::parse_json(error.details);
  const boost::json::value* ms =
      details && details->is_object() ? details->get_object().if_contains("retry_in_ms") : nullptr;
  if (ms == nullptr || !ms->is_int64() || ms->get_int64() <= 0) return 1;
  return (static_cast<std::uint64_t>(ms->get_int64()) + 999) / 1000;
}

// Older questions have always overheard what they do not know; these never did.
bool strict(const Route& route) {
  const std::string_view p = route.pattern;
  return route.method == "GET" && (p.ends_with("/explain") || p == "/api/dead-letters" || p == "/api/queue" ||
                                   p == "/api/policies" || route.tag == "users" || route.tag == "schedules");
}

}  // namespace

bool RestCall::index(std::uint32_t& out) const {
  const auto it = path.find("index");
  const auto number = it == path.end() ? std::nullopt : to_number(it->second);
  if (!number || *number > UINT32_MAX) {
    fail({ErrorClass::invalid_argument, "A task's index is a whole number."});
    return false;
  }
  out = static_cast<std::uint32_t>(*number);
  return true;
}

Result<boost::json::object> RestCall::body() const {
  if (request().body.empty()) return boost::json::object{};
  auto value = wire::parse_json(request().body);
  if (!value) return std::move(value).error();
  if (!value->is_object()) return Error{ErrorClass::invalid_argument, "The body must be a JSON object."};
  return std::move(value->get_object());
}

bool RestCall::no_keys(std::string_view of) const {
  auto object = body();
  if (!object) {
    fail(object.error());
    return false;
  }
  Keys keys(*object, "");
  auto fine = keys.finish(of);
  if (!fine) fail(fine.error());
  return fine.ok();
}

Done<std::uint32_t> RestCall::count_as(std::string key) const {
  return [exchange = exchange, key = std::move(key)](Result<std::uint32_t> n) {
    const RestCall call{.exchange = exchange, .who = {}, .path = {}};
    if (!n) return call.fail(n.error());
    call.answer(200, json::object{{key, *n}});
  };
}

Done<Unit> RestCall::just_ok() const {
  return [exchange = exchange](Result<> done) {
    const RestCall call{.exchange = exchange, .who = {}, .path = {}};
    if (!done) return call.fail(done.error());
    call.answer(200, json::object{{"ok", true}});
  };
}

void RestCall::answer_text(int status, std::string_view type, std::string body,
                           std::map<std::string, std::string> headers) const {
  headers.merge(security_headers());
  headers["Content-Type"] = std::string(type);
  headers.emplace("Cache-Control", "no-store");
  exchange->respond({.status = status, .headers = std::move(headers), .body = std::move(body)});
}

void RestCall::answer(int status, const boost::json::value& body, std::map<std::string, std::string> headers) const {
  answer_text(status, "application/json", wire::json_text(body), std::move(headers));
}

void RestCall::fail(const Error& error) const {
  const auto dialect = gateway::dialect_at(request().path);
  std::map<std::string, std::string> headers;
  if (error.cls == ErrorClass::unauthenticated) headers["WWW-Authenticate"] = "Bearer";
  if (error.cls == ErrorClass::rate_limited || error.cls == ErrorClass::unavailable ||
      error.cls == ErrorClass::storage_full)
    headers["Retry-After"] = std::to_string(retry_after(error));
  answer_text(http_status(error.cls), "application/json",
              dialect ? gateway::fault_body(*dialect, gateway::fault_of(error)) : error_body(error),
              std::move(headers));
}

void RestCall::wrong_method(const std::string& allow) const {
  const Error error{ErrorClass::invalid_argument, "This path takes " + allow + "."};
  const auto dialect = gateway::dialect_at(request().path);
  gateway::Fault fault = gateway::fault_of(error);
  fault.status = 405;
  fault.code = "method_not_allowed";
  answer_text(405, "application/json", dialect ? gateway::fault_body(*dialect, fault) : error_body(error),
              {{"Allow", allow}});
}

bool RestCall::number(const std::string& name, std::uint64_t least, std::uint64_t most, std::uint64_t fallback,
                      std::uint64_t& out) const {
  const std::string text = query(name);
  out = fallback;
  if (text.empty()) return true;
  const auto value = to_number(text);
  if (value && *value >= least && *value <= most) {
    out = *value;
    return true;
  }
  fail({ErrorClass::invalid_argument, fmt::format("\"{}\" must be a whole number from {} to {}.", name, least, most)});
  return false;
}

bool RestCall::seconds(const std::string& name, Millis most, Millis& out) const {
  const std::string text = query(name);
  out = Millis{0};
  if (text.empty()) return true;
  double value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc{} && end == text.data() + text.size() && value >= 0 &&
      value * 1000 <= static_cast<double>(most.count())) {
    out = Millis{static_cast<std::int64_t>(value * 1000)};
    return true;
  }
  fail({ErrorClass::invalid_argument,
        fmt::format("\"{}\" must be a number of seconds from 0 to {}.", name, most.count() / 1000)});
  return false;
}

void Rest::handle(net::HttpExchangePtr exchange) {
  auto call = std::make_shared<RestCall>();
  call->exchange = std::move(exchange);
  auto who = s_.authenticator.identify(call->request());
  if (!who) return call->fail(who.error());
  call->who = std::move(*who);
  if (call->who.kind == PrincipalKind::named) {
    Answering& of = answering_[call->who.name];
    if (of.exchanges.size() >= of.look_at) {
      std::erase_if(of.exchanges, [](const auto& weak) { return weak.expired(); });
      of.look_at = std::max<std::size_t>(256, 2 * of.exchanges.size());
    }
    of.exchanges.push_back(call->exchange);
  }
  Match match = match_route(call->request().method, call->request().path);
  if (match.route == nullptr) {
    if (!match.allow.empty()) return call->wrong_method(match.allow);
    const std::string& method = call->request().method;
    if ((method == "GET" || method == "HEAD") && authorize(call->who, Action::see_page, {"page"}).ok() &&
        web_file(call, call->request().path)) {
      return;
    }
    return call->fail({ErrorClass::not_found, "There is nothing at " + cut_utf8(call->request().path, 256) +
                                                  ". What there is stands at /docs"});
  }
  if (auto may = authorize(call->who, match.route->action,
                           {match.route->tag, match.params.empty() ? std::string_view{}
                                                                   : std::string_view(match.params.begin()->second)});
      !may) {
    return call->fail(may.error());
  }
  if (strict(*match.route)) {
    std::vector<std::string_view> known;
    for (const RouteParam& one : match.route->params) {
      if (!match.params.contains(std::string(one.name))) known.push_back(one.name);
    }
    for (const auto& [name, value] : call->request().query) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      const std::string_view near = nearest(name, known);
      return call->fail({ErrorClass::invalid_argument,
                         fmt::format("\"{}\" is not a parameter of this question{}", cut_utf8(name, 64),
                                     near.empty() ? "." : fmt::format(". Did you mean \"{}\"?", near))});
    }
  }
  call->path = std::move(match.params);
  (this->*match.route->handler)(std::move(call));
}

Result<> Rest::admit(const net::HttpRequest& head) const {
  auto who = s_.authenticator.identify(head);
  if (!who) return std::move(who).error();
  // What is open to all is open to be looked at: it takes no body from strangers.
  if (net::announces_body(head)) {
    if (auto may = authorize(*who, Action::see_me, {"body"}); !may) return may;
  }
  const Match match = match_route(head.method, head.path);
  if (match.route == nullptr) return {};
  return authorize(*who, match.route->action, {match.route->tag});
}

std::optional<std::string> Rest::refusal(const net::HttpRequest& head, const Error& why) {
  const auto dialect = gateway::dialect_at(head.path);
  if (!dialect) return std::nullopt;
  return gateway::fault_body(*dialect, gateway::fault_of(why));
}

void Rest::end(const std::string& token, const Error& why) {
  const auto of = answering_.find(token);
  if (of == answering_.end()) return;
  const auto exchanges = std::move(of->second.exchanges);
  answering_.erase(of);
  for (const auto& weak : exchanges) {
    const auto exchange = weak.lock();
    if (exchange == nullptr) continue;
    // An answer that was not begun says why, in the words of its path; then it is over for its owner too.
    if (gateway::dialect_at(exchange->request().path)) RestCall{.exchange = exchange, .who = {}, .path = {}}.fail(why);
    exchange->cut(why);
  }
}

bool Rest::streams_body(const net::HttpRequest& head) {
  return head.method == "PUT" && head.path.starts_with("/api/blobs/");
}

void Rest::tick(Now now) {
  if (now.mono - kept_open_ < Micros{15'000'000}) return;
  kept_open_ = now.mono;
  std::erase_if(streams_, [](const auto& weak) { return weak.expired(); });
  for (auto it = answering_.begin(); it != answering_.end();) {
    std::erase_if(it->second.exchanges, [](const auto& weak) { return weak.expired(); });
    it = it->second.exchanges.empty() ? answering_.erase(it) : std::next(it);
  }
  for (const auto& weak : streams_) {
    if (const auto exchange = weak.lock()) exchange->write(":\n\n");
  }
}

}  // namespace grange::server
