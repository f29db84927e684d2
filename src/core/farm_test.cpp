#include "core/farm.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace grange::core {
namespace {

TEST(AttemptState, FollowsTheStrictTable) {
  using enum AttemptState;
  const std::set<std::pair<AttemptState, AttemptState>> legal = {
      {pending, assigned},  {assigned, running}, {assigned, failed}, {running, paused},
      {running, completed}, {running, failed},   {paused, running},  {paused, failed}};
  for (const auto from : {pending, assigned, running, paused, completed, failed}) {
    for (const auto to : {pending, assigned, running, paused, completed, failed}) {
      auto state = from;
      const auto moved = transition(state, to);
      EXPECT_EQ(moved.ok(), legal.contains({from, to}));
      if (!moved.ok()) {
        EXPECT_EQ(moved.error().message,
                  "Cannot transition from " + std::string(name(from)) + " to " + std::string(name(to)));
        EXPECT_EQ(state, from);
      }
    }
  }
}

struct SmallFarm {
  Farm farm{FarmOptions{}};
  Prng prng{1};
  Effects effects;
  Now now{{1'000'000}, {1'700'000'000'000}};

  void worker(std::uint32_t no, std::uint32_t slots, std::uint32_t window,
              std::vector<std::string> engines = {"builtin"}) {
    farm.step(
        WorkerHello{
            {no}, {.slots = slots, .cpus_milli = 1000 * slots, .engines = std::move(engines)}, window, {}, kNoBody},
        now, effects);
  }
  void job(std::uint32_t no, std::uint32_t count, std::string engine = "builtin", int priority = 0) {
    JobHeader header{.count = count, .priority = priority};
    header.request.engine = std::move(engine);
    ASSERT_TRUE(farm.step(SubmitJob{{no}, header, kNoBody}, now, effects).result.ok());
  }
  std::vector<SendAssign> turn() {
    effects.assign.clear();
    farm.apply(farm.plan(now, prng), now, effects);
    farm.check_invariants();
    for (const auto& a : effects.assign) epochs[a.fence.task] = a.fence.epoch;
    return effects.assign;
  }
  LeaseEpoch epoch_of(TaskId task) const { return epochs.at(task); }
  std::map<TaskId, LeaseEpoch> epochs;
};

TEST(Plan, ABlockedHeadNeverHidesWhatStandsBehindIt) {
  SmallFarm s;
  s.worker(1, 2, 2);
  s.job(1, 5, "python", 10);  // nobody can run it
  s.job(2, 3, "builtin", 0);
  const auto sent = s.turn();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].fence.task.job().value, 2u);
}

TEST(Plan, SpreadsOverWorkersBeforeItFillsBacklogs) {
  SmallFarm s;
  for (std::uint32_t n = 1; n <= 4; ++n) s.worker(n, 2, 10);
  s.job(1, 8);
  std::map<std::uint32_t, int> per_worker;
  for (const auto& a : s.turn()) per_worker[a.worker.value] += 1;
  for (std::uint32_t n = 1; n <= 4; ++n) EXPECT_EQ(per_worker[n], 2) << "worker " << n;
}

TEST(Plan, HigherPriorityGoesFirstAndFifoIgnoresIt) {
  for (const auto* policy : {"priority", "fifo"}) {
    SmallFarm s;
    ASSERT_TRUE(s.farm.set_policy(policy, s.now).ok());
    s.job(1, 1, "builtin", 0);
    s.job(2, 1, "builtin", 5);
    s.worker(1, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].fence.task.job().value, std::string_view(policy) == "fifo" ? 1u : 2u);
  }
  SmallFarm s;
  EXPECT_FALSE(s.farm.set_policy("magic", s.now).ok());
}

TEST(Plan, AnIdleWorkerGetsAShareOfAnothersBacklog) {
  SmallFarm s;
  s.worker(1, 1, 9);
  s.job(1, 9);
  ASSERT_EQ(s.turn().size(), 9u);
  s.worker(2, 1, 9);
  const Plan plan = s.farm.plan(s.now, s.prng);
  ASSERT_EQ(plan.take_backs.size(), 4u);
  for (const auto& t : plan.take_backs) EXPECT_EQ(t.worker.value, 1u);
}

