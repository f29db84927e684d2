#include "core/cron.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/prng.hpp"

namespace grange::core {
namespace {

constexpr std::int64_t kMinute = 60'000, kDay = 86'400'000;

// 2025-01-01T00:00:00Z, a Wednesday
constexpr WallMs kNewYear{1'735'689'600'000};

WallMs next(const char* line, WallMs from = kNewYear) {
  auto cron = Cron::parse(line);
  EXPECT_TRUE(cron.ok()) << line << ": " << cron.error().message;
  return cron ? cron->next_after(from) : WallMs{};
}

TEST(Cron, KnownTimes) {
  EXPECT_EQ(next("* * * * *").ms, kNewYear.ms + kMinute);
  EXPECT_EQ(next("*/15 * * * *").ms, kNewYear.ms + 15 * kMinute);
  EXPECT_EQ(next("@hourly").ms, kNewYear.ms + 60 * kMinute);
  EXPECT_EQ(next("@Daily").ms, kNewYear.ms + kDay);
  EXPECT_EQ(next("@weekly").ms, kNewYear.ms + 4 * kDay);  // Sunday the 5th
  EXPECT_EQ(next("@monthly").ms, kNewYear.ms + 31 * kDay);
  EXPECT_EQ(next("@yearly").ms, kNewYear.ms + 365 * kDay);
  EXPECT_EQ(next("30 4 * * mon-fri").ms, kNewYear.ms + 270 * kMinute);
  EXPECT_EQ(next("30 4 * * 1").ms, kNewYear.ms + 5 * kDay + 270 * kMinute);
  EXPECT_EQ(next("0 0 * * 7").ms, next("0 0 * * sun").ms);
  EXPECT_EQ(next("0 0 * * fri-sun").ms, kNewYear.ms + 2 * kDay);
  EXPECT_EQ(next("0 0 29 2 *").ms, 1'835'395'200'000);                       // 2028-02-29
  EXPECT_EQ(next("0 0 29 2 *", {3'981'744'000'000}).ms, 4'233'686'400'000);  // over 2100, which has none
  EXPECT_EQ(next("5,10-12,50/5 1 1 JAN *").ms, kNewYear.ms + 65 * kMinute);
  EXPECT_EQ(next("0 0 13 * fri").ms, kNewYear.ms + 2 * kDay) << "either day will do";
  // Strictly after, on the minute, and to the millisecond.
  EXPECT_EQ(next("0 * * * *", {kNewYear.ms - 1}).ms, kNewYear.ms);
  EXPECT_EQ(next("0 * * * *", {kNewYear.ms}).ms, kNewYear.ms + 60 * kMinute);
  EXPECT_EQ(next("0 0 1 1 *", {-5}).ms, 0);
}

TEST(Cron, RefusesWhatIsNoSchedule) {
  for (const char* line : {"",
                           "*",
                           "* * * *",
                           "* * * * * *",
                           "60 * * * *",
                           "* 24 * * *",
                           "* * 0 * *",
                           "* * 32 * *",
                           "* * * 13 *",
                           "* * * * 8",
                           "5-1 * * * *",
                           "*/0 * * * *",
                           "*/x * * * *",
                           "a * * * *",
                           "1, * * * *",
                           "1--2 * * * *",
                           "-1 * * * *",
                           "* * * jan-x *",
                           "@soon",
                           "@",
                           "99999999999999999999 * * * *",
                           "*/99 * * * *"}) {
    const auto cron = Cron::parse(line);
    EXPECT_FALSE(cron.ok()) << line;
    if (!cron) {
      EXPECT_EQ(cron.error().cls, ErrorClass::invalid_argument);
    }
  }
  for (const char* never : {"0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 feb *"}) {
    const auto cron = Cron::parse(never);
    ASSERT_FALSE(cron.ok()) << never;
    EXPECT_NE(cron.error().message.find("never runs"), std::string::npos);
  }
  EXPECT_TRUE(Cron::parse("0 0 30 2 mon").ok()) << "Mondays in February do come";
}

// The clock of another hand: minute by minute from a known day, with the calendar counted out.
class Walk {
 public:
  explicit Walk(WallMs from) {
    while (days_ * kDay + kDay <= from.ms) next_day();
    minute_ = (from.ms - days_ * kDay) / kMinute;
  }
  void step() {
    if (++minute_ < 24 * 60) return;
    minute_ = 0;
    next_day();
  }
  WallMs at() const { return {days_ * kDay + minute_ * kMinute}; }
  int minute() const { return static_cast<int>(minute_ % 60); }
  int hour() const { return static_cast<int>(minute_ / 60); }
  int day() const { return day_; }
  int month() const { return month_; }
  int weekday() const { return weekday_; }

