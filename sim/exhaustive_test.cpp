// Small scope, all of it: three tasks, two workers, one crash of the server, one worker that is taken for lost. Every
// order in which messages arrive, tasks start and end, and the crash comes: before the commit, between commit and
// release, or after.
#include <gtest/gtest.h>

#include <deque>
#include <unordered_map>

#include "core/test_disk.hpp"
#include "world.hpp"

namespace grange::sim {
namespace {

constexpr std::uint32_t kTasks = 3, kWorkers = 2;

enum class Word : std::uint8_t { assign, cancel, take_back, ack, started, ended, returned };
struct Message {
  Word word{};
  Fence fence;
};

class SmallFarm {
 public:
  SmallFarm() {
    start();
    serve(hello(0), 0);
    serve(hello(1), 0);
    core::SubmitJob job{.job = JobNo{1}, .header = {}};
    job.header.count = kTasks;
    job.header.request.engine = "command";
    job.header.retry.base = Millis{0};
    serve(job, 0);
  }

  enum class Kind : std::uint8_t { down, up, start, end, lose, hello, crash, time };
  struct Choice {
    Kind kind{};
    std::uint32_t worker = 0;
    int crash = 0;  // while it is served: 1 before the commit, 2 between commit and release
  };

  std::vector<Choice> choices() const {
    std::vector<Choice> out;
    for (std::uint32_t w = 0; w < kWorkers; ++w) {
      const Worker& it = workers_[w];
      if (!it.connected) {
        add(out, Kind::hello, w);
      } else {
        if (!it.down.empty()) out.push_back({Kind::down, w});
        if (!it.up.empty()) add(out, Kind::up, w);
        if (losses_ == 0) add(out, Kind::lose, w);
      }
      // A worker works whether it is connected or not.
      for (const auto& [task, hold] : it.holds) {
        if (hold.state == 0) out.push_back({Kind::start, w});
        if (hold.state == 1) out.push_back({Kind::end, w});
      }
    }
    if (crashes_ == 0 && !done()) out.push_back({Kind::crash, 0});
    if (out.empty() || waits_for_time()) {
      if (farm_->next_wake() != Instant::never() && !done()) out.push_back({Kind::time, 0});
    }
    return out;
  }

  void apply(const Choice& c) {
    Worker& w = workers_[c.worker];
    switch (c.kind) {
      case Kind::down: {
        const Message m = w.down.front();
        w.down.pop_front();
        return told(w, m);
      }
      case Kind::up: {
        const Message m = w.up.front();
        w.up.pop_front();
        const WorkerNo no{c.worker + 1};
        if (m.word == Word::started) return serve(core::AttemptStarted{no, m.fence}, c.crash);
        if (m.word == Word::returned) return serve(core::AttemptReturned{no, m.fence}, c.crash);
        return serve(core::AttemptEnded{.worker = no, .fence = m.fence, .run_us = 1000}, c.crash);
      }
      case Kind::start:
        for (auto& [task, hold] : w.holds) {
          if (hold.state != 0) continue;
          hold.state = 1;
          if (w.connected) w.up.push_back({Word::started, hold.fence});
          return;
        }
        return;
      case Kind::end:
        for (auto& [task, hold] : w.holds) {
          if (hold.state != 1) continue;
          hold.state = 2;
          ended_by_[task].insert(hold.fence.attempt);
          if (w.connected) w.up.push_back({Word::ended, hold.fence});
          return;
        }
        return;
      case Kind::lose:
        losses_ += 1;
        disconnect(w);
        return serve(core::WorkerGone{.worker = WorkerNo{c.worker + 1}, .for_good = true, .charge = false}, c.crash);
      case Kind::hello: {
        w.connected = true;
        const auto event = hello(c.worker);
        serve(event, c.crash, c.worker);
        if (!w.connected) return;  // it died over it
        // What had ended is said again.
        for (const auto& [task, hold] : w.holds) {
          if (hold.state >= 1) w.up.push_back({Word::started, hold.fence});
          if (hold.state == 2) w.up.push_back({Word::ended, hold.fence});
        }
        return;
      }
      case Kind::crash:
        return crash();
      case Kind::time:
        now_.mono = std::max(now_.mono, farm_->next_wake());
        for (std::uint32_t i = 0; i < kWorkers; ++i) {
          if (workers_[i].connected) serve(core::WorkerAlive{WorkerNo{i + 1}}, 0);
        }
        return serve(core::Tick{}, 0);
    }
  }

