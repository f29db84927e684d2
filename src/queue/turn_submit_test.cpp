// New work through Turn on one thread: graphs, parents, more tasks, names; and what is refused.
#include "queue/queue_for_test.hpp"

namespace grange::queue {
namespace {

using core::Dependency;
using core::FailureClass;
using core::JobState;
using grange::testing::LossyDisk;
using testing::Cell;
using testing::child;
using testing::job;
using testing::on;
using testing::pages;
using testing::run;

// ------------------------------------------------------------------------------------------------------------ graph

TEST(TurnGraph, ChildrenWaitForEarlierOnesOfTheList) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w");
  ASSERT_TRUE(cell.submit(job(1)).ok());
  auto answers = cell.graph({job(2), child(1, {on({kSibling + 0})}), child(1, {on({kSibling + 1}), on({1})})});
  ASSERT_TRUE(answers.ok()) << answers.error().message;
  ASSERT_EQ(answers->size(), 3u);
  EXPECT_EQ((*answers)[2].job, JobNo{4});
  EXPECT_EQ((*answers)[2].id, "4");
  EXPECT_EQ(cell.reader->header({4}).value()->after, (std::vector<Dependency>{on({3}), on({1})}));
  std::vector<std::uint32_t> order;
  while (!ended(cell.jobs[{4}].state)) {
    const auto held = cell.take();
    ASSERT_FALSE(held.empty());
    for (const auto& a : held) {
      order.push_back(a.fence.task.job().value);
      cell.result(w, a.fence);
    }
  }
  ASSERT_EQ(order.size(), 5u);
  EXPECT_EQ(order[3], 3u);
  EXPECT_EQ(order[4], 4u);
}

TEST(TurnGraph, IsTakenWholeOrNotAtAll) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  SubmitCall taken = job(1);
  taken.body.id = "taken";
  ASSERT_TRUE(cell.submit(taken).ok());
  const auto refused = [&](std::vector<SubmitCall> calls, ErrorClass cls, const std::string& says) {
    auto answers = cell.graph(std::move(calls));
    ASSERT_FALSE(answers.ok()) << says;
    EXPECT_EQ(answers.error().cls, cls) << answers.error().message;
    EXPECT_NE(answers.error().message.find(says), std::string::npos) << answers.error().message;
  };
  SubmitCall named = job(1, "key");
  named.body.id = "fresh";
  refused({}, ErrorClass::invalid_argument, "from 1 to");
  refused({named, taken}, ErrorClass::conflict, "Job 2 of the graph: A job with the id 'taken'");
  SubmitCall same_id = job(1);
  same_id.body.id = "fresh";
  refused({named, same_id}, ErrorClass::conflict, "Job 2 of the graph: A job with the id 'fresh'");
  refused({named, child(1, {on({kSibling + 1})})}, ErrorClass::invalid_argument, "stand before it");
  refused({named, child(1, {on({kSibling + 7})})}, ErrorClass::invalid_argument, "stand before it");
  refused({named, child(1, {on({2})})}, ErrorClass::not_found, "job 2");  // the number that the first would get
  refused({named, child(1, {on({77})})}, ErrorClass::not_found, "job 77");
  refused({named, child(1, {{.job = {kSibling}, .index = 1}})}, ErrorClass::invalid_argument, "has 1 tasks");
  refused({named, child(2, {{.job = {kSibling}, .each = true}})}, ErrorClass::invalid_argument, "this job 2");
  refused({named, child(1, {{.job = {1}, .index = 5}})}, ErrorClass::invalid_argument, "has 1 tasks");
  EXPECT_EQ(cell.turn->farm().view().live_jobs, 1u);
  EXPECT_FALSE(cell.reader->find_job("fresh").value().has_value());
  // Nothing of the refused ones is remembered.
  auto answers = cell.graph({named, child(1, {on({kSibling})})});
  ASSERT_TRUE(answers.ok()) << answers.error().message;
  EXPECT_EQ((*answers)[0].job, JobNo{2});
  EXPECT_FALSE((*answers)[0].existed);
}

