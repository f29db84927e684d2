#include "queue/queue_for_test.hpp"

namespace grange::queue {
namespace {

using testing::Folder;
using testing::House;
using testing::job;
using testing::promise_of;
using testing::with_arguments;

TEST(LocalQueue, RunsAJobFromSubmitToResult) {
  Folder folder;
  House house(folder.path);
  const auto w = house.hello("w").worker;
  const auto answer = house.submit(with_arguments(35));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->id, "1");
  std::set<std::uint32_t> seen;
  while (seen.size() < 35) {
    ASSERT_TRUE(house.wait([&] { return !house.assigned.empty(); }));
    for (const auto& a : house.take()) {
      const auto i = a.fence.task.index();
      EXPECT_EQ(a.args, "argument " + std::to_string(i));
      EXPECT_TRUE(seen.insert(i).second);
      house.result(w, a.fence, true, "value " + std::to_string(i));
    }
  }
  ASSERT_TRUE(house.wait([&] { return ended(house.jobs[answer->job].state); }));
  EXPECT_EQ(house.jobs[answer->job].state, core::JobState::completed);
  auto reader = house.store->reader();
  ASSERT_TRUE(reader.ok());
  const auto rows = (*reader)->outcomes(answer->job, 0, 100, true);
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 35u);
  for (std::uint32_t i = 0; i < 35; ++i) EXPECT_EQ((*rows)[i].body.value, "value " + std::to_string(i));
}

TEST(LocalQueue, AKeyIsTheSameJobAndOtherContentAConflict) {
  Folder folder;
  JobNo first;
  {
    House house(folder.path);
    const auto a = house.submit(job(3, "k1"));
    const auto b = house.submit(job(3, "k1"));
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_FALSE(a->existed);
    EXPECT_TRUE(b->existed);
    EXPECT_EQ(a->job, b->job);
    first = a->job;
    EXPECT_EQ(house.submit(job(4, "k1", "other")).error().cls, ErrorClass::conflict);
  }
  House house(folder.path);
  const auto again = house.submit(job(3, "k1"));
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->existed);
  EXPECT_EQ(again->job, first);
  EXPECT_EQ(house.submit(job(4, "k1", "other")).error().cls, ErrorClass::conflict);
}

TEST(LocalQueue, ARestartKeepsWhatWasAcceptedAndAdoptsWhatStillRuns) {
  Folder folder;
  JobNo no;
  std::vector<Assign> held;
  {
    House house(folder.path);
    house.hello("w");
    no = house.submit(with_arguments(10))->job;
    ASSERT_TRUE(house.wait([&] { return house.assigned.size() == 4; }));
    held = house.take();
    house.result({1}, held[0].fence, true, "early");
    ASSERT_TRUE(house.wait([&] { return house.ended.size() == 1; }));
  }
  House house(folder.path);
  // Back with two of the three that it had; the third is lost with it.
  const auto answer =
      house.hello("w", {{held[1].fence, true}, {held[2].fence, false}, {{TaskId::of(no, 9), 7, 7}, true}});
  ASSERT_EQ(answer.refused.size(), 1u);
  EXPECT_EQ(answer.refused[0].task.index(), 9u);
  house.result(answer.worker, held[1].fence, true, "adopted");
  house.result(answer.worker, held[0].fence, true, "said again");
  ASSERT_TRUE(house.wait([&] { return house.acks.size() == 2; }));
  std::set<std::uint32_t> rest;
  house.result(answer.worker, held[2].fence);
  while (rest.size() < 7) {
    ASSERT_TRUE(house.wait([&] { return !house.assigned.empty(); })) << rest.size();
    for (const auto& a : house.take()) {
      EXPECT_TRUE(rest.insert(a.fence.task.index()).second);
      EXPECT_EQ(a.args, "argument " + std::to_string(a.fence.task.index()));
      house.result(answer.worker, a.fence);
    }
  }
  EXPECT_TRUE(rest.contains(held[3].fence.task.index()));
  ASSERT_TRUE(house.wait([&] { return ended(house.jobs[no].state); }));
  EXPECT_EQ(house.jobs[no].counts.completed, 10u);
}

