// Turn on one thread: inputs of tasks, and what people and workers do with work that is there.
#include "queue/queue_for_test.hpp"

namespace grange::queue {
namespace {

using core::FailureClass;
using core::JobState;
using grange::testing::Fault;
using grange::testing::LossyDisk;
using testing::Cell;
using testing::child;
using testing::hello_of;
using testing::job;
using testing::on;
using testing::run;

// ----------------------------------------------------------------------------------------------------------- inputs

TEST(TurnInputs, AreTheParentsResults) {
  LossyDisk disk("turn", 1);
  JobNo mapped, gathered;
  {
    Cell cell(disk);
    const WorkerNo w = cell.hello("w", 64);
    const JobNo parent = cell.submit(job(3))->job;
    mapped = cell.submit(child(3, {{.job = parent, .each = true, .pass = true}}))->job;
    gathered = cell.submit(child(1, {on(parent, true), {.job = parent, .index = 1, .pass = true}, on(mapped)}))->job;
    std::size_t seen = 0;
    while (!ended(cell.jobs[mapped].state)) {
      const auto held = cell.take();
      ASSERT_FALSE(held.empty());
      for (const auto& a : held) {
        const TaskId t = a.fence.task;
        if (t.job() == parent) {
          EXPECT_TRUE(a.inputs.empty());
        }
        if (t.job() == mapped) {
          seen += 1;
          ASSERT_EQ(a.inputs.size(), 1u);
          EXPECT_EQ(a.inputs[0].task, TaskId::of(parent, t.index()));
          EXPECT_EQ(a.inputs[0].value, "v" + std::to_string(t.index()));
        }
        cell.result(w, a.fence, true, "v" + std::to_string(t.index()));
      }
    }
    EXPECT_EQ(seen, 3u);
    ASSERT_EQ(cell.assigned.size(), 1u);
    EXPECT_EQ(cell.assigned[0].inputs.size(), 4u);
  }
  disk.kill();
  // After a restart what a waiting job wants is known again.
  Cell cell(disk);
  cell.hello("w", 64);  // it lost what it held
  ASSERT_EQ(cell.assigned.size(), 1u);
  EXPECT_EQ(cell.assigned[0].fence.task.job(), gathered);
  EXPECT_EQ(cell.assigned[0].fence.attempt, 2u);
  const auto& inputs = cell.assigned[0].inputs;
  ASSERT_EQ(inputs.size(), 4u);
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(inputs[i].value, "v" + std::to_string(i));
  EXPECT_EQ(inputs[3].value, "v1");
}

TEST(TurnInputs, OfTasksThatDidNotCompleteAreEmpty) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo parent = cell.submit(job(3))->job;
  ASSERT_TRUE(cell.cancel(parent, 2).ok());
  const JobNo last = cell.submit(child(1, {on(parent, true)}, core::When::all_finished))->job;
  for (const auto& a : cell.take())
    cell.result(w, a.fence, a.fence.task.index() == 0, "bytes of " + std::to_string(a.fence.task.index()));
  ASSERT_EQ(cell.assigned.size(), 1u);
  EXPECT_EQ(cell.assigned[0].fence.task.job(), last);
  const auto& inputs = cell.assigned[0].inputs;
  ASSERT_EQ(inputs.size(), 3u);
  EXPECT_EQ(inputs[0].value, "bytes of 0");
  EXPECT_EQ(inputs[1].value, "") << "what a failed task left is no result";
  EXPECT_EQ(inputs[2].value, "");
}

TEST(TurnInputs, ThatAreTooManyOrTooBigFailTheTaskForGood) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo big = cell.submit(job(40))->job;
  for (auto held = cell.take(); !held.empty(); held = cell.take()) {
    for (const auto& a : held) cell.result(w, a.fence, true, std::string(250 * KiB, 'x'));
  }
  ASSERT_TRUE(ended(cell.jobs[big].state));
  const JobNo wants = cell.submit(child(2, {on(big, true)}))->job;
  cell.acks.clear();
  EXPECT_TRUE(cell.take().empty());
  EXPECT_EQ(cell.jobs[wants].state, JobState::failed);
  const auto rows = cell.reader->outcomes(wants, 0, 10, true);
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].failure, FailureClass::refused);
  EXPECT_EQ((*rows)[0].attempt, 1u) << "trying again cannot help";
  EXPECT_NE((*rows)[0].body.message.find("8 MiB"), std::string::npos) << (*rows)[0].body.message;
  EXPECT_TRUE(cell.acks.empty()) << "the worker never heard of it";

  const JobNo wide = cell.submit(job(limits::kInputs + 1))->job;
  ASSERT_TRUE(cell.cancel(wide).ok());
  cell.take();
  const JobNo wants_wide = cell.submit(child(1, {on(wide, true)}, core::When::all_finished))->job;
  EXPECT_EQ(cell.jobs[wants_wide].state, JobState::failed);
  EXPECT_NE(cell.failed.back().message.find("at most 10000"), std::string::npos) << cell.failed.back().message;
}

