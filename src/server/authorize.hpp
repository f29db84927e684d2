// Who may do what. Every REST route and every message names one Action, and passes authorize() before anything is done.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "net/listener.hpp"

namespace grange::server {

enum class PrincipalKind : std::uint8_t {
  anonymous,  // sent no token where one is wanted
  local,      // no token is configured: the server listens on loopback only
  token,      // sent the token
};
struct Principal {
  std::string name;
  PrincipalKind kind = PrincipalKind::anonymous;
};

enum class Action : std::uint8_t {
  see_health,
  see_page,
  see_docs,  // open to all
  see_stats,
  see_jobs,
  submit_job,
  cancel_job,
  retry_job,
  pause_job,
  extend_job,
  see_results,
  see_logs,
  see_workers,
  drain_worker,
  release_worker,
  serve_as_worker,
  see_failures,
  see_events,
  read_blob,
  write_blob,
  read_model,
  write_model,
  see_database,
  clear_database,
  see_policy,
  set_policy,
  pause_queue,
  see_users,
  set_users,
  see_schedules,
  set_schedules,
  see_metrics,
  use_models,   // through the gateway
  list_models,  // that it offers
  keep_session,
  pause_worker,
  forget_worker,
  see_settings,
};
std::string_view name(Action action);

// What it is done to: "job" "7". Roles that a later part adds will look at it.
struct Object {
  std::string_view kind;
  std::string_view id = {};
};

Result<> authorize(const Principal& principal, Action action, const Object& object);

class Authenticator {
 public:
  explicit Authenticator(std::string token) : token_(std::move(token)) {}
  // unauthenticated: a token was sent, and it is wrong. No token at all where one is wanted: anonymous.
  Result<Principal> identify(const net::HttpRequest& head) const;
  // Of a WebSocket: a browser cannot set headers there, so its token may come as a subprotocol,
  // "grange.bearer." + the token in base64url. A header goes first.
  Result<Principal> identify_socket(const net::HttpRequest& head) const;

 private:
  Result<Principal> check(std::string_view sent) const;
  std::string token_;
};

struct MessageRule {
  std::string_view message;
  Action action;
};
const std::vector<MessageRule>& frame_rules();  // bodies of Frame and operations of Request, by field name
const std::vector<MessageRule>& json_rules();   // types of the JSON dialect
Result<> authorize_message(const std::vector<MessageRule>& rules, const Principal& principal, std::string_view message,
                           const Object& object);

}  // namespace grange::server
