#include "compute/control.hpp"

#include <algorithm>
#include <fstream>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace grange::compute {

namespace {

// 0: not known.
Bytes available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  Bytes available = 0;
  while (file >> word) {
    Bytes kib = 0;
    if (word == "MemAvailable:" && file >> kib) available = kib * KiB;
  }
  std::ifstream most("/sys/fs/cgroup/memory.max"), current("/sys/fs/cgroup/memory.current");
  Bytes limit = 0, used = 0;
  if (most >> limit && current >> used) available = std::min(available, limit > used ? limit - used : 1);
  return available;
}

}  // namespace

Control::Control(Tell tell, Micros interval)
    : tell_(std::move(tell)),
      interval_(interval),
      start_(Clock::now()),
      next_tell_((start_ + interval_).time_since_epoch().count()) {}

void Control::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  halted_ = true;
  changed_.notify_all();
}

void Control::pause(bool on) {
  const std::lock_guard lock(mutex_);
  if (on == paused_) return;
  paused_ = on;
  if (on) {
    paused_at_ = Clock::now();
  } else {
    still_ += Clock::now() - paused_at_;
  }
  halted_ = stopped_ || paused_;
  changed_.notify_all();
}

bool Control::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopped_ || !paused_; });
  return !stopped_;
}

void Control::report(double fraction, std::uint64_t found) {
  if (!tell_ || Clock::now().time_since_epoch().count() < next_tell_.load(std::memory_order_relaxed)) return;
  const std::unique_lock lock(telling_, std::try_to_lock);
  if (!lock) return;
  const Clock::rep now = Clock::now().time_since_epoch().count();
  if (now < next_tell_.load(std::memory_order_relaxed)) return;
  next_tell_.store(now + interval_.count(), std::memory_order_relaxed);
  tell_({fraction, found, seconds()});
}

void Control::fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  stop();
}

Result<> Control::outcome() const {
  const std::lock_guard lock(mutex_);
  if (error_) return *error_;
  if (stopped_) return Error{ErrorClass::cancelled, "It was stopped before its end."};
  return {};
}

double Control::seconds() const {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = paused_ ? paused_at_ : Clock::now();
  return std::chrono::duration<double>(now - start_ - still_).count();
}

Result<> on_threads(unsigned threads, Control& control, const std::function<void(unsigned)>& work) {
  const auto guarded = [&](unsigned index) {
    try {
      work(index);
    } catch (const std::bad_alloc&) {
      control.fail({ErrorClass::too_large, "There is not enough memory for this; take a smaller n or fewer threads."});
    } catch (const std::exception& e) {
      control.fail({ErrorClass::internal, e.what()});
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(threads);
    for (unsigned i = 1; i < threads; ++i) others.emplace_back(guarded, i);
  } catch (const std::exception& e) {
    control.fail({ErrorClass::unavailable, "The machine gave " + std::to_string(others.size() + 1) + " of " +
                                               std::to_string(threads) + " threads (" + e.what() +
                                               "); ask for fewer."});
  }
  guarded(0);
  for (std::thread& other : others) other.join();
  return control.outcome();
}

Result<> check_memory(Bytes needed, Bytes limit) {
  const Bytes room = limit != 0 ? limit : available_memory();
  if (room == 0 || needed <= room) return {};
  return Error{ErrorClass::too_large, "This needs " + std::to_string(needed / MiB + 1) +
                                          " MiB of memory and there are " + std::to_string(room / MiB) +
                                          (limit != 0 ? " MiB for the task; ask for more memory or take a smaller n."
                                                      : " MiB free; take a smaller n.")};
}

}  // namespace grange::compute