TEST(TurnInputs, ThatCannotBeReadSendTheTaskBackAndItWaits) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo parent = cell.submit(job(1))->job;
  const JobNo wants = cell.submit(child(1, {on(parent, true)}))->job;
  const auto held = cell.take();
  ASSERT_EQ(held.size(), 1u);
  ReportCall call;
  call.worker = w;
  call.results.push_back(testing::result_of(held[0].fence, true, "value"));
  cell.turn->take(std::move(call), cell.now);
  cell.turn->turn(cell.now, false);
  auto batch = cell.turn->seal(cell.now);
  ASSERT_EQ(batch->effects.assign.size(), 1u);
  ASSERT_TRUE(cell.store->commit({batch->effects.records, batch->bodies}).ok());
  cell.turn->committed(*batch);
  disk.fault_at(1, Fault::io_always);
  cell.release(*batch);
  disk.clear_fault();
  EXPECT_TRUE(cell.assigned.empty());
  ASSERT_EQ(cell.later.size(), 1u);
  cell.cycle();
  EXPECT_TRUE(cell.assigned.empty()) << "it is offered again after a while, not at once";
  EXPECT_EQ(cell.turn->farm().job(wants)->assigned, 0u);
  cell.pass(limits::kReturnWait * 2);
  cell.cycle();
  ASSERT_EQ(cell.assigned.size(), 1u);
  EXPECT_EQ(cell.assigned[0].inputs.at(0).value, "value");
  EXPECT_EQ(cell.turn->farm().task(TaskId::of(wants, 0))->failures, 0u);
}

// A call that the queue makes for itself says nothing of the worker.
TEST(TurnInputs, AReturnOfItsOwnIsNoSignOfLife) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const auto hello = cell.ask<HelloCall::Answer>(testing::hello_of("w", 64));
  ASSERT_TRUE(cell.submit(job(1)).ok());
  const auto held = cell.take();
  cell.turn->take(GoneCall{hello->worker, hello->session, false}, cell.now);
  cell.turn->take(UnsentCall{hello->worker, held.at(0).fence, {}}, cell.now);
  EXPECT_FALSE(cell.turn->farm().worker(hello->worker)->connected);
}

// ---------------------------------------------------------------------------------------------- what people do to work

TEST(TurnCancel, GivesTheReasonToAll) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  cell.hello("w", 64);
  const JobNo no = cell.submit(job(2))->job;
  ASSERT_EQ(cell.assigned.size(), 2u);
  EXPECT_EQ(*cell.cancel(no, {}, "no longer needed"), 2u);
  ASSERT_EQ(cell.cancels.size(), 2u);
  ASSERT_EQ(cell.ended.size(), 2u);
  for (const auto& order : cell.cancels) EXPECT_EQ(order.reason, "no longer needed");
  for (const auto& e : cell.ended) EXPECT_EQ(e.body->message, "no longer needed");
  const auto rows = cell.reader->outcomes(no, 0, 10, true);
  for (const auto& row : *rows) EXPECT_EQ(row.body.message, "no longer needed");
  const auto again = cell.cancel(no, {}, "twice");
  EXPECT_EQ(again.error().cls, ErrorClass::invalid_state_transition);
  EXPECT_EQ(cell.cancel({55}, {}, "x").error().cls, ErrorClass::not_found);
}

