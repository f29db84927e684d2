#include "net/scope.hpp"

#include <condition_variable>
#include <mutex>

#include "base/limits.hpp"
#include "net/counts.hpp"

namespace grange::net {

struct Scope::State {
  explicit State(Loop& l) : loop(l) {}
  Loop& loop;
  std::list<std::function<void()>> cancels;  // one for each that runs
  bool cancelled = false;
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t running = 0;  // by `mutex`
};

namespace {

// Lives as long as its coroutine: called at the end of one, or destroyed with one that never came to its end.
template <class State>
class Ended {
 public:
  Ended(std::shared_ptr<State> state, std::list<std::function<void()>>::iterator at)
      : state_(std::move(state)), at_(at) {}
  Ended(Ended&&) noexcept = default;
  Ended& operator=(Ended&&) = delete;
  ~Ended() { leave(); }

  void operator()(std::exception_ptr failure) {
    if (failure) {
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& e) {
        spdlog::error("a network session ended by an exception: {}", e.what());
      }
    }
    leave();
  }

 private:
  void leave() {
    const auto state = std::move(state_);
    if (!state) return;  // moved from, or left already
    {
      const auto cancel = std::move(*at_);  // it may hold the session, and that the scope
      state->cancels.erase(at_);
      const auto done = std::move(counted_);
    }  // all of it gone before join() hears
    std::lock_guard lock(state->mutex);
    if (--state->running == 0) state->ended.notify_all();
  }
  std::shared_ptr<State> state_;
  std::list<std::function<void()>>::iterator at_;
  CoroutineCounted counted_;
};

}  // namespace

Scope::Scope(Loop& loop) : state_(std::make_shared<State>(loop)) {}

Scope::~Scope() {
  cancel();
  join();
}

void Scope::spawn(asio::awaitable<void> work, std::function<void()> cancel) {
  if (state_->cancelled) return;
  state_->cancels.push_back(std::move(cancel));
  {
    std::lock_guard lock(state_->mutex);
    ++state_->running;
  }
  asio::co_spawn(state_->loop.context(), std::move(work), Ended<State>(state_, std::prev(state_->cancels.end())));
}

void Scope::cancel() {
  state_->loop.call([state = state_] {
    state->cancelled = true;
    const auto all = state->cancels;  // a copy: cancelling may end one
    for (const auto& one : all) {
      if (one) one();
    }
  });
}

void Scope::join() {
  if (state_->loop.on_thread()) return;
  // Bounded: a name that is being looked up cannot be cancelled.
  const auto until = std::chrono::steady_clock::now() + limits::kShutdown;
  std::unique_lock lock(state_->mutex);
  while (state_->running > 0 && state_->loop.running() && std::chrono::steady_clock::now() < until)
    state_->ended.wait_for(lock, Millis{20});
}

}  // namespace grange::net
