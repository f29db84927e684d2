#include "server/live_events.hpp"

#include <gtest/gtest.h>

#include "server/events.hpp"

namespace grange::server {
namespace {

TEST(LiveEvents, OnlyOneLineOfJsonPasses) {
  EXPECT_EQ(live_event("llm_token", "{ \"text\" :\n \"a\\nb\" }"), R"({"text":"a\nb"})");
  EXPECT_EQ(live_event("compute_line", ""), "{}");
  for (const char* bad : {"[]", "1", "{", "{}{}", "{\"a\":\"\xff\"}", "\n"})
    EXPECT_FALSE(live_event("llm_token", bad)) << bad;
  EXPECT_FALSE(live_event("llm_token", "{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}"));
  EXPECT_FALSE(live_event("llm_token", "{\"a\":\"" + std::string(kLiveEvent, 'x') + "\"}"));
}

TEST(LiveEvents, AWorkerDoesNotSpeakForTheServer) {
  for (const char* type : {"", "job_ended", "task_failed", "worker_lost", "run_lifecycle", "gap", "Bad", "a\nb", "a b"})
    EXPECT_FALSE(live_event(type, "{}")) << type;
  for (const char* type : {"job_start", "job_done", "image_progress", "sync_progress"})
    EXPECT_TRUE(live_event(type, "{}")) << type;
}

TEST(LiveEvents, TooManyAreLeftOut) {
  LiveGate gate;
  std::uint32_t taken = 0;
  for (int i = 0; i < 10'000; ++i) taken += gate.take(10, Instant{1'000'000}) ? 1 : 0;
  EXPECT_EQ(taken, kLiveAtOnce);
  EXPECT_EQ(gate.left_out(), 10'000 - kLiveAtOnce);
  taken = 0;
  for (int i = 0; i < 10'000; ++i) taken += gate.take(10, Instant{1'000'000 + i * 1000}) ? 1 : 0;
  EXPECT_NEAR(taken, 10 * kLiveRate, kLiveRate / 10);

  LiveGate full;
  Bytes bytes = 0;
  for (int i = 0; i < 1000; ++i) {
    if (full.take(kLiveEvent, Instant{i * 1'000'000ll})) bytes += kLiveEvent;
  }
  EXPECT_EQ(bytes, kLiveBytes);
  EXPECT_FALSE(LiveGate().take(kLiveEvent + 1, {}));
}

TEST(LiveEvents, ARaceHasATopicOfItsOwn) {
  Events events(1);
  std::string bad;
  std::vector<std::string> heard, all;
  const auto into = [](std::vector<std::string>& to) {
    return Events::Sink{.fact =
                            [&to](const Fact& fact) {
                              to.push_back(fact.json);
                              return true;
                            },
                        .gap = [](std::uint64_t) { return true; }};
  };
  events.follow(*Topics::parse({"run:r1"}, bad), std::nullopt, into(heard));
  events.follow(*Topics::parse({"runs"}, bad), std::nullopt, into(all));
  EXPECT_TRUE(events.tasks_followed());
  events.publish(Topic::runs, {}, "", "run_lifecycle", "{}", {}, "r1");
  events.publish(Topic::tasks, {7}, "7", "llm_token", R"({"a":1})", {}, "r1");
  events.publish(Topic::tasks, {8}, "8", "llm_token", "{}", {}, "r2");
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(all.size(), 1u);
  EXPECT_NE(heard[1].find(R"("type":"llm_token","run_id":"r1","job_id":"7")"), std::string::npos) << heard[1];
}

}  // namespace
}  // namespace grange::server
