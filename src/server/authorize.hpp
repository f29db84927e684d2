// Who may do what. Every REST route and every message names one Action, and passes authorize() before anything is done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "net/listener.hpp"

namespace grange::server {

enum class PrincipalKind : std::uint8_t {
  anonymous,  // sent no token where one is wanted
  local,      // no token is configured: the server listens on loopback only
  token,      // sent the farm's own token
  named,      // sent a token with a name and a role
};
enum class Role : std::uint8_t { none, admin, user, viewer, worker, models };
std::string_view name(PrincipalKind kind);
std::string_view name(Role role);
std::optional<Role> read_role(std::string_view name);  // not of "none"

struct Principal {
  std::string name;
  PrincipalKind kind = PrincipalKind::anonymous;
  Role named_role = Role::none;  // of a named one
};
Role role_of(const Principal& principal);

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
  see_alerts,
  set_alerts,
  change_machines,  // what is installed, loaded or running there: models and services
  see_me,
  see_tokens,
  set_tokens,
  count_,  // none; stays the last
};
inline constexpr std::size_t kActions = static_cast<std::size_t>(Action::count_);
std::string_view name(Action action);

// Which roles may do what. `own`: to what belongs to one's own name.
enum class Right : std::uint8_t { no, own, yes };
Right right(Role role, Action action);
bool open_to_all(Action action);

// What it is done to: "job" "7", and whose it is. An owner that is not known yet speaks for nobody and against nobody:
// who asks before he knows asks again when he does.
struct Object {
  std::string_view kind;
  std::string_view id = {};
  std::optional<std::string_view> owner = {};
};

Result<> authorize(const Principal& principal, Action action, const Object& object);

class TokenBook;

class Authenticator {
 public:
  // token: the farm's own; "": none, and then who sends nothing, or what nobody gave out, is local. book: the named
  // ones.
  explicit Authenticator(const std::string& token, TokenBook* book = nullptr, const Clock* clock = nullptr);
  // unauthenticated: a token was sent, and it is wrong. No token at all where one is wanted: anonymous.
  Result<Principal> identify(const net::HttpRequest& head) const;
  // Of a WebSocket: a browser cannot set headers there, so its token may come as a subprotocol,
  // "grange.bearer." + the token in base64url. A header goes first.
  Result<Principal> identify_socket(const net::HttpRequest& head) const;

 private:
  Result<Principal> check(std::string_view sent) const;
  bool open() const { return sha256_.empty(); }
  std::string sha256_;  // of the farm's own; "": it has none
  TokenBook* book_;
  const Clock* clock_;
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
