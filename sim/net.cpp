#include "net.hpp"

#include <algorithm>

namespace grange::sim {

void Net::dial(std::uint32_t host, Peer peer, std::function<void(ConnId)> done) {
  world_.after(dice_.skewed(delay_ * 2), [this, host, peer = std::move(peer), done = std::move(done)]() mutable {
    const Host& h = hosts_[host];
    if (!accept_ || h.up_blocked || h.down_blocked || h.stalled_until > world_.mono()) return done(0);
    const ConnId id = next_++;
    Conn& conn = conns_[id];
    conn.host = host;
    conn.client = std::move(peer);
    conn.server = accept_(id, host);
    done(id);
  });
}

void Net::send(ConnId id, bool to_server, std::string bytes) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  Conn& conn = it->second;
  if (to_server ? !conn.client_open : !conn.server_open) return;
  if (to_server ? !conn.server_open : !conn.client_open) return;  // the other side is gone: into the void
  Way& way = to_server ? conn.up : conn.down;
  const Instant due = std::max(way.last, world_.mono() + dice_.skewed(delay_));
  way.last = due;
  way.queue.emplace_back(std::move(bytes), world_.mono());
  way.due.push_back(due);
  world_.at(due, [this, id, to_server] { deliver(id, to_server); });
}

void Net::deliver(ConnId id, bool to_server) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  Conn& conn = it->second;
  Way& way = to_server ? conn.up : conn.down;
  const Host& host = hosts_[conn.host];
  if (to_server ? host.up_blocked : host.down_blocked) return;  // heal or unblock pumps
  if (host.stalled_until > world_.mono()) {
    world_.at(host.stalled_until, [this, id, to_server] { deliver(id, to_server); });
    return;
  }
  // All that is due: after a stall it comes at once.
  while (!way.queue.empty() && way.due.front() <= world_.mono()) {
    auto [bytes, sent] = std::move(way.queue.front());
    way.queue.pop_front();
    way.due.pop_front();
    const bool there = to_server ? conn.server_open : conn.client_open;
    if (there) {
      // Copied: the handler may close the connection, and with it itself.
      const auto message = to_server ? conn.server.message : conn.client.message;
      if (message) message(std::move(bytes), sent);
      if (!conns_.contains(id)) return;
    }
  }
  forget_if_dead(id);
}

bool Net::open(ConnId id, bool server_side) const {
  const auto it = conns_.find(id);
  return it != conns_.end() && (server_side ? it->second.server_open : it->second.client_open);
}

// A polite close: what is on its way still arrives, then the other side hears of it.
void Net::close(ConnId id, bool by_server) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  Conn& conn = it->second;
  bool& mine = by_server ? conn.server_open : conn.client_open;
  if (!mine) return;
  mine = false;
  const Way& way = by_server ? conn.down : conn.up;
  const Instant last = std::max(way.last, world_.mono() + dice_.skewed(delay_));
  tell_closed(id, !by_server, last - world_.mono() + Micros{1});
}

void Net::tell_closed(ConnId id, bool server, Micros wait) {
  world_.after(wait, [this, id, server] {
    const auto it = conns_.find(id);
    if (it == conns_.end()) return;
    Conn& conn = it->second;
    const Host& host = hosts_[conn.host];
    if (server ? host.up_blocked : host.down_blocked) return tell_closed(id, server, ms(1000));
    bool& open = server ? conn.server_open : conn.client_open;
    const auto closed = server ? conn.server.closed : conn.client.closed;
    if (open) {
      open = false;
      if (closed) closed();
    }
    forget_if_dead(id);
  });
}

void Net::forget_if_dead(ConnId id) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  const Conn& c = it->second;
  if (!c.client_open && !c.server_open && c.up.queue.empty() && c.down.queue.empty()) conns_.erase(it);
}

void Net::block(std::uint32_t host, bool to_server, bool on) {
  Host& h = hosts_[host];
  (to_server ? h.up_blocked : h.down_blocked) = on;
  if (on) return;
  std::vector<ConnId> ids;
  for (const auto& [id, conn] : conns_) {
    if (conn.host == host) ids.push_back(id);
  }
  for (const ConnId id : ids) deliver(id, to_server);
}

void Net::stall(std::uint32_t host, Micros how_long) {
  hosts_[host].stalled_until = world_.mono() + how_long;
}

void Net::cut(std::uint32_t host, bool half_open) {
  std::vector<ConnId> ids;
  for (const auto& [id, conn] : conns_) {
    if (conn.host == host) ids.push_back(id);
  }
  for (const ConnId id : ids) {
    Conn& conn = conns_.at(id);
    // Some of what was on its way is lost; a prefix may have arrived.
    for (Way* way : {&conn.up, &conn.down}) {
      const auto keep = dice_.below(way->queue.size() + 1);
      way->queue.resize(keep);
      way->due.resize(keep);
    }
    if (half_open) {
      // One side never hears of it: what it sends goes nowhere.
      const bool server_hears = dice_.chance(0.5);
      (server_hears ? conn.client : conn.server).message = nullptr;
      tell_closed(id, server_hears, dice_.skewed(ms(50)));
      (server_hears ? conn.server : conn.client).message = nullptr;
    } else {
      tell_closed(id, true, dice_.skewed(ms(100)));
      tell_closed(id, false, dice_.skewed(ms(100)));
    }
  }
}

void Net::server_died(bool silently) {
  accept_ = nullptr;
  std::vector<ConnId> ids;
  for (const auto& [id, conn] : conns_) ids.push_back(id);
  for (const ConnId id : ids) {
    Conn& conn = conns_.at(id);
    conn.server = {};
    conn.server_open = false;
    const auto keep = dice_.below(conn.down.queue.size() + 1);
    conn.down.queue.resize(keep);
    conn.down.due.resize(keep);
    if (!silently) tell_closed(id, false, std::max(conn.down.last - world_.mono(), Micros{0}) + dice_.skewed(ms(50)));
  }
}

void Net::heal() {
  for (auto& [host, h] : hosts_) {
    h.stalled_until = {};
    block(host, true, false);
    block(host, false, false);
  }
}

}  // namespace grange::sim
