// What is under way at a service stays in the ledger until the service has heard that it is cancelled.
#include <deque>
#include <fstream>

#include "worker/engines/engine_testing.hpp"
#include "worker/engines/remote_run.hpp"

namespace grange::worker {
namespace {

constexpr RemoteTimes kImpatient{
    .poll_first = Millis{20}, .poll_last = Millis{20}, .cancel = Millis{50}, .look = Millis{10}};
const std::string kCreate = "POST /v1/models/o/n/predictions";
const std::string kStatus = "GET /v1/predictions/p1";
const std::string kCancel = "POST /v1/predictions/p1/cancel";

class RemotesLeftOpen : public EngineTest {
 protected:
  RemotesLeftOpen() {
    on_loop([&] {
      net::ListenerHandlers handlers;
      handlers.on_http = [this](HttpExchangePtr e) { serve(std::move(e)); };
      server = std::move(*net::listen(loop, {}, std::move(handlers)));
      url = "http://127.0.0.1:" + std::to_string(server->port());
      services.add("replicate", "replicate", url);
      services.all.back().key = "r8_test_0123456789";
    });
    script[kCreate] = {{201, R"({"id":"p1","status":"starting"})"}};
    script[kStatus] = {{200, R"({"id":"p1","status":"processing"})"}};
  }
  ~RemotesLeftOpen() override {
    on_loop([&] {
      engine.reset();
      held.clear();
      server.reset();
    });
  }
  struct Said {
    int status;  // 0: nothing is said
    std::string body = "{}";
  };
  void serve(HttpExchangePtr e) {
    const std::string what = e->request().method + " " + e->request().path;
    ++asked[what];
    auto& next = script[what];
    if (next.empty()) return e->respond({404, {}, "{}"});
    const Said one = next.front();
    if (next.size() > 1) next.pop_front();
    if (one.status == 0) return held.push_back(std::move(e));
    e->respond({one.status, {{"Content-Type", "application/json"}}, one.body});
  }
  void start() {
    on_loop([&] { engine = make_remote_engine(*context, kImpatient); });
  }
  void predict() {
    pb::JobSpec job;
    job.mutable_remote()->set_service("replicate");
    job.mutable_remote()->set_op("predict");
    job.mutable_remote()->set_target("o/n");
    job.mutable_remote()->set_input_json(R"({"a":1})");
    run(job);
  }
  std::string line(const std::string& id) const { return "replicate " + url + " /v1/predictions/" + id + "/cancel"; }
  std::string kept() { return net::testing::contents(ledger); }
  bool forgotten() {
    return eventually([&] { return kept().empty(); });
  }
  void say(const std::string& what, std::deque<Said> next) {
    on_loop([&] { script[what] = std::move(next); });
  }
  std::size_t left_to_say(const std::string& what) {
    std::size_t out = 0;
    on_loop([&] { out = script[what].size(); });
    return out;
  }
  int times(const std::string& what) {
    int out = 0;
    on_loop([&] { out = asked[what]; });
    return out;
  }

  const std::string ledger = scratch.file("remote-open");
  std::unique_ptr<net::Listener> server;
  std::string url;
  std::map<std::string, std::deque<Said>> script;
  std::map<std::string, int> asked;
  std::vector<HttpExchangePtr> held;
};

// The run ends; that it was not heard is mended later, by the same worker.
TEST_F(RemotesLeftOpen, ACancelThatWasRefusedIsRepeated) {
  script[kStatus] = {{400, "{}"}};
  script[kCancel] = {{503}};
  start();
  predict();
  ASSERT_TRUE(ended());
  EXPECT_FALSE(host.ends.back().result.ok());
  EXPECT_NE(kept().find(line("p1")), std::string::npos);
  say(kCancel, {{503}, {401}, {403}, {408}, {429}, {200}});
  EXPECT_TRUE(forgotten());
  EXPECT_EQ(left_to_say(kCancel), 1u);
}

TEST_F(RemotesLeftOpen, ACancelWithoutAnAnswerIsRepeated) {
  script[kCancel] = {{0}, {503}};
  start();
  predict();
  ASSERT_TRUE(eventually([&] { return asked[kStatus] > 0; }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  ASSERT_TRUE(ended());
  EXPECT_EQ(host.ends.back().result.failure(), pb::FAILURE_CANCELLED);
  EXPECT_NE(kept().find(line("p1")), std::string::npos);
  say(kCancel, {{409}});
  EXPECT_TRUE(forgotten());
  EXPECT_GE(times(kCancel), 2);
}

TEST_F(RemotesLeftOpen, WhatIsGoneThereIsForgotten) {
  for (const int status : {204, 404, 409, 410}) {
    say(kCancel, {{status}});
    std::ofstream(ledger) << line("p1") << '\n';
    start();
    EXPECT_TRUE(forgotten()) << status;
    on_loop([&] { engine.reset(); });
  }
  EXPECT_EQ(times(kCancel), 4);
}

// More of them than a round has patience for: each still gets its rounds.
TEST_F(RemotesLeftOpen, ManyAreTriedAsOftenAsOne) {
  constexpr int kMany = 150;
  std::ofstream out(ledger);
  for (int i = 0; i < kMany; ++i) {
    const std::string id = "q" + std::to_string(i);
    script["POST /v1/predictions/" + id + "/cancel"] = {{500}, {500}, {500}, {200}};
    out << line(id) << '\n';
  }
  out.close();
  start();
  EXPECT_TRUE(forgotten());
  EXPECT_EQ(times("POST /v1/predictions/q0/cancel"), 4);
}

TEST_F(RemotesLeftOpen, NothingIsTriedForLongerThanADay) {
  const std::int64_t now = clock.now().wall.ms, day = 86'400'000;
  script[kCancel] = {{503}};
  std::ofstream(ledger) << line("old") << ' ' << now - day << '\n' << line("p1") << ' ' << now - day / 2 << '\n';
  start();
  EXPECT_TRUE(eventually([&] { return asked[kCancel] > 1; }));
  EXPECT_EQ(kept(), line("p1") + ' ' + std::to_string(now - day / 2) + '\n');
  EXPECT_EQ(times("POST /v1/predictions/old/cancel"), 0);
}

}  // namespace
}  // namespace grange::worker
