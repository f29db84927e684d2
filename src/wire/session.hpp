// One side of a session: numbers what it sends, remembers it until acknowledged, tells a repeat from news. Pure; both
// sides use it.
//
//   dialler                              listener
//   Hello{session_id, received}   ->     finds the session: Welcome{resumed, received}
//   both: resend(the other's `received`), then go on.
//   not resumed: both reset(); what was not acknowledged is the owner's business (the owner says again what still
//   holds).
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/limits.hpp"
#include "wire/frames.hpp"

namespace grange::wire {

class Session {
 public:
  enum class Verdict {
    fresh,   // the next in order: act on it
    repeat,  // seen before: drop it
    gap,     // something before it is missing: a broken peer; close the connection, the resume will fill it
  };

  // Gives `frame` its number and the current ack, keeps a copy until it is acknowledged, and returns its bytes.
  std::string number(pb::Frame& frame);
  // For frames that are not numbered: fills in the ack.
  std::string unnumbered(pb::Frame& frame);
  // Reads number and ack of an arrived frame. Unnumbered frames (seq 0) are fresh.
  Verdict arrived(const pb::Frame& frame);

  // After a reconnect: forgets what the peer has, returns the rest in order. `received` beyond what was ever sent:
  // false, nothing changed.
  bool resend(std::uint64_t received, std::vector<std::string>& out);
  // Would resend() do? Changes nothing.
  bool can_resend(std::uint64_t received) const;
  // All that is not acknowledged, in order.
  std::vector<std::string> unacknowledged() const;
  void reset();

  std::uint64_t received() const { return received_; }
  bool owes_ack() const { return received_ != acked_to_peer_; }
  std::size_t waiting() const { return outbox_.size(); }
  Bytes waiting_bytes() const { return outbox_bytes_; }
  // The outbox is at its limit: take nothing new in until it shrinks.
  bool full() const { return outbox_bytes_ > limits::kOutboxBytes || outbox_.size() > limits::kOutboxFrames; }

 private:
  void acknowledged(std::uint64_t up_to);
  struct Sent {
    std::uint64_t seq;
    std::string bytes;
  };
  std::deque<Sent> outbox_;
  Bytes outbox_bytes_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t acked_to_peer_ = 0;
};

}  // namespace grange::wire
