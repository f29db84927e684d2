// Keeps one connection to one peer: dials, backs off 1 -> 60 s (x2, jitter), notices silence, and stops dialling for a
// while behind a circuit breaker. What is sent over it, and sent again after a loss, is the session's business
// (wire/session.hpp), not this one's.
#pragma once

#include <map>
#include <optional>

#include "base/limits.hpp"
#include "base/prng.hpp"
#include "net/circuit_breaker.hpp"
#include "net/loop.hpp"
#include "net/transport.hpp"

namespace grange::net {

enum class LinkState { disconnected, connecting, connected, reconnecting, failed };
std::string_view name(LinkState s);

struct LinkOptions {
  Millis first = limits::kReconnectFirst;
  Millis last = limits::kReconnectLast;
  double jitter = limits::kReconnectJitter;
  int attempts = 0;             // in a row before `failed`; 0: for ever
  Millis idle = limits::kIdle;  // silence after which the connection is given up
  BreakerOptions breaker = {};
};

struct LinkCounters {
  std::uint64_t dials = 0, connected = 0, failed = 0, lost = 0;
  double success_rate() const { return dials == 0 ? 1.0 : static_cast<double>(connected) / static_cast<double>(dials); }
};

struct LinkEvents {
  std::function<void(ConnectionPtr)> on_up;  // set its events here
  std::function<void(const Error&)>
      on_down;  // a dial failed, or the connection was lost; another try follows unless `failed`
  std::function<void(LinkState)> on_state = {};
};

class ConnectionManager {
 public:
  ConnectionManager(Loop& loop, std::unique_ptr<Dialer> dialer, LinkOptions options, LinkEvents events,
                    std::uint64_t seed);
  ~ConnectionManager();  // closes; no event follows
  void start();
  void stop();           // polite close, then disconnected
  void lost(Error why);  // the owner saw on_closed of the connection that on_up gave
  LinkState state() const;
  LinkCounters counters() const;
  Millis next_delay() const;  // of the try that is waiting, 0 when none is

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Back-off as a pure function: base * 2^n, at most cap, times 1 +- jitter.
Millis backoff(int n, Millis first, Millis last, double jitter, Prng& prng);

// A dialer of ws:// and wss:// URLs. `headers` may carry the token.
struct TlsOptions;
std::unique_ptr<Dialer> websocket_dialer(Loop& loop, std::string url, std::map<std::string, std::string> headers);
std::unique_ptr<Dialer> websocket_dialer(Loop& loop, std::string url, std::map<std::string, std::string> headers,
                                         const TlsOptions& tls);

}  // namespace grange::net
