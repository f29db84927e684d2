#include "server/tokens/token_desk.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "server/text.hpp"
#include "store/blobs.hpp"

namespace grange::server {
namespace {
constexpr Micros kLookEvery{250'000};         // for those that expired
constexpr Micros kKeepUsedEvery{15'000'000};  // when they were last used
}  // namespace

void TokenDesk::make(const Principal& who, const Order& order, std::function<void(Result<Made>)> done) {
  if (auto may = authorize(who, Action::set_tokens, {"token", order.name}); !may) return done(std::move(may).error());
  if (auto may = book_.may_add(order.name); !may) return done(std::move(may).error());
  const WallMs now = ports_.now();
  auto made = std::make_shared<Made>();
  made->token = new_token();
  made->row = {.name = order.name,
               .role = std::string(name(order.role)),
               .sha256 = store::sha256_hex(made->token),
               .created = now,
               .created_by = who.name,
               .expires = order.expires_in.count() > 0 ? WallMs{now.ms + order.expires_in.count()} : WallMs{},
               .last_used = {}};
  book_.reserve(order.name);
  // It opens nothing before it is on disk.
  ports_.on_store([made](store::Store& store) { return store.put_token(made->row); },
                  [this, made, by = who.name, done = std::move(done)](Result<> kept) {
                    if (!kept) {
                      book_.let_go(made->row.name);
                      return done(std::move(kept).error());
                    }
                    book_.add(made->row);
                    spdlog::info("token \"{}\" with the role {} was made by {}", made->row.name, made->row.role,
                                 for_log(by, 64));
                    done(std::move(*made));
                  });
}

Result<std::vector<store::TokenRow>> TokenDesk::list(const Principal& who) const {
  if (auto may = authorize(who, Action::see_tokens, {"tokens"}); !may) return std::move(may).error();
  return book_.list();
}

void TokenDesk::revoke(const Principal& who, const std::string& token, std::function<void(Result<>)> done) {
  if (auto may = authorize(who, Action::set_tokens, {"token", token}); !may) return done(std::move(may).error());
  if (!book_.knows(token))
    return done(Error{ErrorClass::not_found,
                      fmt::format("There is no token \"{}\". List them with: grange tokens", cut_utf8(token, 64))});
  // It opens nothing from this moment, whatever the disk says.
  book_.revoke(token);
  const Error why{ErrorClass::unauthenticated, fmt::format("The token \"{}\" was revoked.", token)};
  const bool itself = who.kind == PrincipalKind::named && who.name == token;
  ports_.on_store(
      [token](store::Store& store) -> Result<> {
        auto dropped = store.drop_token(token);
        if (!dropped) return std::move(dropped).error();
        return {};
      },
      [this, token, itself, why, by = who.name, done = std::move(done)](Result<> dropped) {
        if (!dropped)
          return done(std::move(dropped).error().with_context(fmt::format(
              "The token \"{}\" opens nothing any more, but the disk does not know it yet; revoke it again", token)));
        book_.forget(token);
        spdlog::info("token \"{}\" was revoked by {}", token, for_log(by, 64));
        done({});
        if (itself) ports_.end(token, why);  // who revokes his own token hears that it is done
      });
  if (!itself) ports_.end(token, why);
}

void TokenDesk::tick(Now now) {
  if (now.mono - looked_ < kLookEvery) return;
  looked_ = now.mono;
  for (const std::string& token : book_.expired(now.wall))
    ports_.end(token, {ErrorClass::unauthenticated, fmt::format("The token \"{}\" has expired.", token)});
  if (now.mono - kept_ < kKeepUsedEvery) return;
  kept_ = now.mono;
  for (const std::string& token : ports_.here()) book_.used(token, now.wall);
  keep();
}

void TokenDesk::keep() {
  auto used = book_.take_used();
  if (used.empty()) return;
  ports_.on_store([used = std::move(used)](store::Store& store) { return store.used_tokens(used); },
                  [](Result<> kept) {
                    if (!kept) spdlog::warn("when tokens were last used could not be kept: {}", kept.error().message);
                  });
}

}  // namespace grange::server
