#include "server/authorize.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "server/text.hpp"
#include "server/tokens/token_book.hpp"
#include "store/blobs.hpp"

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

// What each role may do. An admin may do all of it; `open` is for everybody, with or without a token.
struct ActionRule {
  Action action;
  std::string_view name;
  Right user = Right::no, viewer = Right::no, worker = Right::no, models = Right::no;
  bool open = false;
};
constexpr Right kNo = Right::no, kOwn = Right::own, kYes = Right::yes;
constexpr ActionRule kActionRules[] = {
    // action, its name                               user  viewer worker models
    {Action::see_health, "see_health", kYes, kYes, kYes, kYes, true},
    {Action::see_page, "see_page", kYes, kYes, kYes, kYes, true},
    {Action::see_docs, "see_docs", kYes, kYes, kYes, kYes, true},
    {Action::see_stats, "see_stats", kYes, kYes, kNo, kNo},
    {Action::see_jobs, "see_jobs", kYes, kYes, kNo, kNo},
    {Action::submit_job, "submit_job", kOwn, kNo, kNo, kNo},
    {Action::cancel_job, "cancel_job", kOwn, kNo, kNo, kNo},
    {Action::retry_job, "retry_job", kOwn, kNo, kNo, kNo},
    {Action::pause_job, "pause_job", kOwn, kNo, kNo, kNo},
    {Action::extend_job, "extend_job", kOwn, kNo, kNo, kNo},
    {Action::see_results, "see_results", kYes, kYes, kNo, kNo},
    {Action::see_logs, "see_logs", kYes, kYes, kNo, kNo},
    {Action::see_workers, "see_workers", kYes, kYes, kNo, kNo},
    {Action::drain_worker, "drain_worker", kNo, kNo, kNo, kNo},
    {Action::release_worker, "release_worker", kNo, kNo, kNo, kNo},
    {Action::serve_as_worker, "serve_as_worker", kNo, kNo, kYes, kNo},
    {Action::see_failures, "see_failures", kYes, kYes, kNo, kNo},
    {Action::see_events, "see_events", kYes, kYes, kNo, kNo},
    {Action::read_blob, "read_blob", kYes, kYes, kYes, kNo},
    {Action::write_blob, "write_blob", kYes, kNo, kYes, kNo},
    {Action::read_model, "read_model", kYes, kYes, kYes, kNo},
    {Action::write_model, "write_model", kYes, kNo, kNo, kNo},
    {Action::see_database, "see_database", kYes, kYes, kNo, kNo},
    {Action::clear_database, "clear_database", kNo, kNo, kNo, kNo},
    {Action::see_policy, "see_policy", kYes, kYes, kNo, kNo},
    {Action::set_policy, "set_policy", kNo, kNo, kNo, kNo},
    {Action::pause_queue, "pause_queue", kNo, kNo, kNo, kNo},
    {Action::see_users, "see_users", kYes, kYes, kNo, kNo},
    {Action::set_users, "set_users", kNo, kNo, kNo, kNo},
    {Action::see_schedules, "see_schedules", kYes, kYes, kNo, kNo},
    {Action::set_schedules, "set_schedules", kOwn, kNo, kNo, kNo},
    {Action::see_metrics, "see_metrics", kYes, kYes, kNo, kNo},
    {Action::use_models, "use_models", kYes, kNo, kNo, kYes},
    {Action::list_models, "list_models", kYes, kYes, kNo, kYes},
    {Action::keep_session, "keep_session", kYes, kYes, kYes, kNo},
    {Action::pause_worker, "pause_worker", kNo, kNo, kNo, kNo},
    {Action::forget_worker, "forget_worker", kNo, kNo, kNo, kNo},
    {Action::see_settings, "see_settings", kYes, kYes, kNo, kNo},
    {Action::see_alerts, "see_alerts", kYes, kYes, kNo, kNo},
    {Action::set_alerts, "set_alerts", kNo, kNo, kNo, kNo},
    {Action::change_machines, "change_machines", kNo, kNo, kNo, kNo},
    {Action::see_me, "see_me", kYes, kYes, kYes, kYes},
    {Action::see_tokens, "see_tokens", kNo, kNo, kNo, kNo},
    {Action::set_tokens, "set_tokens", kNo, kNo, kNo, kNo},
};
consteval bool each_has_its_rule() {
  if (std::size(kActionRules) != kActions) return false;
  for (std::size_t i = 0; i < kActions; ++i) {
    if (kActionRules[i].action != static_cast<Action>(i)) return false;
  }
  return true;
}
static_assert(each_has_its_rule(), "an Action without a rule, or in another place than in the enumeration");

