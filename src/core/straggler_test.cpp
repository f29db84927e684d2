// Second attempts: looked for when one is due, and at a price that does not follow the size of the job.
#include "core/plan_fixture.hpp"

namespace grange::core {
namespace {

using testing::PlanFarm;

JobHeader speculating(PlanFarm& f, std::uint32_t count) {
  JobHeader h = f.header(count);
  h.speculation = {.on = true, .factor_milli = 2000, .min_done = 5};
  return h;
}

// Runs until `done` tasks of it are completed, 100 ms each; returns what still runs.
std::vector<SendAssign> run(PlanFarm& f, int done) {
  std::vector<SendAssign> running;
  while (done > 0) {
    for (const auto& a : f.turn()) {
      f.start(a);
      running.push_back(a);
    }
    f.pass(Millis{100});
    for (std::size_t n = running.size(); n > 0 && done > 0; --n, --done) {
      f.end(running.front(), Millis{100});
      running.erase(running.begin());
    }
  }
  for (const auto& a : f.turn()) {
    f.start(a);
    running.push_back(a);
  }
  return running;
}

TEST(Straggler, AMillionWaitingTasksCostNoLook) {
  constexpr std::uint32_t kTasks = 1'000'000;
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  JobHeader h = speculating(f, kTasks + 20);
  const JobNo job{++f.jobs};
  std::vector<std::uint32_t> open(kTasks);
  for (std::uint32_t i = 0; i < kTasks; ++i) open[i] = i;
  JobProgressed progress;
  progress.job = job;
  progress.next_index = kTasks;
  f.farm.load_job(job, h, progress, open, {});
  for (std::uint32_t i = 0; i < kTasks; ++i) {
    f.farm.load_task({.task = TaskId::of(job, i), .attempt = 2, .ready_at = {f.now.wall.ms + 60'000}}, f.now);
  }
  f.farm.loaded(f.now);
  f.worker(1, 4);
  std::map<TaskId, SendAssign> running;
  const auto turn = [&] {
    f.effects = {};
    const Plan plan = f.farm.plan(f.now, f.prng);
    f.farm.apply(plan, f.now, f.effects);
    for (const auto& a : f.effects.assign) {
      f.start(a);
      running.emplace(a.fence.task, a);
    }
    return plan.looked;
  };
  std::size_t looked = turn();
  for (int i = 0; i < 6; ++i) {
    f.pass(Millis{100});
    f.end(running.begin()->second, Millis{100});
    running.erase(running.begin());
    looked += turn();
  }
  f.worker(2, 1);  // for a second attempt of the first that is due
  for (int i = 0; i < 40; ++i) {
    f.pass(Millis{20});
    looked += turn();
  }
  EXPECT_EQ(f.farm.job(job)->delayed, kTasks);
  EXPECT_GT(looked, 0u);
  EXPECT_LT(looked, 400u);
}

TEST(Straggler, TheFarmWakesWhenTheNextIsDue) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 2);
  f.worker(2, 2);
  f.submit(speculating(f, 7));
  const auto running = run(f, 6);
  ASSERT_EQ(running.size(), 1u);
  EXPECT_EQ(f.turn().size(), 0u);
  const Instant wake = f.farm.next_wake();
  EXPECT_NEAR(static_cast<double>((wake - f.now.mono).count()), 100e3, 1.0) << "of twice 100 ms, half has passed";
  f.pass(std::chrono::duration_cast<Millis>(wake - f.now.mono) - Millis{1});
  EXPECT_EQ(f.turn().size(), 0u);
  f.pass(Millis{2});
  const auto second = f.turn();
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].fence.attempt, 2u);
  // Once its second is gone it may have another.
  f.start(second[0]);
  f.end(second[0], Millis{1}, false);
  f.worker(3, 2);  // where it has not failed
  f.pass(Millis{50});
  EXPECT_EQ(f.turn().size(), 1u);
}

TEST(Straggler, LooksNoFurtherOnceNothingFits) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 400);
  f.submit(speculating(f, 406));
  run(f, 6);
  Capacity small{.slots = 1, .cpus_milli = 500};
  f.worker(2, small);  // room, but not for these
  f.pass(Millis{5000});
  const Plan plan = f.farm.plan(f.now, f.prng);
  EXPECT_TRUE(plan.seconds.empty());
  EXPECT_GT(plan.looked, 0u);
  EXPECT_LE(plan.looked, 4u);
  EXPECT_GE(f.farm.next_wake() - f.now.mono, Micros{Millis{10}}) << "and not all the time";
}

TEST(Straggler, AFrozenOneGetsNoSecond) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 2);
  f.worker(2, 2);
  f.submit(speculating(f, 7));
  const auto running = run(f, 6);
  ASSERT_EQ(running.size(), 1u);
  const SendAssign& a = running[0];
  f.farm.step(PauseTask{.task = a.fence.task}, f.now, f.effects);
  f.farm.step(AttemptPaused{a.worker, a.fence, true}, f.now, f.effects);
  f.pass(Millis{5000});
  EXPECT_EQ(f.turn().size(), 0u);
  f.farm.step(PauseTask{.task = a.fence.task, .pause = false}, f.now, f.effects);
  f.farm.step(AttemptPaused{a.worker, a.fence, false}, f.now, f.effects);
  EXPECT_EQ(f.turn().size(), 1u);
}

}  // namespace
}  // namespace grange::core
