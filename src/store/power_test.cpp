// What survives when the power goes, the disk errs, or the disk is full.
#include "store/model_for_test.hpp"
#include "support/lossy_vfs.hpp"

namespace grange::store {
namespace {

using grange::testing::Fault;
using grange::testing::LossyDisk;
using testing::Batch;
using testing::describe;
using testing::difference;
using testing::Model;
using testing::Scratch;

std::string state_of(Store& store) {
  auto loaded = store.load();
  if (!loaded) return "load: " + loaded.error().message;
  auto reader = store.reader();
  if (!reader) return "reader: " + reader.error().message;
  return describe(*loaded, **reader);
}

TEST(Power, WhatWasCommittedIsThereAndABatchIsAllOrNothing) {
  std::uint64_t cut_in_commit = 0, kept_in_doubt = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const Scratch scratch;
    LossyDisk disk("lossy-power", seed);
    Prng prng(seed * 7919);
    Model model, doubtful;
    for (int life = 0; life < 3; ++life) {
      // The cut may come while the store starts, while it commits, or after.
      if (prng.below(2) == 0) disk.fault_at(1 + prng.below(life == 0 ? 250 : 400), Fault::power_off);
      bool in_doubt = false;
      {
        auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
        if (store.ok() && (*store)->load().ok()) {
          const auto batches = prng.below(30);
          for (std::uint64_t i = 0; i < batches; ++i) {
            Model next = model;
            const Batch batch = next.random_batch(prng);
            if (!(*store)->commit({batch.records, batch.bodies}).ok()) {
              ASSERT_TRUE(disk.fault_met()) << "seed " << seed;
              doubtful = next;
              in_doubt = true;
              ++cut_in_commit;
              break;
            }
            model = std::move(next);
          }
        } else {
          ASSERT_TRUE(disk.fault_met()) << "seed " << seed << ": " << (store.ok() ? "load" : store.error().message);
        }
        if (prng.below(3) == 0 && !disk.fault_met()) {
          store = Error{};  // closed in good order, then the power goes
        }
        disk.crash();
      }
      auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
      ASSERT_TRUE(store.ok()) << "seed " << seed << " life " << life << ": " << store.error().message;
      const std::string is = state_of(**store);
      const std::string lost = difference(describe(model), is);
      if (!lost.empty()) {
        // Only a batch whose commit did not return may be more than what was acknowledged, and then it is there whole.
        ASSERT_TRUE(in_doubt) << "seed " << seed << " life " << life << "\n" << lost;
        ASSERT_EQ(difference(describe(doubtful), is), "") << "seed " << seed << " life " << life;
        model = doubtful;
        ++kept_in_doubt;
      }
    }
  }
  EXPECT_GT(cut_in_commit, 15u) << "the test no longer cuts within a commit";
  EXPECT_GT(kept_in_doubt, 0u);
}

TEST(Power, CheckpointsLoseNothing) {
  // Values big enough that the WAL is checkpointed many times before the cut.
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const Scratch scratch;
    LossyDisk disk("lossy-checkpoint", seed);
    Prng prng(seed);
    std::uint32_t committed = 0;
    {
      auto store = *Store::open({.directory = scratch.path(), .vfs = disk.name()});
      disk.fault_at(20'000 + prng.below(60'000), Fault::power_off);
      for (;;) {
        Batch b;
        core::ResultBody body;
        body.value.assign(1'000'000, static_cast<char>(committed));
        b.records.emplace_back(core::TaskEnded{.task = TaskId::of({1}, committed), .attempt = 1, .body = b.add(body)});
        if (!store->commit({b.records, b.bodies}).ok()) break;
        ++committed;
      }
      disk.crash();
    }
    ASSERT_GE(committed, 33u) << "cut before the first checkpoint, at 8000 pages";
    auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
    ASSERT_TRUE(store.ok()) << store.error().message;
    auto reader = *(*store)->reader();
    for (std::uint32_t i = 0; i < committed; ++i) {
      const auto rows = *reader->outcomes({1}, i, 1, true);
      ASSERT_EQ(rows.size(), 1u);
      ASSERT_EQ(rows[0].task.index(), i);
      ASSERT_EQ(rows[0].body.value, std::string(1'000'000, static_cast<char>(i)));
    }
  }
}

