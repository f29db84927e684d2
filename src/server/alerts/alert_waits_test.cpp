#include "server/alerts/alert_waits.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace grange::server {
namespace {

constexpr std::uint32_t kStuck = 100'000;

// A farm of jobs that wait, looked at every 5 s as the server does.
class Waits {
 public:
  std::map<JobNo, WaitingJob> jobs;
  std::int64_t second = 1000;

  // on_purpose: what an explanation would say of it.
  void add(std::uint32_t number, int waited, bool on_purpose) {
    jobs[JobNo{number}] = {.job = JobNo{number}, .waited = Micros{waited * 1'000'000ll}};
    if (on_purpose) wanted_.insert(JobNo{number});
  }
  std::vector<JobNo> look(std::size_t most) {
    std::vector<WaitingJob> waiting;
    for (const auto& [no, one] : jobs) waiting.push_back(one);
    const auto chosen = to_explain(waiting, most, {second * 1'000'000});
    for (const JobNo no : chosen) {
      WaitingJob& one = jobs.at(no);
      one.known = true;
      one.on_purpose = wanted_.contains(no);
      one.open = !one.on_purpose;
      one.looked = {second * 1'000'000};
    }
    second += 5;
    return chosen;
  }

 private:
  std::set<JobNo> wanted_;
};

TEST(AlertWaits, AJobBehindManyThatWaitOnPurposeIsSeenAndLookedAtAgain) {
  Waits waits;
  for (std::uint32_t i = 1; i <= 900; ++i) waits.add(i, 3600, true);
  waits.add(kStuck, 60, false);
  std::int64_t seen = 0, last = 0, longest = 0;
  for (int i = 0; i < 200; ++i) {
    const std::int64_t at = waits.second;
    const auto chosen = waits.look(50);
    if (std::find(chosen.begin(), chosen.end(), JobNo{kStuck}) == chosen.end()) continue;
    if (seen == 0) seen = at;
    if (last != 0) longest = std::max(longest, at - last);
    last = at;
  }
  ASSERT_NE(seen, 0);
  EXPECT_LE(seen, 1000 + 900 / 50 * 5) << "those that wait on purpose do not come twice before it";
  EXPECT_LE(longest, 5) << "what is told of is looked at each time";
  EXPECT_GE(last, 1990);
}

TEST(AlertWaits, AFreshJobNeedNotWaitForThoseThatAreKnown) {
  Waits waits;
  for (std::uint32_t i = 1; i <= 300; ++i) waits.add(i, 3600, i % 2 == 0);
  for (int i = 0; i < 40; ++i) waits.look(20);
  for (const auto& [no, one] : waits.jobs) EXPECT_TRUE(one.known) << no.value;
  waits.add(kStuck, 1, false);
  const auto chosen = waits.look(2);
  EXPECT_EQ(chosen.size(), 2u);
  EXPECT_NE(std::find(chosen.begin(), chosen.end(), JobNo{kStuck}), chosen.end());
}

TEST(AlertWaits, NoneIsForgotten) {
  Waits waits;
  for (std::uint32_t i = 1; i <= 100; ++i) waits.add(i, 3600, i > 40);
  std::map<JobNo, int> looks;
  for (int i = 0; i < 400; ++i) {
    std::set<JobNo> once;
    for (const JobNo no : waits.look(10)) EXPECT_TRUE(once.insert(no).second);
    EXPECT_LE(once.size(), 10u);
    for (const JobNo no : once) ++looks[no];
  }
  EXPECT_EQ(looks.size(), 100u);
  for (const auto& [no, n] : looks) EXPECT_GE(n, no.value > 40 ? 1 : 20) << no.value;
}

TEST(AlertWaits, AJobWithAnAlertIsLookedAtAlthoughItMayWaitOnPurposeNow) {
  const WaitingJob open{.job = JobNo{1}, .known = true, .on_purpose = true, .open = true, .looked = {995'000'000}};
  const WaitingJob not_open{.job = JobNo{2}, .known = true, .on_purpose = true, .looked = {995'000'000}};
  EXPECT_EQ(to_explain({open, not_open}, 50, {1000'000'000}), std::vector<JobNo>{JobNo{1}});
}

TEST(AlertWaits, OneAtATimeIsEnoughForAll) {
  Waits waits;
  for (std::uint32_t i = 1; i <= 100; ++i) waits.add(i, 3600, i % 2 == 0);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(waits.look(1).size(), 1u);
  for (const auto& [no, one] : waits.jobs) {
    EXPECT_TRUE(one.known) << no.value;
    if (!one.on_purpose) {
      EXPECT_GE(one.looked.us, 1'400'000'000) << no.value;
    }
  }
}

TEST(AlertWaits, ManyWorkersOrJobsMeanFewExplanationsAtOnce) {
  EXPECT_EQ(explains_at_once(0, 0), 50u);
  EXPECT_EQ(explains_at_once(2, 1000), 50u);
  for (const std::size_t workers : {1u, 20u, 100u, 250u, 499u}) {
    for (const std::size_t jobs : {0u, 1000u, 20'000u, 1'000'000u}) {
      const std::size_t n = explains_at_once(workers, jobs);
      EXPECT_GE(n, 1u);
      if (n == 1) continue;  // what a person may ask for, too
      EXPECT_LE(n * workers, 500u) << workers << " workers, " << jobs << " jobs";
      EXPECT_LE(n * std::min<std::size_t>(jobs, 20'000), 100'000u) << workers << " workers, " << jobs << " jobs";
    }
  }
  EXPECT_EQ(explains_at_once(2000, 0), 1u);
  EXPECT_EQ(explains_at_once(50'000, 1'000'000), 1u);
}

}  // namespace
}  // namespace grange::server
