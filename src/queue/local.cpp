// Turn with threads: an inbox and the engine's thread before it, the commit thread and a real disk behind it.
#include "queue/local.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/farm.hpp"
#include "queue/loop.hpp"

namespace grange::queue {
namespace {

Bytes bytes_of(const std::vector<core::ArgumentPage>& pages) {
  Bytes bytes = 0;
  for (const auto& page : pages) bytes += page.bytes.size() + page.sizes.size() * sizeof(std::uint32_t);
  return bytes;
}
Bytes bytes_of(const core::JobBody& body) {
  return body.spec.size() + 4 * KiB + bytes_of(body.pages);
}

class Engine final : public LocalQueue {
 public:
  Engine(store::Store& store, const Clock& clock, const LocalOptions& options, Deliver deliver)
      : store_(store),
        clock_(clock),
        lease_(options.lease),
        deliver_(std::move(deliver)),
        turn_({.policy = options.policy, .lease = options.lease, .aging = options.aging, .seed = options.seed},
              [this](Now now) { flush(now); }) {}
  ~Engine() override { stop(); }

  Result<> load() { return turn_.load(store_, clock_.now()); }

  void run() {
    engine_ = std::thread([this] { engine_loop(); });
    committer_ = std::thread([this] { commit_loop(); });
  }

  // ------------------------------------------------------------------------------------------------ the port

  void submit(SubmitCall call) override {
    if (auto room = room_for(bytes_of(call.body) * 2); !room.ok()) return call.done(std::move(room).error());
    put(std::move(call));
  }
  void submit_graph(GraphCall call) override {
    Bytes bytes = 0;
    for (const auto& [header, body] : call.jobs) bytes += bytes_of(body);
    if (auto room = room_for(bytes * 2); !room.ok()) return call.done(std::move(room).error());
    put(std::move(call));
  }
  void extend(ExtendCall call) override {
    if (auto room = room_for((bytes_of(call.pages) + 4 * KiB) * 2); !room.ok()) {
      return call.done(std::move(room).error());
    }
    put(std::move(call));
  }
  void pause(PauseCall call) override { put(std::move(call)); }
  void pause_farm(PauseFarmCall call) override { put(std::move(call)); }
  void set_user(SetUserCall call) override { put(std::move(call)); }
  void hello(HelloCall call) override { put(std::move(call)); }
  void report(ReportCall call) override { put(std::move(call)); }
  void alive(WorkerNo worker) override { put(AliveCall{worker}); }
  void gone(WorkerNo worker, std::uint64_t session, bool for_good) override {
    put(GoneCall{worker, session, for_good});
  }
  void drain(WorkerNo worker) override { put(DrainCall{worker}); }
  void release_worker(WorkerNo worker, std::function<void(Result<>)> done) override {
    put(ReleaseWorkerCall{worker, std::move(done)});
  }
  void pause_worker(WorkerNo worker, bool pause, std::function<void(Result<>)> done) override {
    put(PauseWorkerCall{worker, pause, std::move(done)});
  }
  void forget_worker(WorkerNo worker, std::function<void(Result<>)> done) override {
    put(ForgetWorkerCall{worker, std::move(done)});
  }
  void cancel(JobNo job, std::optional<std::uint32_t> index, std::string reason,
              std::function<void(Result<std::uint32_t>)> done) override {
    put(CancelCall{job, index, std::move(reason), std::move(done)});
  }
  void retry(JobNo job, RetryFilter filter, std::function<void(Result<std::uint32_t>)> done) override {
    put(RetryCall{job, std::move(filter), std::move(done)});
  }
  void set_policy(std::string name, std::function<void(Result<>)> done) override {
    put(SetPolicyCall{std::move(name), std::move(done)});
  }
  void forget_all(std::function<void(Result<>)> done) override { put(ForgetAllCall{std::move(done)}); }
  void inspect(std::function<void(const core::Farm&, Now)> look) override { put(InspectCall{std::move(look)}); }
  void maintain(std::function<void(store::Store&)> work) override { put(MaintainCall{std::move(work)}); }
  Result<> room_for(Bytes bytes) const override {
    if (storage_full_.load(std::memory_order_relaxed)) {
      return Error{
          ErrorClass::storage_full,
          "The data folder's disk is full; new work is refused until there is room. What was accepted is safe.",
          {}};
    }
    return store_.room_for(bytes);
  }
  std::uint64_t incarnation() const override { return turn_.incarnation(); }
  std::string server_id() const override { return turn_.server_id(); }

