// Pause, stages, grace, and what comes with an assignment.
#include <gtest/gtest.h>

#include <functional>

#include "worker/core_bench.hpp"

namespace grange::worker {
namespace {

struct Paused : Bench {
  using Bench::Bench;
  void pause(std::uint32_t job, std::uint32_t index, pb::PauseHow how, Attempt attempt = 1) {
    pb::WorkerOrders orders;
    pb::PauseOrder& one = *orders.add_pause();
    one.set_task(TaskId::of(JobNo{job}, index).packed);
    one.set_attempt(attempt);
    one.set_how(how);
    effects.clear();
    step(OrdersArrived{&orders});
  }
  void cancel(std::uint32_t job, std::uint32_t index) {
    pb::WorkerOrders orders;
    orders.add_cancel()->set_task(TaskId::of(JobNo{job}, index).packed);
    orders.mutable_cancel(0)->set_attempt(1);
    effects.clear();
    step(OrdersArrived{&orders});
  }
  void spec(std::uint32_t job, const std::function<void(pb::JobSpec&)>& change) {
    pb::WorkerOrders orders;
    add_spec(orders, job);
    change(*orders.mutable_specs(0)->mutable_spec());
    step(OrdersArrived{&orders});
  }
  void pass(std::int64_t ms) {
    now = now + Micros(ms * 1000);
    effects.clear();
    step(Ticked{});
  }
  void stage(std::uint32_t job, pb::Stage to, std::uint32_t index = 0) {
    step(StageEntered{TaskId::of(JobNo{job}, index), 1, to});
  }
};

TEST(WorkerPause, AFrozenOneKeepsItsPlaceAndItsClocksStandStill) {
  Paused b(1);
  b.spec(kCommand, [](pb::JobSpec& spec) { spec.set_time_limit_ms(100); });
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);
  b.pass(60);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  ASSERT_EQ(b.effects.freeze.size(), 1u);
  EXPECT_TRUE(b.effects.freeze[0].on);
  auto report = b.report();
  ASSERT_EQ(report.paused_size(), 1);
  EXPECT_EQ(report.paused(0).epoch(), 9u);
  EXPECT_EQ(report.resumed_size(), 0);
  b.pass(1'000'000);
  EXPECT_TRUE(b.effects.stop.empty()) << "no time passes for it";
  EXPECT_EQ(b.core.running(), 1u) << "and nobody else has its slot";
  b.pause(kCommand, 0, pb::PAUSE_RESUME);
  ASSERT_EQ(b.effects.freeze.size(), 1u);
  EXPECT_FALSE(b.effects.freeze[0].on);
  EXPECT_EQ(b.report().resumed_size(), 1);
  b.pass(39);
  EXPECT_TRUE(b.effects.stop.empty());
  b.pass(1);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  b.end(kCommand, 0, false);
  report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_TIME_LIMIT);
  EXPECT_EQ(report.results(0).run_us(), 100'000u) << "the time that it stood still is not its own";
}

TEST(WorkerPause, ASleepGoesOnWhereItWas) {
  Paused b(1);
  b.assign(kSleep, 0);
  b.pass(3);
  b.pause(kSleep, 0, pb::PAUSE_FREEZE);
  EXPECT_TRUE(b.effects.freeze.empty()) << "there is no process";
  b.pass(100);
  EXPECT_EQ(b.report().results_size(), 0);
  b.pause(kSleep, 0, pb::PAUSE_RESUME);
  b.pass(1);
  EXPECT_EQ(b.report().results_size(), 0);
  b.pass(1);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_TRUE(report.results(0).ok());
}

TEST(WorkerPause, WhatWaitsIsReturnedAtOnce) {
  for (const pb::PauseHow how : {pb::PAUSE_FREEZE, pb::PAUSE_REQUEUE}) {
    Paused b(1);
    b.assign(kCommand, 0);
    b.assign(kCommand, 1);
    b.pause(kCommand, 1, how);
    const auto report = b.report();
    ASSERT_EQ(report.returned_size(), 1);
    EXPECT_EQ(report.paused_size() + report.preempted_size(), 0);
    EXPECT_EQ(b.core.held(), 1u);
  }
}

TEST(WorkerPause, RequeueStopsPolitelyAndGivesBack) {
  Paused b(1);
  b.assign(kPython, 0);
  b.assign(kPython, 1);
  b.pause(kPython, 0, pb::PAUSE_FREEZE);
  b.pause(kPython, 0, pb::PAUSE_REQUEUE);
  ASSERT_EQ(b.effects.freeze.size(), 1u) << "it must run to hear of it";
  EXPECT_FALSE(b.effects.freeze[0].on);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::soft);
  EXPECT_TRUE(b.core.giving_back(TaskId::of(JobNo{kPython}, 0), 1));
  b.pass(2000);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::hard);
  b.effects.clear();
  b.end(kPython, 0, false);
  auto report = b.report();
  EXPECT_EQ(report.results_size(), 0);
  ASSERT_EQ(report.preempted_size(), 1);
  EXPECT_EQ(report.preempted(0).task(), TaskId::of(JobNo{kPython}, 0).packed);
  ASSERT_EQ(b.effects.start.size(), 1u) << "its slot is free";
  b.pause(kPython, 1, pb::PAUSE_REQUEUE);
  b.end(kPython, 1, true);
  report = b.report();
  EXPECT_EQ(report.preempted_size(), 0);
  EXPECT_EQ(report.results_size(), 1) << "it was faster than the order: done is done";
}