TEST(Farm, AMillionTaskArrayCostsNoMemoryUntilItRuns) {
  SmallFarm s;
  s.job(1, 1'000'000);
  const auto view = s.farm.job({1});
  ASSERT_TRUE(view);
  EXPECT_EQ(view->waiting, 1'000'000u);
  EXPECT_EQ(s.farm.view().queued_tasks, 1'000'000u);
  s.farm.check_invariants();
}

TEST(Farm, RetriesBackOffExponentiallyThenFail) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  std::vector<std::int64_t> waits;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].fence.attempt, static_cast<Attempt>(attempt));
    s.effects.failed.clear();
    s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence, .ok = false, .failure = FailureClass::exit_code},
                s.now, s.effects);
    ASSERT_EQ(s.effects.failed.size(), 1u);
    if (s.effects.failed[0].retry) waits.push_back(s.effects.failed[0].retry_in.count());
    s.farm.finish_batch(s.now, s.effects);
    const Instant wake = s.farm.next_wake();
    if (attempt < 3) {
      s.now.mono = wake;
      s.farm.step(WorkerAlive{{1}}, s.now, s.effects);
      s.farm.step(Tick{}, s.now, s.effects);
    }
  }
  ASSERT_EQ(waits.size(), 2u);
  EXPECT_GE(waits[0], 1000);
  EXPECT_LE(waits[0], 1100);
  EXPECT_GE(waits[1], 2000);
  EXPECT_LE(waits[1], 2200);
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
}

TEST(Farm, ALostWorkersTasksAreRunElsewhereAndItsLateResultIsRefused) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto first = s.turn().at(0).fence;
  s.now.mono = s.now.mono + limits::kLease + Millis{1};
  s.farm.step(Tick{}, s.now, s.effects);
  s.worker(2, 1, 1);
  const auto second = s.turn().at(0);
  EXPECT_EQ(second.worker.value, 2u);
  EXPECT_EQ(second.fence.attempt, 2u);
  const auto late = s.farm.step(AttemptEnded{.worker = {1}, .fence = first}, s.now, s.effects);
  ASSERT_FALSE(late.result.ok());
  EXPECT_EQ(late.result.error().cls, ErrorClass::stale);
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {2}, .fence = second.fence}, s.now, s.effects).result.ok());
}

TEST(Farm, APoisonTaskStopsAtItsCrashLimit) {
  SmallFarm s;
  s.job(1, 1);
  for (std::uint32_t crash = 1; crash <= limits::kDefaultCrashLimit; ++crash) {
    s.worker(crash, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u) << crash;
    s.farm.step(AttemptStarted{{crash}, sent[0].fence}, s.now, s.effects);
    s.farm.step(WorkerGone{.worker = {crash}, .for_good = true, .charge = true}, s.now, s.effects);
  }
  s.farm.finish_batch(s.now, s.effects);
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
  EXPECT_EQ(s.effects.jobs.back().state, JobState::failed);
}

TEST(Farm, AGoodbyeIsNotACrash) {
  SmallFarm s;
  s.job(1, 1);
  for (std::uint32_t stop = 1; stop <= 2 * limits::kDefaultCrashLimit; ++stop) {
    s.worker(stop, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u) << stop;
    s.farm.step(AttemptStarted{{stop}, sent[0].fence}, s.now, s.effects);
    s.farm.step(WorkerGone{.worker = {stop}, .for_good = true}, s.now, s.effects);
  }
  EXPECT_TRUE(s.effects.failed.empty());
  EXPECT_EQ(s.farm.task(TaskId::of({1}, 0))->crashes, 0u);
}

TEST(Farm, LeasesDoNotEndOnWhatWasNotHeard) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto sent = s.turn();
  s.now.mono = s.now.mono + limits::kLease * 10;
  s.farm.step(Overslept{}, s.now, s.effects);
  s.farm.step(Tick{}, s.now, s.effects);
  s.farm.check_invariants();
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence}, s.now, s.effects).result.ok());
}

