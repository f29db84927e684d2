#include "core/test_disk.hpp"

namespace grange::core {
namespace {

struct GraphFarm {
  Farm farm{FarmOptions{}};
  Effects effects;
  Disk disk;
  Now now{{1'000'000}, {1'700'000'000'000}};

  StepAnswer step(const Event& event) {
    auto answer = farm.step(event, now, effects);
    farm.check_invariants();
    return answer;
  }
  void commit() {
    farm.finish_batch(now, effects);
    disk.fold(effects);
    effects = {};
  }
  static SubmitJob job(std::uint32_t no, std::uint32_t count, std::vector<Dependency> after = {}) {
    SubmitJob e{{no}, {.count = count}, kNoBody, {}};
    e.header.request.engine = "builtin";
    e.header.after = std::move(after);
    return e;
  }
};

TEST(Graph, AChainOfAnyDepthFailsInOneStep) {
  GraphFarm s;
  SubmitGraph graph;
  constexpr std::uint32_t kDepth = 5000;
  for (std::uint32_t n = 1; n <= kDepth; ++n) {
    graph.jobs.push_back(
        GraphFarm::job(n, 1, n == 1 ? std::vector<Dependency>{} : std::vector{Dependency{.job = {n - 1}}}));
  }
  ASSERT_TRUE(s.farm.step(graph, s.now, s.effects).result.ok());
  s.farm.step(CancelJob{{1}}, s.now, s.effects);
  s.commit();
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
  for (std::uint32_t n = 2; n <= kDepth; ++n) {
    ASSERT_EQ(s.disk.outcomes.at(TaskId::of({n}, 0)).failure, FailureClass::dependency);
  }
}

TEST(Graph, AGreatRangeFailsByItsFirstTask) {
  GraphFarm s;
  s.step(GraphFarm::job(1, 1));
  s.step(GraphFarm::job(2, limits::kFailedRange + 1, {{.job = {1}}}));
  s.step(CancelJob{{1}});
  s.commit();
  const auto& p = s.disk.jobs.at({2}).progress;
  EXPECT_EQ(p.state, JobState::failed);
  EXPECT_EQ(p.counts.failed, 1u);
  EXPECT_EQ(p.counts.cancelled, limits::kFailedRange);
  // Its range comes back whole.
  const auto answer = s.step(s.disk.retry({2}));
  EXPECT_TRUE(answer.result.ok());
  EXPECT_EQ(answer.count, limits::kFailedRange + 1);
  EXPECT_EQ(s.farm.job({2})->waiting, limits::kFailedRange + 1) << "its parent is not live any more";
}

TEST(Graph, AMapOverAnEndedMapIsAPlainRange) {
  GraphFarm s;
  s.step(GraphFarm::job(1, 1));
  s.step(CancelTask{TaskId::of({1}, 0)});
  s.commit();
  SubmitJob child = GraphFarm::job(2, 1'000'000, {{.job = {1}, .each = true}});
  child.parents = {{.ended = true, .succeeded = false, .ended_badly = {{7, 8}}}};
  s.step(child);
  EXPECT_EQ(s.farm.job({2})->waiting, 999'999u);
  EXPECT_EQ(s.effects.records.size(), 2u) << "the job, and the one that its parent failed";
}

TEST(Graph, ARetriedParentHoldsBackWhatWasNotHandedOut) {
  GraphFarm s;
  s.step(GraphFarm::job(1, 2));
  s.step(GraphFarm::job(2, 2, {{.job = {1}, .each = true}}));
  s.step(GraphFarm::job(3, 1, {{.job = {1}, .index = 0}}));
  s.step(CancelTask{TaskId::of({1}, 0)});
  s.commit();
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({2}, 0)).failure, FailureClass::dependency);
  EXPECT_EQ(s.disk.jobs.at({3}).progress.state, JobState::failed);
  // Both again: the parent's task first, so its children wait for it anew.
  ASSERT_TRUE(s.step(s.disk.retry({1})).result.ok());
  ASSERT_TRUE(s.step(s.disk.retry({3})).result.ok());
  EXPECT_EQ(s.farm.job({3})->waiting, 0u);
  EXPECT_EQ(s.farm.job({3})->blocked, 1u);
}

TEST(Graph, OfTwoParentsThatEndInOneStepTheFailedOneIsHeard) {
  GraphFarm s;
  SubmitJob both[] = {GraphFarm::job(1, 1), GraphFarm::job(2, 1)};
  for (auto& job : both) {
    job.header.deadline = {s.now.wall.ms + 1000};
    s.step(job);
  }
  // One ends well as a task, and both are over in the step that the deadline makes of the other.
  s.step(GraphFarm::job(3, 1, {{.job = {1}, .index = 0}, {.job = {2}}}));
  SubmitJob any = GraphFarm::job(4, 1, {{.job = {1}}, {.job = {2}}});
  any.header.when = When::any_succeeded;
  s.step(any);
  s.now.mono = s.now.mono + Millis{1001};
  s.step(Tick{});
  s.commit();
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({3}, 0)).failure, FailureClass::dependency);
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({4}, 0)).failure, FailureClass::dependency);
}

