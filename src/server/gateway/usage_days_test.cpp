#include "server/gateway/usage_days.hpp"

#include <gtest/gtest.h>

namespace grange::server::gateway {
namespace {

constexpr std::int64_t kDay = 86'400'000;

Record usage_of(const std::string& who, const std::string& model, std::int64_t day, End end = End::completed) {
  Record out;
  out.principal = who;
  out.model = model;
  out.at = {day * kDay + 5000};
  out.end = end;
  out.tokens.in = 10;
  out.tokens.out = 3;
  out.bytes = 100;
  out.tries = 1;
  return out;
}

std::uint64_t requests_of(const std::map<UsageDays::Key, UsageCounters>& usage) {
  std::uint64_t n = 0;
  for (const auto& [key, counters] : usage) {
    for (const std::uint64_t one : counters.ends) n += one;
  }
  return n;
}

TEST(UsageDays, AreOfThatDayWhateverTheHour) {
  EXPECT_EQ(day_of({0}), 0);
  EXPECT_EQ(day_of({kDay - 1}), 0);
  EXPECT_EQ(day_of({kDay}), 1);
  EXPECT_EQ(day_of({-1}), -1);
  EXPECT_EQ(day_of({-kDay}), -1);
  EXPECT_EQ(day_name(20'779), "2026-11-22");
}

TEST(UsageDays, AreWrittenOnceAndReadAgain) {
  UsageDays days;
  days.start(99);
  days.add(usage_of("ann", "m", 100));
  days.add(usage_of("ann", "m", 100, End::failed));
  days.add(usage_of("bob", "m", 101));
  auto rows = days.unwritten();
  ASSERT_EQ(rows.rows.size(), 2u);
  EXPECT_TRUE(rows.new_day);
  EXPECT_TRUE(days.unwritten().rows.empty()) << "taken for written";
  days.not_written(rows);
  rows = days.unwritten();
  ASSERT_EQ(rows.rows.size(), 2u) << "what could not be written is written later";
  EXPECT_TRUE(rows.new_day);

  UsageDays later;
  later.start(100);
  for (const store::UsageRow& row : rows.rows) ASSERT_TRUE(later.restore(row));
  later.add(usage_of("ann", "m", 100));
  const auto more = later.unwritten();
  ASSERT_EQ(more.rows.size(), 1u);
  const auto counters = UsageCounters::read(more.rows[0].figures);
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->ends[static_cast<int>(End::completed)], 2u);
  EXPECT_EQ(counters->ends[static_cast<int>(End::failed)], 1u);
  EXPECT_EQ(counters->tokens_in, 30u);
  EXPECT_EQ(counters->bytes, 300u);
}

TEST(UsageDays, WhatIsHereIsNewerThanWhatIsOnDisk) {
  UsageDays days;
  days.start(99);
  days.add(usage_of("ann", "m", 100));
  const auto rows = days.unwritten().rows;
  days.add(usage_of("ann", "m", 100));
  days.add(usage_of("ann", "n", 100));
  std::vector<store::UsageRow> disk = rows;
  disk.push_back({.day = 50, .principal = "old", .model = "m", .figures = rows[0].figures});
  EXPECT_EQ(requests_of(days.since(50, disk, {}, {})), 4u);
  EXPECT_EQ(requests_of(days.since(51, disk, {}, {})), 3u);
  EXPECT_EQ(requests_of(days.since(50, disk, "ann", {})), 3u);
  EXPECT_EQ(requests_of(days.since(50, disk, {}, "m")), 3u);
  EXPECT_EQ(requests_of(days.since(50, disk, "old", "n")), 0u);
}

TEST(UsageDays, AClockThatGoesBackTakesNothingAway) {
  UsageDays days;
  days.start(100);
  days.add(usage_of("ann", "m", 40));  // rows of that day are on disk, and were not read
  const auto rows = days.unwritten().rows;
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].day, 100);
}

TEST(UsageDays, DaysThatAreOverAreLetGoOnceTheyAreWritten) {
  UsageDays days;
  days.start(100);
  for (std::int64_t day = 100; day <= 100 + static_cast<std::int64_t>(kUsageDaysInMemory); ++day)
    days.add(usage_of("ann", "m", day));
  days.written();
  EXPECT_EQ(days.since(0, {}, {}, {}).size(), kUsageDaysInMemory + 1) << "not written yet";
  EXPECT_EQ(days.unwritten().rows.size(), kUsageDaysInMemory + 1);
  days.written();
  EXPECT_EQ(days.since(0, {}, {}, {}).size(), kUsageDaysInMemory);
  days.add(usage_of("ann", "m", 100));
  EXPECT_EQ(days.unwritten().rows.at(0).day, 101) << "and not begun anew";
}

TEST(UsageDays, ARecordFromFarAheadDoesNotMakeTheOthersOld) {
  UsageDays days;
  days.start(99);
  days.add(usage_of("ann", "m", 100));
  days.add(usage_of("ann", "m", 100 + 3650));  // the clock was wrong for a moment
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(days.unwritten().new_day, i == 0);
    days.written();
    days.add(usage_of("ann", "m", 100));
  }
  const auto all = days.since(0, {}, {}, {});
  ASSERT_EQ(all.size(), 2u) << "no day was made up";
  EXPECT_EQ(std::get<0>(all.begin()->first), 100);
  EXPECT_EQ(all.begin()->second.ends[static_cast<int>(End::completed)], 101u);
}

TEST(UsageDays, DaysAheadThatAreOnDiskDoNotTakeTodaysPlace) {
  UsageDays days;
  days.start(99);
  for (std::int64_t day = 3000; day < 3020; ++day)
    ASSERT_TRUE(days.restore({.day = day, .principal = "ann", .model = "m", .figures = R"({"completed":1})"}));
  for (std::int64_t day = 100; day < 130; ++day) {
    for (int i = 0; i < 3; ++i) {
      days.add(usage_of("ann", "m", day));
      const auto rows = days.unwritten().rows;
      ASSERT_EQ(rows.size(), 1u);
      EXPECT_EQ(rows[0].day, day);
      days.written();
    }
  }
}

TEST(UsageDays, NamesThatAreMadeUpShareOneCounter) {
  UsageDays days;
  days.start(0);
  for (std::size_t i = 0; i < kMeters + 100; ++i) days.add(usage_of("ann", "m" + std::to_string(i), 7));
  EXPECT_EQ(days.since(0, {}, {}, {}).size(), kMeters + 1);
  EXPECT_EQ(requests_of(days.since(0, {}, {}, {})), kMeters + 100);
  Record unknown = usage_of("ann", "nobody has it", 7, End::refused);
  unknown.tries = 0;
  UsageDays other;
  other.add(unknown);
  EXPECT_EQ(std::get<2>(other.since(0, {}, {}, {}).begin()->first), "");
}

TEST(UsageDays, FiguresThatMakeNoSenseAreLeftOut) {
  UsageDays days;
  EXPECT_FALSE(days.restore({.day = 1, .principal = "a", .model = "m", .figures = ""}));
  EXPECT_FALSE(days.restore({.day = 1, .principal = "a", .model = "m", .figures = "[1]"}));
  EXPECT_TRUE(days.restore({.day = 1, .principal = "a", .model = "m", .figures = R"({"bytes":-5,"failed":"x"})"}));
  EXPECT_EQ(requests_of(days.since(0, {}, {}, {})), 0u);
}

}  // namespace
}  // namespace grange::server::gateway