  bool done() const { return disk_.outcomes.size() == kTasks; }

  // What tells two situations apart. Times and the order of last use are left out.
  std::string text() const {
    std::string out = fmt::format("{}{}|", crashes_, losses_);
    for (std::uint32_t i = 0; i < kTasks; ++i) {
      const auto t = farm_->task(TaskId::of(JobNo{1}, i));
      if (t) {
        out += fmt::format("{}.{}.{},", static_cast<int>(t->state), t->attempt, t->worker.value);
      } else {
        out += "-,";
      }
      const auto o = disk_.outcomes.find(TaskId::of(JobNo{1}, i));
      if (o != disk_.outcomes.end()) out += fmt::format("={}", o->second.attempt);
      const auto k = disk_.kept.find(TaskId::of(JobNo{1}, i));
      if (k != disk_.kept.end()) out += fmt::format("k{}", k->second.attempt);
    }
    for (const Worker& w : workers_) {
      out += w.connected ? "|c" : "|d";
      for (const auto& [task, h] : w.holds)
        out += fmt::format("{}:{}.{:x}.{},", task.index(), h.fence.attempt, h.fence.epoch, h.state);
      for (const auto* queue : {&w.down, &w.up}) {
        out += '/';
        for (const Message& m : *queue)
          out += fmt::format("{}{}.{}.{:x},", static_cast<int>(m.word), m.fence.task.index(), m.fence.attempt,
                             m.fence.epoch);
      }
    }
    return out;
  }

  void check() const {
    farm_->check_invariants();
    for (const auto& [task, outcome] : disk_.outcomes) {
      const auto it = ended_by_.find(task);
      ASSERT_TRUE(outcome.end == core::TaskEnd::completed && it != ended_by_.end() &&
                  it->second.contains(outcome.attempt))
          << "a result that no worker gave: task " << task.index();
    }
    std::map<TaskId, std::map<Attempt, std::uint32_t>> running;
    for (std::uint32_t w = 0; w < kWorkers; ++w) {
      for (const auto& [task, hold] : workers_[w].holds) {
        if (hold.state != 1) continue;
        ASSERT_TRUE(running[task].try_emplace(hold.fence.attempt, w).second)
            << "attempt " << hold.fence.attempt << " of task " << task.index() << " runs on both workers";
      }
    }
  }

 private:
  struct Hold {
    Fence fence;
    int state = 0;  // waits, runs, ended
  };
  struct Worker {
    bool connected = true;
    std::map<TaskId, Hold> holds;
    std::deque<Message> down, up;
  };

  void add(std::vector<Choice>& out, Kind kind, std::uint32_t w) const {
    out.push_back({kind, w});
    if (crashes_ > 0 || done()) return;
    out.push_back({kind, w, 1});
    out.push_back({kind, w, 2});
  }

  bool waits_for_time() const {
    for (const Worker& w : workers_) {
      if (!w.connected || !w.down.empty() || !w.up.empty()) return false;
      for (const auto& [task, hold] : w.holds) {
        if (hold.state < 2) return false;
      }
    }
    return true;
  }

  core::WorkerHello hello(std::uint32_t w) const {
    core::WorkerHello out{.worker = WorkerNo{w + 1}, .capacity = {}, .window = 1, .held = {}};
    out.capacity.engines = {"command"};
    for (const auto& [task, hold] : workers_[w].holds) out.held.push_back({hold.fence, hold.state > 0});
    return out;
  }