TEST(TurnGraph, SentTwiceIsThereOnce) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const auto graph = [] {
    return std::vector{job(1, "a"), [] {
                         auto c = child(1, {on({kSibling})});
                         c.body.key = "b";
                         return c;
                       }()};
  };
  auto once = cell.graph(graph());
  auto twice = cell.graph(graph());
  ASSERT_TRUE(once.ok() && twice.ok());
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE((*once)[i].existed);
    EXPECT_TRUE((*twice)[i].existed);
    EXPECT_EQ((*once)[i].job, (*twice)[i].job);
  }
  // A job that is there takes its place; the new one waits for it.
  auto more = cell.graph({job(1, "a"), child(1, {on({kSibling})})});
  ASSERT_TRUE(more.ok());
  EXPECT_TRUE((*more)[0].existed);
  EXPECT_FALSE((*more)[1].existed);
  EXPECT_EQ(cell.reader->header((*more)[1].job).value()->after[0].job, (*once)[0].job);
}

// ---------------------------------------------------------------------------------------------------------- parents

TEST(TurnParents, ThatEndedAreKnownBeforeAndAfterTheyAreOnDisk) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo good = cell.submit(job(1))->job;
  const JobNo bad = cell.submit(job(1))->job;
  for (const auto& a : cell.take()) {
    ReportCall call;
    call.worker = w;
    call.results.push_back(testing::result_of(a.fence, a.fence.task.job() == good));
    cell.turn->take(std::move(call), cell.now);
  }
  cell.turn->turn(cell.now, false);
  auto ends = cell.turn->seal(cell.now);  // both have ended, and that is not on disk
  ASSERT_EQ(ends->ended.size(), 2u);
  EXPECT_FALSE(cell.turn->farm().job(good).has_value());
  const auto of_good = cell.put<SubmitCall::Answer>(child(1, {on(good)}));
  const auto of_bad = cell.put<SubmitCall::Answer>(child(1, {on(bad)}));
  cell.write(*ends);
  cell.cycle();
  ASSERT_TRUE((*of_good)->ok() && (*of_bad)->ok());
  const auto check = [&](JobNo runs, JobNo fails) {
    ASSERT_EQ(cell.assigned.size(), 1u);
    EXPECT_EQ(cell.assigned[0].fence.task.job(), runs);
    EXPECT_EQ(cell.jobs[fails].state, JobState::failed);
    EXPECT_EQ(cell.reader->outcomes(fails, 0, 10, false)->at(0).failure, FailureClass::dependency);
  };
  check((**of_good)->job, (**of_bad)->job);
  run(cell, w);
  const JobNo later_good = cell.submit(child(1, {on(good)}))->job;
  const JobNo later_bad = cell.submit(child(1, {on(bad)}))->job;
  check(later_good, later_bad);
  EXPECT_TRUE(cell.submit(child(1, {on(bad)}, core::When::all_finished)).ok());
  EXPECT_EQ(cell.assigned.size(), 2u);
}

TEST(TurnParents, TasksThatEndedBadlyAreReadBack) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo parent = cell.submit(job(6))->job;
  ASSERT_TRUE(cell.cancel(parent, 5).ok());
  // 1 fails, 0 and 2 complete, 3 and 4 run on.
  std::vector<Assign> held = cell.take();
  std::sort(held.begin(), held.end(), [](auto& a, auto& b) { return a.fence.task < b.fence.task; });
  ASSERT_GE(held.size(), 5u);
  for (std::uint32_t i = 0; i < 3; ++i) cell.result(w, held[i].fence, i != 1);
  // Put in while a failure is not on disk yet, with the parent live.
  auto each = cell.submit(child(6, {{.job = parent, .each = true}}));
  ASSERT_TRUE(each.ok()) << each.error().message;
  const auto failed = cell.reader->unhappy(each->job);
  ASSERT_EQ(failed->size(), 2u);
  EXPECT_EQ((*failed)[0].task.index(), 1u);
  EXPECT_EQ((*failed)[1].task.index(), 5u);
  auto one = cell.submit(child(1, {{.job = parent, .index = 1}}));
  EXPECT_EQ(cell.jobs[one->job].state, JobState::failed);
  auto other = cell.submit(child(1, {{.job = parent, .index = 2}}));
  EXPECT_FALSE(ended(cell.jobs[other->job].state));
  // The rest of the parent is cancelled as a range: these have no outcomes of their own.
  const JobNo cut = cell.submit(job(100))->job;
  ASSERT_TRUE(cell.cancel(cut).ok());
  ASSERT_TRUE(ended(cell.jobs[cut].state));
  auto of_cut = cell.submit(child(100, {{.job = cut, .each = true}}));
  ASSERT_TRUE(of_cut.ok());
  EXPECT_EQ(cell.jobs[of_cut->job].counts.failed, 100u);
  auto one_of_cut = cell.submit(child(1, {{.job = cut, .index = 99}}));
  EXPECT_EQ(cell.jobs[one_of_cut->job].state, JobState::failed);
}

