#include <gtest/gtest.h>

#include <numeric>

#include "core/farm.hpp"

namespace grange::core {
namespace {

struct Fixture {
  Farm farm{{}};
  Effects effects;
  Now now{{1'000'000}, {1'700'000'000'000}};
  Fixture() { farm.loaded(now); }
  void submit(std::uint32_t job, std::uint32_t count) {
    SubmitJob event{{job}, {}};
    event.header.count = count;
    event.header.request.engine = "builtin";
    ASSERT_TRUE(farm.step(event, now, effects).result.ok());
  }
  void worker(std::uint32_t slots) {
    WorkerHello hello{{1}, {.slots = slots, .cpus_milli = 1000 * slots}, slots, {}};
    hello.capacity.engines = {"builtin"};
    ASSERT_TRUE(farm.step(hello, now, effects).result.ok());
    Prng prng(1);
    const auto before = effects.assign.size();
    farm.apply(farm.plan(now, prng), now, effects);
    for (std::size_t i = before; i < effects.assign.size(); ++i) given.push_back(effects.assign[i].fence);
  }
  std::vector<Fence> given;
};

std::uint32_t sum(const std::vector<std::uint32_t>& cells) {
  return std::accumulate(cells.begin(), cells.end(), 0u);
}

TEST(Grid, RangesCostOnlyTheirCells) {
  Fixture f;
  f.submit(1, 1'000'000);
  const auto grid = f.farm.grid({1}, 0, UINT32_MAX, 2048);
  ASSERT_TRUE(grid);
  EXPECT_EQ(grid->per_cell, 489u);
  EXPECT_LE(grid->pending.size(), 2048u);
  EXPECT_EQ(sum(grid->pending), 1'000'000u);
  EXPECT_FALSE(f.farm.grid({2}, 0, 10, 10));
}

TEST(Grid, EachTaskStandsWhereItIs) {
  Fixture f;
  f.submit(1, 20);
  f.worker(4);
  ASSERT_EQ(f.given.size(), 4u);
  f.farm.step(AttemptStarted{{1}, f.given[0]}, f.now, f.effects);
  f.farm.step(AttemptStarted{{1}, f.given[1]}, f.now, f.effects);
  f.farm.step(AttemptEnded{.worker = {1}, .fence = f.given[1]}, f.now, f.effects);
  f.farm.step(PauseTask{TaskId::of({1}, 10)}, f.now, f.effects);
  f.farm.step(CancelTask{TaskId::of({1}, 12)}, f.now, f.effects);
  const auto grid = f.farm.grid({1}, 0, 20, 4);
  ASSERT_TRUE(grid);
  EXPECT_EQ(grid->per_cell, 5u);
  EXPECT_EQ(grid->running, (std::vector<std::uint32_t>{1, 0, 0, 0}));
  EXPECT_EQ(grid->paused, (std::vector<std::uint32_t>{0, 0, 1, 0}));
  // One of the first five has ended, and one of the third.
  EXPECT_EQ(grid->pending, (std::vector<std::uint32_t>{3, 5, 3, 5}));
  const auto part = f.farm.grid({1}, 10, 13, 100);
  EXPECT_EQ(part->pending, (std::vector<std::uint32_t>{0, 1, 0}));
  EXPECT_EQ(f.farm.grid({1}, 30, 10, 5)->pending.size(), 0u);
}

TEST(Waits, AreCountedFromWhenAJobCouldRun) {
  Fixture f;
  f.submit(1, 2);
  f.now.mono.us += 5'000'000;
  f.worker(2);
  f.farm.step(AttemptStarted{{1}, f.given.at(0)}, f.now, f.effects);
  f.now.mono.us += 55'000'000;
  f.farm.step(AttemptEnded{.worker = {1}, .fence = f.given.at(1)}, f.now, f.effects);  // its start was never told
  EXPECT_EQ(f.effects.waits.total(), 2u);
  EXPECT_NEAR(*f.effects.waits.percentile(0.5), 5000, 600);
  EXPECT_NEAR(*f.effects.waits.percentile(1), 60'000, 7000);
}

TEST(Waits, DoNotCountAPauseOfTheFarm) {
  Fixture f;
  f.farm.step(PauseFarm{true}, f.now, f.effects);
  f.submit(1, 1);
  f.now.mono.us += 3600'000'000;
  f.farm.step(PauseFarm{false}, f.now, f.effects);
  f.now.mono.us += 5'000'000;
  f.worker(1);
  f.farm.step(AttemptStarted{{1}, f.given.at(0)}, f.now, f.effects);
  ASSERT_EQ(f.effects.waits.total(), 1u);
  EXPECT_NEAR(*f.effects.waits.percentile(1), 5000, 600);
}

TEST(Waits, DoNotCountTheTasksThatOneWaitsFor) {
  Fixture f;
  f.submit(1, 1);
  SubmitJob child{{2}, {}};
  child.header.count = 1;
  child.header.request.engine = "builtin";
  child.header.after = {{.job = {1}, .each = true}};
  ASSERT_TRUE(f.farm.step(child, f.now, f.effects).result.ok());
  f.worker(1);
  f.farm.step(AttemptStarted{{1}, f.given.at(0)}, f.now, f.effects);
  f.now.mono.us += 3600'000'000;
  f.farm.step(AttemptEnded{.worker = {1}, .fence = f.given.at(0)}, f.now, f.effects);
  Prng prng(1);
  f.farm.apply(f.farm.plan(f.now, prng), f.now, f.effects);
  ASSERT_EQ(f.effects.assign.size(), 2u);
  f.farm.step(AttemptStarted{{1}, f.effects.assign.back().fence}, f.now, f.effects);
  EXPECT_EQ(f.effects.waits.total(), 1u);
}

}  // namespace
}  // namespace grange::core