  QueueCounters counters() const override {
    QueueCounters c = turn_.counters();
    c.commits = commits_.load();
    c.commit_us = commit_us_.load();
    c.storage_full = storage_full_.load();
    return c;
  }

  void stop() override {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
      closing_ = true;
    }
    wake_engine_.notify_all();
    if (engine_.joinable()) engine_.join();
    {
      const std::lock_guard lock(mutex_);
      no_more_batches_ = true;
    }
    wake_committer_.notify_all();
    if (committer_.joinable()) committer_.join();
  }

 private:
  void put(Call call) {
    {
      std::unique_lock lock(mutex_);
      const bool new_work = std::holds_alternative<SubmitCall>(call) || std::holds_alternative<GraphCall>(call) ||
                            std::holds_alternative<ExtendCall>(call);
      if (new_work && inbox_.size() >= limits::kInbox) {
        lock.unlock();
        return refuse(std::move(call), {ErrorClass::rate_limited,
                                        "The server has more work waiting to be taken in than it may hold. Slow down.",
                                        {}});
      }
      if (!closing_) {
        inbox_.push_back(std::move(call));
        lock.unlock();
        wake_engine_.notify_one();
        return;
      }
    }
    refuse(std::move(call), {ErrorClass::unavailable, "The server is stopping. Try again when it is back.", {}});
  }

  static void refuse(Call call, const Error& why) {
    std::visit(
        [&](auto& c) {
          if constexpr (requires { c.done(why); }) {
            if (c.done) c.done(why);
          }
        },
        call);
  }

  // ------------------------------------------------------------------------------------------------ engine thread

  void engine_loop() {
    std::vector<Call> calls;
    for (;;) {
      bool closing = false;
      {
        std::unique_lock lock(mutex_);
        const auto due = [&] { return !inbox_.empty() || closing_ || (idle_ && turn_.has_batch()); };
        const Instant wake = turn_.next_wake();
        awake_by_ = wake;
        asleep_since_ = clock_.now().mono;
        if (wake == Instant::never()) {
          wake_engine_.wait(lock, due);
        } else {
          const Micros wait = wake - clock_.now().mono;
          // Rounded up: waking early would only spin until the time has come.
          wake_engine_.wait_for(lock, std::max(Micros{0}, wait) + Micros{500}, due);
        }
        calls.swap(inbox_);
        closing = closing_;
      }
      const Now now = clock_.now();
      const bool late = overslept(now);
      for (Call& call : calls) turn_.take(std::move(call), now);
      calls.clear();
      turn_.turn(now, late);
      if (hand_over(now, closing || turn_.large()) && closing) return;
    }
  }

  // This turn began long after it was due, or the one before took long: we were stopped, or the disk held us up.
  bool overslept(Now now) {
    const Micros grace = lease_ / 3;
    const bool slow_turn = turn_began_.us != 0 && asleep_since_ - turn_began_ > grace;
    const bool late = awake_by_ != Instant::never() && now.mono > std::max(awake_by_, asleep_since_) + grace;
    turn_began_ = now.mono;
    return slow_turn || late;
  }

  // Gives the batch to the committer if that is idle; else it grows until then. True: nothing is left here.
  bool hand_over(Now now, bool wait) {
    if (!turn_.has_batch()) return true;
    {
      std::unique_lock lock(mutex_);
      if (wait) {
        committer_free_.wait(lock, [&] { return idle_; });
      } else if (!idle_) {
        return false;
      }
      pending_ = turn_.seal(now);
      idle_ = false;
    }
    wake_committer_.notify_one();
    return true;
  }

  // Everything stepped so far is on disk and released when this returns.
  void flush(Now now) {
    hand_over(now, true);
    std::unique_lock lock(mutex_);
    committer_free_.wait(lock, [&] { return idle_ && !releasing_; });
  }

  // ------------------------------------------------------------------------------------------------ commit thread

