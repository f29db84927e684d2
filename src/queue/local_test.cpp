#include "queue/local.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "core/farm.hpp"
#include "support/lossy_vfs.hpp"

namespace grange::queue {
namespace {

namespace fs = std::filesystem;

struct Folder {
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "grange_queue_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

template <class T>
auto promise_of() {
  return std::make_shared<std::promise<Result<T>>>();
}

// A server's worth of queue over a folder, with its deliveries gathered.
struct House {
  explicit House(const std::string& path, const std::string& vfs = {}) {
    auto opened = store::Store::open({.directory = path, .vfs = vfs});
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    store = std::move(*opened);
    auto started = LocalQueue::start(*store, clock, {}, [this](Delivery d) {
      const std::lock_guard lock(mutex);
      for (auto& a : d.assign) assigned.push_back(std::move(a));
      for (auto& e : d.ended) ended.push_back(std::move(e));
      for (auto& j : d.jobs) jobs[j.job] = j;
      for (auto& a : d.acks) acks.push_back(a);
      news.notify_all();
    });
    if (!started.ok()) throw std::runtime_error(started.error().message);
    queue = std::move(*started);
  }
  ~House() { queue->stop(); }

  Result<SubmitCall::Answer> submit(SubmitCall call) {
    auto p = promise_of<SubmitCall::Answer>();
    call.done = [p](auto r) { p->set_value(std::move(r)); };
    queue->submit(std::move(call));
    return p->get_future().get();
  }
  HelloCall::Answer hello(const std::string& id, std::vector<std::pair<Fence, bool>> held = {},
                          std::uint32_t window = 4) {
    auto p = promise_of<HelloCall::Answer>();
    HelloCall call;
    call.body = {id, id, ""};
    call.capacity = {.slots = 2, .cpus_milli = 2000, .engines = {"builtin"}};
    call.window = window;
    call.held = std::move(held);
    call.done = [p](auto r) { p->set_value(std::move(r)); };
    queue->hello(std::move(call));
    return *p->get_future().get();
  }
  Result<std::uint32_t> cancel(JobNo job, std::optional<std::uint32_t> index = {}) {
    auto p = promise_of<std::uint32_t>();
    queue->cancel(job, index, "test", [p](auto r) { p->set_value(std::move(r)); });
    return p->get_future().get();
  }
  Result<std::uint32_t> retry(JobNo job) {
    auto p = promise_of<std::uint32_t>();
    queue->retry(job, [p](auto r) { p->set_value(std::move(r)); });
    return p->get_future().get();
  }
  void result(WorkerNo worker, const Fence& fence, bool ok = true, std::string value = {}) {
    ReportCall call;
    call.worker = worker;
    ResultReport r;
    r.fence = fence;
    r.ok = ok;
    r.permanent = !ok;
    r.failure = ok ? core::FailureClass::none : core::FailureClass::exit_code;
    r.body.value = std::move(value);
    if (!ok) r.body.message = "exit code 1";
    call.results.push_back(std::move(r));
    queue->report(std::move(call));
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return news.wait_for(lock, std::chrono::seconds(10), condition);
  }
  std::vector<Assign> take() {
    const std::lock_guard lock(mutex);
    return std::exchange(assigned, {});
  }

  SystemClock clock;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<LocalQueue> queue;
  std::mutex mutex;
  std::condition_variable news;
  std::vector<Assign> assigned;
  std::vector<Ended> ended;
  std::map<JobNo, JobChange> jobs;
  std::vector<AckOrder> acks;
};

SubmitCall job(std::uint32_t count, std::string key = {}, std::string digest = "d") {
  SubmitCall call;
  call.header.count = count;
  call.header.request.engine = "builtin";
  call.body.key = std::move(key);
  call.body.digest = std::move(digest);
  call.body.spec = "spec";
  call.body.engine = "builtin";
  return call;
}

SubmitCall with_arguments(std::uint32_t count) {
  SubmitCall call = job(count);
  for (std::uint32_t first = 0; first < count; first += 10) {
    core::ArgumentPage page;
    page.first = first;
    for (std::uint32_t i = first; i < std::min(first + 10, count); ++i) {
      const std::string argument = "argument " + std::to_string(i);
      page.sizes.push_back(static_cast<std::uint32_t>(argument.size()));
      page.bytes += argument;
    }
    call.body.pages.push_back(std::move(page));
  }
  return call;
}

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
    house.queue->inspect([gate](const core::Farm&) { gate.wait(); });  // both wait in the inbox
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
  testing::LossyDisk disk("queue-full", 1);
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
