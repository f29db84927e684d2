// How a kernel is watched, halted and ended from outside, and its stopwatch: the one place here that reads a clock.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::compute {

// Of a kernel that is running. Any thread may call anything.
class Control {
 public:
  // What there is so far. Called on a thread of the kernel, one at a time, at most once an interval.
  struct Progress {
    double fraction = 0;      // of the work, 0..1
    std::uint64_t found = 0;  // primes
    double seconds = 0;
  };
  using Tell = std::function<void(const Progress&)>;

  explicit Control(Tell tell = {}, Micros interval = std::chrono::seconds(1));
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  void stop();
  void pause(bool on);  // the stopwatch stands still too

  // For kernels, between pieces of a few milliseconds. Waits while it is paused; false: end now.
  bool go_on() { return !halted_.load(std::memory_order_relaxed) || wait(); }
  void report(double fraction, std::uint64_t found);
  void fail(Error error);    // the first one counts; it stops the other threads
  Result<> outcome() const;  // the error of `fail`; `cancelled` when it was stopped
  double seconds() const;    // since it was made, less the pauses

 private:
  using Clock = std::chrono::steady_clock;
  bool wait();

  const Tell tell_;
  const Clock::duration interval_;
  const Clock::time_point start_;
  std::atomic<bool> halted_{false};  // stopped or paused: look closer
  std::atomic<Clock::rep> next_tell_;
  std::mutex telling_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false, paused_ = false;
  Clock::time_point paused_at_{};
  Clock::duration still_{0};
  std::optional<Error> error_;
};

inline constexpr unsigned kMaxThreads = 1024;

// Runs work(0) … work(threads - 1) side by side, the first on the caller's thread, and waits for all. What a thread
// throws is its failure.
Result<> on_threads(unsigned threads, Control& control, const std::function<void(unsigned)>& work);

// Memory that may be asked for: `limit`, or what the machine has free when it is 0. The error says how much it would
// be.
Result<> check_memory(Bytes needed, Bytes limit);

}  // namespace grange::compute