TEST(Plan, TakesBackAgainAfterATaskStartedInstead) {
  SmallFarm s;
  s.worker(1, 1, 9);
  s.job(1, 9);
  ASSERT_EQ(s.turn().size(), 9u);
  s.worker(2, 1, 9);
  s.effects.take_back.clear();
  s.turn();
  ASSERT_EQ(s.effects.take_back.size(), 4u);
  // The worker had started them before it heard: it stays silent about the order, and tells their starts.
  const auto started = s.effects.take_back;
  for (const auto& held : s.farm.held_by({1})) {
    for (const auto& asked : started) {
      if (held.task != asked.task) continue;
      s.farm.step(AttemptStarted{{1}, {held.task, held.attempt, s.epoch_of(held.task)}}, s.now, s.effects);
    }
  }
  s.farm.check_invariants();
  s.effects.take_back.clear();
  s.turn();
  EXPECT_FALSE(s.effects.take_back.empty());
}

TEST(Farm, WallClockJumpsChangeNoDecision) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto sent = s.turn();
  s.now.wall.ms += 86'400'000;
  s.farm.step(Tick{}, s.now, s.effects);
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence}, s.now, s.effects).result.ok());
}

TEST(Farm, ACancelCarriesItsReason) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 2);
  s.turn();
  constexpr BodyRef kReason = 7;
  s.farm.step(CancelTask{TaskId::of({1}, 1), kReason}, s.now, s.effects);
  s.farm.step(CancelJob{{1}, kReason}, s.now, s.effects);
  ASSERT_EQ(s.effects.cancel.size(), 1u);
  EXPECT_EQ(s.effects.cancel[0].body, kReason);
  int ended = 0;
  for (const auto& record : s.effects.records) {
    const auto* end = std::get_if<TaskEnded>(&record);
    if (end == nullptr) continue;
    EXPECT_EQ(end->body, kReason);
    ended += 1;
  }
  EXPECT_EQ(ended, 2);
}

TEST(Farm, AnAttemptsFailureSaysItsStage) {
  SmallFarm s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto sent = s.turn();
  s.farm.step(AttemptEnded{.worker = {1},
                           .fence = sent.at(0).fence,
                           .ok = false,
                           .permanent = true,
                           .failure = FailureClass::time_limit,
                           .stage = Stage::download},
              s.now, s.effects);
  ASSERT_EQ(s.effects.failed.size(), 1u);
  EXPECT_EQ(s.effects.failed[0].stage, Stage::download);
  EXPECT_EQ(fault_of(FailureClass::time_limit, Stage::download), Fault::system);
  EXPECT_EQ(fault_of(FailureClass::time_limit, Stage::execute), Fault::job);
}

TEST(Farm, ADelayedTaskMayStillBeOutAfterARestart) {
  // Its wait is over by our clock and it was handed out; then the server restarts, and the wall clock says otherwise.
  Farm farm{FarmOptions{.incarnation = 2}};
  const Now now{{1'000'000}, {1'700'000'000'000}};
  const TaskId id = TaskId::of({1}, 0);
  JobHeader header{.count = 1};
  header.request.engine = "builtin";
  farm.load_job({1}, header, {.job = {1}, .next_index = 1, .counts = {}, .count = 1}, {0}, {});
  farm.load_task({.task = id, .attempt = 2, .ready_at = {now.wall.ms + 5000}}, now);
  farm.load_expected({1});
  farm.loaded(now);
  farm.check_invariants();
  Effects effects;
  const Fence fence{id, 2, (1ull << 40) | 5};
  const auto hello =
      farm.step(WorkerHello{{1}, {.slots = 1, .cpus_milli = 1000, .engines = {"builtin"}}, 1, {{fence, true}}, kNoBody},
                now, effects);
  EXPECT_EQ(hello.count, 1u) << "adopted";
  EXPECT_TRUE(farm.step(AttemptEnded{.worker = {1}, .fence = fence}, now, effects).result.ok());
  farm.check_invariants();
}

}  // namespace
}  // namespace grange::core
