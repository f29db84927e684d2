// Where WebSocket connections come in: the first message says who it is, and which dialect it speaks.
#pragma once

#include <set>
#include <unordered_set>

#include "server/client_sessions.hpp"
#include "server/json_sessions.hpp"
#include "server/worker_sessions.hpp"

namespace grange::server {

class Doorway {
 public:
  Doorway(Services& services, WorkerSessions& workers, ClientSessions& clients, JsonSessions& json)
      : s_(services), workers_(workers), clients_(clients), json_(json) {}
  ~Doorway();
  Result<> authorize(const net::HttpRequest& head) const;
  void enter(net::ConnectionPtr connection, const net::HttpRequest& head);
  // Ends all sockets of a named token.
  void end(const std::string& token, const Error& why);
  std::set<std::string> tokens_here() const;

 private:
  class Waiting;
  void first_message(const SocketPtr& socket, std::string bytes, bool binary);

  Services& s_;
  WorkerSessions& workers_;
  ClientSessions& clients_;
  JsonSessions& json_;
  std::unordered_set<SocketPtr> sockets_;
};

}  // namespace grange::server