TEST(LocalQueue, CancelAndRetryOfEveryKind) {
  Folder folder;
  House house(folder.path);
  const auto w = house.hello("w", {}, 2).worker;
  const JobNo no = house.submit(job(10))->job;
  ASSERT_TRUE(house.wait([&] { return house.assigned.size() == 2; }));
  auto first = house.take();
  EXPECT_EQ(*house.cancel(no, 8), 1u);
  EXPECT_FALSE(house.cancel(no, 8).ok());
  house.result(w, first[0].fence, false);
  house.result(w, first[1].fence, true);
  ASSERT_TRUE(house.wait([&] { return house.assigned.size() == 2; }));
  EXPECT_EQ(*house.cancel(no), 7u);
  ASSERT_TRUE(house.wait([&] { return ended(house.jobs[no].state); }));
  EXPECT_EQ(house.cancel(no).error().cls, ErrorClass::invalid_state_transition);
  EXPECT_EQ(house.cancel({99}).error().cls, ErrorClass::not_found);
  house.take();
  const auto again = house.retry(no);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, 9u);
  std::set<std::uint32_t> seen;
  while (seen.size() < 9) {
    ASSERT_TRUE(house.wait([&] { return !house.assigned.empty(); }));
    for (const auto& a : house.take()) {
      EXPECT_TRUE(seen.insert(a.fence.task.index()).second);
      house.result(w, a.fence);
    }
  }
  ASSERT_TRUE(house.wait([&] { return house.jobs[no].state == core::JobState::completed; }));
  EXPECT_EQ(house.retry(no).error().cls, ErrorClass::invalid_state_transition);
  auto reader = house.store->reader();
  EXPECT_EQ((*reader)->outcomes(no, 0, 100, false)->size(), 10u);
}

TEST(LocalQueue, AnswersEveryCallWhenItStops) {
  Folder folder;
  auto house = std::make_unique<House>(folder.path);
  std::atomic<int> answered{0};
  for (int i = 0; i < 500; ++i) {
    SubmitCall call = job(1);
    call.done = [&](auto) { answered += 1; };
    house->queue->submit(std::move(call));
  }
  house->queue->stop();
  EXPECT_EQ(answered, 500);
  SubmitCall late = job(1);
  bool refused = false;
  late.done = [&](auto r) { refused = !r.ok() && r.error().cls == ErrorClass::unavailable; };
  house->queue->submit(std::move(late));
  EXPECT_TRUE(refused);
}

TEST(LocalQueue, ClearsOnlyWhenNothingRuns) {
  Folder folder;
  House house(folder.path);
  const JobNo no = house.submit(job(1))->job;
  const auto clear = [&] {
    auto p = promise_of<Unit>();
    house.queue->forget_all([p](auto r) { p->set_value(std::move(r)); });
    return p->get_future().get();
  };
  EXPECT_EQ(clear().error().cls, ErrorClass::conflict);
  ASSERT_TRUE(house.cancel(no).ok());
  ASSERT_TRUE(house.wait([&] { return ended(house.jobs[no].state); }));
  EXPECT_TRUE(clear().ok());
  auto reader = house.store->reader();
  EXPECT_FALSE((*(*reader)->job(no)).has_value());
}

// A clear and a submit that meet in one turn of the loop: whichever comes first, what was acknowledged stays.
TEST(LocalQueue, AClearNeverTakesAJobThatWasAcknowledged) {
  for (int round = 0; round < 20; ++round) {
    Folder folder;
    House house(folder.path);
    std::promise<void> go;
    auto gate = go.get_future().share();
    house.queue->inspect([gate](const core::Farm&, Now) { gate.wait(); });  // both wait in the inbox
    auto cleared = promise_of<Unit>();
    house.queue->forget_all([cleared](auto r) { cleared->set_value(std::move(r)); });
    auto submitted = promise_of<SubmitCall::Answer>();
    SubmitCall call = job(3);
    call.done = [submitted](auto r) { submitted->set_value(std::move(r)); };
    house.queue->submit(std::move(call));
    go.set_value();
    ASSERT_TRUE(cleared->get_future().get().ok());
    const auto answer = submitted->get_future().get();
    ASSERT_TRUE(answer.ok());
    auto reader = house.store->reader();
    ASSERT_TRUE((*(*reader)->job(answer->job)).has_value());
  }
}

