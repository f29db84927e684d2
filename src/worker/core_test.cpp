#include "worker/core_bench.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <set>

#include "base/prng.hpp"

namespace grange::worker {
namespace {

TEST(WorkerCore, NoopEndsAtOnceAndIsKeptUntilAcknowledged) {
  Bench b;
  b.assign(kNoop, 0);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_TRUE(report.results(0).ok());
  EXPECT_EQ(report.results(0).epoch(), 9u);
  EXPECT_EQ(report.started_size(), 0) << "it ended before anything was said";
  EXPECT_EQ(b.report().results_size(), 0) << "said once";
  EXPECT_EQ(b.core.held(), 1u);
  b.ack(report.results(0));
  EXPECT_EQ(b.core.held(), 0u);
}

TEST(WorkerCore, AnUnknownEngineIsRefusedForGood) {
  Bench b;
  b.assign(kWrong, 0);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_REFUSED);
  EXPECT_TRUE(report.results(0).permanent());
  EXPECT_FALSE(report.results(0).message().empty());
}

TEST(WorkerCore, ATaskOfAnUnknownJobIsReturnedAndRunsOnceTheSpecIsHere) {
  Bench b;
  b.assign(77, 0);
  const auto report = b.report();
  EXPECT_EQ(report.results_size(), 0);
  ASSERT_EQ(report.returned_size(), 1);
  EXPECT_EQ(report.returned(0).task(), TaskId::of(JobNo{77}, 0).packed);
  EXPECT_EQ(b.core.held(), 0u);
}

TEST(WorkerCore, SpecsOfJobsWithoutTasksAreForgottenTheLeastRecentlyUsedFirst) {
  Bench b;
  const auto run = [&](std::uint32_t job, const char* op) {
    pb::WorkerOrders orders;
    pb::SpecOrder& order = *orders.add_specs();
    order.set_job(job);
    order.mutable_spec()->set_engine("builtin");
    order.mutable_spec()->mutable_builtin()->set_op(op);
    order.mutable_spec()->mutable_builtin()->set_ms(1'000'000);
    pb::Assignment& a = *orders.add_assign();
    a.set_task(TaskId::of(JobNo{job}, 0).packed);
    a.set_attempt(1);
    b.step(OrdersArrived{&orders});
    const auto report = b.report();
    for (const auto& result : report.results()) b.ack(result);
  };
  run(100, "sleep");  // and goes on
  constexpr auto kKept = static_cast<std::uint32_t>(limits::kSpecsKept);
  for (std::uint32_t job = 101; job <= 101 + 10 * kKept; ++job) {
    run(job, "noop");
    if (job % kKept == 0) {
      b.assign(101, job);  // used now and then
      const auto said = b.report();
      for (const auto& result : said.results()) b.ack(result);
    }
    ASSERT_LE(b.core.specs(), 2 * kKept + 2);
  }
  ASSERT_EQ(b.core.held(), 1u);
  b.assign(100, 1);  // its other task runs
  EXPECT_EQ(b.report().returned_size(), 0);
  b.assign(101, 1);
  EXPECT_EQ(b.report().returned_size(), 0);
  b.assign(101 + 10 * kKept, 1);
  EXPECT_EQ(b.report().returned_size(), 0);
  b.assign(102, 1);
  EXPECT_EQ(b.report().returned_size(), 1);
}

TEST(WorkerCore, DrainingIsSaidOnce) {
  Bench b;
  b.assign(kCommand, 0);
  EXPECT_FALSE(b.report().draining());
  b.effects.clear();
  b.step(DrainAsked{});
  EXPECT_TRUE(b.effects.report);
  EXPECT_TRUE(b.report().draining());
  EXPECT_FALSE(b.report().draining());
}

TEST(WorkerCore, WithoutPythonItsTasksGoElsewhere) {
  Bench b(2, false);
  b.assign(kPython, 0);
  const auto report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_ENGINE);
  EXPECT_FALSE(report.results(0).permanent());
}

