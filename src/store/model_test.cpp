#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Batch;
using testing::describe;
using testing::difference;
using testing::Model;
using testing::Scratch;

TEST(Store, HoldsWhatAPlainModelHoldsOverRandomBatchesAndRestarts) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const Scratch scratch;
    Prng prng(seed);
    Model model;
    std::uint64_t starts = 0;
    std::string server_id;
    for (int life = 0; life < 4; ++life) {
      auto store = Store::open({.directory = scratch.path()});
      ASSERT_TRUE(store.ok()) << store.error().message;
      auto loaded = (*store)->load();
      ASSERT_TRUE(loaded.ok()) << loaded.error().message;
      EXPECT_EQ(loaded->incarnation, ++starts);
      if (server_id.empty()) server_id = loaded->server_id;
      EXPECT_EQ(loaded->server_id, server_id);
      EXPECT_EQ(loaded->server_id.size(), 32u);
      EXPECT_EQ(loaded->last_job.value, model.jobs.size());
      auto reader = *(*store)->reader();
      ASSERT_EQ(difference(describe(model), describe(*loaded, *reader)), "") << "seed " << seed << " life " << life;
      EXPECT_EQ(loaded->workers.size(), model.workers.size());
      for (int i = 0; i < 60; ++i) {
        const Batch batch = model.random_batch(prng);
        auto done = (*store)->commit({batch.records, batch.bodies});
        ASSERT_TRUE(done.ok()) << done.error().message;
      }
      // A reader that was open all the while sees the last commit.
      EXPECT_EQ((*reader->totals()).jobs, model.jobs.size());
    }
  }
}

TEST(Store, LoadsTheSameTwice) {
  const Scratch scratch;
  Prng prng(7);
  Model model;
  auto store = *Store::open({.directory = scratch.path()});
  for (int i = 0; i < 80; ++i) {
    const Batch batch = model.random_batch(prng);
    ASSERT_TRUE(store->commit({batch.records, batch.bodies}).ok());
  }
  auto reader = *store->reader();
  const auto first = *store->load();
  const auto second = *store->load();
  EXPECT_EQ(describe(first, *reader), describe(second, *reader));
  EXPECT_EQ(second.incarnation, first.incarnation + 1);
}

TEST(Store, KnowsHowManyRowsItHasWithoutCounting) {
  const Scratch scratch;
  Prng prng(3);
  Model model;
  auto store = *Store::open({.directory = scratch.path()});
  for (int i = 0; i < 200; ++i) {
    const Batch batch = model.random_batch(prng);
    ASSERT_TRUE(store->commit({batch.records, batch.bodies}).ok());
  }
  std::map<std::string, std::uint64_t> want{{"jobs", model.jobs.size()},
                                            {"workers", model.workers.size()},
                                            {"failures", model.failures.size()},
                                            {"users", model.users.size()}};
  for (const auto& [no, job] : model.jobs) {
    want["outcomes"] += job.outcomes.size();
    want["pages"] += job.body.pages.size();
    want["kept"] += job.kept.size();
    want["checkpoints"] += job.checkpoints.size();
  }
  const auto check = [&] {
    const auto info = *(*store->reader())->info();
    EXPECT_EQ(info.schema_version, kSchemaVersion);
    EXPECT_GT(info.disk_free_bytes, 0u);
    EXPECT_GT(info.db_bytes + info.wal_bytes, 0u);
    for (const auto& [table, rows] : info.rows) EXPECT_EQ(rows, want[table]) << table;
  };
  check();
  // The same numbers after ended jobs were forgotten, all of them.
  while (!store->forget_ended({INT64_MAX}, {INT64_MAX}, UINT64_MAX, 3)->empty()) {
  }
  // All but those whose results a live job will be given.
  std::set<std::uint32_t> needed;
  for (const auto& [no, job] : model.jobs) {
    for (const auto& d : job.header.after) {
      if (d.pass && !core::ended(job.progress.state)) needed.insert(d.job.value);
    }
  }
  std::uint64_t forgotten = 0, spared = 0;
  want["failures"] = want["outcomes"] = want["pages"] = want["kept"] = want["checkpoints"] = 0;
  for (const auto& [no, job] : model.jobs) {
    const bool ended = core::ended(job.progress.state);
    if (ended && !needed.contains(no)) {
      ++forgotten;
      continue;
    }
    if (ended) ++spared;
    want["outcomes"] += job.outcomes.size();
    want["pages"] += job.body.pages.size();
    want["kept"] += job.kept.size();
    want["checkpoints"] += job.checkpoints.size();
    for (const auto& f : model.failures) want["failures"] += f.record.task.job().value == no ? 1u : 0u;
  }
  ASSERT_GT(forgotten, 0u);
  ASSERT_GT(spared, 0u);
  want["jobs"] -= forgotten;
  check();
  EXPECT_EQ((*(*store->reader())->totals()).jobs, want["jobs"]);
  EXPECT_EQ((*store->load()).last_job.value, model.jobs.size()) << "numbers of forgotten jobs are not used again";
}

}  // namespace
}  // namespace grange::store
