// Whatever waits gets its turn; what is asked back helps other work, and never goes round in circles.
#include <algorithm>

#include "core/plan_fixture.hpp"

namespace grange::core {
namespace {

using testing::PlanFarm;

constexpr Millis kLongLease{1'000'000'000};

// Workers that run what they are handed: all that fits in their order, the rest waits there.
struct Running {
  explicit Running(PlanFarm& farm, std::uint64_t seed) : f(farm), dice(seed) {}

  PlanFarm& f;
  Prng dice;
  std::multimap<std::int64_t, SendAssign> ends;
  std::map<std::uint32_t, std::int64_t> first;  // when a job was first served
  std::int64_t ms = 0;

  // One end, and what is handed out after it; false: nothing is out.
  bool step(std::int64_t shortest, std::int64_t longest) {
    f.effects.take_back.clear();
    for (const auto& a : f.turn()) {
      first.try_emplace(a.fence.task.job().value, ms);
      f.start(a);
      ends.emplace(
          ms + shortest + static_cast<std::int64_t>(dice.below(static_cast<std::uint64_t>(longest - shortest))), a);
    }
    EXPECT_TRUE(f.effects.take_back.empty()) << "all of it had started";
    if (ends.empty()) return false;
    const auto next = *ends.begin();
    ends.erase(ends.begin());
    f.pass(Millis{next.first - ms});
    ms = next.first;
    f.end(next.second, Millis{shortest});
    f.close_batch();
    return true;
  }
};

// Streams of small work that could fill the farm for ever, at two levels, and something big at each: both are served,
// whatever the seed. The upper stream takes a part of the farm only; if it took all, the lower level would rightly get
// nothing.
TEST(Starvation, BigWorkAndGangsOfEachLevelGetTheirTurn) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    PlanFarm f(FarmOptions{.lease = kLongLease, .starving = Millis{2'000}});
    Running run(f, seed);
    Prng& dice = run.dice;
    ASSERT_TRUE(f.farm.set_policy(policy_names()[1 + dice.below(4)], f.now).ok());
    for (std::uint32_t w = 1; w <= 4; ++w) f.worker(w, 4, 4 + static_cast<std::uint32_t>(dice.below(3)));
    f.submit(1'000'000, dice.below(2) == 0 ? "big" : "small");
    f.submit(1'000'000, "small2");
    JobHeader h = f.header(1'000'000, "upper");
    h.priority = 3;
    h.max_running = 1 + static_cast<std::uint32_t>(dice.below(3));
    f.submit(h);
    const auto big = [&](int priority) {
      JobHeader b = f.header(1, "big");
      b.priority = priority;
      b.nodes = dice.below(2) == 0 ? 3 : 1;
      b.request.cpus_milli = b.nodes > 1 ? 2000 : 4000;
      return f.submit(b);
    };
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(run.step(50, 350));
    const JobNo low = big(0), high = big(3);
    for (int i = 0; i < 4000 && !(run.first.contains(low.value) && run.first.contains(high.value)); ++i) {
      ASSERT_TRUE(run.step(50, 350));
    }
    EXPECT_TRUE(run.first.contains(low.value));
    EXPECT_TRUE(run.first.contains(high.value));
  }
}

// Under fifo what came first goes first, however much of it there is: nothing that came later delays it, and it may
// delay all that came later. So there starvation is to be passed by later work for ever.
TEST(Starvation, UnderFifoNothingThatCameLaterPassesForEver) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    PlanFarm f(FarmOptions{.lease = kLongLease, .starving = Millis{2'000}});
    Running run(f, seed);
    ASSERT_TRUE(f.farm.set_policy("fifo", f.now).ok());
    for (std::uint32_t w = 1; w <= 3; ++w) f.worker(w, 4);
    f.submit(12, "early");
    f.turn();
    JobHeader h = f.header(1, "big");
    h.nodes = run.dice.below(2) == 0 ? 2 : 1;
    h.request.cpus_milli = 4000;
    const JobNo big = f.submit(h);
    f.submit(1'000'000, "late");
    h.user = "later";
    const JobNo last = f.submit(h);
    for (const auto& [id, list] : f.out) {
      f.start(list.front());
      run.ends.emplace(static_cast<std::int64_t>(run.dice.below(300)), list.front());
    }
    for (int i = 0; i < 1500; ++i) ASSERT_TRUE(run.step(50, 350));
    EXPECT_TRUE(run.first.contains(big.value));
    EXPECT_FALSE(run.first.contains(last.value)) << "a million tasks came before it";
  }
}

// With one worker and one job there is nobody to give anything to.
TEST(TakeBack, NeverFromALoneWorkerForItsOwnJob) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    PlanFarm f(FarmOptions{.lease = kLongLease, .starving = Millis{1'000}});
    Prng dice(seed);
    ASSERT_TRUE(f.farm.set_policy(policy_names()[dice.below(5)], f.now).ok());
    const auto slots = 1 + static_cast<std::uint32_t>(dice.below(4));
    f.worker(1, Capacity{.slots = slots, .cpus_milli = 4000, .gpus_milli = 1000, .memory = 8 * GiB},
             slots + static_cast<std::uint32_t>(dice.below(5)));
    JobHeader h = f.header(100);
    h.request.cpus_milli = 500 * (1 + static_cast<std::uint32_t>(dice.below(8)));
    h.request.gpus_milli = dice.below(3) == 0 ? 500 : 0;
    h.request.memory = dice.below(8) * GiB;
    if (dice.below(3) == 0) h.alternatives = {f.header(1).request};
    if (dice.below(4) == 0) h.max_running = 1 + static_cast<std::uint32_t>(dice.below(6));
    f.submit(h);
    for (int i = 0; i < 80; ++i) {
      f.turn();
      ASSERT_TRUE(f.effects.take_back.empty()) << "after " << i;
      ASSERT_FALSE(f.out.empty());
      const auto& a = f.out.begin()->second.front();
      if (dice.below(2) == 0) f.start(a);
      f.pass(Millis{static_cast<std::int64_t>(dice.below(2'000))});
      if (dice.below(3) == 0) f.end(SendAssign{a}, Millis{10}, dice.below(8) != 0);
    }
  }
}

// While nothing ends, the farm comes to rest: no task is handed out and asked back again and again.
TEST(TakeBack, ComesToRest) {
  std::uint64_t asked_in_all = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    PlanFarm f(FarmOptions{.lease = kLongLease, .starving = Millis{2'000}});
    Prng dice(seed);
    ASSERT_TRUE(f.farm.set_policy(policy_names()[dice.below(5)], f.now).ok());
    const auto some = [&](std::uint64_t n) { return static_cast<std::uint32_t>(dice.below(n)); };
    const auto join = [&](std::uint32_t no) {
      const auto slots = 1 + some(4);
      f.worker(no, Capacity{.slots = slots, .cpus_milli = 1000 * (1 + some(4)), .memory = 8 * GiB}, slots + some(9));
    };
    const auto jobs = [&](std::uint32_t n) {
      for (; n > 0; --n) {
        JobHeader h = f.header(1 + some(30), std::string(1, static_cast<char>('a' + some(3))));
        h.priority = static_cast<int>(some(3));
        h.request.cpus_milli = 500 * (1 + some(5));
        h.request.memory = dice.below(4) * GiB;
        h.nodes = some(6) == 0 ? 2 : 1;
        h.retry.max_attempts = 50;
        if (some(5) == 0) h.alternatives = {f.header(1).request};
        f.submit(h);
      }
    };
    const auto workers = 2 + some(3);
    for (std::uint32_t w = 1; w <= workers; ++w) join(w);
    jobs(1 + some(4));
    f.turn();
    // Some fail, so that they avoid where they were; then nothing ends any more.
    auto held = f.out;
    for (const auto& [id, list] : held) {
      if (list.size() > 1) continue;
      if (some(4) == 0) {
        f.end(list.front(), Millis{1}, false);
      } else if (some(2) == 0) {
        f.start(list.front());
      }
    }
    f.pass(Millis{2'000});
    join(workers + 1);
    jobs(some(4));
    std::map<TaskId, int> asked;
    int last = 0;
    for (int round = 0; round < 150; ++round) {
      f.effects.take_back.clear();
      f.turn();
      const auto back = f.effects.take_back;
      for (const auto& t : back) {
        asked[t.task] += 1;
        asked_in_all += 1;
        last = round;
        const auto fence = f.out.at(t.task).back().fence;
        f.out.erase(t.task);
        ASSERT_TRUE(f.farm.step(AttemptReturned{t.worker, fence}, f.now, f.effects).result.ok());
      }
      f.pass(Millis{static_cast<std::int64_t>(dice.below(400))});
    }
    EXPECT_LT(last, 100);
    for (const auto& [id, n] : asked) EXPECT_LE(n, 6) << id.job().value << "/" << id.index();
  }
  EXPECT_GT(asked_in_all, 200u);
}

TEST(TakeBack, AHigherLevelFindsFullWindows) {
  PlanFarm f;
  f.worker(1, 1, 8);
  f.submit(100, "a", 0);
  ASSERT_EQ(f.turn().size(), 8u);
  f.submit(3, "b", 5);
  const Plan plan = f.farm.plan(f.now, f.prng);
  EXPECT_TRUE(plan.grants.empty());
  EXPECT_EQ(plan.take_backs.size(), 3u);
  for (const auto& t : plan.take_backs) EXPECT_EQ(t.task.job().value, 1u);
}

TEST(TakeBack, AnUnderservedUserFindsFullWindows) {
  PlanFarm f;
  f.worker(1, 1, 8);
  f.submit(100, "a");
  ASSERT_EQ(f.turn().size(), 8u);
  f.submit(100, "b");
  const Plan plan = f.farm.plan(f.now, f.prng);
  EXPECT_GE(plan.take_backs.size(), 2u);
  EXPECT_LE(plan.take_backs.size(), 4u);
}

}  // namespace
}  // namespace grange::core
