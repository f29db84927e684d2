#include "net/loop.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/assert.hpp"
#include "net/asio.hpp"
#include "net/counts.hpp"

namespace grange::net {

Counts& counts() {
  static Counts all;
  return all;
}

OpenCounts open_counts() {
  return {counts().coroutines.load(), counts().connections.load()};
}

struct Loop::Impl {
  std::atomic<std::thread::id> owner{};
  std::atomic<bool> running{false};
  std::thread thread;
  std::mutex mutex;  // of `changed`
  std::condition_variable changed;
  std::function<void(int)> on_signal;
  // Last, so that what still waits in it is destroyed while all else is there.
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::optional<asio::signal_set> signals;

  void run() {
    owner = std::this_thread::get_id();
    while (!context.stopped()) {
      try {
        context.run();
      } catch (const std::exception& e) {  // a callback's: it must not end everyone's loop
        spdlog::error("a callback on the network loop threw: {}", e.what());
      }
    }
    owner = std::thread::id{};
    {
      std::lock_guard lock(mutex);
      running = false;
    }
    changed.notify_all();
  }
  void wait_signal() {
    signals->async_wait([this](error_code ec, int number) {
      if (ec) return;
      on_signal(number);
      wait_signal();
    });
  }
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}

Loop::~Loop() {
  GRANGE_ASSERT(!on_thread());
  stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

void Loop::start_thread() {
  GRANGE_ASSERT(!impl_->running.exchange(true));
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

void Loop::run() {
  GRANGE_ASSERT(!impl_->running.exchange(true));
  impl_->run();
}

void Loop::stop() {
  impl_->context.stop();
}

void Loop::post(std::function<void()> work) {
  asio::post(impl_->context, std::move(work));
}

bool Loop::on_thread() const {
  return impl_->owner.load() == std::this_thread::get_id();
}

bool Loop::running() const {
  return impl_->running.load();
}

void Loop::call(std::function<void()> work) {
  if (on_thread() || !running()) return work();
  struct Once {
    std::mutex mutex;
    std::condition_variable done;
    bool claimed = false, finished = false;
    std::function<void()> work;
  };
  auto once = std::make_shared<Once>();
  once->work = std::move(work);
  post([once] {
    {
      std::lock_guard lock(once->mutex);
      if (once->claimed) return;
      once->claimed = true;
    }
    once->work();
    once->work = nullptr;
    std::lock_guard lock(once->mutex);
    once->finished = true;
    once->done.notify_all();
  });
  std::unique_lock lock(once->mutex);
  while (!once->finished) {
    once->done.wait_for(lock, Millis{20});
    // The loop may have been stopped before it came to this: then there is nobody to disturb.
    if (!once->finished && !once->claimed && !running()) {
      once->claimed = true;
      lock.unlock();
      return once->work();
    }
  }
}

asio::io_context& Loop::context() {
  return impl_->context;
}

void Loop::on_signals(std::function<void(int)> work) {
  impl_->on_signal = std::move(work);
  if (impl_->signals) return;
  impl_->signals.emplace(impl_->context, SIGINT, SIGTERM);
  impl_->wait_signal();
}

namespace {

class SteadyTimer final : public Timer {
 public:
  SteadyTimer(asio::io_context& context, Millis delay, std::optional<Millis> period, std::function<void()> work)
      : state_(std::make_shared<State>(context, period, std::move(work))) {
    state_->timer.expires_after(delay);
    arm(state_);
  }
  ~SteadyTimer() override {
    state_->cancelled = true;
    state_->timer.cancel();
    if (!state_->in_work) state_->work = nullptr;
  }

 private:
  struct State {
    State(asio::io_context& context, std::optional<Millis> p, std::function<void()> w)
        : timer(context), period(p), work(std::move(w)) {}
    asio::steady_timer timer;
    std::optional<Millis> period;
    std::function<void()> work;
    bool cancelled = false, in_work = false;
  };
  static void arm(const std::shared_ptr<State>& state) {
    state->timer.async_wait([state](error_code ec) {
      if (ec || state->cancelled) return;
      if (!state->period) {
        const auto work = std::move(state->work);
        return work();
      }
      state->in_work = true;
      state->work();
      state->in_work = false;
      if (state->cancelled) return;
      const auto next = state->timer.expiry() + *state->period;
      state->timer.expires_at(std::max(next, std::chrono::steady_clock::now()));
      arm(state);
    });
  }
  std::shared_ptr<State> state_;
};

}  // namespace

std::unique_ptr<Timer> Loop::after(Millis delay, std::function<void()> work) {
  return std::make_unique<SteadyTimer>(impl_->context, delay, std::nullopt, std::move(work));
}

std::unique_ptr<Timer> Loop::every(Millis period, std::function<void()> work) {
  return std::make_unique<SteadyTimer>(impl_->context, period, period, std::move(work));
}

}  // namespace grange::net