TEST(TurnParents, ThatDoNotExistAreNamed) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  for (const std::uint32_t no : {0u, 1u, 99u, kSibling, UINT32_MAX}) {
    auto refused = cell.submit(child(1, {on({no})}));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().cls, ErrorClass::not_found);
    EXPECT_NE(refused.error().message.find("job " + std::to_string(no)), std::string::npos);
  }
  const JobNo parent = cell.submit(job(3))->job;
  EXPECT_EQ(cell.submit(child(1, {{.job = parent, .index = 3}})).error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(cell.submit(child(4, {{.job = parent, .each = true}})).error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(cell.submit(child(1, std::vector<Dependency>(limits::kDependencies + 1, on(parent)))).error().cls,
            ErrorClass::invalid_argument);
  EXPECT_EQ(cell.turn->farm().view().live_jobs, 1u);
}

// ----------------------------------------------------------------------------------------------------------- extend

TEST(TurnExtend, AddsTasksWithTheirArguments) {
  LossyDisk disk("turn", 1);
  JobNo no;
  {
    Cell cell(disk);
    SubmitCall open = job(5);  // the first five have no arguments
    open.header.open = true;
    no = cell.submit(open)->job;
    ExtendCall more;
    more.job = no;
    more.count = 25;
    more.pages = pages(0, 25, 5);
    more.blobs = {std::string(64, 'a')};
    EXPECT_EQ(*cell.ask<std::uint32_t>(more), 30u);
    ExtendCall last;
    last.job = no;
    last.count = 2;
    last.close = true;
    EXPECT_EQ(*cell.ask<std::uint32_t>(last), 32u);
    EXPECT_EQ(cell.jobs[no].count, 32u);
    EXPECT_FALSE(cell.jobs[no].open);
    EXPECT_TRUE(*cell.reader->blob_in_use(std::string(64, 'a')));
  }
  disk.kill();
  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted);
    Cell cell(disk);  // once with an empty cache, once more after that
    const WorkerNo w = cell.hello(restarted ? "w2" : "w1", 8);
    std::uint32_t seen = 0;
    for (auto held = cell.take(); !held.empty() && seen < 16; held = cell.take()) {
      for (const auto& a : held) {
        const auto i = a.fence.task.index();
        EXPECT_EQ(a.args, i < 5 || i >= 30 ? "" : "argument " + std::to_string(i)) << i;
        seen += 1;
        cell.result(w, a.fence);
      }
    }
    EXPECT_GE(seen, restarted ? 8u : 16u);  // of the rest, eight wait for the first worker to come back
  }
}

