#include "server/overview/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace grange::server {
namespace {

std::vector<std::string> kinds(const AttentionLook& look) {
  std::vector<std::string> out;
  for (const Attention& one : attention(look)) out.push_back(one.kind + ":" + one.severity);
  return out;
}

TEST(Attention, AFarmThatDoesWellHasNothing) {
  EXPECT_TRUE(attention({.workers = 1}).empty());
}

TEST(Attention, NoWorkersIsBadOnlyWhenWorkWaits) {
  EXPECT_EQ(kinds({}), (std::vector<std::string>{"no_workers:info"}));
  EXPECT_NE(attention({})[0].text.find("Add a machine"), std::string::npos);
  EXPECT_NE(attention({.ever_had_workers = true})[0].text.find("have left"), std::string::npos);
  const auto bad = attention({.unfinished_tasks = 1});
  EXPECT_EQ(bad.at(0).severity, "error");
  EXPECT_NE(bad[0].text.find("1 task waits"), std::string::npos) << bad[0].text;
}

TEST(Attention, TheWorstComesFirst) {
  AttentionLook look;
  look.workers = 2;
  look.paused = look.storage_full = true;
  look.waiting = {
      {.job_id = "7", .name = "", .why = "It waits its turn.", .since = Millis{90'000}, .hopeless = false},
      {.job_id = "8", .name = "render", .why = "Waits for GPUs.", .since = Millis{300'000}, .hopeless = true}};
  look.failed = {{.job_id = "9", .name = "nine", .failed = 3, .total = 4, .ago = Millis{5000}}};
  look.quarantined = {{.id = "w1", .name = "attic", .span = Millis{60'000}, .number = 10}};
  look.lost = {{.id = "w2", .name = "", .span = Millis{8'000'000}, .number = 1}};
  look.dead_letters = 100;
  look.more_dead_letters = true;
  EXPECT_EQ(kinds(look), (std::vector<std::string>{"storage_full:error", "job_waits:error", "farm_paused:warn",
                                                   "worker_quarantined:warn", "worker_lost:warn", "job_failed:warn",
                                                   "job_waits:info", "dead_letters:info"}));
  const auto all = attention(look);
  EXPECT_EQ(all[1].job_id, "8");
  EXPECT_EQ(all[1].title, "render has waited for 5 min");
  EXPECT_EQ(all[1].text, "Waits for GPUs.");
  EXPECT_EQ(all[3].worker_id, "w1");
  EXPECT_EQ(all[4].text, "It was last heard of 2 h ago; 1 task it held went to others.");
  EXPECT_EQ(all[6].title, "7 has waited for 90 s") << "a job without a name is called by its id";
  EXPECT_EQ(all[7].title, "More than 100 tasks ended as failed");
}

TEST(Attention, OpenAlertsStandAmongTheRestByHowBadTheyAre) {
  AttentionLook look{.workers = 1, .storage_full = true, .paused = true};
  look.alerts = {{"service_down", "warn", "t", "x"}, {"disk_low", "error", "t", "x"}, {"queue_wait", "info", "t", "x"}};
  EXPECT_EQ(kinds(look), (std::vector<std::string>{"storage_full:error", "disk_low:error", "farm_paused:warn",
                                                   "service_down:warn", "queue_wait:info"}));
}

}  // namespace
}  // namespace grange::server