TEST(WorkerPause, CancelOfAFrozenOneWakesItFirst) {
  Paused b(1);
  b.assign(kCommand, 0);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  b.cancel(kCommand, 0);
  ASSERT_EQ(b.effects.freeze.size(), 1u);
  EXPECT_FALSE(b.effects.freeze[0].on);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  EXPECT_TRUE(b.effects.freeze.empty()) << "it is on its way out";
  b.end(kCommand, 0, false);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_CANCELLED);
  EXPECT_EQ(report.paused_size() + report.resumed_size(), 0);
}

TEST(WorkerPause, OnlyTheLastWordIsSaid) {
  Paused b(1);
  b.assign(kCommand, 0);
  (void)b.report();
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  b.pause(kCommand, 0, pb::PAUSE_RESUME);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  auto report = b.report();
  EXPECT_EQ(report.paused_size(), 1);
  EXPECT_EQ(report.resumed_size(), 0);
  pb::Welcome welcome;
  b.step(Welcomed{&welcome});
  EXPECT_EQ(b.report().paused_size(), 1) << "a server that forgot hears it again";
  b.pause(kCommand, 0, pb::PAUSE_FREEZE, 2);
  b.pause(kCommand, 7, pb::PAUSE_FREEZE);
  b.pause(kCommand, 0, static_cast<pb::PauseHow>(77));
  EXPECT_EQ(b.report().paused_size(), 0) << "of others and of no known kind";
}

TEST(WorkerPause, ADrainGivesFrozenOnesBack) {
  Paused b(1);
  b.assign(kCommand, 0);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  b.effects.clear();
  b.step(DrainAsked{});
  EXPECT_EQ(b.effects.stop.size(), 1u);
  b.end(kCommand, 0, false);
  EXPECT_FALSE(b.core.drained());
  EXPECT_EQ(b.report().preempted_size(), 1);
  EXPECT_TRUE(b.core.drained());
}

// ---- stages

void stages(pb::JobSpec& spec) {
  spec.mutable_stages()->set_reserve_ms(100);
  spec.mutable_stages()->set_startup_ms(10);
  spec.mutable_stages()->set_execute_ms(50);
}

