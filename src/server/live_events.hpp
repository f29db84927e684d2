// What a running attempt shows to those who follow it, before anybody is told: a worker may send anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/units.hpp"

namespace grange::server {

inline constexpr Bytes kLiveEvent = 256 * KiB;   // of one event
inline constexpr Bytes kLiveBytes = 16 * MiB;    // of one attempt's
inline constexpr std::uint32_t kLiveRate = 200;  // events a second of one attempt
inline constexpr std::uint32_t kLiveAtOnce = 400;

// How much of one attempt is passed on.
class LiveGate {
 public:
  bool take(std::size_t bytes, Instant now);  // false: leave it out
  std::uint64_t left_out() const { return left_out_; }

 private:
  Instant last_{INT64_MIN};
  std::uint32_t room_ = kLiveAtOnce;
  Bytes bytes_ = 0;
  std::uint64_t left_out_ = 0;
};

// Its data as one line of JSON; nullopt: its type is none, or one of the server's own, or its data is no object.
std::optional<std::string> live_event(std::string_view type, const std::string& data_json);

}  // namespace grange::server
