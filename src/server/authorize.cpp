#include "server/authorize.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <optional>

namespace grange::server {
namespace {

constexpr std::string_view kTokenSubprotocol = "grange.bearer.";

std::optional<std::string> from_base64url(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  std::uint32_t bits = 0;
  int n = 0;
  for (const char c : text) {
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    if (c >= '0' && c <= '9') value = c - '0' + 52;
    if (c == '-' || c == '+') value = 62;
    if (c == '_' || c == '/') value = 63;
    if (value < 0) return std::nullopt;
    bits = (bits << 6 | static_cast<std::uint32_t>(value)) & 0xFFFFFF;
    n += 6;
    if (n < 8) continue;
    n -= 8;
    out.push_back(static_cast<char>(bits >> n & 0xFF));
  }
  return out;
}

}  // namespace

std::string_view name(Action action) {
  switch (action) {
    case Action::see_health:
      return "see_health";
    case Action::see_page:
      return "see_page";
    case Action::see_docs:
      return "see_docs";
    case Action::see_stats:
      return "see_stats";
    case Action::see_jobs:
      return "see_jobs";
    case Action::submit_job:
      return "submit_job";
    case Action::cancel_job:
      return "cancel_job";
    case Action::retry_job:
      return "retry_job";
    case Action::pause_job:
      return "pause_job";
    case Action::extend_job:
      return "extend_job";
    case Action::see_results:
      return "see_results";
    case Action::see_logs:
      return "see_logs";
    case Action::see_workers:
      return "see_workers";
    case Action::drain_worker:
      return "drain_worker";
    case Action::release_worker:
      return "release_worker";
    case Action::serve_as_worker:
      return "serve_as_worker";
    case Action::see_failures:
      return "see_failures";
    case Action::see_events:
      return "see_events";
    case Action::read_blob:
      return "read_blob";
    case Action::write_blob:
      return "write_blob";
    case Action::read_model:
      return "read_model";
    case Action::write_model:
      return "write_model";
    case Action::see_database:
      return "see_database";
    case Action::clear_database:
      return "clear_database";
    case Action::see_policy:
      return "see_policy";
    case Action::set_policy:
      return "set_policy";
    case Action::pause_queue:
      return "pause_queue";
    case Action::see_users:
      return "see_users";
    case Action::set_users:
      return "set_users";
    case Action::see_schedules:
      return "see_schedules";
    case Action::set_schedules:
      return "set_schedules";
    case Action::see_metrics:
      return "see_metrics";
    case Action::use_models:
      return "use_models";
    case Action::list_models:
      return "list_models";
    case Action::keep_session:
      return "keep_session";
    case Action::pause_worker:
      return "pause_worker";
    case Action::forget_worker:
      return "forget_worker";
    case Action::see_settings:
      return "see_settings";
  }
  return "unknown";
}

Result<> authorize(const Principal& principal, Action action, const Object&) {
  if (principal.kind != PrincipalKind::anonymous) return {};
  switch (action) {
    case Action::see_health:
    case Action::see_page:
    case Action::see_docs:
      return {};
    default:
      return Error{ErrorClass::unauthenticated,
                   "This server wants its token: send the header \"Authorization: Bearer TOKEN\". The grange command "
                   "takes it from "
                   "GRANGE_TOKEN or --token-file."};
  }
}

Result<Principal> Authenticator::identify(const net::HttpRequest& head) const {
  if (token_.empty()) return Principal{"local", PrincipalKind::local};
  const auto it = head.headers.find("authorization");
  if (it == head.headers.end()) return Principal{"anonymous", PrincipalKind::anonymous};
  constexpr std::string_view scheme = "bearer ";
  std::string_view sent = it->second;
  const bool bearer =
      sent.size() > scheme.size() && std::equal(scheme.begin(), scheme.end(), sent.begin(), [](char a, char b) {
        return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
      });
  if (!bearer) {
    return Error{ErrorClass::unauthenticated, "The Authorization header must read \"Bearer TOKEN\"."};
  }
  sent.remove_prefix(scheme.size());
  return check(sent);
}

Result<Principal> Authenticator::identify_socket(const net::HttpRequest& head) const {
  const auto offered = head.headers.find("sec-websocket-protocol");
  if (token_.empty() || head.headers.contains("authorization") || offered == head.headers.end()) return identify(head);
  std::string_view list = offered->second;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view one = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
    while (!one.empty() && (one.back() == ' ' || one.back() == '\t')) one.remove_suffix(1);
    if (!one.starts_with(kTokenSubprotocol)) continue;
    const auto token = from_base64url(one.substr(kTokenSubprotocol.size()));
    if (!token) return Error{ErrorClass::unauthenticated, "What follows \"grange.bearer.\" is not base64url."};
    return check(*token);
  }
  return identify(head);
}

