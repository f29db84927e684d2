// Virtual time: one heap of (time, sequence, event), one seed. Nothing here looks at a real clock.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "base/mark.hpp"
#include "base/mutant.hpp"
#include "base/prng.hpp"
#include "base/units.hpp"

namespace grange::sim {

// A broken promise: the run ends, and the seed is kept.
struct Violation {
  std::string rule, text;
};
[[noreturn]] void violated(std::string rule, std::string text);

inline Micros ms(std::int64_t n) {
  return Micros{n * 1000};
}

// Randomness of one purpose. Streams of their own keep one actor's draws from shifting another's.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t stream)
      : prng_(seed * 0x9E3779B97F4A7C15ull + stream * 0xD1B54A32D192ED03ull) {}
  std::uint64_t below(std::uint64_t n) { return prng_.below(n); }
  std::int64_t between(std::int64_t low, std::int64_t high) {  // both ends
    return low + static_cast<std::int64_t>(prng_.below(static_cast<std::uint64_t>(high - low + 1)));
  }
  bool chance(double p) { return prng_.unit() < p; }
  Micros span(Micros low, Micros high) { return Micros{between(low.count(), high.count())}; }
  // Most draws short, a few long.
  Micros skewed(Micros mean) {
    const double u = prng_.unit();
    return Micros{static_cast<std::int64_t>(static_cast<double>(mean.count()) * (0.2 + 3.2 * u * u * u))};
  }
  double unit() { return prng_.unit(); }

 private:
  Prng prng_;
};

class World {
 public:
  using Event = std::function<void()>;

  World(std::uint64_t seed, bool trace) : seed_(seed), trace_(trace) {}

  std::uint64_t seed() const { return seed_; }
  Instant mono() const { return now_; }
  Now now() const { return {now_, WallMs{kEpochMs + now_.us / 1000 + wall_shift_ms_}}; }
  void shift_wall(std::int64_t to_ms) { wall_shift_ms_ = to_ms; }  // off the true time

  void at(Instant when, Event event);
  void after(Micros wait, Event event) { at(now_ + wait, std::move(event)); }
  // The next event; false: there is none before `until`, and the clock stands there.
  bool step(Instant until);

  std::uint64_t steps() const { return steps_; }
  bool tracing() const { return trace_; }
  template <class... Args>
  void trace(fmt::format_string<Args...> form, Args&&... args) {
    if (!trace_) return;
    fmt::print("{:>12.6f}  {}\n", static_cast<double>(now_.us - kStart) / 1e6,
               fmt::format(form, std::forward<Args>(args)...));
  }
  void fault(std::size_t cls) { faults_[cls] += 1; }
  const std::vector<std::uint64_t>& faults() const { return faults_; }
  double seconds() const { return static_cast<double>(now_.us - kStart) / 1e6; }

 private:
  static constexpr std::int64_t kStart = 1'000'000'000;
  static constexpr std::int64_t kEpochMs = 1'800'000'000'000;
  struct Item {
    Instant at;
    std::uint64_t order;
    std::uint32_t slot;
  };
  static bool later(const Item& a, const Item& b) { return a.at != b.at ? a.at > b.at : a.order > b.order; }

  const std::uint64_t seed_;
  const bool trace_;
  Instant now_{kStart};
  std::int64_t wall_shift_ms_ = 0;
  std::uint64_t order_ = 0, steps_ = 0;
  std::vector<Item> heap_;
  std::vector<Event> events_;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint64_t> faults_ = std::vector<std::uint64_t>(64, 0);
};

}  // namespace grange::sim
