#include "net/circuit_breaker.hpp"

namespace grange::net {

bool CircuitBreaker::allow(Instant now) {
  switch (state_) {
    case State::closed:
      return true;
    case State::half_open:
      return false;  // one is trying
    case State::open:
      break;
  }
  if (now < retry_at_) return false;
  state_ = State::half_open;
  return true;
}

void CircuitBreaker::succeeded() {
  state_ = State::closed;
  in_a_row_ = 0;
}

void CircuitBreaker::failed(Instant now) {
  ++in_a_row_;
  if (state_ == State::closed && in_a_row_ < options_.failures) return;
  state_ = State::open;
  retry_at_ = now + options_.open_for;
}

}  // namespace grange::net