TEST(WorkerStages, WhatAStageLeavesTheNextOnesMayUse) {
  Paused b(1);
  b.spec(kCommand, stages);
  b.assign(kCommand, 0);  // it starts at once: 100 ms are left over
  b.pass(30);             // startup: 110 - 30
  b.stage(kCommand, pb::STAGE_DOWNLOAD);
  b.pass(10'000);  // has no limit, and costs nothing
  EXPECT_TRUE(b.effects.stop.empty());
  b.stage(kCommand, pb::STAGE_STARTUP);  // again: its limit counts once
  b.stage(kCommand, pb::STAGE_EXECUTE);  // 80 + 50
  b.pass(129);
  EXPECT_TRUE(b.effects.stop.empty());
  b.pass(1);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  b.end(kCommand, 0, false);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_TIME_LIMIT);
  EXPECT_EQ(report.results(0).stage(), pb::STAGE_EXECUTE);
  EXPECT_EQ(report.results(0).message(),
            "The deadline passed in stage execute (limits so far: reserve 100 ms, startup 10 ms, execute 50 ms).");
}

TEST(WorkerStages, OneThatWaitsTooLongEndsWaiting) {
  Paused b(1);
  b.spec(kCommand, stages);
  b.assign(kPython, 0);
  b.assign(kCommand, 0);
  b.pass(99);
  EXPECT_EQ(b.report().results_size(), 0);
  b.pass(1);
  EXPECT_TRUE(b.effects.stop.empty());
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_TIME_LIMIT);
  EXPECT_EQ(report.results(0).stage(), pb::STAGE_RESERVE);
  b.end(kPython, 0);
  EXPECT_EQ(b.core.running(), 0u);
}

TEST(WorkerStages, TheDeadlineStandsStillWhileFrozen) {
  Paused b(1);
  b.spec(kCommand, stages);
  b.assign(kCommand, 0);
  b.stage(kCommand, pb::STAGE_EXECUTE);  // 160 ms
  b.pass(100);
  b.pause(kCommand, 0, pb::PAUSE_FREEZE);
  b.pass(5000);
  b.pause(kCommand, 0, pb::PAUSE_RESUME);
  b.pass(59);
  EXPECT_TRUE(b.effects.stop.empty());
  b.pass(1);
  EXPECT_EQ(b.effects.stop.size(), 1u);
}

TEST(WorkerStages, AnyFailureSaysWhereItWas) {
  Paused b(1);
  b.assign(kFail, 0);
  b.assign(kCommand, 0);
  b.stage(kCommand, pb::STAGE_DOWNLOAD);
  b.end(kCommand, 0, false);
  b.assign(kWrong, 0);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 3);
  EXPECT_EQ(report.results(0).stage(), pb::STAGE_EXECUTE);
  EXPECT_EQ(report.results(1).stage(), pb::STAGE_DOWNLOAD);
  EXPECT_EQ(report.results(2).stage(), pb::STAGE_RESERVE);
}

TEST(WorkerCore, GraceOfTheJobReplacesTheEngines) {
  Paused b(1);
  b.spec(kPython, [](pb::JobSpec& spec) {
    spec.set_grace_ms(7000);
    spec.set_time_limit_ms(10);
  });
  b.assign(kPython, 0);
  b.pass(10);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::soft) << "who sets a grace wants a polite word";
  b.pass(6999);
  EXPECT_TRUE(b.effects.stop.empty());
  b.pass(1);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::hard);
}

