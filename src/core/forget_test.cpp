// What is over is forgotten: users, kinds, timers.
#include "core/plan_fixture.hpp"

namespace grange::core {
namespace {

using testing::PlanFarm;

void submit_and_cancel(PlanFarm& f, const JobHeader& h) {
  const JobNo job = f.submit(h);
  f.farm.step(CancelJob{job}, f.now, f.effects);
  f.close_batch();
}

TEST(Forget, UsersWithoutJobsAndLimits) {
  PlanFarm f;
  f.farm.step(SetUser{.user = "limited", .limits = {.max_running = 1}}, f.now, f.effects);
  const JobNo stays = f.submit(1, "busy");
  JobHeader h = f.header(1);
  for (std::uint32_t i = 0; i < limits::kUsers + 10; ++i) {
    h.user = "user" + std::to_string(i);
    submit_and_cancel(f, h);
    if (i % 20'000 == 0) f.farm.check_invariants();
  }
  f.farm.check_invariants();
  EXPECT_LT(f.farm.footprint().users, 2000u);
  const auto users = f.farm.users();
  ASSERT_EQ(users.size(), 2u);
  EXPECT_EQ(users[0].user, "busy");
  EXPECT_EQ(users[1].limits.max_running, 1u);
  EXPECT_TRUE(f.farm.job(stays));
  // Without limits of his own he goes as well, in his turn.
  f.farm.step(SetUser{.user = "limited", .limits = {}}, f.now, f.effects);
  EXPECT_EQ(f.farm.users().size(), 1u);
  f.farm.check_invariants();
}

TEST(Forget, AUserWhoRestsAMomentKeepsHisPlace) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 1);
  const JobNo other = f.submit(10, "other");
  const JobNo greedy = f.submit(1, "greedy");
  std::map<JobNo, SendAssign> sent;
  while (f.farm.job(greedy)) {
    const auto now = f.turn();
    ASSERT_EQ(now.size(), 1u);
    f.start(now[0]);
    f.end(now[0], now[0].fence.task.job() == greedy ? Millis{20'000} : Millis{1000});
    f.close_batch();
  }
  const JobNo again = f.submit(1, "greedy");
  const auto next = f.turn();
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].fence.task.job(), other) << "not " << again.value;
}

TEST(Forget, KindsWithoutJobs) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 1);
  JobHeader h = f.header(1);
  for (std::uint32_t i = 0; i < limits::kKindNames + 100; ++i) {
    h.kind = "kind" + std::to_string(i);
    submit_and_cancel(f, h);
  }
  f.farm.check_invariants();
  EXPECT_EQ(f.farm.footprint().kinds, limits::kKindNames);
  h.kind = "another";
  f.submit(h);
  const auto sent = f.turn();
  ASSERT_EQ(sent.size(), 1u);
  f.end(sent[0], Millis{10});
  f.close_batch();
  f.farm.check_invariants();
}

TEST(Forget, TimersOfWhatEnded) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000'000}});
  JobHeader h = f.header(1);
  constexpr std::int64_t kYear = 365ll * 86'400'000;
  h.not_before = {f.now.wall.ms + kYear};
  const JobNo early = f.submit(h);
  h.not_before = {};
  h.deadline = {f.now.wall.ms + kYear};
  const JobNo bound = f.submit(h);
  for (int i = 0; i < 20'000; ++i) {
    h.deadline = {f.now.wall.ms + kYear + i};
    h.not_before = {f.now.wall.ms + kYear / 2};
    submit_and_cancel(f, h);
  }
  EXPECT_LT(f.farm.footprint().timers, 5000u);
  EXPECT_EQ(f.farm.job(early)->waiting, 0u);
  f.pass(Millis{kYear});
  EXPECT_EQ(f.farm.job(early)->waiting, 1u);
  EXPECT_EQ(f.farm.job(bound)->counts.failed, 1u) << "its own deadline still counts";
}

}  // namespace
}  // namespace grange::core