TEST(TurnPause, OfAJobATaskAndTheFarm) {
  LossyDisk disk("turn", 1);
  const auto pause = [](JobNo no, std::optional<std::uint32_t> index, bool on_or_off, bool freeze = false) {
    PauseCall call;
    call.job = no;
    call.index = index;
    call.pause = on_or_off;
    call.freeze = freeze;
    return call;
  };
  JobNo no;
  {
    Cell cell(disk);
    const WorkerNo w = cell.hello("w", 2);
    no = cell.submit(job(6))->job;
    auto held = cell.take();
    ASSERT_EQ(held.size(), 2u);
    ReportCall started;
    started.worker = w;
    started.started = {held[0].fence};
    cell.report(started);
    EXPECT_EQ(*cell.ask<std::uint32_t>(pause(no, {}, true, true)), 1u);
    EXPECT_TRUE(cell.jobs[no].paused);
    ASSERT_GE(cell.pauses.size(), 1u);
    EXPECT_EQ(cell.pauses[0].how, core::PauseHow::freeze);
    EXPECT_EQ(cell.pauses[0].task, held[0].fence.task);
    EXPECT_EQ(cell.pauses[0].attempt, 1u);
    EXPECT_EQ(cell.pauses[0].worker, w);
    EXPECT_TRUE(cell.reader->job(no).value()->paused);
    EXPECT_EQ(cell.ask<std::uint32_t>(pause({77}, {}, true)).error().cls, ErrorClass::not_found);
    EXPECT_FALSE(cell.ask<std::uint32_t>(pause(no, 6, true)).ok());
  }
  disk.kill();
  Cell cell(disk);
  EXPECT_TRUE(cell.turn->farm().job(no)->is_paused) << "a pause outlives a restart";
  cell.hello("w", 2);
  cell.pass(limits::kLease * 2);
  cell.hello("w", 2);
  EXPECT_TRUE(cell.assigned.empty());
  ASSERT_TRUE(cell.ask<Unit>(PauseFarmCall{true, {}}).ok());
  ASSERT_TRUE(cell.ask<std::uint32_t>(pause(no, {}, false)).ok());
  EXPECT_FALSE(cell.jobs[no].paused);
  EXPECT_TRUE(cell.assigned.empty()) << "the farm is paused";
  ASSERT_TRUE(cell.ask<std::uint32_t>(pause(no, 5, true)).ok());
  ASSERT_TRUE(cell.ask<Unit>(PauseFarmCall{false, {}}).ok());
  EXPECT_EQ(cell.assigned.size(), 2u);
  ASSERT_TRUE(cell.cancel(no).ok());
  const auto late = cell.ask<std::uint32_t>(pause(no, {}, true));
  EXPECT_EQ(late.error().cls, ErrorClass::invalid_state_transition);
  EXPECT_NE(late.error().message.find("nothing to pause"), std::string::npos) << late.error().message;
}

TEST(TurnUsers, LimitsHoldAndOutliveARestart) {
  LossyDisk disk("turn", 1);
  SubmitCall mine = job(5);
  mine.header.user = mine.body.user = "ada";
  {
    Cell cell(disk);
    core::UserLimits limits;
    limits.max_queued = 8;
    ASSERT_TRUE(cell.ask<Unit>(SetUserCall{"ada", limits, {}}).ok());
    ASSERT_TRUE(cell.submit(mine).ok());
    EXPECT_EQ(cell.submit(mine).error().cls, ErrorClass::rate_limited);
  }
  disk.kill();
  Cell cell(disk);
  EXPECT_EQ(cell.submit(mine).error().cls, ErrorClass::rate_limited);
  // A graph over the limit leaves nothing behind.
  EXPECT_EQ(cell.graph({job(1), mine}).error().cls, ErrorClass::rate_limited);
  EXPECT_EQ(cell.turn->farm().view().live_jobs, 1u);
  ASSERT_TRUE(cell.ask<Unit>(SetUserCall{"ada", {}, {}}).ok());
  EXPECT_EQ(cell.submit(mine)->job, JobNo{2}) << "what was refused used no number";
}

TEST(TurnWorkers, AreReleasedFromQuarantineOnlyIfThere) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  EXPECT_EQ(cell.ask<Unit>(ReleaseWorkerCall{{3}, {}}).error().cls, ErrorClass::not_found);
}

