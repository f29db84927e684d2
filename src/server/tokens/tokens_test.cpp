// Who may do what, and who is let in by which token.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "server/api/routes.hpp"
#include "server/tokens/token_book.hpp"
#include "store/blobs.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

class FixedClock final : public Clock {
 public:
  Now now() const override { return {.mono = {}, .wall = at}; }
  WallMs at{1'000'000};
};

constexpr Role kAll[] = {Role::admin, Role::user, Role::viewer, Role::worker, Role::models};

Principal named(Role role, std::string name = "anna") {
  return {std::move(name), PrincipalKind::named, role};
}

// What a role may do, written a second time and by hand: who changes the rules changes this with a reason.
const std::map<Role, std::set<std::string_view>>& expected() {
  static const std::map<Role, std::set<std::string_view>> table = {
      {Role::user,
       {"see_stats",   "see_jobs",    "submit_job*",  "cancel_job*",  "retry_job*",   "pause_job*",    "extend_job*",
        "see_results", "see_logs",    "see_workers",  "see_failures", "see_events",   "read_blob",     "write_blob",
        "read_model",  "write_model", "see_database", "see_policy",   "see_users",    "see_schedules", "set_schedules*",
        "see_metrics", "use_models",  "list_models",  "keep_session", "see_settings", "see_alerts",    "see_me"}},
      {Role::viewer,
       {"see_stats", "see_jobs", "see_results", "see_logs", "see_workers", "see_failures", "see_events", "read_blob",
        "read_model", "see_database", "see_policy", "see_users", "see_schedules", "see_metrics", "list_models",
        "keep_session", "see_settings", "see_alerts", "see_me"}},
      {Role::worker, {"serve_as_worker", "read_blob", "write_blob", "read_model", "keep_session", "see_me"}},
      {Role::models, {"use_models", "list_models", "see_me"}}};
  return table;
}

TEST(Roles, EachActionIsDecidedForEachRole) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kActions; ++i) {
    const auto action = static_cast<Action>(i);
    EXPECT_TRUE(names.insert(name(action)).second) << name(action);
    EXPECT_EQ(right(Role::admin, action), Right::yes) << name(action);
    EXPECT_EQ(right(Role::none, action) == Right::yes, open_to_all(action)) << name(action);
    for (const auto& [role, may] : expected()) {
      Right want = may.contains(name(action)) || open_to_all(action) ? Right::yes : Right::no;
      if (may.contains(std::string(name(action)) + "*")) want = Right::own;
      EXPECT_EQ(right(role, action), want) << name(role) << " " << name(action);
      // And authorize() says the same, of one's own, of another's, and before it is known whose it is.
      const std::string mine = "anna", others = "bob";
      EXPECT_EQ(authorize(named(role), action, {"job", "7"}).ok(), want != Right::no);
      EXPECT_EQ(authorize(named(role), action, {"job", "7", mine}).ok(), want != Right::no);
      EXPECT_EQ(authorize(named(role), action, {"job", "7", others}).ok(), want == Right::yes);
    }
    for (const Principal& all : {Principal{"local", PrincipalKind::local}, Principal{"token", PrincipalKind::token}})
      EXPECT_TRUE(authorize(all, action, {"job", "7", "bob"}).ok());
  }
  for (const auto& [role, may] : expected()) {
    for (std::string_view one : may) {
      if (one.ends_with('*')) one.remove_suffix(1);
      EXPECT_TRUE(names.contains(one)) << one << " is no action";
    }
  }
}

TEST(Roles, ARefusalSaysWhatItWouldTake) {
  const Error viewer = authorize(named(Role::viewer), Action::cancel_job, {"job", "7"}).error();
  EXPECT_EQ(viewer.cls, ErrorClass::forbidden);
  EXPECT_EQ(viewer.message, "To cancel a job takes the role admin or user; the token \"anna\" has the role viewer.");
  EXPECT_EQ(wire::parse_json(viewer.details)->at("takes").as_array().size(), 2u);
  const Error others = authorize(named(Role::user), Action::cancel_job, {"job", "7", "bob"}).error();
  EXPECT_EQ(others.message,
            "This job (7) belongs to \"bob\"; the token \"anna\" has the role user, which may cancel a job of its own "
            "only. For those of others it takes the role admin.");
  const Error as_bob = authorize(named(Role::user), Action::submit_job, {"job", "", "bob"}).error();
  EXPECT_NE(as_bob.message.find("not as \"bob\""), std::string::npos) << as_bob.message;
  EXPECT_EQ(authorize({"anonymous", PrincipalKind::anonymous}, Action::see_jobs, {"job"}).error().cls,
            ErrorClass::unauthenticated);
}