TEST(LocalQueue, AFullDiskRefusesNewWorkLosesNothingAndGoesOnWhenThereIsRoom) {
  Folder folder;
  grange::testing::LossyDisk disk("queue-full", 1);
  JobNo no;
  {
    House house(folder.path, disk.name());
    const auto w = house.hello("w", {}, 64).worker;
    no = house.submit(with_arguments(200))->job;
    ASSERT_TRUE(house.wait([&] { return house.assigned.size() >= 20; }));
    disk.set_capacity(disk.used());
    const auto held = house.take();
    for (const auto& a : held) house.result(w, a.fence, true, std::string(20'000, 'x'));
    for (int i = 0; i < 500 && !house.queue->counters().storage_full; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(house.queue->counters().storage_full);
    EXPECT_EQ(house.submit(job(1)).error().cls, ErrorClass::storage_full);
    {
      const std::lock_guard lock(house.mutex);
      EXPECT_TRUE(house.ended.empty()) << "nothing is told before it is on disk";
    }
    disk.set_capacity(UINT64_MAX);
    ASSERT_TRUE(house.wait([&] { return house.ended.size() == held.size(); }));
    EXPECT_TRUE(house.submit(job(1)).ok());
  }
  House house(folder.path, disk.name());
  auto reader = house.store->reader();
  EXPECT_EQ((*reader)->job(no)->value().count, 200u);
}

TEST(LocalQueue, TakesEveryCallOfThePortAndRefusesItWhenItIsClosed) {
  Folder folder;
  House house(folder.path);
  const auto ask_all = [&] {
    LocalQueue& q = *house.queue;
    std::vector<Result<>> got;
    const auto add = [&](auto result) { got.push_back(result.ok() ? Result<>{} : Result<>(result.error())); };
    add(house.ask<std::vector<SubmitCall::Answer>>([&](auto done) {
      GraphCall call;
      for (int i = 0; i < 2; ++i) {
        SubmitCall one = job(1);
        one.header.open = true;
        if (i == 1) one.header.after.push_back({.job = {kSibling}});
        call.jobs.emplace_back(std::move(one.header), std::move(one.body));
      }
      call.done = std::move(done);
      q.submit_graph(std::move(call));
    }));
    add(house.ask<std::uint32_t>([&](auto done) {
      ExtendCall call;
      call.job = {1};
      call.count = 2;
      call.done = std::move(done);
      q.extend(std::move(call));
    }));
    add(house.ask<std::uint32_t>([&](auto done) {
      PauseCall call;
      call.job = {1};
      call.done = std::move(done);
      q.pause(std::move(call));
    }));
    add(house.ask<Unit>([&](auto done) { q.pause_farm({true, std::move(done)}); }));
    add(house.ask<Unit>([&](auto done) { q.set_user({"ada", {.weight_milli = 2000}, std::move(done)}); }));
    add(house.ask<Unit>([&](auto done) { q.set_policy("fifo", std::move(done)); }));
    add(house.cancel({1}));
    add(house.retry({1}, {{core::FailureClass::cancelled}, {}}));
    return got;
  };
  for (const auto& result : ask_all()) EXPECT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(house.ask<Unit>([&](auto done) { house.queue->release_worker({5}, std::move(done)); }).error().cls,
            ErrorClass::not_found);
  EXPECT_FALSE(house.ask<Unit>([&](auto done) { house.queue->set_policy("magic", std::move(done)); }).ok());
  house.queue->stop();
  for (const auto& result : ask_all()) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().cls, ErrorClass::unavailable);
  }
}

TEST(LocalQueue, RefusesAnUnknownPolicyByName) {
  Folder folder;
  auto store = store::Store::open({.directory = folder.path});
  ASSERT_TRUE(store.ok());
  SystemClock clock;
  const auto started = LocalQueue::start(**store, clock, {.policy = "magic"}, [](Delivery) {});
  ASSERT_FALSE(started.ok());
  EXPECT_NE(started.error().message.find("least_loaded"), std::string::npos);
}

}  // namespace
}  // namespace grange::queue