TEST(TurnWorkers, AQuarantineOutlivesARestart) {
  LossyDisk disk("turn", 1);
  {
    Cell cell(disk);
    const WorkerNo w = cell.hello("w", 1);
    SubmitCall call = job(20);
    call.header.retry.max_attempts = 1;
    const JobNo first = cell.submit(call)->job;
    const JobNo second = cell.submit(call)->job;
    for (std::uint32_t i = 0; i < limits::kQuarantineAfter; ++i) {
      const auto held = cell.take();
      ASSERT_FALSE(held.empty());
      ReportCall report;
      report.worker = w;
      report.results.push_back(testing::result_of(held.back().fence, false));
      report.results[0].failure = FailureClass::engine;
      cell.report(std::move(report));
      if (i == 0) {
        ASSERT_TRUE(cell.cancel(first, {}, "enough").ok());
        EXPECT_EQ((*cell.reader->job(first))->reason, "enough") << "of what was never handed out";
      }
    }
    EXPECT_TRUE(cell.take().empty());
    EXPECT_EQ(cell.jobs[second].counts.failed, limits::kQuarantineAfter - 1);
  }
  disk.kill();
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 1);
  EXPECT_TRUE(cell.turn->farm().worker(w)->quarantined);
  EXPECT_TRUE(cell.take().empty());
  cell.hello("another", 1);
  EXPECT_EQ(cell.take().size(), 1u);
}

TEST(TurnWorkers, WhatTheyOfferChanges) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w");
  SubmitCall call = job(1);
  call.header.request.model = "m";
  ASSERT_TRUE(cell.submit(call).ok());
  EXPECT_TRUE(cell.take().empty());
  const auto offer = [&](WorkerNo of) {
    const HelloCall hello = hello_of("w");
    ReportCall report;
    report.worker = of;
    report.offer = {hello.body, hello.capacity};
    report.offer->body.manifest = "now with a model";
    report.offer->capacity.models = {"m"};
    cell.report(std::move(report));
  };
  offer({99});
  EXPECT_TRUE(cell.take().empty()) << "nobody knows that one";
  offer(w);
  EXPECT_EQ(cell.take().size(), 1u);
  const auto rows = cell.reader->workers();
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ(rows->at(0).manifest, "now with a model");
}

TEST(TurnWorkers, HearWhichAlternativeIsMeantAndSayItAfterARestart) {
  LossyDisk disk("turn", 1);
  Fence fence;
  {
    Cell cell(disk);
    cell.hello("w");
    SubmitCall call = job(1);
    call.header.request.gpus_milli = 1000;
    call.header.alternatives.push_back(call.header.request);
    call.header.alternatives[0].gpus_milli = 0;
    call.header.alternatives[0].cpus_milli = 1500;
    ASSERT_TRUE(cell.submit(call).ok());
    ASSERT_EQ(cell.assigned.size(), 1u);
    EXPECT_EQ(cell.assigned[0].alternative, 1u);
    fence = cell.assigned[0].fence;
  }
  for (const std::uint32_t said : {1u, 7u}) {  // 7: there is no such one
    disk.kill();
    Cell cell(disk);
    const WorkerNo w = cell.hello("w", 4, {{fence, true, said}});
    EXPECT_EQ(cell.turn->farm().worker(w)->cpus_used_milli, said == 1 ? 1500u : 1000u);
  }
}

TEST(TurnPolicy, TheOneThatWasChosenOutlivesARestart) {
  LossyDisk disk("turn", 1);
  {
    Cell cell(disk);
    ASSERT_TRUE(cell.ask<Unit>(SetPolicyCall{"fifo", {}}).ok());
    EXPECT_FALSE(cell.ask<Unit>(SetPolicyCall{"magic", {}}).ok());
  }
  disk.kill();
  {
    Cell cell(disk);
    EXPECT_EQ(cell.turn->farm().policy(), "fifo");
    ASSERT_TRUE(cell.ask<Unit>(PauseFarmCall{true, {}}).ok());
  }
  disk.kill();
  {
    Cell cell(disk, {.policy = "least_loaded"});
    EXPECT_EQ(cell.turn->farm().policy(), "least_loaded") << "who starts it with another means that one";
  }
  disk.kill();
  Cell cell(disk);
  EXPECT_EQ(cell.turn->farm().policy(), "fifo") << "a pause does not forget it";
}