  void start() { farm_ = disk_.load({.lease = Millis{30'000}, .incarnation = ++incarnation_}, now_); }

  static void disconnect(Worker& w) {
    w.connected = false;
    w.down.clear();
    w.up.clear();
  }

  void crash() {
    crashes_ += 1;
    for (Worker& w : workers_) disconnect(w);
    start();
  }

  void serve(const core::Event& event, int crash_at, std::uint32_t greeted = kWorkers) {
    core::Effects effects;
    const core::StepAnswer answer = farm_->step(event, now_, effects);
    Prng prng(1);
    const core::Plan plan = farm_->plan(now_, prng);
    if (!plan.empty()) farm_->apply(plan, now_, effects);
    farm_->finish_batch(now_, effects);
    if (crash_at == 1) return crash();
    disk_.fold(effects);
    if (crash_at == 2) return crash();
    if (greeted < kWorkers) {
      for (const Fence& refused : answer.refused) {
        auto& holds = workers_[greeted].holds;
        const auto it = holds.find(refused.task);
        if (it != holds.end() && it->second.fence == refused) holds.erase(it);
      }
    }
    const auto send = [&](WorkerNo to, Word word, const Fence& fence) {
      Worker& w = workers_[to.value - 1];
      if (w.connected) w.down.push_back({word, fence});
    };
    for (const auto& a : effects.assign) send(a.worker, Word::assign, a.fence);
    for (const auto& c : effects.cancel) send(c.worker, Word::cancel, {c.task, c.attempt, 0});
    for (const auto& t : effects.take_back) send(t.worker, Word::take_back, {t.task, 0, 0});
    for (const auto& a : effects.acks) send(a.worker, Word::ack, {a.task, a.attempt, 0});
  }

  static void told(Worker& w, const Message& m) {
    const auto it = w.holds.find(m.fence.task);
    switch (m.word) {
      case Word::assign:
        if (it != w.holds.end() && it->second.fence.attempt >= m.fence.attempt) {
          it->second.fence = m.fence;
          return;
        }
        w.holds[m.fence.task] = {m.fence, 0};
        return;
      case Word::take_back:
        if (it == w.holds.end() || it->second.state != 0) return;
        w.up.push_back({Word::returned, it->second.fence});
        w.holds.erase(it);
        return;
      case Word::ack:
      case Word::cancel:
        if (it != w.holds.end() && it->second.fence.attempt == m.fence.attempt) w.holds.erase(it);
        return;
      default:
        return;
    }
  }

  core::Disk disk_;
  std::unique_ptr<core::Farm> farm_;
  std::uint64_t incarnation_ = 0;
  Now now_{Instant{1'000'000}, WallMs{1'000'000}};
  Worker workers_[kWorkers];
  std::map<TaskId, std::set<Attempt>> ended_by_;
  int crashes_ = 0, losses_ = 0;
};

class Search {
 public:
  // How many ways there are from here to the end.
  double walk() {
    SmallFarm farm;
    for (const auto& c : path_) farm.apply(c);
    farm.check();
    if (::testing::Test::HasFatalFailure() || longest_ > 200) return 0;
    const std::string key = farm.text();
    if (const auto it = seen_.find(key); it != seen_.end()) return it->second;
    seen_[key] = 0;  // on the way: a circle counts once
    longest_ = std::max(longest_, path_.size());
    const auto choices = farm.choices();
    if (choices.empty()) {
      EXPECT_TRUE(farm.done()) << "stuck: " << key;
      return seen_[key] = 1;
    }
    double ways = 0;
    for (const auto& c : choices) {
      path_.push_back(c);
      ways += walk();
      path_.pop_back();
      if (::testing::Test::HasFailure()) return 0;
    }
    return seen_[key] = ways;
  }
  std::size_t states() const { return seen_.size(); }
  std::size_t longest() const { return longest_; }

 private:
  std::vector<SmallFarm::Choice> path_;
  std::unordered_map<std::string, double> seen_;
  std::size_t longest_ = 0;
};

TEST(Exhaustive, ThreeTasksTwoWorkersOneCrash) {
  Search search;
  const double ways = search.walk();
  std::printf("%zu states, %.3g interleavings, the longest of %zu steps\n", search.states(), ways, search.longest());
  EXPECT_GT(search.states(), 1000u);
}

}  // namespace
}  // namespace grange::sim
