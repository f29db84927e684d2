// What a server leaves behind: nothing when it stops, no logs of jobs that were deleted.
#include <thread>

#include "server/server_testing.hpp"
#include "store/logs.hpp"

namespace grange::server {
namespace {

using namespace testing;

std::size_t entries(const char* folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

struct Open {
  std::size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  std::int64_t coroutines = net::open_counts().coroutines, connections = net::open_counts().connections;
  bool operator==(const Open&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Open& open) {
  return out << open.files << " files, " << open.threads << " threads, " << open.coroutines << " coroutines, "
             << open.connections << " connections";
}

// Closing goes on behind the last answer: until it is so, or for as long as a shutdown may take.
Open settled(const Open& wanted) {
  const auto end = std::chrono::steady_clock::now() + limits::kShutdown;
  for (;;) {
    const Open now;
    if (now == wanted || std::chrono::steady_clock::now() > end) return now;
    std::this_thread::sleep_for(10ms);
  }
}

TEST_F(Whole, AStopLeavesNothing) {
  client_ = nullptr;
  const Open before = settled(Open());
  client_ = std::make_unique<net::HttpClient>(loop_);
  start();
  {
    ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 5));
    ASSERT_TRUE(worker.next()->has_welcome());
    ProtoPeer client(loop_, ws(), client_hello("c1"));
    ASSERT_TRUE(client.next()->has_welcome());
    client.send(echo(1, 20));
    ASSERT_TRUE(client.next()->has_response());
    ASSERT_TRUE(worker.next()->has_orders());
    Line json(loop_, ws());
    json.say(R"({"type":"register_worker","worker_id":"w2"})");
    json.say(R"({"type":"ping"})");
    EXPECT_EQ(json.hear().at("type").as_string(), "pong");
    // The streams are cut, not ended: a follower must not take it for the end of what it follows.
    const auto stream = [&](const std::string& path) {
      std::string heard;
      const auto answer = client_->fetch(
          {.url = server_->url() + path, .on_chunk = [&heard](std::string_view bytes) { heard += bytes; }});
      EXPECT_FALSE(answer.ok());
      return heard;
    };
    auto events = std::async(std::launch::async, stream, "/api/events");
    auto logs = std::async(std::launch::async, stream, "/api/jobs/1/logs?follow=1");
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (ask("GET", "/metrics").body.find("grange_event_followers 1") == std::string::npos) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
    }
    stop();
    ASSERT_EQ(events.wait_for(kPatience), std::future_status::ready) << "the stream ends with its server";
    EXPECT_NE(events.get().find("server_stopping"), std::string::npos);
    ASSERT_EQ(logs.wait_for(kPatience), std::future_status::ready);
    EXPECT_TRUE(json.closes());
  }
  client_ = nullptr;
  EXPECT_EQ(settled(before), before);
}

TEST_F(Whole, LogsGoWithTheirJob) {
  start();
  {
    ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
    ASSERT_TRUE(worker.next()->has_welcome());
    ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"}})").status, 201);
    const auto orders = worker.next();
    ASSERT_TRUE(orders && orders->has_orders());
    const pb::Assignment& assign = orders->orders().assign(0);
    pb::Frame frame;
    pb::LogChunk& log = *frame.mutable_report()->add_logs();
    log.set_task(assign.task());
    log.set_attempt(assign.attempt());
    log.set_epoch(assign.epoch());
    log.set_data("a line\n");
    pb::TaskResult& result = *frame.mutable_report()->add_results();
    result.set_task(assign.task());
    result.set_attempt(assign.attempt());
    result.set_epoch(assign.epoch());
    result.set_ok(true);
    worker.send(frame);
    EXPECT_EQ(get("/api/jobs/1?wait=5").as_object().at("status").as_string(), "completed");
    EXPECT_EQ(get("/api/jobs/1/logs").as_array().size(), 1u);
  }
  stop();
  retain_jobs_ = 0;
  start();
  const auto end = std::chrono::steady_clock::now() + kPatience;
  auto logs = store::LogStore::open(folder_.path());
  ASSERT_TRUE(logs.ok());
  while (!(*logs)->read(JobNo{1}, std::nullopt, 0, 10)->empty()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "the job's log is still there";
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(ask("GET", "/api/jobs/1").status, 404);
}

}  // namespace
}  // namespace grange::server