TEST(TurnGang, EachMemberKnowsTheOthers) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo a = cell.hello("a"), b = cell.hello("b");
  SubmitCall gang = job(1);
  gang.header.nodes = 2;
  gang.header.request.cpus_milli = 2000;
  const JobNo no = cell.submit(gang)->job;
  const auto held = cell.take();
  ASSERT_EQ(held.size(), 2u);
  std::set<std::uint32_t> ranks;
  for (const auto& h : held) {
    ranks.insert(h.rank);
    ASSERT_EQ(h.gang.size(), 2u);
    EXPECT_EQ(h.gang[h.rank], h.worker);
    EXPECT_EQ(std::set<WorkerNo>(h.gang.begin(), h.gang.end()), (std::set<WorkerNo>{a, b}));
  }
  EXPECT_EQ(ranks, (std::set<std::uint32_t>{0, 1}));
  for (const auto& h : held) {
    if (h.rank == 0) cell.result(h.worker, h.fence);
  }
  EXPECT_EQ(cell.jobs[no].state, JobState::completed);
}

TEST(TurnReport, AFailureCarriesItsStageAndException) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w");
  const JobNo no = cell.submit(job(1))->job;
  const auto held = cell.take();
  ReportCall call;
  call.worker = w;
  auto r = testing::result_of(held.at(0).fence, false);
  r.failure = FailureClass::exception;
  r.stage = core::Stage::execute;
  r.exception = "ValueError";
  call.results.push_back(r);
  cell.report(call);
  ASSERT_EQ(cell.failed.size(), 1u);
  EXPECT_EQ(cell.failed[0].stage, core::Stage::execute);
  EXPECT_EQ(cell.failed[0].message, "exit code 1");
  const auto row = cell.reader->outcomes(no, 0, 1, true)->at(0);
  EXPECT_EQ(row.body.stage, core::Stage::execute);
  EXPECT_EQ(row.body.exception, "ValueError");
}

// ------------------------------------------------------------------------------------------------------------- retry

TEST(TurnRetry, TakesWhatTheFilterMeans) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 2);
  SubmitCall call = job(8);
  call.header.retry.max_attempts = 1;
  const JobNo no = cell.submit(call)->job;
  ASSERT_TRUE(cell.cancel(no, 6, "not this").ok());
  std::uint32_t n = 0;
  for (auto held = cell.take(); !held.empty() && n < 4; held = cell.take()) {
    for (const auto& a : held) {
      ReportCall report;
      report.worker = w;
      auto r = testing::result_of(a.fence, false);
      r.failure = n++ % 2 == 0 ? FailureClass::exit_code : FailureClass::time_limit;
      report.results.push_back(r);
      cell.report(report);
    }
  }
  ASSERT_TRUE(cell.cancel(no).ok());
  ASSERT_TRUE(ended(cell.jobs[no].state));
  cell.take();
  const auto before = cell.reader->job(no).value()->counts;
  EXPECT_EQ(before.failed, 4u);
  EXPECT_EQ(before.cancelled, 4u);

  EXPECT_EQ(cell.retry(no, {{FailureClass::exception}, {}}).error().cls, ErrorClass::invalid_state_transition);
  EXPECT_EQ(cell.retry(no, {{}, {99}}).error().cls, ErrorClass::invalid_state_transition);
  EXPECT_EQ(cell.retry({44}, {}).error().cls, ErrorClass::not_found);
  EXPECT_FALSE(cell.turn->farm().job(no).has_value()) << "a retry of nothing opens nothing";

  EXPECT_EQ(*cell.retry(no, {{FailureClass::time_limit}, {}}), 2u);
  std::set<std::uint32_t> again;
  for (auto held = cell.take(); !held.empty(); held = cell.take()) {
    for (const auto& a : held) {
      EXPECT_TRUE(again.insert(a.fence.task.index()).second);
      EXPECT_GT(a.fence.attempt, 1u);
      cell.result(w, a.fence);
    }
  }
  EXPECT_EQ(again, (std::set<std::uint32_t>{1, 3}));
  ASSERT_TRUE(ended(cell.jobs[no].state));
  const auto after = cell.reader->job(no).value()->counts;
  EXPECT_EQ(after.completed, 2u);
  EXPECT_EQ(after.failed, 2u);
  EXPECT_EQ(after.cancelled, 4u) << "what was never handed out stays cancelled";
  EXPECT_EQ(*cell.retry(no, {{}, {7, 0, 3}}), 2u) << "3 has completed";
  run(cell, w);
  EXPECT_EQ(*cell.retry(no, {}), 4u);
  run(cell, w);
  EXPECT_EQ(cell.jobs[no].state, JobState::completed);
  EXPECT_EQ(cell.reader->outcomes(no, 0, 100, false)->size(), 8u);
  EXPECT_EQ(cell.retry(no).error().cls, ErrorClass::invalid_state_transition);
}