TEST(Graph, AGoodParentAndABadOneInOneStep) {
  // fail_fast ends task 1 of the parent in the step in which task 0 fails; a child waits for another's good end, too.
  GraphFarm s;
  Prng prng{1};
  s.step(WorkerHello{{1}, {.slots = 2, .cpus_milli = 2000, .engines = {"builtin"}}, 2, {}, kNoBody});
  SubmitJob open = GraphFarm::job(1, 1);
  open.header.open = true;
  s.step(open);
  s.step(GraphFarm::job(2, 1, {{.job = {1}, .index = 5}, {.job = {1}, .index = 0}}));
  s.farm.apply(s.farm.plan(s.now, prng), s.now, s.effects);
  ASSERT_EQ(s.effects.assign.size(), 1u);
  const Fence fence = s.effects.assign[0].fence;
  s.step(ExtendJob{{1}, 0, true, kNoBody});
  s.step(AttemptEnded{.worker = {1}, .fence = fence});  // task 0 is good, and there will be no task 5
  s.commit();
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({2}, 0)).failure, FailureClass::dependency);
}

// ------------------------------------------------------------------------------------------- great ranges of `each`

constexpr std::uint32_t kGreat = 1'000'000;

TEST(Graph, AGreatRangeOfEachFailsByItsFirstTask) {
  GraphFarm s;
  s.step(GraphFarm::job(1, kGreat));
  s.step(GraphFarm::job(2, kGreat, {{.job = {1}, .each = true}}));
  s.step(GraphFarm::job(3, kGreat, {{.job = {2}, .each = true}}));
  s.commit();
  s.step(CancelJob{{1}});
  EXPECT_LT(s.effects.records.size(), 10u);
  s.commit();
  for (const std::uint32_t no : {2u, 3u}) {
    const auto& p = s.disk.jobs.at({no}).progress;
    EXPECT_EQ(p.state, JobState::failed);
    EXPECT_EQ(p.counts.failed, 1u);
    EXPECT_EQ(p.counts.cancelled, kGreat - 1);
    EXPECT_EQ(s.disk.outcomes.at(TaskId::of({no}, 0)).failure, FailureClass::dependency);
  }
  // At a submit, too, of a parent that is known by its ranges only.
  SubmitJob late = GraphFarm::job(4, kGreat, {{.job = {1}, .each = true}});
  late.parents = {{.ended = true, .succeeded = false, .ended_badly = {{0, kGreat}}}};
  s.step(late);
  EXPECT_LT(s.effects.records.size(), 5u);
  s.commit();
  EXPECT_EQ(s.disk.jobs.at({4}).progress.counts.cancelled, kGreat - 1);
}

