// Schedules with a clock, a store and a queue of our own making.
#include "server/schedules.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "base/prng.hpp"

namespace grange::server {
namespace {

constexpr std::int64_t kMinute = 60'000, kHour = 60 * kMinute;
constexpr WallMs kStart{1'735'689'600'000};  // 2025-01-01T00:00:00Z

// What outlives a crash: the rows and the jobs, by their keys.
struct World {
  WallMs now = kStart;
  std::map<std::string, store::ScheduleRow> rows;
  std::vector<std::string> keys;  // of jobs, in order; job "n" has keys[n]
  std::set<std::string> running;  // ids of jobs that have not ended
  std::optional<Error> refuse;
  std::vector<std::string> told;
};

class Fixture : public ::testing::Test {
 protected:
  Fixture() { restart(); }
  void restart() {
    answers_.clear();
    schedules_ = std::make_unique<Schedules>(SchedulePorts{
        .now = [this] { return world_.now; },
        .wake = [this](Millis in) { wake_ = WallMs{world_.now.ms + in.count()}; },
        .submit =
            [this](const store::ScheduleRow&, const std::string& key, auto done) {
              later([this, key, done] {
                if (world_.refuse) return done(*world_.refuse);
                const auto it = std::find(world_.keys.begin(), world_.keys.end(), key);
                const auto id = std::to_string(it - world_.keys.begin());
                if (it != world_.keys.end()) return done(SchedulePorts::Submitted{.job_id = id, .existed = true});
                world_.keys.push_back(key);
                world_.running.insert(id);
                done(SchedulePorts::Submitted{.job_id = id, .existed = false});
              });
            },
        .has_ended = [this](const std::string& id,
                            auto done) { later([this, id, done] { done(!world_.running.contains(id)); }); },
        .save =
            [this](store::ScheduleRow row, auto done) {
              later([this, row, done] {
                world_.rows[row.name] = row;
                done(Result<>{});
              });
            },
        .drop =
            [this](const std::string& name, auto done) {
              later([this, name, done] {
                world_.rows.erase(name);
                done(Result<>{});
              });
            },
        .tell = [this](std::string_view type, const store::ScheduleRow&) { world_.told.emplace_back(type); }});
    std::vector<store::ScheduleRow> rows;
    for (const auto& [name, row] : world_.rows) rows.push_back(row);
    schedules_->load(rows);
    schedules_->look();
  }
  void later(std::function<void()> work) { answers_.push_back(std::move(work)); }
  bool step() {
    if (answers_.empty()) return false;
    auto work = std::move(answers_.front());
    answers_.pop_front();
    work();
    return true;
  }
  void settle() {
    while (step()) {
    }
  }
  // Time passes; the timer rings when it should.
  void to(std::int64_t ms) {
    while (wake_.ms <= ms) {
      world_.now = std::max(world_.now, wake_);
      wake_ = {INT64_MAX};
      schedules_->look();
      settle();
    }
    world_.now = {ms};
  }
  Result<store::ScheduleRow> put(store::ScheduleRow row) {
    std::optional<Result<store::ScheduleRow>> out;
    schedules_->put(std::move(row), [&](Result<store::ScheduleRow> r) { out = std::move(r); });
    settle();
    return std::move(*out);
  }
  store::ScheduleRow row(const std::string& name = "s") { return *schedules_->find(name); }
  static store::ScheduleRow hourly() {
    store::ScheduleRow row;
    row.name = "s";
    row.cron = "@hourly";
    row.file = "{}";
    row.user = "ann";
    return row;
  }

