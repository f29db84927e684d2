// One transport interface: an open, ordered, message-keeping connection. Homes: WebSocket (either side), and in memory
// for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::net {

struct ConnectionCounters {
  std::uint64_t messages_in = 0, messages_out = 0, bytes_in = 0, bytes_out = 0;
};

class Connection;

struct ConnectionEvents {
  // A whole message. `binary` tells Protobuf from JSON.
  std::function<void(std::string message, bool binary)> on_message = {};
  // Once, last. `why` is for people; its class tells a peer's close (unavailable) from a broken rule (invalid_argument,
  // too_large, timeout).
  std::function<void(Error why)> on_closed = {};
  // The bytes waiting to be written fell below half of the limit after send() had answered false.
  std::function<void()> on_writable = {};
  // Anything arrived, a pong included: the peer lives.
  std::function<void()> on_alive = {};
};

// Threading: the Loop's thread only.
class Connection {
 public:
  virtual ~Connection() = default;
  virtual void set_events(ConnectionEvents events) = 0;  // messages wait until this was called
  // Queues a message. False: more than `limits::kOutboxBytes` wait; the message was queued, but the caller ought to
  // hold back.
  virtual bool send(std::string message, bool binary) = 0;
  virtual void close(std::uint16_t code, std::string reason) = 0;  // polite; on_closed follows. Idempotent
  virtual void ping() {}            // asks the peer for a sign of life, which on_alive tells
  virtual void set_idle(Millis) {}  // the silence after which it is given up, where it counts that
  virtual bool open() const = 0;
  virtual std::size_t unsent_bytes() const = 0;
  virtual std::string peer() const = 0;  // "127.0.0.1:5123"
  virtual ConnectionCounters counters() const = 0;
};

using ConnectionPtr = std::shared_ptr<Connection>;

// Dials. `done` gets an open connection or why not. Destroying the attempt cancels it; `done` is then not called.
class Dialer {
 public:
  struct Attempt {
    virtual ~Attempt() = default;
  };
  virtual ~Dialer() = default;
  virtual std::unique_ptr<Attempt> dial(std::function<void(Result<ConnectionPtr>)> done) = 0;
};

}  // namespace grange::net
