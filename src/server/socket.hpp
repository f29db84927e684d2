// A WebSocket connection between its arrival and its session. Its events are set once; who hears them may change.
#pragma once

#include <memory>

#include "net/transport.hpp"
#include "server/authorize.hpp"

namespace grange::server {

inline bool same(const Principal& a, const Principal& b) {
  return a.kind == b.kind && a.name == b.name;
}
inline Error not_your_session() {
  return {ErrorClass::forbidden, "This session was begun with another token. Begin a new one."};
}

// A session's side of a socket.
class Peer {
 public:
  virtual ~Peer() = default;
  virtual void message(std::string bytes, bool binary) = 0;
  virtual void closed(const Error& why) = 0;
  virtual void writable() {}
  virtual void alive() {}
  // Its token is good no more. Afterwards the socket is closed.
  virtual void revoked(const Error& why) { closed(why); }
};

class Socket : public std::enable_shared_from_this<Socket> {
 public:
  Socket(net::ConnectionPtr connection, Principal principal)
      : connection_(std::move(connection)), principal_(std::move(principal)) {}

  void listen(std::function<void()> gone) {
    gone_ = std::move(gone);
    const std::weak_ptr<Socket> weak = weak_from_this();
    connection_->set_events({.on_message =
                                 [weak](std::string bytes, bool binary) {
                                   if (const auto self = weak.lock()) {
                                     if (const auto peer = self->peer_) peer->message(std::move(bytes), binary);
                                   }
                                 },
                             .on_closed =
                                 [weak](Error why) {
                                   if (const auto self = weak.lock()) self->over(why);
                                 },
                             .on_writable =
                                 [weak] {
                                   if (const auto self = weak.lock()) {
                                     if (const auto peer = self->peer_) peer->writable();
                                   }
                                 },
                             .on_alive =
                                 [weak] {
                                   if (const auto self = weak.lock()) {
                                     if (const auto peer = self->peer_) peer->alive();
                                   }
                                 }});
  }
  void set_peer(std::shared_ptr<Peer> peer) { peer_ = std::move(peer); }
  bool send(std::string bytes, bool binary) { return connection_->send(std::move(bytes), binary); }
  // The session has no more use for it: nothing is heard any more.
  void close(std::uint16_t code, std::string reason) {
    peer_ = nullptr;
    connection_->close(code, std::move(reason));
  }
  void revoke(const Error& why) {
    const auto self = shared_from_this();
    if (const auto peer = peer_) peer->revoked(why);
    close(1008, why.message.substr(0, 120));
  }
  void ping() { connection_->ping(); }
  void set_idle(Millis idle) { connection_->set_idle(idle); }
  bool open() const { return connection_->open(); }
  std::string address() const { return connection_->peer(); }
  const Principal& principal() const { return principal_; }

 private:
  void over(const Error& why) {
    const auto self = shared_from_this();
    if (const auto peer = std::move(peer_)) peer->closed(why);
    peer_ = nullptr;
    if (gone_) gone_();
  }
  net::ConnectionPtr connection_;
  Principal principal_;
  std::shared_ptr<Peer> peer_;
  std::function<void()> gone_;
};
using SocketPtr = std::shared_ptr<Socket>;

namespace close_code {
inline constexpr std::uint16_t normal = 1000, going_away = 1001, protocol = 1002, policy = 1008, try_again = 1013;
}

}  // namespace grange::server