TEST(Roles, ARoleHasItsNameAndNothingElseIsOne) {
  for (const Role role : kAll) EXPECT_EQ(read_role(name(role)), role);
  for (const char* none : {"none", "", "Admin", "root"}) EXPECT_FALSE(read_role(none)) << none;
  EXPECT_EQ(role_of({"x", PrincipalKind::named, Role::viewer}), Role::viewer);
  EXPECT_EQ(role_of({"x", PrincipalKind::anonymous, Role::admin}), Role::none);
}

// The routes of one role, by what is at stake.
TEST(Roles, AWorkersTokenOpensWhatAWorkerNeedsAndTheModelsTokenTheGateway) {
  std::set<std::string> worker, models;
  for (const Route& route : routes()) {
    if (open_to_all(route.action)) continue;
    const std::string line = std::string(route.method) + " " + std::string(route.pattern);
    if (right(Role::worker, route.action) != Right::no) worker.insert(line);
    if (right(Role::models, route.action) != Right::no) models.insert(line);
    if (route.method == "GET" || route.method == "HEAD") continue;
    EXPECT_TRUE(right(Role::viewer, route.action) == Right::no || line.find("/download") != std::string::npos ||
                line.find("/preflight") != std::string::npos || line.find("/api/show") != std::string::npos)
        << line << ": a viewer only sees";
  }
  EXPECT_EQ(worker, (std::set<std::string>{"GET /api/blobs/{sha256}", "GET /api/blobs/{sha256}/status", "GET /api/me",
                                           "GET /models", "GET /models/{name}/{version}", "HEAD /api/blobs/{sha256}",
                                           "PUT /api/blobs/{sha256}"}));
  for (const std::string& line : models)
    EXPECT_TRUE(line.find(" /v1/") != std::string::npos || line.find(" /ollama") != std::string::npos ||
                line == "GET /api/models" || line == "GET /api/me")
        << line;
  EXPECT_TRUE(models.contains("POST /v1/chat/completions"));
}

store::TokenRow row(const std::string& name, const std::string& secret, const std::string& role = "user",
                    WallMs expires = {}) {
  return {.name = name, .role = role, .sha256 = store::sha256_hex(secret), .expires = expires};
}

TEST(TokenBook, FindsByHashUntilItExpiresOrIsRevoked) {
  TokenBook book;
  book.load({row("anna", "s1"), row("ci", "s2", "worker", WallMs{5000}), row("odd", "s3", "emperor")});
  EXPECT_EQ(book.find(store::sha256_hex("s1"), WallMs{1}).name, "anna");
  EXPECT_EQ(book.find("s1", WallMs{1}).is, TokenBook::Is::unknown) << "the secret is no hash";
  EXPECT_EQ(book.find(store::sha256_hex("s2"), WallMs{4999}).role, Role::worker);
  EXPECT_EQ(book.find(store::sha256_hex("s2"), WallMs{5000}).is, TokenBook::Is::expired);
  EXPECT_EQ(book.find(store::sha256_hex("s3"), WallMs{1}).is, TokenBook::Is::unknown) << "of a later version";
  EXPECT_TRUE(book.expired(WallMs{4999}).empty());
  EXPECT_EQ(book.expired(WallMs{5000}), std::vector<std::string>{"ci"});
  EXPECT_TRUE(book.expired(WallMs{6000}).empty()) << "told once";
  EXPECT_TRUE(book.expired(WallMs{4000}).empty());
  EXPECT_EQ(book.expired(WallMs{5000}), std::vector<std::string>{"ci"}) << "the clock had run ahead";
  book.revoke("anna");
  EXPECT_EQ(book.find(store::sha256_hex("s1"), WallMs{1}).is, TokenBook::Is::unknown);
  EXPECT_TRUE(book.knows("anna")) << "until the disk knows";
  EXPECT_FALSE(book.may_add("anna").ok());
  book.forget("anna");
  EXPECT_TRUE(book.may_add("anna").ok());
}