TEST(TurnExtend, TheSameKeyAgainAddsNothing) {
  LossyDisk disk("turn", 1);
  JobNo no, other;
  const auto add = [](JobNo to, const std::string& key, std::uint32_t count, bool close = false) {
    ExtendCall call;
    call.job = to;
    call.key = key;
    call.count = count;
    call.close = close;
    call.pages = pages(0, count);
    return call;
  };
  {
    Cell cell(disk);
    SubmitCall open = job(0);
    open.header.open = true;
    no = cell.submit(open)->job;
    other = cell.submit(open)->job;
    // Before any of it is on disk; in a batch that is being written; and after it.
    const auto first = cell.put<std::uint32_t>(add(no, "a", 3));
    const auto twin = cell.put<std::uint32_t>(add(no, "a", 3));
    EXPECT_FALSE(first->has_value() || twin->has_value()) << "nothing is promised before it is on disk";
    auto batch = cell.turn->seal(cell.now);
    const auto late = cell.put<std::uint32_t>(add(no, "a", 3));
    cell.write(*batch);
    EXPECT_FALSE(late->has_value()) << "its batch comes after";
    cell.cycle();
    for (const auto& answer : {first, twin, late}) EXPECT_EQ(***answer, 3u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "b", 2)), 5u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "a", 9)), 3u) << "not only the last key is known";
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(other, "a", 4)), 4u) << "a key is of its job";
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "", 1)), 6u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "", 1)), 7u) << "none at all is new each time";
  }
  disk.kill();
  {
    Cell cell(disk);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "b", 2)), 5u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "end", 0, true)), 7u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "end", 0, true)), 7u) << "though it is closed";
    EXPECT_EQ(cell.ask<std::uint32_t>(add(no, "new", 1)).error().cls, ErrorClass::invalid_state_transition);
    const WorkerNo w = cell.hello("w", 16);
    run(cell, w);
    EXPECT_EQ(cell.jobs[no].state, JobState::completed);
    EXPECT_EQ(cell.jobs[no].counts.completed, 7u);
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "a", 3)), 3u) << "even after its end";
    EXPECT_EQ(*cell.ask<std::uint32_t>(add(no, "end", 0, true)), 7u);
  }
}

TEST(TurnExtend, OfAJobThatRunsInThisLifeGivesEachTaskItsArgument) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 4);
  SubmitCall open = job(2);
  open.header.open = true;
  const JobNo no = cell.submit(open)->job;
  run(cell, w);
  EXPECT_EQ(cell.jobs[no].state, JobState::running) << "it stays open";
  ExtendCall more;
  more.job = no;
  more.count = 3;
  more.close = true;
  more.pages = pages(0, 3, 2);
  ASSERT_TRUE(cell.ask<std::uint32_t>(more).ok());
  std::set<std::string> seen;
  for (auto held = cell.take(); !held.empty(); held = cell.take()) {
    for (const auto& a : held) {
      seen.insert(a.args);
      cell.result(w, a.fence);
    }
  }
  EXPECT_EQ(seen, (std::set<std::string>{"argument 2", "argument 3", "argument 4"}));
  EXPECT_EQ(cell.jobs[no].state, JobState::completed);
}

TEST(TurnExtend, TasksThatWaitOneByOneFollowHowTheirParentsEnded) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const WorkerNo w = cell.hello("w", 64);
  const JobNo parent = cell.submit(job(4))->job;
  SubmitCall open = child(1, {{.job = parent, .each = true}});
  open.header.open = true;
  const JobNo no = cell.submit(open)->job;
  const auto extend = [&](std::uint32_t count) {
    ExtendCall call;
    call.job = no;
    call.count = count;
    return cell.ask<std::uint32_t>(call);
  };
  std::vector<Assign> held = cell.take();
  std::sort(held.begin(), held.end(), [](auto& a, auto& b) { return a.fence.task < b.fence.task; });
  ASSERT_EQ(held.size(), 4u);
  cell.result(w, held[1].fence, false);
  EXPECT_EQ(*extend(1), 2u);  // its parent's task failed, and that parent lives
  EXPECT_EQ(cell.jobs[no].counts.failed, 1u);
  cell.result(w, held[2].fence, false);
  cell.result(w, held[3].fence);
  cell.result(w, held[0].fence);
  ASSERT_TRUE(ended(cell.jobs[parent].state));
  EXPECT_EQ(*extend(2), 4u);  // it is over
  const auto failed = cell.reader->unhappy(no);
  ASSERT_EQ(failed->size(), 2u);
  EXPECT_EQ((*failed)[1].task.index(), 2u);
  EXPECT_EQ((*failed)[1].failure, FailureClass::dependency);
  EXPECT_EQ(extend(1).error().cls, ErrorClass::invalid_argument) << "the parent has four tasks";
}

