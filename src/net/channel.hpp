// A socket, bare or under TLS: one type for those that read and write it.
#pragma once

#include "net/tls.hpp"

namespace grange::net {

class Channel {
 public:
  using next_layer_type = tcp::socket;
  using executor_type = tcp::socket::executor_type;

  explicit Channel(tcp::socket socket) : socket_(std::make_unique<tcp::socket>(std::move(socket))) {}
  executor_type get_executor() { return socket_->get_executor(); }
  tcp::socket& next_layer() { return *socket_; }
  const tcp::socket& next_layer() const { return *socket_; }
  bool secured() const { return tls_ != nullptr; }

  // Of a connected socket; from then on all goes through TLS.
  asio::awaitable<Result<Unit>> secure(std::shared_ptr<TlsContext> context, Url url) {
    tls_ = std::make_unique<Tls>(*socket_, std::move(context));
    return tls_->shake_hands(std::move(url));
  }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(error_code, std::size_t)>(
        [this](auto&& handler, const Buffers& into) {
          if (tls_) {
            tls_->read_some(first<asio::mutable_buffer>(into), Tls::Handler(std::move(handler)));
          } else {
            socket_->async_read_some(into, std::move(handler));
          }
        },
        token, buffers);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return asio::async_initiate<Token, void(error_code, std::size_t)>(
        [this](auto&& handler, const Buffers& from) {
          if (tls_) {
            tls_->write_some(first<asio::const_buffer>(from), Tls::Handler(std::move(handler)));
          } else {
            socket_->async_write_some(from, std::move(handler));
          }
        },
        token, buffers);
  }

 private:
  // "Some" may be one of several buffers.
  template <class Buffer, class Buffers>
  static Buffer first(const Buffers& buffers) {
    for (auto at = asio::buffer_sequence_begin(buffers); at != asio::buffer_sequence_end(buffers); ++at) {
      const Buffer one = *at;
      if (one.size() > 0) return one;
    }
    return Buffer();
  }
  std::unique_ptr<tcp::socket> socket_;  // TLS refers to it: it stays where it is
  std::unique_ptr<Tls> tls_;
};

}  // namespace grange::net