  void commit_loop() {
    for (;;) {
      std::unique_ptr<Batch> batch;
      {
        std::unique_lock lock(mutex_);
        wake_committer_.wait(lock, [&] { return pending_ || no_more_batches_; });
        if (!pending_) return;
        batch = std::move(pending_);
      }
      commit(*batch);
      if (!abandoned_) turn_.committed(*batch);
      {
        // The engine may hand over the next batch from here on, while this one's answers go out.
        const std::lock_guard lock(mutex_);
        idle_ = releasing_ = true;
      }
      committer_free_.notify_all();
      wake_engine_.notify_one();
      if (!abandoned_) {
        std::vector<Call> later;
        turn_.release(*batch, store_, deliver_, later);
        for (Call& call : later) put(std::move(call));
      }
      {
        const std::lock_guard lock(mutex_);
        releasing_ = false;
      }
      committer_free_.notify_all();
    }
  }

  // Returns when the batch is on disk. A full disk, or one that fails, holds everything back until it works again:
  // nothing that was accepted is lost, nothing is promised before its time.
  void commit(const Batch& batch) {
    if (batch.effects.records.empty()) return;
    Millis wait{100};
    for (;;) {
      const Now before = clock_.now();
      auto done = store_.commit({batch.effects.records, batch.bodies});
      commit_us_.fetch_add(static_cast<std::uint64_t>((clock_.now().mono - before.mono).count()),
                           std::memory_order_relaxed);
      if (done.ok()) {
        commits_.fetch_add(1, std::memory_order_relaxed);
        storage_full_.store(false, std::memory_order_relaxed);
        return;
      }
      const ErrorClass why = done.error().cls;
      if (why != ErrorClass::storage_full && why != ErrorClass::io) {
        // Trying again cannot help, and going on would be a lie. A restart begins from what is on disk.
        spdlog::critical("The journal cannot be written; the server ends. What was acknowledged is on disk. {}",
                         done.error().message);
        spdlog::shutdown();
        std::_Exit(EXIT_FAILURE);
      }
      storage_full_.store(true, std::memory_order_relaxed);
      spdlog::error("The journal could not be written, trying again in {} ms: {}", wait.count(), done.error().message);
      std::this_thread::sleep_for(wait);
      wait = std::min(wait * 2, Millis{1000});
      const std::lock_guard lock(mutex_);
      if (!closing_) continue;
      if (given_up_at_.us == 0) given_up_at_ = before.mono + limits::kShutdown / 2;
      if (before.mono >= given_up_at_) {
        spdlog::critical(
            "The server stops without its last batch: nothing of it was acknowledged, so nothing that was promised is "
            "lost.");
        abandoned_ = true;
        return;
      }
    }
  }

  store::Store& store_;
  const Clock& clock_;
  const Millis lease_;
  const Deliver deliver_;
  Turn turn_;

  // engine thread
  Instant turn_began_{}, asleep_since_{}, awake_by_ = Instant::never();

  std::mutex mutex_;
  std::condition_variable wake_engine_, wake_committer_, committer_free_;
  std::vector<Call> inbox_;
  bool closing_ = false, no_more_batches_ = false;
  bool idle_ = true;        // the committer has no batch that is not on disk
  bool releasing_ = false;  // what it wrote last is still going out
  std::unique_ptr<Batch> pending_;
  bool abandoned_ = false;  // commit thread
  Instant given_up_at_{};   // likewise: when a stop no longer waits for the disk

  std::atomic<std::uint64_t> commits_{0}, commit_us_{0};
  std::atomic<bool> storage_full_{false};
  std::thread engine_, committer_;
};

}  // namespace

Result<std::unique_ptr<LocalQueue>> LocalQueue::start(store::Store& store, const Clock& clock, LocalOptions options,
                                                      Deliver deliver) {
  if (const auto names = core::policy_names(); std::find(names.begin(), names.end(), options.policy) == names.end()) {
    auto refused = core::Farm({}).set_policy(options.policy, clock.now());
    return std::move(refused).error();
  }
  auto engine = std::make_unique<Engine>(store, clock, options, std::move(deliver));
  if (auto loaded = engine->load(); !loaded.ok()) return std::move(loaded).error();
  engine->run();
  return std::unique_ptr<LocalQueue>(std::move(engine));
}

}  // namespace grange::queue
