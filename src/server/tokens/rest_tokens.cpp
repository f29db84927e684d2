// Tokens over REST, and who one is.
#include <fmt/format.h>

#include "server/api/job_keys.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"
#include "server/tokens/token_desk.hpp"

namespace grange::server {
namespace {

constexpr std::int64_t kLongestS = 10ll * 366 * 24 * 3600;

json::value time_or_null(WallMs at) {
  return at.ms == 0 ? json::value(nullptr) : json::value(at.ms);
}

json::object made_json(const store::TokenRow& row) {
  return {{"name", row.name},
          {"role", row.role},
          {"created_ms", row.created.ms},
          {"created_by", row.created_by},
          {"expires_ms", time_or_null(row.expires)}};
}

json::object token_json(const store::TokenRow& row, WallMs now) {
  json::object out = made_json(row);
  out["last_used_ms"] = time_or_null(row.last_used);
  out["expired"] = row.expires.ms != 0 && row.expires.ms <= now.ms;
  return out;
}

}  // namespace

void Rest::get_me(RestCallPtr call) {
  const Role role = role_of(call->who);
  json::array may, own;
  for (std::size_t i = 0; i < kActions; ++i) {
    const auto action = static_cast<Action>(i);
    const Right has = right(role, action);
    if (has == Right::yes) may.emplace_back(name(action));
    if (has == Right::own) own.emplace_back(name(action));
  }
  call->answer(200, json::object{{"name", call->who.name},
                                 {"role", name(role)},
                                 {"kind", name(call->who.kind)},
                                 {"may", std::move(may)},
                                 {"own", std::move(own)}});
}

void Rest::get_tokens(RestCallPtr call) {
  auto rows = s_.tokens->list(call->who);
  if (!rows) return call->fail(rows.error());
  const WallMs now = s_.clock.now().wall;
  json::array tokens;
  for (const store::TokenRow& row : *rows) tokens.push_back(token_json(row, now));
  call->answer(200, json::object{{"tokens", std::move(tokens)},
                                 {"you", json::object{{"name", call->who.name}, {"role", name(role_of(call->who))}}}});
}

void Rest::post_token(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  TokenDesk::Order order;
  std::string role = "user";
  std::int64_t seconds = 0;
  if (!keys.text("name", order.name)) keys.wrong("name", "is missing: whose token it is");
  keys.text("role", role);
  keys.integer("expires_in_s", 1, kLongestS, seconds);
  if (const auto known = read_role(role)) {
    order.role = *known;
  } else {
    keys.wrong("role", "must be admin, user, viewer, worker or models");
  }
  if (auto fine = keys.finish("a token"); !fine) return call->fail(fine.error());
  order.expires_in = Millis{seconds * 1000};
  s_.tokens->make(call->who, order, [call](Result<TokenDesk::Made> made) {
    if (!made) return call->fail(made.error());
    json::object out = made_json(made->row);
    out["token"] = made->token;
    call->answer(201, out, {{"Location", "/api/tokens/" + made->row.name}});
  });
}

void Rest::delete_token(RestCallPtr call) {
  const std::string token = call->path["name"];
  s_.tokens->revoke(call->who, token, [call, token](Result<> done) {
    if (!done) return call->fail(done.error());
    call->answer(200, json::object{{"name", token}});
  });
}

std::vector<Route> token_routes() {
  return {
      {"GET",
       "/api/me",
       Action::see_me,
       "tokens",
       "Who one is by one's token, and what that may",
       {},
       "",
       "Me",
       &Rest::get_me},
      {"GET",
       "/api/tokens",
       Action::see_tokens,
       "tokens",
       "The tokens with a name; never their secrets",
       {},
       "",
       "Tokens",
       &Rest::get_tokens},
      {"POST",
       "/api/tokens",
       Action::set_tokens,
       "tokens",
       "Make a token; its secret is in this answer and nowhere else",
       {},
       "TokenFile",
       "TokenMade",
       &Rest::post_token},
      {"DELETE",
       "/api/tokens/{name}",
       Action::set_tokens,
       "tokens",
       "Revoke a token: what is open by it ends, and it opens nothing any more",
       {{"name", "string", "The token's name"}},
       "",
       "TokenRevoked",
       &Rest::delete_token},
  };
}

}  // namespace grange::server
