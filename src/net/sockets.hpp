// What we set on every socket, and how we name its other end.
#pragma once

#include <fcntl.h>

#include "net/asio.hpp"

namespace grange::net {

inline void close_on_exec(int fd) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}  // a task's process must not inherit it

inline void prepare(tcp::socket& socket) {
  close_on_exec(socket.native_handle());
  error_code ec;
  socket.set_option(tcp::no_delay(true), ec);
  socket.non_blocking(true, ec);
}

inline std::string host_port(std::string_view host, unsigned port) {
  return host.find(':') == std::string_view::npos ? fmt::format("{}:{}", host, port)
                                                  : fmt::format("[{}]:{}", host, port);
}

inline std::string describe(const tcp::endpoint& at) {
  return host_port(at.address().to_string(), at.port());
}

}  // namespace grange::net