TEST(WorkerCore, WhatComesWithAnAssignmentIsChecked) {
  Paused b(4);
  const auto refused = [&](const std::function<void(pb::Assignment&)>& change) {
    static std::uint32_t index = 100;
    pb::WorkerOrders orders;
    pb::Assignment& a = *orders.add_assign();
    a.set_task(TaskId::of(JobNo{kCommand}, index++).packed);
    a.set_attempt(1);
    change(a);
    b.effects.clear();
    b.step(OrdersArrived{&orders});
    const auto report = b.report();
    return report.results_size() == 1 && report.results(0).failure() == pb::FAILURE_REFUSED &&
           report.results(0).permanent() && b.effects.start.empty();
  };
  EXPECT_TRUE(refused([](pb::Assignment& a) { a.set_rank(1); }));
  EXPECT_TRUE(refused([](pb::Assignment& a) { a.add_gang("one"), a.set_rank(1); }));
  EXPECT_TRUE(refused([](pb::Assignment& a) { a.add_gang("one,two"); }));
  EXPECT_TRUE(refused([](pb::Assignment& a) { a.add_inputs()->set_encoding(static_cast<pb::Encoding>(9)); }));
  EXPECT_TRUE(refused([](pb::Assignment& a) {
    for (std::size_t i = 0; i <= limits::kInputs; ++i) a.add_inputs();
  }));
  EXPECT_FALSE(refused([](pb::Assignment& a) {
    a.add_gang("one"), a.add_gang("two"), a.set_rank(1);
    a.add_inputs()->set_value("x");
  }));
  ASSERT_EQ(b.effects.start.size(), 1u);
  EXPECT_EQ(b.effects.start[0].rank, 1u);
  EXPECT_EQ(b.effects.start[0].gang.size(), 2u);
  EXPECT_EQ(b.effects.start[0].inputs.size(), 1u);
}

TEST(WorkerCore, ItTakesWhatTheAlternativeAsksForThatItWasGiven) {
  Paused b(4);
  b.spec(kCommand, [](pb::JobSpec& spec) {
    spec.mutable_requirements()->set_cpus_milli(1000);
    spec.add_any_of()->set_cpus_milli(4000);
    spec.add_any_of()->set_gpus_milli(1000);
  });
  const auto assign = [&](std::uint32_t index, std::uint32_t alternative) {
    pb::WorkerOrders orders;
    pb::Assignment& a = *orders.add_assign();
    a.set_task(TaskId::of(JobNo{kCommand}, index).packed);
    a.set_attempt(1);
    a.set_alternative(alternative);
    b.effects.clear();
    b.step(OrdersArrived{&orders});
  };
  assign(0, 1);
  ASSERT_EQ(b.effects.start.size(), 1u);
  EXPECT_EQ(b.core.allocator().used().cpus_milli, 4000u) << "though the first one fits";
  google::protobuf::RepeatedPtrField<pb::Held> held;
  b.core.list_held(held);
  ASSERT_EQ(held.size(), 1);
  EXPECT_EQ(held[0].alternative(), 1u);
  b.end(kCommand, 0);
  assign(1, 2);
  EXPECT_TRUE(b.effects.start.empty()) << "there is no GPU";
  assign(2, 3);
  EXPECT_TRUE(b.effects.start.empty()) << "nor a fourth one";
  const auto report = b.report();
  std::map<std::uint64_t, bool> permanent;
  for (const pb::TaskResult& r : report.results()) {
    if (r.failure() == pb::FAILURE_REFUSED) permanent[TaskId{r.task()}.index()] = r.permanent();
  }
  EXPECT_EQ(permanent, (std::map<std::uint64_t, bool>{{1, false}, {2, true}}));
}

TEST(WorkerCore, ARunNamesItsGpus) {
  CoreOptions options;
  options.total = Need{4, 4000, 0, GiB, GiB};
  options.gpus = {GiB, 2 * GiB};
  WorkerCore core(options);
  pb::WorkerOrders orders;
  add_spec(orders, kCommand);
  pb::Requirements& asks = *orders.mutable_specs(0)->mutable_spec()->mutable_requirements();
  asks.set_gpus_milli(500);
  asks.set_gpu_memory_bytes(2 * GiB);
  asks.set_memory_bytes(64 * MiB);
  orders.add_assign()->set_task(TaskId::of(JobNo{kCommand}, 0).packed);
  orders.mutable_assign(0)->set_attempt(1);
  Effects effects;
  core.step(OrdersArrived{&orders}, Instant{1}, effects);
  ASSERT_EQ(effects.start.size(), 1u);
  EXPECT_EQ(effects.start[0].gpus, std::vector<std::uint32_t>{1});
  EXPECT_TRUE(effects.start[0].hides_gpus);
  EXPECT_EQ(effects.start[0].memory, 64 * MiB);
}

}  // namespace
}  // namespace grange::worker
