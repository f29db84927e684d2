// TLS of a client, over a socket that is connected. Asio's part of it is compiled in tls.cpp alone: others see plain
// functions with a handler whose type is erased.
#pragma once

#include <boost/asio/any_completion_handler.hpp>

#include "base/result.hpp"
#include "net/asio.hpp"
#include "net/http_client.hpp"
#include "net/url.hpp"

namespace grange::net {

// Whom to trust: the system's authorities (SSL_CERT_FILE and SSL_CERT_DIR say where else they are), and a file of the
// caller's.
class TlsContext;
Result<std::shared_ptr<TlsContext>> tls_context(const TlsOptions& options);

class Tls {
 public:
  using Handler = asio::any_completion_handler<void(error_code, std::size_t)>;
  Tls(tcp::socket& socket, std::shared_ptr<TlsContext> context);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  // The peer must prove that it is `url.host`. The error says what is wrong with its certificate.
  asio::awaitable<Result<Unit>> shake_hands(Url url);
  void read_some(asio::mutable_buffer into, Handler done);
  void write_some(asio::const_buffer from, Handler done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace grange::net