const ActionRule& rule_of(Action action) {
  GRANGE_ASSERT(action < Action::count_);
  return kActionRules[static_cast<std::size_t>(action)];
}

constexpr Role kRoles[] = {Role::admin, Role::user, Role::viewer, Role::worker, Role::models};

// "admin", "admin or worker", "admin, user or models"
std::string one_of_roles(const std::vector<std::string_view>& roles) {
  std::string out;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    if (i > 0) out += i + 1 == roles.size() ? " or " : ", ";
    out += roles[i];
  }
  return out;
}

// "cancel a job", "set the policy", "see results"
std::string in_words(Action action) {
  std::string out(name(action));
  std::replace(out.begin(), out.end(), '_', ' ');
  const std::size_t noun = out.rfind(' ') + 1;
  const auto is = [&](std::initializer_list<std::string_view> nouns) {
    return std::find(nouns.begin(), nouns.end(), std::string_view(out).substr(noun)) != nouns.end();
  };
  if (is({"job", "worker", "blob", "model", "session"})) return out.insert(noun, "a ");
  if (is({"queue", "policy", "database"})) return out.insert(noun, "the ");
  return out;
}

std::string who_in_words(const Principal& who) {
  return fmt::format("the token \"{}\" has the role {}", for_log(who.name, 64), name(role_of(who)));
}

Error forbidden(const Principal& who, Action action, const Object& object) {
  const bool own = right(role_of(who), action) == Right::own;
  boost::json::array takes;
  std::vector<std::string_view> roles;
  for (const Role role : kRoles) {
    if (right(role, action) != Right::yes && (own || right(role, action) != Right::own)) continue;
    roles.push_back(name(role));
    takes.emplace_back(name(role));
  }
  std::string text;
  if (own && action == Action::submit_job) {
    text = fmt::format(
        "{}, which submits under its own name only, not as \"{}\": leave the user out. To submit for others takes "
        "the role {}.",
        who_in_words(who), cut_utf8(std::string(object.owner.value_or("")), 64), one_of_roles(roles));
    text.front() = 'T';
  } else if (own) {
    const std::string owner = cut_utf8(std::string(object.owner.value_or("")), 64);
    text = fmt::format(
        "This {}{} belongs to {}; {}, which may {} of its own only. For those of others it takes the "
        "role {}.",
        object.kind, object.id.empty() ? "" : " (" + cut_utf8(std::string(object.id), 64) + ")",
        owner.empty() ? "nobody" : "\"" + owner + "\"", who_in_words(who), in_words(action), one_of_roles(roles));
  } else {
    text = fmt::format("To {} takes the role {}; {}.", in_words(action), one_of_roles(roles), who_in_words(who));
  }
  return Error{ErrorClass::forbidden, std::move(text),
               boost::json::serialize(boost::json::object{
                   {"action", name(action)}, {"role", name(role_of(who))}, {"takes", std::move(takes)}})};
}

// nullopt: none was sent.
Result<std::optional<std::string>> token_in_header(const net::HttpRequest& head) {
  const auto it = head.headers.find("authorization");
  if (it == head.headers.end()) return std::optional<std::string>();
  constexpr std::string_view scheme = "bearer ";
  std::string_view sent = it->second;
  const bool bearer =
      sent.size() > scheme.size() && std::equal(scheme.begin(), scheme.end(), sent.begin(), [](char a, char b) {
        return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
      });
  if (!bearer) return Error{ErrorClass::unauthenticated, "The Authorization header must read \"Bearer TOKEN\"."};
  sent.remove_prefix(scheme.size());
  return std::optional(std::string(sent));
}

// Of a WebSocket's subprotocols.
Result<std::optional<std::string>> token_offered(const net::HttpRequest& head) {
  const auto offered = head.headers.find("sec-websocket-protocol");
  std::string_view list = offered == head.headers.end() ? std::string_view() : std::string_view(offered->second);
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view one = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
    while (!one.empty() && (one.back() == ' ' || one.back() == '\t')) one.remove_suffix(1);
    if (!one.starts_with(kTokenSubprotocol)) continue;
    auto token = from_base64url(one.substr(kTokenSubprotocol.size()));
    if (!token) return Error{ErrorClass::unauthenticated, "What follows \"grange.bearer.\" is not base64url."};
    return std::optional(std::move(*token));
  }
  return std::optional<std::string>();
}

}  // namespace

std::string_view name(Action action) {
  return rule_of(action).name;
}