TEST(Graph, WhatRunsGoesOnWhenAGreatRangeFails) {
  GraphFarm s;
  Prng prng{1};
  s.step(WorkerHello{{1}, {.slots = 1, .cpus_milli = 1000, .engines = {"builtin"}}, 1, {}, kNoBody});
  s.step(GraphFarm::job(1, kGreat));
  s.step(GraphFarm::job(2, kGreat, {{.job = {1}, .each = true}}));
  s.step(GraphFarm::job(3, kGreat, {{.job = {2}, .each = true}}));
  s.step(GraphFarm::job(4, kGreat, {{.job = {2}, .each = true}}));
  s.step(CancelJob{{4}});
  const auto assigned = [&](JobNo no) {
    s.farm.apply(s.farm.plan(s.now, prng), s.now, s.effects);
    EXPECT_EQ(s.effects.assign.size(), 1u);
    const Fence fence = s.effects.assign.at(0).fence;
    EXPECT_EQ(fence.task, TaskId::of(no, 0));
    s.commit();
    return fence;
  };
  s.step(AttemptEnded{.worker = {1}, .fence = assigned({1})});
  s.step(PauseJob{{1}});
  const Fence held = assigned({2});
  s.step(CancelJob{{1}});
  EXPECT_LT(s.effects.records.size(), 10u);
  EXPECT_TRUE(s.effects.cancel.empty());
  s.commit();
  ASSERT_TRUE(s.farm.job({2}).has_value()) << "its first task runs";
  EXPECT_EQ(s.farm.job({2})->counts, (JobCounts{.completed = 0, .failed = 1, .cancelled = kGreat - 2}));
  EXPECT_EQ(s.disk.jobs.at({3}).progress.counts.failed, 1u) << "told in the same step";
  EXPECT_FALSE(s.farm.job({3}).has_value()) << "nothing of it is left to wait";
  // The same after a restart: what was given up does not run.
  auto again = s.disk.load({.incarnation = 2}, s.now);
  again->check_invariants();
  EXPECT_EQ(again->job({2})->blocked + again->job({2})->waiting, 0u);
  EXPECT_EQ(again->view().queued_tasks, s.farm.view().queued_tasks + 1)
      << "only where the running one is, is not known";
  s.step(AttemptEnded{.worker = {1}, .fence = held});
  s.commit();
  EXPECT_EQ(s.disk.jobs.at({2}).progress.counts, (JobCounts{.completed = 1, .failed = 1, .cancelled = kGreat - 2}));
  EXPECT_EQ(s.disk.jobs.at({2}).progress.state, JobState::failed);
  EXPECT_FALSE(s.farm.job({3}).has_value());
}

TEST(Graph, AJobWhoseRangeWasGivenUpCanBeCancelled) {
  GraphFarm s;
  s.step(GraphFarm::job(1, kGreat));
  s.step(CancelTask{TaskId::of({1}, 0)});
  SubmitJob child = GraphFarm::job(2, kGreat, {{.job = {1}, .each = true}});
  child.header.when = When::all_finished;
  s.step(child);
  SubmitJob both = GraphFarm::job(3, kGreat, {{.job = {1}, .each = true}, {.job = {2}, .each = true}});
  both.header.when = When::all_finished;
  s.step(both);
  s.step(CancelTask{TaskId::of({2}, 0)});  // lets 3/0 go
  EXPECT_EQ(s.farm.job({3})->waiting, 1u);
  s.step(CancelJob{{3}});
  s.commit();
  EXPECT_EQ(s.disk.jobs.at({3}).progress.counts.cancelled, kGreat);
}

TEST(Graph, OverAParentThatEndedAsARangeAMapIsAPlainRange) {
  GraphFarm s;
  s.step(GraphFarm::job(1, kGreat));
  SubmitJob child = GraphFarm::job(2, kGreat, {{.job = {1}, .each = true}});
  child.header.when = When::all_finished;
  s.step(child);
  s.commit();
  s.step(CancelJob{{1}});
  EXPECT_EQ(s.farm.job({2})->waiting, kGreat);
  EXPECT_LT(s.effects.records.size(), 5u);
}

TEST(Graph, AGreatRangeIsLetGoInParts) {
  GraphFarm s;
  const std::uint32_t part = FarmOptions{}.each_at_once;
  s.step(GraphFarm::job(1, kGreat));
  s.step(GraphFarm::job(2, kGreat));
  SubmitJob child = GraphFarm::job(3, kGreat, {{.job = {1}, .each = true}, {.job = {2}, .each = true}});
  child.header.when = When::all_finished;
  s.step(child);
  s.step(CancelTask{TaskId::of({2}, kGreat - 1)});
  s.step(CancelJob{{1}});
  EXPECT_EQ(s.farm.job({3})->waiting, 1u);
  s.step(CancelJob{{2}});
  EXPECT_EQ(s.farm.job({3})->waiting, kGreat) << "nothing of it is decided one by one any more";
  s.commit();
  // While a parent lives, no more are ready at a time than a part; the rest follows as these are handed out.
  s.step(GraphFarm::job(4, 3 * part));
  for (std::uint32_t i = 0; i + 1 < 3 * part; ++i) s.farm.step(CancelTask{TaskId::of({4}, i)}, s.now, s.effects);
  s.commit();
  SubmitJob over = GraphFarm::job(5, 3 * part, {{.job = {4}, .each = true}});
  over.header.when = When::all_finished;
  s.step(over);
  EXPECT_EQ(s.farm.job({5})->waiting, part);
  EXPECT_EQ(s.farm.next_wake(), Instant::never()) << "nothing to do before some of them were handed out";
  s.commit();
  auto again = s.disk.load({.incarnation = 2}, s.now);
  Effects effects;
  again->step(Tick{}, s.now, effects);
  again->step(Tick{}, s.now, effects);
  again->check_invariants();
  EXPECT_EQ(again->job({5})->waiting, part);
  again->step(CancelTask{TaskId::of({5}, 7)}, s.now, effects);
  EXPECT_LE(again->next_wake(), s.now.mono);
  again->step(Tick{}, s.now, effects);
  EXPECT_EQ(again->job({5})->waiting, part);
  EXPECT_EQ(again->job({5})->blocked, 2 * part - 1);
}

