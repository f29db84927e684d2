// Tokens with a name: who holds which, found by the hash of the secret. Pure.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "server/authorize.hpp"
#include "store/store.hpp"

namespace grange::server {

inline constexpr std::size_t kTokens = 1000;
inline constexpr std::size_t kTokenNameBytes = 64;

std::string new_token();                       // "gr_" + 32 random bytes in base64url
bool looks_like_token(std::string_view text);  // of that form, so that nobody types it as a filler

class TokenBook {
 public:
  void load(const std::vector<store::TokenRow>& rows);

  enum class Is { unknown, good, expired };
  struct Found {
    Is is = Is::unknown;
    std::string name = {};
    Role role = Role::none;
    WallMs expires{};
  };
  // A good one counts as used.
  Found find(const std::string& sha256, WallMs now);

  // May a new one have this name?
  Result<> may_add(const std::string& name) const;
  void reserve(const std::string& name);  // until it was added or let go
  void let_go(const std::string& name) { reserved_.erase(name); }
  void add(store::TokenRow row);

  bool knows(const std::string& name) const { return tokens_.contains(name); }
  void revoke(const std::string& name);  // lets nobody in from now on; it stays listed until it is forgotten
  void forget(const std::string& name);
  std::vector<store::TokenRow> list() const;

  void used(const std::string& name, WallMs now);
  std::vector<std::pair<std::string, WallMs>> take_used();  // since this was last asked
  // Names of those that have expired since this was last asked.
  std::vector<std::string> expired(WallMs now);

 private:
  struct Token {
    store::TokenRow row;
    Role role = Role::none;
    bool revoked = false, ended = false;  // ended: it was told that it has expired
  };
  static bool over(const Token& token, WallMs now) {
    return token.row.expires.ms != 0 && token.row.expires.ms <= now.ms;
  }
  std::map<std::string, Token> tokens_;
  std::unordered_map<std::string, std::string> by_hash_;
  std::map<std::string, WallMs> used_;
  std::map<std::string, bool> reserved_;
};

}  // namespace grange::server