// A batch that ends tasks which have rows in `kept` and `checkpoints`, and then fails: its next try must still know of
// these rows, or a later start takes them for work.
TEST(Disk, EndedTasksLeaveNoRowBehindWhateverOperationOfTheirBatchFailed) {
  const auto task = [](std::uint32_t index) { return TaskId::of({1}, index); };
  const auto begun = [&](Store& store) {
    Batch b;
    core::JobBody body;
    body.spec = "spec";
    core::JobHeader header;
    header.count = 40;
    b.records.emplace_back(core::JobAdded{{1}, b.add(body), header, {1}});
    for (std::uint32_t i = 0; i < 20; ++i) {
      b.records.emplace_back(core::TaskKept{.task = task(i), .attempt = 2, .parked = i % 3 == 0});
      if (i % 2 == 0)
        b.records.emplace_back(
            core::CheckpointKept{task(i), 1, b.add(core::CheckpointBody{{}, testing::fake_sha(i % 5)})});
    }
    b.records.emplace_back(core::JobProgressed{
        .job = {1}, .state = core::JobState::running, .next_index = 30, .counts = {}, .count = 40, .opened = true});
    ASSERT_TRUE(store.commit({b.records, b.bodies}).ok());
  };
  Batch batch;
  for (std::uint32_t i = 0; i < 18; ++i) {
    core::ResultBody body;
    body.value.assign(5000, 'v');  // pages enough for many operations
    batch.records.emplace_back(core::TaskEnded{.task = task(i), .attempt = 2, .body = batch.add(body)});
    if (i % 6 == 0) {  // ended and run again, at once
      batch.records.emplace_back(core::TaskReopened{task(i)});
      batch.records.emplace_back(core::TaskKept{.task = task(i), .attempt = 3});
      batch.records.emplace_back(core::TaskEnded{.task = task(i), .attempt = 3});
    }
  }
  batch.records.emplace_back(core::JobProgressed{.job = {1},
                                                 .state = core::JobState::running,
                                                 .next_index = 30,
                                                 .counts = {18, 0, 0},
                                                 .count = 40,
                                                 .opened = true});

  std::string want;
  int failed = 0, unharmed = 0;
  for (std::uint64_t n = 0; unharmed < 4; ++n) {  // 0: nothing fails
    ASSERT_LT(n, 2000u);
    LossyDisk disk("lossy-ended", 1);
    const OpenOptions options{.directory = "/farm", .vfs = disk.name(), .farm_only = true};
    {
      auto store = *Store::open(options);
      ASSERT_TRUE(store->load().ok());
      begun(*store);
      if (n > 0) disk.fault_at(n, n % 2 == 0 ? Fault::io_once : Fault::io_always);
      const bool done = store->commit({batch.records, batch.bodies}).ok();
      if (n > 0) ++(done ? unharmed : failed);
      disk.clear_fault();
      if (!done) {
        ASSERT_TRUE(store->commit({batch.records, batch.bodies}).ok()) << n;
      }
    }
    disk.kill();
    auto store = *Store::open(options);
    const Loaded loaded = *store->load();
    EXPECT_EQ(loaded.tasks.size(), 2u) << n;
    const std::string is = describe(loaded, **store->reader());
    if (n == 0) want = is;
    ASSERT_EQ(difference(want, is), "") << "the fault at operation " << n;
  }
  EXPECT_GT(failed, 10);
}

TEST(Disk, AnErrorAtAnyOperationHarmsAtMostTheBatchThatMetIt) {
  std::uint64_t failed_opens = 0, failed_commits = 0;
  for (std::uint64_t n = 1; n <= 400; ++n) {
    const Scratch scratch;
    LossyDisk disk("lossy-nth", n);
    Prng prng(n % 7 + 1);
    disk.fault_at(n, n % 2 == 0 ? Fault::io_once : Fault::io_always);
    Model model;
    auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
    if (!store.ok()) {
      ++failed_opens;
      EXPECT_NE(store.error().message, "");
      EXPECT_NE(store.error().cls, ErrorClass::storage_damaged) << n << ": an I/O error is no damage";
      disk.clear_fault();
      store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
      ASSERT_TRUE(store.ok()) << n << ": " << store.error().message;
    }
    for (int i = 0; i < 25; ++i) {
      Model next = model;
      const Batch batch = next.random_batch(prng);
      auto done = (*store)->commit({batch.records, batch.bodies});
      if (!done.ok()) {
        ASSERT_TRUE(disk.fault_met()) << done.error().message;
        ++failed_commits;
        disk.clear_fault();
        done = (*store)->commit({batch.records, batch.bodies});
        ASSERT_TRUE(done.ok()) << n << ": the same batch again: " << done.error().message;
      }
      model = std::move(next);
    }
    disk.clear_fault();
    ASSERT_EQ(difference(describe(model), state_of(**store)), "") << n;
  }
  EXPECT_GT(failed_opens, 10u);
  EXPECT_GT(failed_commits, 50u);
}

TEST(Disk, FullThenRoomAgain) {
  std::uint64_t refused = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const Scratch scratch;
    LossyDisk disk("lossy-full", seed);
    Prng prng(seed);
    Model model;
    {
      auto store = *Store::open({.directory = scratch.path(), .vfs = disk.name()});
      for (int i = 0; i < 60; ++i) {
        if (i % 15 == 10) disk.set_capacity(disk.used() + prng.below(60'000));
        Model next = model;
        const Batch batch = next.random_batch(prng);
        auto done = store->commit({batch.records, batch.bodies});
        if (!done.ok()) {
          ++refused;
          ASSERT_EQ(done.error().cls, ErrorClass::storage_full) << done.error().message;
          disk.set_capacity(UINT64_MAX);
          ASSERT_EQ(difference(describe(model), state_of(*store)), "") << "nothing half done";
          done = store->commit({batch.records, batch.bodies});
          ASSERT_TRUE(done.ok()) << done.error().message;
        }
        model = std::move(next);
      }
      disk.crash();
    }
    disk.set_capacity(UINT64_MAX);
    auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
    ASSERT_TRUE(store.ok()) << store.error().message;
    ASSERT_EQ(difference(describe(model), state_of(**store)), "") << seed;
  }
  EXPECT_GT(refused, 10u);
}

TEST(Disk, DamageIsNamed) {
  const Scratch scratch;
  LossyDisk disk("lossy-damage", 1);
  Prng prng(1);
  Model model;
  {
    auto store = *Store::open({.directory = scratch.path(), .vfs = disk.name()});
    for (int i = 0; i < 100; ++i) {
      const Batch batch = model.random_batch(prng);
      ASSERT_TRUE(store->commit({batch.records, batch.bodies}).ok());
    }
  }
  const std::string path = scratch.path() + "/farm.db";
  const std::size_t size = disk.contents(path).size();
  ASSERT_GT(size, 100'000u);
  for (std::size_t at = 4096; at < size; at += 4096) disk.overwrite(path, at, std::string(64, '\xa5'));
  auto store = Store::open({.directory = scratch.path(), .vfs = disk.name()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().cls, ErrorClass::storage_damaged) << store.error().message;
  EXPECT_NE(store.error().message.find("farm.db"), std::string::npos);
}

}  // namespace
}  // namespace grange::store
