// What every Protobuf session does with a message before it looks at what it says, and how it says no.
#pragma once

#include "base/limits.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "wire/session.hpp"

namespace grange::server {

namespace pb = ::grange::v1;

inline pb::Frame error_frame(const Error& error, bool fatal) {
  pb::Frame frame;
  frame.mutable_error()->set_code(std::string(code(error.cls)));
  frame.mutable_error()->set_message(error.message);
  frame.mutable_error()->set_details_json(error.details);
  frame.mutable_error()->set_fatal(fatal);
  return frame;
}

inline constexpr std::string_view kGapReason = "a frame is missing; connect again to resume";

// Reads one message into `frame`. An error is the peer's to hear; the session goes on.
inline Result<wire::Session::Verdict> read_frame(wire::Session& session, std::string_view bytes, bool binary,
                                                 pb::Frame& frame) {
  if (!binary) {
    return Error{ErrorClass::invalid_argument, "This session speaks Protobuf; text frames are for the JSON dialect."};
  }
  if (auto read = wire::decode(bytes, frame); !read) return std::move(read).error();
  return session.arrived(frame);
}

// How often a peer's own words may be put into our log: a few at once, then one every few seconds.
class PeerLog {
 public:
  // False: leave it out.
  bool take(Instant now) {
    if (last_.us != 0) {
      const std::int64_t earned = (now - last_).count() / kEvery.count();
      if (earned > 0) {
        room_ = static_cast<int>(std::min<std::int64_t>(kAtOnce, room_ + earned));
        last_ = last_ + Micros{earned * kEvery.count()};
      }
    } else {
      last_ = now;
    }
    if (room_ == 0) {
      ++left_out_;
      return false;
    }
    --room_;
    return true;
  }
  // How many were left out since this was last asked.
  std::uint64_t left_out() { return std::exchange(left_out_, 0); }

 private:
  static constexpr int kAtOnce = 5;
  static constexpr Micros kEvery{10'000'000};
  int room_ = kAtOnce;
  Instant last_{};
  std::uint64_t left_out_ = 0;
};

}  // namespace grange::server
