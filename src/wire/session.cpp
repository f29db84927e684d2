#include "wire/session.hpp"

namespace grange::wire {

std::string Session::number(pb::Frame& frame) {
  frame.set_seq(++sent_);
  frame.set_ack(received_);
  acked_to_peer_ = received_;
  std::string bytes = encode(frame);
  outbox_bytes_ += bytes.size();
  outbox_.push_back({sent_, bytes});
  return bytes;
}

std::string Session::unnumbered(pb::Frame& frame) {
  frame.set_seq(0);
  frame.set_ack(received_);
  acked_to_peer_ = received_;
  return encode(frame);
}

Session::Verdict Session::arrived(const pb::Frame& frame) {
  if (frame.ack() <= sent_) acknowledged(frame.ack());
  if (frame.seq() == 0) return Verdict::fresh;
  if (frame.seq() <= received_) return Verdict::repeat;
  if (frame.seq() != received_ + 1) return Verdict::gap;
  received_ = frame.seq();
  return Verdict::fresh;
}

bool Session::can_resend(std::uint64_t received) const {
  const std::uint64_t forgotten = outbox_.empty() ? sent_ : outbox_.front().seq - 1;
  return received <= sent_ && received >= forgotten;
}

std::vector<std::string> Session::unacknowledged() const {
  std::vector<std::string> out;
  out.reserve(outbox_.size());
  for (const Sent& sent : outbox_) out.push_back(sent.bytes);
  return out;
}

bool Session::resend(std::uint64_t received, std::vector<std::string>& out) {
  if (!can_resend(received)) return false;
  acknowledged(received);
  for (const Sent& sent : outbox_) out.push_back(sent.bytes);
  return true;
}

void Session::reset() {
  *this = Session{};
}

void Session::acknowledged(std::uint64_t up_to) {
  while (!outbox_.empty() && outbox_.front().seq <= up_to) {
    outbox_bytes_ -= outbox_.front().bytes.size();
    outbox_.pop_front();
  }
}

}  // namespace grange::wire
