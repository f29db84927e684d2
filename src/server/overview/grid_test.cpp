#include "server/overview/grid.hpp"

#include <gtest/gtest.h>

namespace grange::server {
namespace {

using Cells = std::vector<std::uint32_t>;

TEST(Grid, CellsAreEqualAndCoverAll) {
  EXPECT_EQ(grid_step(0, 10, 3), 4u);
  EXPECT_EQ(grid_step(0, 9, 3), 3u);
  EXPECT_EQ(grid_step(0, 3, 2048), 1u);
  EXPECT_EQ(grid_step(5, 5, 8), 1u);
  EXPECT_EQ(grid_step(0, 10'000'000, 1), 10'000'000u);
  EXPECT_EQ(grid_step(0, UINT32_MAX, 2), 2147483648u);
}

TEST(Grid, WhatNobodyKnowsHasCompleted) {
  core::JobGrid live;
  live.count = live.to = 10;
  live.per_cell = 4;
  live.pending = {0, 1, 2};
  live.running = {1, 0, 0};
  live.paused = {0, 1, 0};
  live.blocked = {0, 0, 0};
  live.dropped = {0, 0, 0};
  const TaskGrid grid = fold_grid(live, {.failed = {1, 0, 0}, .cancelled = {0, 1, 0}, .ended_late = {}});
  EXPECT_EQ(grid.completed, (Cells{2, 1, 0}));
  EXPECT_EQ(grid.failed, (Cells{1, 0, 0}));
  EXPECT_EQ(grid.cancelled, (Cells{0, 1, 0}));
  EXPECT_EQ(grid.pending, (Cells{0, 1, 2}));
}

TEST(Grid, AStoreThatIsAheadTakesNothingTwice) {
  core::JobGrid live;
  live.count = live.to = live.per_cell = 4;
  live.pending = {3};
  const TaskGrid grid = fold_grid(live, {.failed = {2}, .cancelled = {2}, .ended_late = {}});
  EXPECT_EQ(grid.pending[0] + grid.failed[0] + grid.cancelled[0] + grid.completed[0], 4u);
  EXPECT_EQ(grid.completed[0], 0u);
}

TEST(Grid, OfAnEndedJobWhatWasNeverHandedOutIsCancelled) {
  // Ten tasks: 0 to 4 were handed out, 4 was cancelled; of the rest only 7 was, and completed.
  const store::OutcomeCellsOf of{.job = {1}, .from = 0, .to = 10, .per_cell = 4, .late_from = 5};
  const TaskGrid grid = fold_ended_grid(of, 10, {.failed = {1, 0, 0}, .cancelled = {0, 1, 0}, .ended_late = {0, 1, 0}});
  EXPECT_EQ(grid.completed, (Cells{3, 1, 0}));
  EXPECT_EQ(grid.failed, (Cells{1, 0, 0}));
  EXPECT_EQ(grid.cancelled, (Cells{0, 3, 2}));
  const store::OutcomeCellsOf all{.job = {1}, .from = 0, .to = 10, .per_cell = 10, .late_from = {}};
  EXPECT_EQ(fold_ended_grid(all, 10, {.failed = {2}, .cancelled = {0}, .ended_late = {0}}).completed, (Cells{8}));
}

}  // namespace
}  // namespace grange::server