TEST(Graph, AParentThatFailsInATickIsHeardBeforeMoreIsLetGo) {
  GraphFarm s;
  SubmitJob parent = GraphFarm::job(1, 3);
  parent.header.deadline = {s.now.wall.ms + 1000};
  s.step(parent);
  s.step(GraphFarm::job(2, 3, {{.job = {1}, .each = true}}));
  s.commit();
  auto again = s.disk.load({.incarnation = 2}, s.now);  // it looks for tasks to let go when it can
  s.now.mono = s.now.mono + Millis{1001};
  again->step(Tick{}, s.now, s.effects);
  again->check_invariants();
  s.commit();
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({2}, 2)).failure, FailureClass::dependency);
}

TEST(Graph, AnyOfSeveralMapsIsNotForGreatRanges) {
  GraphFarm s;
  s.step(GraphFarm::job(1, kGreat));
  s.step(GraphFarm::job(2, kGreat));
  SubmitJob any = GraphFarm::job(3, kGreat, {{.job = {1}, .each = true}, {.job = {2}, .each = true}});
  any.header.when = When::any_succeeded;
  EXPECT_EQ(s.step(any).result.error().cls, ErrorClass::invalid_argument);
  any.header.count = 1000;
  EXPECT_TRUE(s.step(any).result.ok());
}

// ----------------------------------------------------------------------------------------------------- many children

TEST(Graph, AHundredThousandChildrenOfOneJob) {
  // What a task's end costs does not grow with them, nor does a child's end: this takes minutes if it does.
  GraphFarm s;
  constexpr std::uint32_t kChildren = 100'000, kTasks = 20'000;
  s.farm.step(GraphFarm::job(1, kTasks), s.now, s.effects);
  for (std::uint32_t n = 0; n < kChildren; ++n) {
    Dependency on{.job = {1}};
    if (n % 2 == 1) on.index = n % kTasks;
    s.farm.step(GraphFarm::job(2 + n, 1, {on}), s.now, s.effects);
  }
  for (std::uint32_t n = 0; n < kChildren / 2; ++n) s.farm.step(CancelJob{{2 + n}}, s.now, s.effects);
  s.commit();
  s.farm.check_invariants();
  for (std::uint32_t i = 0; i < kTasks; ++i) s.farm.step(CancelTask{TaskId::of({1}, i)}, s.now, s.effects);
  s.commit();
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
}

// ------------------------------------------------------------------------------------------------------ open children

TEST(Graph, TasksAddedToAMapFollowItsParents) {
  GraphFarm s;
  s.step(GraphFarm::job(1, 4));
  s.step(CancelTask{TaskId::of({1}, 1)});
  SubmitJob open = GraphFarm::job(2, 1, {{.job = {1}, .each = true}});
  open.header.open = true;
  s.step(open);
  s.commit();
  const std::vector<Parent> live = {{.ended = false, .succeeded = false, .ended_badly = {{1, 2}}}};
  EXPECT_TRUE(s.step(ExtendJob{{2}, 2, false, kNoBody, live}).result.ok());
  s.commit();
  EXPECT_EQ(s.disk.outcomes.at(TaskId::of({2}, 1)).failure, FailureClass::dependency);
  EXPECT_EQ(s.farm.job({2})->blocked, 2u);
  EXPECT_EQ(s.step(ExtendJob{{2}, 2, false, kNoBody, live}).result.error().cls, ErrorClass::invalid_argument)
      << "its parent has four tasks";
  s.step(CancelJob{{1}});
  const std::vector<Parent> over = {{.ended = true, .succeeded = false, .ended_badly = {{0, 4}}}};
  s.commit();
  EXPECT_TRUE(s.step(ExtendJob{{2}, 1, true, kNoBody, over}).result.ok());
  s.commit();
  EXPECT_EQ(s.disk.jobs.at({2}).progress.counts.failed, 4u);
}

}  // namespace
}  // namespace grange::core
