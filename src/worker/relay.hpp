// The worker's end of the gateway: HTTP exchanges with its services, asked for and answered over its session.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "net/http_client.hpp"
#include "worker/services/services.hpp"

namespace grange::worker {

inline constexpr std::size_t kPerService = 4096;  // connections to one service at once, and streams relayed in all

// The loop's thread only. Destroyed: every exchange is cancelled.
class RelayHost {
 public:
  // `send` says false when the link is behind: nothing more is read from services until writable(). `http` must allow
  // kPerService connections to a host.
  RelayHost(net::HttpClient& http, Services& services, std::function<bool(pb::Relay)> send);
  ~RelayHost();
  void heard(pb::Relay& relay);  // from the server; anything may stand in it
  void writable();
  void drop_all();  // the connection that they belong to is gone
  std::size_t open() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace grange::worker
