#include "net/dialing.hpp"

#include "net/sockets.hpp"

namespace grange::net {

namespace {

Error unreachable(const Url& url, error_code ec) {
  const std::string where = host_port(url.host, url.port);
  if (ec == asio::error::connection_refused) {
    return {ErrorClass::unavailable,
            fmt::format("Nothing listens at {}. Is the server running there, and is the port right?", where)};
  }
  if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) {
    return {ErrorClass::cancelled, fmt::format("The connection to {} was given up.", where)};
  }
  return {ErrorClass::unavailable, fmt::format("Cannot reach {}: {}.", where, ec.message())};
}

}  // namespace

asio::awaitable<Result<Unit>> connect(tcp::socket& socket, Url url) {
  std::vector<tcp::endpoint> places;
  error_code ec;
  const auto address = asio::ip::make_address(url.host, ec);
  if (!ec) {
    places.emplace_back(address, url.port);
  } else if (url.host == "localhost") {
    places.emplace_back(asio::ip::address_v4::loopback(), url.port);
    places.emplace_back(asio::ip::address_v6::loopback(), url.port);
  } else {
    tcp::resolver resolver(socket.get_executor());
    const std::string port = std::to_string(url.port);
    const auto found = co_await resolver.async_resolve(url.host, port, into(ec));
    if (ec)
      co_return Error{ErrorClass::unavailable,
                      fmt::format("There is no host \"{}\" ({}). Check the URL.", url.host, ec.message())};
    for (const auto& one : found) places.push_back(one.endpoint());
  }
  error_code first;
  for (const auto& place : places) {
    ec = {};
    socket.close(ec);
    socket.open(place.protocol(), ec);
    if (!ec) {
      prepare(socket);
      co_await socket.async_connect(place, into(ec));
    }
    if (!ec) co_return Unit{};
    if (!first) first = ec;
    if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) break;
  }
  co_return unreachable(url, first);
}

}  // namespace grange::net
