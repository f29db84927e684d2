// Units and the two kinds of time. `Instant` is monotonic and decides; `WallMs` is what a person's clock shows and
// decides nothing.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>

namespace grange {

using Millis = std::chrono::milliseconds;
using Micros = std::chrono::microseconds;

// A point on the process's monotonic clock, in microseconds. Its zero means nothing.
struct Instant {
  std::int64_t us = 0;
  friend constexpr auto operator<=>(Instant, Instant) = default;
  friend constexpr Instant operator+(Instant a, Micros d) { return {a.us + d.count()}; }
  friend constexpr Micros operator-(Instant a, Instant b) { return Micros{a.us - b.us}; }
  static constexpr Instant never() { return {INT64_MAX}; }
};

// Milliseconds since 1970 UTC.
struct WallMs {
  std::int64_t ms = 0;
  friend constexpr auto operator<=>(WallMs, WallMs) = default;
};

struct Now {
  Instant mono;
  WallMs wall;
};

using Bytes = std::uint64_t;
inline constexpr Bytes KiB = 1024;
inline constexpr Bytes MiB = 1024 * KiB;
inline constexpr Bytes GiB = 1024 * MiB;

}  // namespace grange
