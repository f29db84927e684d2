// A thread that runs I/O, and everything that hears from it. Plain: neither Asio nor Beast shows here.
//
// Threading: every callback that net hands out runs on its Loop's thread. `post` may be called from any thread; all
// else only from the Loop's own thread, unless it says so.
#pragma once

#include <functional>
#include <memory>

#include "base/units.hpp"

namespace boost::asio {
class io_context;
}

namespace grange::net {

class Timer {  // cancelled when destroyed
 public:
  virtual ~Timer() = default;
};

class Loop {
 public:
  Loop();
  ~Loop();  // stopped and joined
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void start_thread();                    // runs the loop on a thread of its own
  void run();                             // or on the caller's, until stop()
  void stop();                            // any thread; pending work is dropped
  void post(std::function<void()> work);  // any thread
  bool on_thread() const;
  bool running() const;  // any thread
  // Runs `work` on the loop's thread and waits for it; at once when this is that thread or the loop does not run. Any
  // thread.
  void call(std::function<void()> work);
  [[nodiscard]] std::unique_ptr<Timer> after(Millis delay, std::function<void()> work);
  [[nodiscard]] std::unique_ptr<Timer> every(Millis period, std::function<void()> work);
  // SIGINT, SIGTERM: called with the number each time one arrives.
  void on_signals(std::function<void(int)> work);

  boost::asio::io_context& context();  // for net and for the worker's pipes

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// How many coroutines, sockets and timers net holds open now, for the test that shutdown leaves none. Any thread.
struct OpenCounts {
  std::int64_t coroutines = 0;
  std::int64_t connections = 0;
};
OpenCounts open_counts();

}  // namespace grange::net