TEST(WorkerCore, ABigTaskDoesNotBlockSmallOnesButIsNotStarved) {
  Bench b(4);
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);  // two of four cores in use
  b.assign(kBig, 0);      // wants three
  for (std::uint32_t i = 2; i < 40; ++i) b.assign(kCommand, i);
  ASSERT_EQ(b.effects.start.size(), 4u) << "two more small ones went past";
  std::uint32_t oldest = 0;
  bool big_started = false;
  std::size_t small_after = 0;
  while (!big_started && small_after < 30) {
    b.effects.clear();
    b.end(kCommand, oldest++);
    for (const auto& run : b.effects.start) {
      if (run.fence.task.job().value == kBig) {
        big_started = true;
      } else {
        ++small_after;
      }
    }
  }
  EXPECT_TRUE(big_started);
  EXPECT_LE(small_after, 8u);
}

TEST(WorkerCore, TakeBackReturnsOnlyWhatHasNotStarted) {
  Bench b(1);
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);
  pb::WorkerOrders orders;
  orders.add_take_back(TaskId::of(JobNo{kCommand}, 0).packed);
  orders.add_take_back(TaskId::of(JobNo{kCommand}, 1).packed);
  b.step(OrdersArrived{&orders});
  const auto report = b.report();
  ASSERT_EQ(report.returned_size(), 1);
  EXPECT_EQ(report.returned(0).task(), TaskId::of(JobNo{kCommand}, 1).packed);
  EXPECT_EQ(b.core.held(), 1u);
}

TEST(WorkerCore, CancelIsPoliteThenHard) {
  Bench b(1);
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);
  pb::WorkerOrders orders;
  for (std::uint32_t i = 0; i < 2; ++i) {
    orders.add_cancel()->set_task(TaskId::of(JobNo{kCommand}, i).packed);
    orders.mutable_cancel(static_cast<int>(i))->set_attempt(1);
  }
  b.effects.clear();
  b.step(OrdersArrived{&orders});
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::soft);
  auto report = b.report();
  ASSERT_EQ(report.results_size(), 1) << "the waiting one ends at once";
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_CANCELLED);
  b.effects.clear();
  b.now = b.core.next_wake();
  b.step(Ticked{});
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::hard);
  b.end(kCommand, 0, false);
  report = b.report();
  ASSERT_EQ(report.results_size(), 1);
  EXPECT_EQ(report.results(0).failure(), pb::FAILURE_CANCELLED);
}

TEST(WorkerCore, TimeLimitIsToldAsSuch) {
  Bench b(1);
  pb::WorkerOrders orders;
  add_spec(orders, kPython);
  orders.mutable_specs(0)->mutable_spec()->set_time_limit_ms(100);
  b.step(OrdersArrived{&orders});
  b.assign(kPython, 0);
  b.effects.clear();
  b.now = b.now + Micros(99'999);
  b.step(Ticked{});
  EXPECT_TRUE(b.effects.stop.empty());
  b.now = b.now + Micros(1);
  b.step(Ticked{});
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::hard);
  b.end(kPython, 0, false);
  EXPECT_EQ(b.report().results(0).failure(), pb::FAILURE_TIME_LIMIT);
}

TEST(WorkerCore, SleepEndsWithTheClock) {
  Bench b(1);
  b.assign(kSleep, 0);
  EXPECT_EQ(b.report().started_size(), 1);
  EXPECT_EQ(b.core.next_wake(), b.now + Micros(5000));
  b.now = b.core.next_wake();
  b.step(Ticked{});
  EXPECT_TRUE(b.report().results(0).ok());
}

