// Closed lets calls through; `failures` in a row open it; after `open_for` one call may try (half-open), and decides.
// Pure: time comes in.
#pragma once

#include "base/limits.hpp"
#include "base/units.hpp"

namespace grange::net {

struct BreakerOptions {
  int failures = limits::kBreakerFailures;
  Millis open_for = limits::kBreakerOpen;
};

class CircuitBreaker {
 public:
  enum class State { closed, open, half_open };
  explicit CircuitBreaker(BreakerOptions options = {}) : options_(options) {}

  bool allow(Instant now);  // true: go, and report how it went
  void succeeded();
  void failed(Instant now);
  State state() const { return state_; }
  Instant opens_at() const { return retry_at_; }  // when an open circuit lets one through

 private:
  BreakerOptions options_;
  State state_ = State::closed;
  int in_a_row_ = 0;
  Instant retry_at_{};
};

}  // namespace grange::net
