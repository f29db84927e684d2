#include "server/doorway.hpp"

namespace grange::server {

// Before its first message a connection is nobody's. It has a few seconds.
class Doorway::Waiting final : public Peer {
 public:
  Waiting(Doorway& door, const SocketPtr& socket) : door_(door), socket_(socket) {
    timer_ = door.s_.loop.after(limits::kHandshake, [weak = socket_] {
      if (const auto open = weak.lock())
        open->close(close_code::policy, "say something first: a Hello frame, or a JSON message");
    });
  }
  void message(std::string bytes, bool binary) override {
    timer_.reset();
    if (const auto socket = socket_.lock()) door_.first_message(socket, std::move(bytes), binary);
  }
  void closed(const Error&) override { timer_.reset(); }

 private:
  Doorway& door_;
  std::weak_ptr<Socket> socket_;
  std::unique_ptr<net::Timer> timer_;
};

Doorway::~Doorway() {
  for (const SocketPtr& socket : sockets_) socket->set_peer(nullptr);
}

Result<> Doorway::authorize(const net::HttpRequest& head) const {
  auto who = s_.authenticator.identify_socket(head);
  if (!who) return std::move(who).error();
  if (s_.stopping) return Error{ErrorClass::unavailable, "The server is stopping. Try again when it is back."};
  return server::authorize(*who, Action::keep_session, {"session"});
}

void Doorway::enter(net::ConnectionPtr connection, const net::HttpRequest& head) {
  auto who = s_.authenticator.identify_socket(head);
  if (!who) return connection->close(close_code::policy, "unauthenticated");
  const auto socket = std::make_shared<Socket>(std::move(connection), std::move(*who));
  sockets_.insert(socket);
  socket->set_peer(std::make_shared<Waiting>(*this, socket));
  socket->listen([this, weak = std::weak_ptr<Socket>(socket), post = s_.post] {
    post([this, weak] {
      if (const auto gone = weak.lock()) sockets_.erase(gone);
    });
  });
}

void Doorway::end(const std::string& token, const Error& why) {
  std::vector<SocketPtr> of_it;
  for (const SocketPtr& socket : sockets_) {
    const Principal& who = socket->principal();
    if (who.kind == PrincipalKind::named && who.name == token) of_it.push_back(socket);
  }
  for (const SocketPtr& socket : of_it) socket->revoke(why);
}

std::set<std::string> Doorway::tokens_here() const {
  std::set<std::string> out;
  for (const SocketPtr& socket : sockets_) {
    if (socket->principal().kind == PrincipalKind::named && socket->open()) out.insert(socket->principal().name);
  }
  return out;
}

void Doorway::first_message(const SocketPtr& socket, std::string bytes, bool binary) {
  if (!binary) return json_.begin(socket, std::move(bytes));
  const auto refuse = [&](const Error& error) {
    socket->send(wire::encode(error_frame(error, true)), true);
    socket->close(close_code::protocol, error.message.substr(0, 120));
  };
  pb::Frame frame;
  if (auto read = wire::decode(bytes, frame); !read) return refuse(read.error());
  if (!frame.has_hello())
    return refuse({ErrorClass::invalid_argument, "The first frame of a connection must be Hello."});
  const pb::Hello& hello = frame.hello();
  if (hello.protocol() != wire::kProtocol) {
    return refuse({ErrorClass::version_mismatch, "This server speaks protocol " + std::to_string(wire::kProtocol) +
                                                     ", the other side " + std::to_string(hello.protocol()) +
                                                     ". Install the same version of grange on both."});
  }
  if (!wire::valid_session_id(hello.session_id()))
    return refuse({ErrorClass::invalid_argument, "A session id has 1 to 64 of 0-9 A-Z a-z _ and -."});
  if (hello.role() == pb::ROLE_WORKER) return workers_.hello(socket, std::move(frame));
  if (hello.role() == pb::ROLE_CLIENT) return clients_.hello(socket, frame);
  refuse({ErrorClass::invalid_argument, "Hello must say its role: worker or client."});
}

}  // namespace grange::server