TEST(WorkerCore, AfterALostSessionResultsAreSaidAgainAndRefusedOnesStop) {
  Bench b(2);
  b.assign(kNoop, 0);
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);
  (void)b.report();
  pb::Welcome welcome;
  pb::Held& refused = *welcome.add_refused();
  refused.set_task(TaskId::of(JobNo{kCommand}, 0).packed);
  refused.set_attempt(1);
  refused.set_epoch(9);
  b.effects.clear();
  b.step(Welcomed{&welcome});
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].how, StopHow::hard);
  auto report = b.report();
  EXPECT_EQ(report.results_size(), 1);
  ASSERT_EQ(report.started_size(), 1);
  EXPECT_EQ(report.started(0).task(), TaskId::of(JobNo{kCommand}, 1).packed);
  b.end(kCommand, 0);  // the stopped one
  EXPECT_EQ(b.report().results_size(), 0) << "nobody wants it";
  EXPECT_EQ(b.core.allocator().held(), 1u);
}

TEST(WorkerCore, ANewerAttemptReplacesTheOlderOne) {
  Bench b(1);
  b.assign(kCommand, 0, 1);
  b.effects.clear();
  b.assign(kCommand, 0, 2);
  ASSERT_EQ(b.effects.stop.size(), 1u);
  EXPECT_EQ(b.effects.stop[0].attempt, 1u);
  EXPECT_TRUE(b.effects.start.empty()) << "the old one still has the slot";
  b.end(kCommand, 0, false, 1);
  ASSERT_EQ(b.effects.start.size(), 1u);
  EXPECT_EQ(b.effects.start[0].fence.attempt, 2u);
  b.assign(kCommand, 0, 1);  // of the past
  EXPECT_EQ(b.core.held(), 1u);
}

TEST(WorkerCore, DrainReturnsFinishesAndTakesNothingNew) {
  Bench b(1);
  b.assign(kCommand, 0);
  b.assign(kCommand, 1);
  b.effects.clear();
  b.step(DrainAsked{});
  EXPECT_EQ(b.report().returned_size(), 1);
  b.assign(kCommand, 2);
  EXPECT_EQ(b.report().returned_size(), 1);
  EXPECT_FALSE(b.core.drained());
  b.end(kCommand, 0);
  EXPECT_FALSE(b.core.drained()) << "its result is not acknowledged";
  b.ack(b.report().results(0));
  EXPECT_TRUE(b.core.drained());
}

