// Gives tokens out and takes them back: in memory and on disk, and ends what was open by them.
#pragma once

#include <functional>
#include <memory>

#include "base/units.hpp"
#include "server/tokens/token_book.hpp"

namespace grange::server {

struct TokenPorts {
  std::function<void(std::function<Result<>(store::Store&)>, std::function<void(Result<>)>)> on_store;
  std::function<WallMs()> now;
  std::function<void(const std::string& name, const Error& why)> end;  // sockets and streams of that name
  std::function<std::vector<std::string>()> here;                      // names with an open socket
};

class TokenDesk {
 public:
  TokenDesk(TokenBook& book, TokenPorts ports) : book_(book), ports_(std::move(ports)) {}

  struct Order {
    std::string name;
    Role role = Role::user;
    Millis expires_in{0};  // 0: never
  };
  struct Made {
    store::TokenRow row;
    std::string token;  // shown once; nobody can read it again
  };
  void make(const Principal& who, const Order& order, std::function<void(Result<Made>)> done);
  Result<std::vector<store::TokenRow>> list(const Principal& who) const;
  void revoke(const Principal& who, const std::string& name, std::function<void(Result<>)> done);

  void tick(Now now);
  void keep();  // when each was last used

 private:
  TokenBook& book_;
  TokenPorts ports_;
  Instant looked_{}, kept_{};
};

}  // namespace grange::server