Result<Principal> Authenticator::check(std::string_view sent) const {
  // A wrong length may show in the time taken; what the token is does not.
  if (sent.size() != token_.size() || CRYPTO_memcmp(sent.data(), token_.data(), token_.size()) != 0) {
    return Error{ErrorClass::unauthenticated,
                 "This is not the server's token. Compare GRANGE_TOKEN with the server's --token-file."};
  }
  return Principal{"token", PrincipalKind::token};
}

const std::vector<MessageRule>& frame_rules() {
  static const std::vector<MessageRule> rules = {
      {"hello", Action::keep_session},
      {"welcome", Action::keep_session},
      {"error", Action::keep_session},
      {"only_ack", Action::keep_session},
      {"heartbeat", Action::keep_session},
      {"goodbye", Action::keep_session},
      {"report", Action::serve_as_worker},
      {"blob_refused", Action::serve_as_worker},
      {"orders", Action::serve_as_worker},
      {"request", Action::see_jobs},
      {"response", Action::see_jobs},
      {"outcomes", Action::see_results},
      {"request.submit", Action::submit_job},
      {"request.cancel", Action::cancel_job},
      {"request.follow", Action::see_results},
      {"request.status", Action::see_jobs},
      {"request.retry", Action::retry_job},
      {"request.unfollow", Action::see_results},
      {"request.pause", Action::pause_job},
      {"request.extend", Action::extend_job},
      {"hello.worker", Action::serve_as_worker},
      {"relay", Action::serve_as_worker},
  };
  return rules;
}

const std::vector<MessageRule>& json_rules() {
  static const std::vector<MessageRule> rules = {
      {"submit_job", Action::submit_job},
      {"get_job_status", Action::see_jobs},
      {"get_results", Action::see_results},
      {"get_job_result", Action::see_results},
      {"cancel_job", Action::cancel_job},
      {"register_worker", Action::serve_as_worker},
      {"worker_ready", Action::serve_as_worker},
      {"task_request", Action::serve_as_worker},
      {"task_result", Action::serve_as_worker},
      {"result_submit", Action::serve_as_worker},
      {"worker_failure", Action::serve_as_worker},
      {"task_error", Action::serve_as_worker},
      {"progress_update", Action::serve_as_worker},
      {"task_progress", Action::serve_as_worker},
      {"heartbeat", Action::keep_session},
      {"worker_heartbeat", Action::keep_session},
      {"ping", Action::keep_session},
      {"pong", Action::keep_session},
      {"subscribe", Action::see_events},
      {"unsubscribe", Action::see_events},
  };
  return rules;
}

Result<> authorize_message(const std::vector<MessageRule>& rules, const Principal& principal, std::string_view message,
                           const Object& object) {
  for (const MessageRule& rule : rules) {
    if (rule.message == message) return authorize(principal, rule.action, object);
  }
  return Error{ErrorClass::forbidden,
               "The message \"" + std::string(message) + "\" has no rule, so nobody may send it."};
}

}  // namespace grange::server