TEST(WorkerCore, WindowFollowsTheRunTime) {
  EXPECT_EQ(window_for(4, -1), 8u);
  EXPECT_EQ(window_for(4, 2'000'000), 4u);
  EXPECT_EQ(window_for(4, 100'000), 6u);
  EXPECT_EQ(window_for(4, 1000), 204u);
  EXPECT_EQ(window_for(4, 0), limits::kWindow);
  Bench b(2);
  for (std::uint32_t i = 0; i < 200; ++i) b.assign(kNoop, i);
  EXPECT_EQ(b.core.window(), limits::kWindow);
  EXPECT_EQ(b.report().window(), limits::kWindow);
}

// A server that loses its connection now and then, against a worker whose tasks end in any order. What is assigned is
// either acknowledged with one result, returned, or no longer wanted; what waits or runs at the end is still held.
void random_history(std::uint64_t seed) {
  Prng prng(seed);
  Bench b(1 + static_cast<std::uint32_t>(prng.below(5)));
  std::map<std::pair<std::uint64_t, Attempt>, int> wanted;  // the server's view: 0 assigned
  std::set<std::pair<std::uint64_t, Attempt>> closed, running;
  std::vector<pb::TaskResult> unacked;
  bool lost_session = false;
  const auto pump = [&] {
    for (const Run& run : b.effects.start) RC_ASSERT(running.insert({run.fence.task.packed, run.fence.attempt}).second);
    b.effects.clear();
    const auto report = b.report();
    for (const auto& r : report.results()) {
      const std::pair<std::uint64_t, Attempt> key{r.task(), r.attempt()};
      RC_ASSERT(wanted.count(key) == 1u);
      const bool again = std::any_of(unacked.begin(), unacked.end(),
                                     [&](const auto& u) { return u.task() == key.first && u.attempt() == key.second; });
      RC_ASSERT(!again || lost_session);
      if (!again) unacked.push_back(r);
    }
    for (const auto& f : report.returned()) {
      RC_ASSERT(wanted.erase({f.task(), f.attempt()}) == 1u);
      closed.insert({f.task(), f.attempt()});
    }
    for (const auto& f : report.preempted()) {
      RC_ASSERT(wanted.erase({f.task(), f.attempt()}) == 1u);
      closed.insert({f.task(), f.attempt()});
    }
    for (const auto& f : report.paused()) RC_ASSERT(wanted.count({f.task(), f.attempt()}) == 1u);
    for (const auto& f : report.resumed()) RC_ASSERT(wanted.count({f.task(), f.attempt()}) == 1u);
    for (const auto& f : report.started()) RC_ASSERT(wanted.count({f.task(), f.attempt()}) == 1u);
    lost_session = false;
  };
  for (int i = 0; i < 150; ++i) {
    b.now = b.now + Micros(static_cast<std::int64_t>(prng.below(3000)));
    const std::uint64_t what = prng.below(100);
    if (what < 40) {
      const std::uint32_t jobs[] = {kNoop, kSleep, kCommand, kBig, kPython, kWrong, kFail};
      const std::uint32_t job = jobs[prng.below(7)], index = static_cast<std::uint32_t>(prng.below(40));
      const std::uint64_t task = TaskId::of(JobNo{job}, index).packed;
      Attempt attempt = 1;
      for (const auto& [key, state] : wanted) attempt = key.first == task ? 0 : attempt;
      if (attempt != 0) {
        for (const auto& key : closed) attempt = key.first == task ? std::max(attempt, key.second + 1) : attempt;
        wanted[{task, attempt}] = 0;
        b.assign(job, index, attempt);
      }
    } else if (what < 65 && !running.empty()) {
      auto it = running.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(prng.below(running.size())));
      const auto key = *it;
      running.erase(it);
      const TaskId id{key.first};
      b.end(id.job().value, id.index(), prng.below(4) != 0, key.second);
    } else if (what < 80 && !unacked.empty()) {
      const std::size_t at = prng.below(unacked.size());
      const pb::TaskResult one = unacked[at];
      unacked.erase(unacked.begin() + static_cast<std::ptrdiff_t>(at));
      RC_ASSERT(wanted.erase({one.task(), one.attempt()}) == 1u);
      closed.insert({one.task(), one.attempt()});
      b.ack(one);
    } else if (what < 86 && !wanted.empty()) {
      auto it = wanted.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(prng.below(wanted.size())));
      pb::WorkerOrders orders;
      const std::uint64_t which = prng.below(4);
      if (which == 0) {
        orders.add_take_back(it->first.first);
      } else if (which < 3) {
        pb::PauseOrder& one = *orders.add_pause();
        one.set_task(it->first.first);
        one.set_attempt(it->first.second);
        one.set_how(static_cast<pb::PauseHow>(prng.below(3)));
      } else {
        orders.add_cancel()->set_task(it->first.first);
        orders.mutable_cancel(0)->set_attempt(it->first.second);
      }
      b.step(OrdersArrived{&orders});
    } else if (what < 90) {
      google::protobuf::RepeatedPtrField<pb::Held> held;
      b.core.list_held(held);
      RC_ASSERT(static_cast<std::size_t>(held.size()) == wanted.size());
      pb::Welcome welcome;
      welcome.set_resumed(prng.below(2) == 0);
      for (const auto& h : held) {
        RC_ASSERT(wanted.count({h.task(), h.attempt()}) == 1u);
        if (prng.below(5) != 0) continue;
        *welcome.add_refused() = h;
        wanted.erase({h.task(), h.attempt()});
        closed.insert({h.task(), h.attempt()});
        std::erase_if(unacked, [&](const auto& u) { return u.task() == h.task() && u.attempt() == h.attempt(); });
      }
      b.step(Welcomed{&welcome});
      lost_session = !welcome.resumed();
      if (lost_session) {
        pb::WorkerOrders orders;
        for (std::uint32_t job = kNoop; job <= kFail; ++job) add_spec(orders, job);
        b.step(OrdersArrived{&orders});
      }
    } else {
      b.step(Ticked{});
    }
    pump();
    RC_ASSERT(b.core.held() == wanted.size());
  }
  // Let all of it end: nothing may be left over.
  pb::WorkerOrders go_on;
  for (const auto& [key, state] : wanted) {
    pb::PauseOrder& one = *go_on.add_pause();
    one.set_task(key.first);
    one.set_attempt(key.second);
    one.set_how(pb::PAUSE_RESUME);
  }
  b.step(OrdersArrived{&go_on});
  for (int i = 0; i < 500 && (b.core.held() > 0 || b.core.stopping() > 0); ++i) {
    b.now = b.now + Micros(10'000);
    b.step(Ticked{});
    pump();
    while (!running.empty()) {
      const auto key = *running.begin();
      running.erase(running.begin());
      b.end(TaskId{key.first}.job().value, TaskId{key.first}.index(), true, key.second);
    }
    pump();
    for (const auto& r : std::exchange(unacked, {})) b.ack(r), wanted.erase({r.task(), r.attempt()});
  }
  RC_ASSERT(wanted.empty());
  RC_ASSERT(b.core.held() == 0u && b.core.stopping() == 0u && b.core.allocator().held() == 0u);
}

TEST(WorkerCore, NothingIsLostOrToldTwice) {
  EXPECT_TRUE(rc::check("random histories", [] { random_history(*rc::gen::arbitrary<std::uint64_t>()); }));
}

// The figure is printed, not asserted.
TEST(WorkerCore, NoopRate) {
  Bench b(2);
  constexpr std::uint32_t kBatch = 1000, kBatches = 100;
  const auto from = std::chrono::steady_clock::now();
  for (std::uint32_t batch = 0; batch < kBatches; ++batch) {
    pb::WorkerOrders orders;
    for (std::uint32_t i = 0; i < kBatch; ++i) {
      pb::Assignment& a = *orders.add_assign();
      a.set_task(TaskId::of(JobNo{kNoop}, batch * kBatch + i).packed);
      a.set_attempt(1);
    }
    b.core.step(OrdersArrived{&orders}, b.now, b.effects);
    pb::WorkerReport report;
    while (b.core.take_report(report, 4 * MiB)) {
    }
    ASSERT_EQ(report.results_size(), static_cast<int>(kBatch));
    pb::WorkerOrders acks;
    for (const auto& r : report.results())
      acks.add_acks()->set_task(r.task()), acks.mutable_acks()->rbegin()->set_attempt(1);
    b.core.step(OrdersArrived{&acks}, b.now, b.effects);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
  EXPECT_EQ(b.core.held(), 0u);
  std::printf("noop through the core: %.0f tasks/s\n", kBatch * kBatches / seconds);
}

TEST(Job, PathsStayInTheFolder) {
  for (const char* good : {"a", "a/b.txt", "..a/b", ".hidden"}) EXPECT_TRUE(safe_relative(good)) << good;
  for (const char* bad : {"", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.."})
    EXPECT_FALSE(safe_relative(bad)) << bad;
  EXPECT_FALSE(safe_relative(std::string_view("a\0b", 3)));
}

TEST(Job, UnsafeFilesAreRefused) {
  pb::SpecOrder order;
  order.mutable_spec()->set_engine("command");
  order.mutable_spec()->mutable_command()->add_argv("x");
  order.mutable_spec()->mutable_command()->add_files_in()->set_path("../x");
  EXPECT_EQ(read_job(order).kind, Kind::refused);
  order.mutable_spec()->mutable_command()->mutable_files_in(0)->set_path("x");
  EXPECT_EQ(read_job(order).kind, Kind::command);
}

}  // namespace
}  // namespace grange::worker
