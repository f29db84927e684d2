// Connections as TCP gives them: in order within one, but they may stall, be cut at any point, die on one side only, or
// work in one direction. Every message is bytes.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "world.hpp"

namespace grange::sim {

using ConnId = std::uint64_t;

struct Peer {
  std::function<void(std::string bytes, Instant sent)> message;
  std::function<void()> closed;
};

class Net {
 public:
  Net(World& world, Micros delay_mean) : world_(world), dice_(world.seed(), 2), delay_(delay_mean) {}

  // The server's door; null: nobody is there, and dials fail.
  void listen(std::function<Peer(ConnId, std::uint32_t host)> accept) { accept_ = std::move(accept); }
  // Answers later with the connection, or 0.
  void dial(std::uint32_t host, Peer peer, std::function<void(ConnId)> done);
  void send(ConnId conn, bool to_server, std::string bytes);
  void close(ConnId conn, bool by_server);
  bool open(ConnId conn, bool server_side) const;

  // Faults.
  void block(std::uint32_t host, bool to_server, bool on);  // one direction of a host
  void stall(std::uint32_t host, Micros how_long);          // both, and then all comes at once
  void cut(std::uint32_t host, bool half_open);             // all its connections
  void server_died(bool silently);
  void heal();
  std::size_t connections() const { return conns_.size(); }

 private:
  struct Way {
    std::deque<std::pair<std::string, Instant>> queue;  // bytes, when sent
    std::deque<Instant> due;
    Instant last{};
  };
  struct Conn {
    std::uint32_t host = 0;
    Peer client, server;
    bool client_open = true, server_open = true;
    Way up, down;
  };
  struct Host {
    bool up_blocked = false, down_blocked = false;
    Instant stalled_until{};
  };
  void deliver(ConnId id, bool to_server);
  void tell_closed(ConnId id, bool server, Micros wait);
  void forget_if_dead(ConnId id);

  World& world_;
  Dice dice_;
  Micros delay_;
  std::function<Peer(ConnId, std::uint32_t)> accept_;
  std::map<ConnId, Conn> conns_;
  std::map<std::uint32_t, Host> hosts_;
  ConnId next_ = 1;
};

}  // namespace grange::sim