 private:
  void next_day() {
    ++days_;
    weekday_ = (weekday_ + 1) % 7;
    const bool leap = (year_ % 4 == 0 && year_ % 100 != 0) || year_ % 400 == 0;
    const int lengths[] = {31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (++day_ <= lengths[month_ - 1]) return;
    day_ = 1;
    if (++month_ <= 12) return;
    month_ = 1;
    ++year_;
  }
  std::int64_t days_ = 0, minute_ = 0;
  int year_ = 1970, month_ = 1, day_ = 1, weekday_ = 4;
};

struct Drawn {
  std::string text;
  std::vector<bool> in;
  bool any = false;
};

Drawn draw(Prng& prng, int least, int most) {
  Drawn out;
  out.in.assign(static_cast<std::size_t>(most) + 1, false);
  const auto below = [&](int n) { return static_cast<int>(prng.below(static_cast<std::uint64_t>(n))); };
  if (below(3) == 0) {
    out.text = "*";
    out.any = true;
    out.in.assign(out.in.size(), true);
    return out;
  }
  for (int parts = 1 + below(3); parts > 0; --parts) {
    const int first = least + below(most - least + 1);
    const int last = first + below(most - first + 1);
    const int step = 1 + below(5);
    std::string part;
    switch (below(3)) {
      case 0:
        part = std::to_string(first);
        out.in[static_cast<std::size_t>(first)] = true;
        break;
      case 1:
        part = std::to_string(first) + "-" + std::to_string(last) + "/" + std::to_string(step);
        for (int n = first; n <= last; n += step) out.in[static_cast<std::size_t>(n)] = true;
        break;
      default:
        part = "*/" + std::to_string(step);
        for (int n = least; n <= most; n += step) out.in[static_cast<std::size_t>(n)] = true;
        break;
    }
    out.text += (out.text.empty() ? "" : ",") + part;
  }
  return out;
}

TEST(Cron, EqualsAMinuteByMinuteSearch) {
  int searched = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Prng prng(seed);
    const Drawn minute = draw(prng, 0, 59), hour = draw(prng, 0, 23), day = draw(prng, 1, 31),
                month = draw(prng, 1, 12), weekday = draw(prng, 0, 6);
    const std::string line = minute.text + " " + hour.text + " " + day.text + " " + month.text + " " + weekday.text;
    const WallMs from{static_cast<std::int64_t>(prng.below(4'000'000'000'000))};  // to 2096
    const auto has = [](const Drawn& d, int n) { return static_cast<bool>(d.in[static_cast<std::size_t>(n)]); };
    auto cron = Cron::parse(line);
    if (!cron) {
      EXPECT_NE(cron.error().message.find("never runs"), std::string::npos) << line;
      continue;
    }
    Walk walk(from);
    bool found = false;
    for (int i = 0; i < 60 * 24 * 400 && !found; ++i) {
      walk.step();
      const bool both = has(day, walk.day()) && has(weekday, walk.weekday());
      const bool either = has(day, walk.day()) || has(weekday, walk.weekday());
      found = has(minute, walk.minute()) && has(hour, walk.hour()) && has(month, walk.month()) &&
              (day.any || weekday.any ? both : either);
    }
    const WallMs next = cron->next_after(from);
    if (!found) {
      EXPECT_GT(next.ms, walk.at().ms) << line;  // rarer than the search is long
      continue;
    }
    ++searched;
    ASSERT_EQ(next.ms, walk.at().ms) << line << " after " << from.ms << ", seed " << seed;
    EXPECT_TRUE(cron->matches(next));
  }
  EXPECT_GT(searched, 300);
}

}  // namespace
}  // namespace grange::core
