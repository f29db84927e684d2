// One request and its answer over one connection of the HTTP client.
#pragma once

#include "net/channel.hpp"
#include "net/counts.hpp"
#include "net/waiting.hpp"

namespace grange::net {

struct ClientConn {
  explicit ClientConn(asio::io_context& context) : channel(tcp::socket(context)) {}
  tcp::socket& socket() { return channel.next_layer(); }
  // A server may have closed it, or said something that nobody asked for.
  bool usable();

  Channel channel;
  ConnectionCounted counted;
  SteadyTime idle_since{};
};

struct Transfer {
  Transfer(Loop& loop, ClientRequest request, std::function<void(Result<ClientResponse>)> done);
  void close();
  void cancel();
  void pause(bool on);
  void touched() {
    if (request.idle.count() > 0) watchdog.within(request.idle);
  }
  std::string where() const;  // "host:port"

  ClientRequest request;
  std::function<void(Result<ClientResponse>)> done;
  Url url;
  std::shared_ptr<ClientConn> conn;
  Signal turn, unpaused;
  Watchdog watchdog;
  bool cancelled = false, timed_out = false, paused = false;
};

struct Outcome {
  std::optional<Error> error;
  bool sent = false;   // a byte of the request went out
  bool heard = false;  // a byte of an answer came
  bool keep = false;   // the connection can serve another request
  ClientResponse response;
};

// Over transfer->conn, which is open.
asio::awaitable<Outcome> exchange(std::shared_ptr<Transfer> transfer);

}  // namespace grange::net