std::string_view name(PrincipalKind kind) {
  switch (kind) {
    case PrincipalKind::anonymous:
      return "anonymous";
    case PrincipalKind::local:
      return "local";
    case PrincipalKind::token:
      return "token";
    case PrincipalKind::named:
      return "named";
  }
  return "anonymous";
}

std::string_view name(Role role) {
  switch (role) {
    case Role::none:
      return "none";
    case Role::admin:
      return "admin";
    case Role::user:
      return "user";
    case Role::viewer:
      return "viewer";
    case Role::worker:
      return "worker";
    case Role::models:
      return "models";
  }
  return "none";
}

std::optional<Role> read_role(std::string_view text) {
  for (const Role role : kRoles) {
    if (name(role) == text) return role;
  }
  return std::nullopt;
}

Role role_of(const Principal& principal) {
  switch (principal.kind) {
    case PrincipalKind::anonymous:
      return Role::none;
    case PrincipalKind::local:
    case PrincipalKind::token:
      return Role::admin;
    case PrincipalKind::named:
      return principal.named_role;
  }
  return Role::none;
}

Right right(Role role, Action action) {
  const ActionRule& rule = rule_of(action);
  if (rule.open) return Right::yes;
  switch (role) {
    case Role::none:
      return Right::no;
    case Role::admin:
      return Right::yes;
    case Role::user:
      return rule.user;
    case Role::viewer:
      return rule.viewer;
    case Role::worker:
      return rule.worker;
    case Role::models:
      return rule.models;
  }
  return Right::no;
}

bool open_to_all(Action action) {
  return rule_of(action).open;
}

Result<> authorize(const Principal& principal, Action action, const Object& object) {
  switch (right(role_of(principal), action)) {
    case Right::yes:
      return {};
    case Right::own:
      if (!object.owner || *object.owner == principal.name) return {};
      break;
    case Right::no:
      break;
  }
  if (principal.kind != PrincipalKind::anonymous) return forbidden(principal, action, object);
  return Error{ErrorClass::unauthenticated,
               "This server wants a token: send the header \"Authorization: Bearer TOKEN\". The grange command "
               "takes it from GRANGE_TOKEN or --token-file."};
}

Authenticator::Authenticator(const std::string& token, TokenBook* book, const Clock* clock)
    : sha256_(token.empty() ? std::string() : store::sha256_hex(token)), book_(book), clock_(clock) {}

Result<Principal> Authenticator::identify(const net::HttpRequest& head) const {
  auto sent = token_in_header(head);
  if (sent && *sent) return check(**sent);
  if (open()) return Principal{"local", PrincipalKind::local};
  if (!sent) return Error(sent.error());
  return Principal{"anonymous", PrincipalKind::anonymous};
}

Result<Principal> Authenticator::identify_socket(const net::HttpRequest& head) const {
  if (head.headers.contains("authorization")) return identify(head);
  auto sent = token_offered(head);
  if (sent && *sent) return check(**sent);
  if (!sent && !open()) return std::move(sent).error();
  return identify(head);
}

// Only hashes are compared: the time that takes tells nothing of a secret, and nothing of its length.
Result<Principal> Authenticator::check(std::string_view sent) const {
  const std::string sha256 = store::sha256_hex(sent);
  if (!open()) {
    if (CRYPTO_memcmp(sha256.data(), sha256_.data(), sha256_.size()) == 0)
      return Principal{"token", PrincipalKind::token};
  }
  if (book_ != nullptr) {
    const TokenBook::Found found = book_->find(sha256, clock_ == nullptr ? WallMs{} : clock_->now().wall);
    if (found.is == TokenBook::Is::good) return Principal{found.name, PrincipalKind::named, found.role};
    if (found.is == TokenBook::Is::expired)
      return Error{ErrorClass::unauthenticated,
                   fmt::format("The token \"{}\" expired at {}. Ask an admin of the farm for a new one: grange tokens "
                               "create NAME",
                               found.name, iso_time(found.expires))};
  }
  // On a server without a token a client's filler ("api_key = anything") is fine; what was given out here once is not.
  if (open() && !looks_like_token(sent)) return Principal{"local", PrincipalKind::local};
  return Error{ErrorClass::unauthenticated,
               looks_like_token(sent)
                   ? "This token is not known here: it was revoked, or it is another farm's. Ask an admin of the farm "
                     "for a new one: grange tokens create NAME"
                   : "This is no token of this server. Compare GRANGE_TOKEN with the server's --token-file."};
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
