// Owns coroutines: it can cancel them and wait for their end. Nothing in net runs outside of one.
#pragma once

#include "net/asio.hpp"
#include "net/loop.hpp"

namespace grange::net {

class Scope {
 public:
  explicit Scope(Loop& loop);
  ~Scope();  // cancelled, and joined where that is possible
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // `cancel` makes the coroutine end soon: it closes what the coroutine waits for. An exception ends that coroutine
  // only, and is logged. After cancel() nothing starts any more.
  void spawn(asio::awaitable<void> work, std::function<void()> cancel);
  void cancel();
  // From any thread but the loop's: waits until all have ended. On the loop's own thread, or when the loop has stopped,
  // it returns at once; the rest ends in later turns, or with the loop.
  void join();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace grange::net