TEST(TurnRetry, OfTasksThatWereLetGoOneByOneRunsNoneTwice) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo parent = cell.submit(job(6))->job;
  const JobNo mapped = cell.submit(child(6, {{.job = parent, .each = true, .pass = true}}))->job;
  run(cell, w, [&](TaskId t) { return t.job() == parent || t.index() != 2; });
  ASSERT_EQ(cell.jobs[mapped].state, JobState::failed);
  EXPECT_EQ(*cell.retry(mapped), 1u);
  ASSERT_EQ(cell.assigned.size(), 1u);
  EXPECT_EQ(cell.assigned[0].fence.task.index(), 2u);
  EXPECT_EQ(cell.assigned[0].inputs.size(), 1u) << "a job that comes back wants its inputs again";
  run(cell, w);
  EXPECT_EQ(cell.jobs[mapped].state, JobState::completed);
  EXPECT_EQ(cell.jobs[mapped].counts.completed, 6u);
}

TEST(TurnRetry, OfAJobWhoseParentFailedWaitsForTheParent) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  SubmitCall first = job(2);
  first.header.retry.max_attempts = 1;
  const JobNo parent = cell.submit(first)->job;
  const JobNo whole = cell.submit(child(3, {on(parent)}))->job;
  const JobNo mapped = cell.submit(child(2, {{.job = parent, .each = true}}))->job;
  const JobNo anyway = cell.submit(child(1, {on(parent)}, core::When::all_finished))->job;
  const JobNo cancelled = cell.submit(child(1, {on(parent)}))->job;
  ASSERT_TRUE(cell.cancel(anyway).ok());
  ASSERT_TRUE(cell.cancel(cancelled).ok());
  run(cell, w, [&](TaskId t) { return t.job() != parent || t.index() != 1; });
  ASSERT_EQ(cell.jobs[whole].state, JobState::failed);
  ASSERT_EQ(cell.jobs[mapped].counts.failed, 1u);
  const auto refused = cell.retry(whole);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().cls, ErrorClass::conflict);
  EXPECT_EQ(refused.error().message, "Job " + std::to_string(whole.value) + " waits for job " +
                                         std::to_string(parent.value) + ", which failed. Retry that one first.");
  EXPECT_EQ(cell.retry(cancelled).error().cls, ErrorClass::conflict) << "it never opened";
  EXPECT_EQ(cell.retry(mapped).error().cls, ErrorClass::conflict);
  EXPECT_TRUE(cell.assigned.empty()) << "nothing runs";
  EXPECT_EQ(*cell.retry(anyway), 1u) << "how the parent ended does not matter to it";
  run(cell, w);

  // Once the parent runs again, they wait for it anew.
  ASSERT_EQ(*cell.retry(parent), 1u);
  ASSERT_EQ(*cell.retry(whole), 3u);
  ASSERT_EQ(*cell.retry(mapped), 1u);
  ASSERT_EQ(cell.assigned.size(), 1u);
  EXPECT_EQ(cell.assigned[0].fence.task.job(), parent);
  run(cell, w);
  EXPECT_EQ(cell.jobs[whole].state, JobState::completed);
  EXPECT_EQ(cell.jobs[mapped].state, JobState::completed);
  EXPECT_EQ(*cell.retry(cancelled), 1u);
}

}  // namespace
}  // namespace grange::queue
