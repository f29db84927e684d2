#include "server/overview/history.hpp"

#include <gtest/gtest.h>

namespace grange::server {
namespace {

FarmSample with(double completed, double queued) {
  FarmSample sample;
  sample.completed = completed;
  sample.queued = queued;
  return sample;
}

TEST(WaitCounts, PercentilesAreNearTheTruth) {
  core::WaitCounts counts;
  EXPECT_FALSE(counts.percentile(0.5));
  for (int ms = 1; ms <= 1000; ++ms) counts.add(Micros{ms * 1000});
  EXPECT_EQ(counts.total(), 1000u);
  EXPECT_NEAR(*counts.percentile(0.5), 500, 60);
  EXPECT_NEAR(*counts.percentile(0.95), 950, 110);
  core::WaitCounts more = counts;
  more.add(Micros{60'000'000}, 9000);
  EXPECT_NEAR(*more.percentile(0.5), 60'000, 7000);
  const core::WaitCounts since = more.since(counts);
  EXPECT_EQ(since.total(), 9000u);
  EXPECT_NEAR(*since.percentile(0.01), 60'000, 7000);
}

TEST(WaitCounts, NothingFallsOutside) {
  core::WaitCounts counts;
  counts.add(Micros{0});
  counts.add(Micros{-5});
  counts.add(Micros{INT64_MAX});
  EXPECT_EQ(counts.total(), 3u);
  EXPECT_LE(*counts.percentile(0.3), 1.0);
  EXPECT_GT(*counts.percentile(1.0), 1e9);
}

TEST(History, EachSpanHasItsSteps) {
  History history;
  for (std::int64_t s = 0; s < 3600; ++s) history.add(with(10, static_cast<double>(s)), {s * 1000});
  EXPECT_EQ(history.buckets(0).size(), 900u);
  EXPECT_EQ(history.buckets(0).front().at.ms, 2700 * 1000);
  EXPECT_EQ(history.buckets(1).size(), 120u);
  EXPECT_EQ(history.buckets(2).size(), 4u);
  EXPECT_EQ(*history.buckets(1).front().mean(History::queued), 14.5) << "the mean of 0 … 29";
  EXPECT_EQ(*history.buckets(2).back().mean(History::completed), 10);
  EXPECT_FALSE(history.buckets(0).back().mean(History::gpu_percent)) << "nobody measured it";
  EXPECT_EQ(history.rate(History::completed, 10), 10);
}

TEST(History, AClockThatWentBackOpensNoOldBucket) {
  History history;
  history.add(with(1, 0), {100'000});
  history.add(with(3, 0), {50'000});
  ASSERT_EQ(history.buckets(0).size(), 1u);
  EXPECT_EQ(*history.buckets(0).front().mean(History::completed), 2);
}

TEST(History, AClockThatRanFarAheadIsForgotten) {
  constexpr std::int64_t day = 86'400'000;
  History history;
  for (std::int64_t s = 0; s < 10; ++s) history.add(with(5, 0), {day + s * 1000});
  history.add(with(100, 0), {10'000 * day});
  EXPECT_FALSE(history.unwritten(true).empty());
  for (std::int64_t s = 10; s < 100; ++s) history.add(with(1, 0), {day + s * 1000});
  EXPECT_EQ(history.buckets(0).size(), 100u);
  EXPECT_EQ(history.rate(History::completed, 10), 1);
  const auto kept = history.unwritten(true);
  ASSERT_FALSE(kept.empty());
  for (const auto& one : kept) EXPECT_LT(one.at.ms, 2 * day);
}

TEST(History, ARestartWritesNothingAnew) {
  History before;
  for (std::int64_t s = 0; s < 3600; ++s) before.add(with(7, 70), {s * 1000});
  History after;
  for (const auto& kept : before.unwritten(true)) ASSERT_TRUE(after.restore(kept.span, kept.at, kept.figures));
  EXPECT_EQ(after.unwritten(true).size(), 2u) << "the bucket that is still open, of each of the two";
}

TEST(History, GoesOnAfterARestart) {
  History before;
  FarmSample sample = with(7, 70);
  sample.cpu_percent = 12.5;
  sample.waits.add(Micros{2'000'000}, 5);
  for (std::int64_t s = 0; s < 100; ++s) before.add(sample, {s * 1000});
  History after;
  for (const auto& kept : before.unwritten(true))
    EXPECT_TRUE(after.restore(kept.span, kept.at, kept.figures)) << kept.figures;
  EXPECT_TRUE(after.buckets(0).empty()) << "seconds are not kept";
  ASSERT_EQ(after.buckets(1).size(), 4u);
  EXPECT_EQ(*after.buckets(1)[2].mean(History::completed), 7);
  EXPECT_EQ(*after.buckets(1)[2].mean(History::cpu_percent), 12.5);
  EXPECT_EQ(after.buckets(1)[2].waits.total(), 150u);
  // The bucket that was not complete is gone on with.
  after.add(with(7, 70), {100'000});
  ASSERT_EQ(after.buckets(1).size(), 4u);
  EXPECT_EQ(after.buckets(1).back().n[History::completed], 11u);
}

TEST(History, WritesWhatChangedOnly) {
  History history;
  for (std::int64_t s = 0; s < 65; ++s) history.add(with(1, 1), {s * 1000});
  EXPECT_EQ(history.unwritten(true).size(), 4u) << "0, 30 and 60 s, and the quarter of an hour";
  history.add(with(1, 1), {65'000});
  const auto again = history.unwritten(true);
  ASSERT_EQ(again.size(), 2u) << "those that are not complete";
  EXPECT_EQ(again[0].at.ms, 60'000);
}

TEST(History, WhatIsDamagedIsLeftOut) {
  History history;
  for (const char* bad :
       {"", "[]", "{\"completed\":3}", "{\"completed\":[1]}", "{\"waits\":[[999,1]]}", "{\"waits\":[[1,-1]]}"})
    EXPECT_FALSE(history.restore(1, {0}, bad)) << bad;
  EXPECT_FALSE(history.restore(0, {0}, "{}"));
  EXPECT_TRUE(history.restore(1, {30'000}, "{}"));
  EXPECT_FALSE(history.restore(1, {30'000}, "{}")) << "not in order of time";
}

}  // namespace
}  // namespace grange::server