TEST(TokenBook, NamesAndNumbersHaveBounds) {
  TokenBook book;
  for (const char* bad : {"", "token", "local", "anonymous", "schedule", "a b", "a/b", "..", ".", "\xc3\xa4", "a\n"})
    EXPECT_EQ(book.may_add(bad).error().cls, ErrorClass::invalid_argument) << bad;
  EXPECT_FALSE(book.may_add(std::string(65, 'a')).ok());
  for (const char* good : {"a", "anna.k_2-x", "Token"}) EXPECT_TRUE(book.may_add(good).ok()) << good;
  EXPECT_TRUE(book.may_add(std::string(64, 'a')).ok());
  book.reserve("soon");
  EXPECT_EQ(book.may_add("soon").error().cls, ErrorClass::conflict);
  book.let_go("soon");
  EXPECT_TRUE(book.may_add("soon").ok());
  for (std::size_t i = 0; i < kTokens; ++i) book.add(row("t" + std::to_string(i), std::to_string(i)));
  EXPECT_EQ(book.may_add("one-more").error().cls, ErrorClass::rate_limited);
}

TEST(TokenBook, SaysWhichWereUsed) {
  TokenBook book;
  book.load({row("anna", "s1"), row("bob", "s2")});
  book.find(store::sha256_hex("s1"), WallMs{10});
  book.find(store::sha256_hex("s1"), WallMs{20});
  book.used("nobody", WallMs{20});
  using Used = std::vector<std::pair<std::string, WallMs>>;
  const Used used = book.take_used();
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].first, "anna");
  EXPECT_EQ(used[0].second.ms, 20);
  EXPECT_TRUE(book.take_used().empty());
  EXPECT_EQ(book.list()[0].last_used.ms, 20);
}

TEST(TokenBook, ATokenHasItsForm) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string token = new_token();
    EXPECT_TRUE(looks_like_token(token)) << token;
    EXPECT_TRUE(seen.insert(token).second);
  }
  for (const char* other : {"", "anything", "gr_", "gr_short", "0123456789abcdef"})
    EXPECT_FALSE(looks_like_token(other)) << other;
}

net::HttpRequest with_token(const std::string& token) {
  net::HttpRequest head;
  head.headers["authorization"] = "Bearer " + token;
  return head;
}

TEST(Authenticator, KnowsTheFarmsTokenAndTheNamedOnes) {
  TokenBook book;
  FixedClock clock;
  const std::string anna = new_token(), late = new_token(), gone = new_token();
  book.load({row("anna", anna), row("late", late, "admin", WallMs{clock.at.ms - 1})});
  for (const bool open : {true, false}) {
    const Authenticator door(open ? "" : "the farm's own token", &book, &clock);
    EXPECT_EQ(door.identify({})->kind, open ? PrincipalKind::local : PrincipalKind::anonymous);
    const auto who = door.identify(with_token(anna));
    ASSERT_TRUE(who.ok());
    EXPECT_EQ(who->name, "anna");
    EXPECT_EQ(who->kind, PrincipalKind::named);
    EXPECT_EQ(role_of(*who), Role::user);
    for (const std::string& bad : {late, gone}) {
      const auto refused = door.identify(with_token(bad));
      ASSERT_FALSE(refused.ok()) << open;
      EXPECT_EQ(refused.error().cls, ErrorClass::unauthenticated);
      EXPECT_EQ(refused.error().message.find(bad), std::string::npos) << "a secret is not told";
    }
    const auto filler = door.identify(with_token("anything"));
    EXPECT_EQ(filler.ok(), open);
    EXPECT_EQ(filler.ok() ? name(filler->kind) : "none", open ? "local" : "none");
  }
  EXPECT_EQ(Authenticator("the farm's own token", &book, &clock).identify(with_token("the farm's own token"))->kind,
            PrincipalKind::token);
}

}  // namespace
}  // namespace grange::server
