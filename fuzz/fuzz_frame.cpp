// Any bytes as a frame: read or refused, never more; what was read is written and read again as the same.
#include "fuzz/input.hpp"
#include "wire/frames.hpp"
#include "wire/session.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  wire::pb::Frame frame;
  const auto read = wire::decode(fuzz::text(data, size), frame);
  if (!read.ok()) {
    fuzz::require(!read.error().message.empty());
    return 0;
  }
  const std::string bytes = wire::encode(frame);
  wire::pb::Frame again;
  fuzz::require(wire::decode(bytes, again).ok());
  fuzz::require(wire::encode(again) == bytes);

  wire::Session session;
  wire::pb::Frame own;
  own.mutable_only_ack();
  (void)session.number(own);
  const auto before = session.received();
  const auto verdict = session.arrived(frame);
  fuzz::require(session.received() ==
                before + (verdict == wire::Session::Verdict::fresh && frame.seq() != 0 ? 1u : 0u));
  std::vector<std::string> out;
  (void)session.resend(frame.ack(), out);
  return 0;
}