  World world_;
  WallMs wake_{INT64_MAX};
  std::deque<std::function<void()>> answers_;
  std::unique_ptr<Schedules> schedules_;
};

std::string key(std::int64_t ms) {
  return "schedule:s:" + std::to_string(ms);
}

TEST_F(Fixture, RunsOnTheHour) {
  ASSERT_TRUE(put(hourly()).ok());
  to(kStart.ms + 3 * kHour + 5);
  EXPECT_EQ(world_.keys,
            (std::vector<std::string>{key(kStart.ms + kHour), key(kStart.ms + 2 * kHour), key(kStart.ms + 3 * kHour)}));
  EXPECT_EQ(row().runs, 3u);
  EXPECT_EQ(row().left_out, 0u);
  EXPECT_EQ(row().last_job, "2");
  EXPECT_EQ(row().last.ms, kStart.ms + 3 * kHour);
  EXPECT_EQ(row().next.ms, kStart.ms + 4 * kHour);
  EXPECT_EQ(world_.rows["s"].runs, 3u);
}

TEST_F(Fixture, RefusesWhatIsNoSchedule) {
  store::ScheduleRow wrong = hourly();
  wrong.cron = "0 0 30 2 *";
  EXPECT_EQ(put(wrong).error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(schedules_->find("s").error().cls, ErrorClass::not_found);
  bool told = false;
  schedules_->drop("s", [&](Result<> r) { told = !r.ok() && r.error().cls == ErrorClass::not_found; });
  EXPECT_TRUE(told);
  told = false;
  schedules_->run("s", [&](auto r) { told = !r.ok() && r.error().cls == ErrorClass::not_found; });
  EXPECT_TRUE(told);
  told = false;
  schedules_->set_paused("s", true, [&](auto r) { told = !r.ok() && r.error().cls == ErrorClass::not_found; });
  EXPECT_TRUE(told);
}

// Crashes anywhere: between the submit and its answer, between the answer and the write. No run is lost or made twice.
TEST_F(Fixture, ACrashNeitherLosesNorDoublesARun) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    world_ = {};
    wake_ = {INT64_MAX};
    restart();
    Prng prng(seed);
    store::ScheduleRow every = hourly();
    every.cron = "*/10 * * * *";
    every.overlap = prng.below(2) == 0;
    ASSERT_TRUE(put(every).ok());
    const std::int64_t end = kStart.ms + 5 * kHour;
    while (world_.now.ms < end) {
      if (wake_.ms < INT64_MAX) world_.now = std::max(world_.now, wake_);
      wake_ = {INT64_MAX};
      schedules_->look();
      for (std::uint64_t steps = prng.below(5); steps > 0; --steps) step();
      world_.running.clear();
      if (prng.below(3) == 0) {
        world_.now.ms += static_cast<std::int64_t>(prng.below(20'000));
        restart();
      }
      settle();
    }
    const std::set<std::string> once(world_.keys.begin(), world_.keys.end());
    EXPECT_EQ(once.size(), world_.keys.size()) << "seed " << seed;
    for (std::int64_t t = kStart.ms + 10 * kMinute; t < end; t += 10 * kMinute)
      EXPECT_TRUE(once.contains(key(t))) << "seed " << seed << ": " << t - kStart.ms;
    EXPECT_EQ(row().runs, once.size()) << "seed " << seed;
  }
}

TEST_F(Fixture, WhatWasMissedIsLeftOutOrCaughtUpOnce) {
  ASSERT_TRUE(put(hourly()).ok());
  store::ScheduleRow caught = hourly();
  caught.name = "c";
  caught.catch_up = true;
  ASSERT_TRUE(put(caught).ok());
  world_.now.ms += 10 * kHour + 30 * kMinute;  // nobody was there
  restart();
  settle();
  EXPECT_EQ(row().runs, 0u);
  EXPECT_EQ(row().left_out, 10u);
  EXPECT_EQ(row("c").runs, 1u);
  EXPECT_EQ(world_.keys, (std::vector<std::string>{"schedule:c:" + std::to_string(kStart.ms + kHour)}));
  to(kStart.ms + 11 * kHour);
  EXPECT_EQ(row().runs, 1u);
  EXPECT_EQ(row("c").runs, 2u);
  // Half a minute late is not missed.
  world_.now.ms += kHour + 30'000;
  restart();
  settle();
  EXPECT_EQ(row().runs, 2u);
  EXPECT_EQ(row().left_out, 10u);
}

TEST_F(Fixture, NoTwoRunsAtOnceWhereThatIsNotWanted) {
  store::ScheduleRow alone = hourly();
  alone.overlap = false;
  ASSERT_TRUE(put(alone).ok());
  to(kStart.ms + 3 * kHour);
  EXPECT_EQ(row().runs, 1u);
  EXPECT_EQ(row().left_out, 2u);
  world_.running.clear();
  to(kStart.ms + 4 * kHour);
  EXPECT_EQ(row().runs, 2u);
  EXPECT_NE(std::find(world_.told.begin(), world_.told.end(), "schedule_left_out"), world_.told.end());
}

TEST_F(Fixture, ARefusalForNowIsTriedAgainAndKept) {
  ASSERT_TRUE(put(hourly()).ok());
  world_.refuse = Error{ErrorClass::storage_full, "no room"};
  to(kStart.ms + kHour + 25'000);
  EXPECT_EQ(row().last_error, "no room");
  EXPECT_EQ(world_.rows["s"].last_error, "no room");
  EXPECT_EQ(row().runs, 0u);
  world_.refuse.reset();
  to(kStart.ms + kHour + 40'000);
  EXPECT_EQ(world_.keys, std::vector<std::string>{key(kStart.ms + kHour)});
  EXPECT_EQ(row().last_error, "");
  // What is wrong for good is not asked again before the next time.
  world_.refuse = Error{ErrorClass::not_found, "its blob is gone"};
  to(kStart.ms + 2 * kHour + 30 * kMinute);
  EXPECT_EQ(row().last_error, "its blob is gone");
  EXPECT_EQ(row().left_out, 1u);
  EXPECT_EQ(row().next.ms, kStart.ms + 3 * kHour);
  EXPECT_EQ(std::count(world_.told.begin(), world_.told.end(), "schedule_failed"), 2);
}

TEST_F(Fixture, PauseResumeRunAndReplace) {
  ASSERT_TRUE(put(hourly()).ok());
  const auto paused = [&](bool yes) {
    schedules_->set_paused("s", yes, [](auto r) { EXPECT_TRUE(r.ok()); });
    settle();
  };
  paused(true);
  to(kStart.ms + 5 * kHour);
  world_.now = {kStart.ms + 5 * kHour + 1};
  EXPECT_TRUE(world_.keys.empty());
  paused(false);
  EXPECT_TRUE(world_.keys.empty()) << "what was paused is not caught up";
  EXPECT_EQ(row().next.ms, kStart.ms + 6 * kHour);
  std::string job;
  schedules_->run("s", [&](Result<SchedulePorts::Submitted> r) { job = r ? r->job_id : "none"; });
  settle();
  EXPECT_EQ(job, "0");
  EXPECT_EQ(row().runs, 1u);
  store::ScheduleRow daily = hourly();
  daily.cron = "@daily";
  ASSERT_TRUE(put(daily).ok());
  EXPECT_EQ(row().runs, 1u);
  EXPECT_EQ(row().next.ms, kStart.ms + 24 * kHour);
  schedules_->drop("s", [](Result<> r) { EXPECT_TRUE(r.ok()); });
  settle();
  EXPECT_EQ(schedules_->size(), 0u);
  EXPECT_TRUE(world_.rows.empty());
}

TEST_F(Fixture, AClockThatWasSetDoesNotStallOrDoubleIt) {
  ASSERT_TRUE(put(hourly()).ok());
  to(kStart.ms + kHour + 1);
  EXPECT_EQ(world_.keys.size(), 1u);
  world_.now.ms -= 5;  // a correction
  schedules_->look();
  settle();
  EXPECT_EQ(row().next.ms, kStart.ms + 2 * kHour);
  world_.now.ms += 30 * 24 * kHour;  // a month ahead by mistake, then back
  schedules_->look();
  settle();
  world_.now.ms -= 30 * 24 * kHour;
  schedules_->look();
  settle();
  EXPECT_EQ(row().next.ms, kStart.ms + 2 * kHour);
  to(kStart.ms + 2 * kHour);
  EXPECT_NE(std::find(world_.keys.begin(), world_.keys.end(), key(kStart.ms + 2 * kHour)), world_.keys.end());
}

}  // namespace
}  // namespace grange::server
