// Two small things that sessions wait with.
#pragma once

#include "net/asio.hpp"

namespace grange::net {

// A coroutine waits; somebody else on the loop wakes it. A wake before the wait is kept.
class Signal {
 public:
  explicit Signal(asio::io_context& context) : timer_(context, SteadyTime::max()) {}
  void notify() {
    set_ = true;
    timer_.cancel();
  }
  asio::awaitable<void> wait() {
    while (!set_) {
      error_code ec;
      co_await timer_.async_wait(into(ec));
    }
    set_ = false;
  }

 private:
  asio::steady_timer timer_;
  bool set_ = false;
};

// Barks when nobody moved its deadline in time. Moving it later costs nothing: the timer is set again only when it
// fires.
class Watchdog {
 public:
  Watchdog(asio::io_context& context, std::function<void()> bark)
      : state_(std::make_shared<State>(context, std::move(bark))) {}
  ~Watchdog() {
    state_->bark = nullptr;
    state_->timer.cancel();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void within(Millis time) { at(std::chrono::steady_clock::now() + time); }
  void at(SteadyTime deadline) {
    state_->deadline = deadline;
    if (!state_->armed || state_->timer.expiry() > deadline) arm(state_);
  }
  void off() { state_->deadline = SteadyTime::max(); }

 private:
  struct State {
    State(asio::io_context& context, std::function<void()> b) : timer(context), bark(std::move(b)) {}
    asio::steady_timer timer;
    std::function<void()> bark;
    SteadyTime deadline = SteadyTime::max();
    bool armed = false;
    std::uint64_t round = 0;
  };
  static void arm(const std::shared_ptr<State>& state) {
    state->armed = true;
    state->timer.expires_at(state->deadline);
    state->timer.async_wait([state, round = ++state->round](error_code) {
      if (round != state->round) return;
      state->armed = false;
      if (!state->bark || state->deadline == SteadyTime::max()) return;
      if (std::chrono::steady_clock::now() < state->deadline) return arm(state);
      state->deadline = SteadyTime::max();
      const auto bark = state->bark;  // it may destroy the watchdog
      bark();
    });
  }
  std::shared_ptr<State> state_;
};

}  // namespace grange::net