TEST(TurnExtend, RefusesWhatIsNotOpen) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const auto extend = [&](JobNo no, std::uint32_t count) {
    ExtendCall call;
    call.job = no;
    call.count = count;
    return cell.ask<std::uint32_t>(call);
  };
  EXPECT_EQ(extend({9}, 1).error().cls, ErrorClass::not_found);
  const JobNo closed = cell.submit(job(1))->job;
  EXPECT_EQ(extend(closed, 1).error().cls, ErrorClass::invalid_state_transition);
  SubmitCall call = job(1);
  call.header.open = true;
  const JobNo open = cell.submit(call)->job;
  EXPECT_EQ(extend(open, limits::kTasksPerJob).error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(extend(open, UINT32_MAX).error().cls, ErrorClass::invalid_argument);
  ASSERT_TRUE(cell.cancel(open).ok());
  const auto late = extend(open, 1);
  EXPECT_EQ(late.error().cls, ErrorClass::invalid_state_transition);
  EXPECT_NE(late.error().message.find("has ended (cancelled)"), std::string::npos) << late.error().message;
}

// ----------------------------------------------------------------------------------------------- keys and uniqueness

TEST(TurnUnique, HoldsWhileTheJobLivesAndForItsWindow) {
  LossyDisk disk("turn", 1);
  const auto unique = [](Millis window, std::string digest = "d") {
    SubmitCall call = job(1, {}, std::move(digest));
    call.body.unique = "nightly";
    call.body.unique_for = window;
    return call;
  };
  Cell cell(disk);
  const auto first = cell.put<SubmitCall::Answer>(unique(Millis{0}));
  const auto second = cell.put<SubmitCall::Answer>(unique(Millis{0}, "other"));  // the first is not on disk yet
  cell.cycle();
  ASSERT_TRUE((*second)->ok());
  EXPECT_FALSE((**first)->existed);
  EXPECT_TRUE((**second)->existed);
  EXPECT_EQ((**second)->job, (**first)->job);
  EXPECT_TRUE(cell.submit(unique(Millis{0}))->existed);
  // Ended, though not on disk yet: the word is free again, but not for one who asks for a window.
  const auto cancelled = cell.put<std::uint32_t>(CancelCall{(**first)->job, {}, "", {}});
  const auto third = cell.put<SubmitCall::Answer>(unique(Millis{60'000}));
  const auto fourth = cell.put<SubmitCall::Answer>(unique(Millis{0}));
  cell.cycle();
  EXPECT_TRUE((**third)->existed);
  EXPECT_FALSE((**fourth)->existed);
  const JobNo newest = (**fourth)->job;
  ASSERT_TRUE(cell.cancel(newest).ok());
  cell.pass(Millis{30'000});
  EXPECT_EQ(cell.submit(unique(Millis{60'000}))->job, newest);
  cell.pass(Millis{31'000});
  const auto fifth = cell.submit(unique(Millis{60'000}));
  EXPECT_FALSE(fifth->existed);
  // In one graph, too.
  auto graph = cell.graph({unique(Millis{0}), unique(Millis{0})});
  EXPECT_EQ((*graph)[0].job, fifth->job);
  SubmitCall word = job(1);
  word.body.unique = "new";
  graph = cell.graph({word, word});
  EXPECT_FALSE((*graph)[0].existed);
  EXPECT_TRUE((*graph)[1].existed);
}

TEST(TurnKeys, AreKnownBeforeAndAfterTheyAreOnDisk) {
  LossyDisk disk("turn", 1);
  Cell cell(disk);
  const auto first = cell.put<SubmitCall::Answer>(job(1, "k"));
  const auto again = cell.put<SubmitCall::Answer>(job(1, "k"));
  const auto other = cell.put<SubmitCall::Answer>(job(1, "k", "other"));
  cell.turn->turn(cell.now, false);
  auto batch = cell.turn->seal(cell.now);
  EXPECT_FALSE(first->has_value()) << "nothing is answered before it is on disk";
  const auto sealed = cell.put<SubmitCall::Answer>(job(1, "k"));
  cell.write(*batch);
  cell.cycle();
  EXPECT_TRUE((**again)->existed);
  EXPECT_TRUE((**sealed)->existed);
  EXPECT_EQ((*other)->error().cls, ErrorClass::conflict);
  EXPECT_TRUE(cell.submit(job(1, "k"))->existed);
  EXPECT_EQ(cell.submit(job(1, "k", "other")).error().cls, ErrorClass::conflict);
}

}  // namespace
}  // namespace grange::queue
