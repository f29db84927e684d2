// The store as the simulator uses it: farm.db on a disk in memory, and nothing else.
#include <sqlite3.h>

#include <filesystem>

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
using testing::take;

OpenOptions on(const LossyDisk& disk) {
  return {.directory = "/nowhere/farm", .vfs = disk.name(), .farm_only = true};
}

// A few lives with crashes; all that is on the disk at the end, and what the store says.
std::string some_lives(std::uint64_t seed) {
  LossyDisk disk("lossy-lives", seed);
  Prng prng(seed);
  Model model;
  std::string said;
  for (int life = 0; life < 4; ++life) {
    auto store = Store::open(on(disk));
    if (!store.ok()) return store.error().message;
    const Loaded loaded = take((*store)->load());
    said += loaded.server_id + describe(loaded, *take((*store)->reader()));
    disk.fault_at(20 + prng.below(200), Fault::power_off);
    while (!disk.fault_met()) {
      const Batch batch = model.random_batch(prng);
      if (!(*store)->commit({batch.records, batch.bodies}).ok()) break;
    }
    disk.crash();
    model = {};  // from here on its batches may be refused: all the same
  }
  return said + disk.contents("/nowhere/farm/farm.db") + disk.contents("/nowhere/farm/farm.db-wal");
}

TEST(SimDisk, OneSeedIsOneRunByteForByte) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const std::string once = some_lives(seed);
    EXPECT_GT(once.size(), 10'000u);
    EXPECT_TRUE(once == some_lives(seed)) << seed;
    EXPECT_FALSE(once == some_lives(seed + 1)) << seed;
  }
}

TEST(SimDisk, HundredsOfCrashesLeaveNothingBehindAndTouchNoRealFile) {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto fds = descriptors();
  const auto memory = sqlite3_memory_used();
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    LossyDisk disk("lossy-many", seed);
    for (int life = 0; life < 8; ++life) {
      auto store = Store::open(on(disk));
      ASSERT_TRUE(store.ok()) << store.error().message;
      ASSERT_TRUE((*store)->load().ok());
      ASSERT_TRUE((*store)->room_for(UINT64_MAX).ok());
      auto reader = (*store)->reader();
      ASSERT_TRUE(reader.ok());
      ASSERT_TRUE((*reader)->info().ok());
      EXPECT_EQ((*reader)->info()->wal_bytes, 0u);
      const std::vector<core::Record> records{
          core::JobAdded{.job = {static_cast<std::uint32_t>(life + 1)}, .body = core::kNoBody, .header = {}, .at = {}}};
      ASSERT_TRUE((*store)->commit({records, {}}).ok());
      EXPECT_EQ(descriptors(), fds);
      disk.crash();  // with store and reader open
    }
  }
  EXPECT_EQ(sqlite3_memory_used(), memory);
  EXPECT_FALSE(std::filesystem::exists("/nowhere"));
}

TEST(SimDisk, AFarmCanStartFromABytewiseCopy) {
  std::string image;
  {
    LossyDisk disk("lossy-image", 1);
    ASSERT_TRUE(Store::open(on(disk)).ok());
    image = disk.contents("/nowhere/farm/farm.db");
  }
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    LossyDisk disk("lossy-copy", seed);
    disk.put("/nowhere/farm/farm.db", image);
    disk.crash();  // it is as if it had always been there
    Model model;
    Prng prng(seed);
    {
      auto store = *Store::open(on(disk));
      for (int i = 0; i < 20; ++i) {
        const Batch batch = model.random_batch(prng);
        ASSERT_TRUE(store->commit({batch.records, batch.bodies}).ok());
      }
      disk.crash();
    }
    auto store = *Store::open(on(disk));
    const Loaded loaded = take(store->load());
    EXPECT_EQ(loaded.incarnation, 1u);
    EXPECT_EQ(difference(describe(model), describe(loaded, *take(store->reader()))), "");
  }
}

}  // namespace
}  // namespace grange::store
