// FarmClient against a server that the test plays: what it says again, and what it hands out, over lost connections.
#include "cli/farm_client.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "net/listener.hpp"
#include "wire/session.hpp"

namespace grange::cli {
namespace {

class FarmClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop.start_thread();
    net::ListenerHandlers handlers;
    handlers.on_http = [](net::HttpExchangePtr exchange) { exchange->respond(net::HttpResponse::json(404, "{}")); };
    handlers.on_websocket = [this](net::ConnectionPtr up, const net::HttpRequest&) { accept(std::move(up)); };
    auto listening = net::listen(loop, {}, std::move(handlers));
    ASSERT_TRUE(listening.ok());
    listener = std::move(listening).value();
  }
  void TearDown() override {
    client.reset();
    on_loop([&] {
      peer.reset();
      listener.reset();
    });
    loop.stop();
  }

  void on_loop(std::function<void()> work) {
    std::mutex mutex;
    std::condition_variable done;
    bool over = false;
    loop.post([&] {
      work();
      const std::lock_guard lock(mutex);
      over = true;
      done.notify_all();
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return over; });
  }

  // True when `check`, asked on the loop, came true in time.
  bool eventually(const std::function<bool()>& check) {
    for (int i = 0; i < 500; ++i) {
      bool now = false;
      on_loop([&] { now = check(); });
      if (now) return true;
      std::this_thread::sleep_for(Millis{10});
    }
    return false;
  }

  void accept(net::ConnectionPtr up) {
    peer = std::move(up);
    net::ConnectionEvents events;
    events.on_message = [this](std::string bytes, bool) { take(bytes); };
    events.on_closed = [](Error) {};
    peer->set_events(std::move(events));
  }

  void take(const std::string& bytes) {
    pb::Frame frame;
    ASSERT_TRUE(wire::decode(bytes, frame).ok());
    if (frame.has_hello()) {
      ++hellos;
      pb::Frame answer;
      pb::Welcome* welcome = answer.mutable_welcome();
      welcome->set_protocol(1);
      welcome->set_resumed(hellos > 1 && resumes);
      std::vector<std::string> again;
      if (welcome->resumed()) {
        ASSERT_TRUE(session.resend(frame.hello().received(), again));
      } else {
        session.reset();
      }
      welcome->set_received(session.received());
      peer->send(session.unnumbered(answer), true);
      for (auto& one : again) peer->send(one, true);
      return;
    }
    if (session.arrived(frame) != wire::Session::Verdict::fresh) return;
    if (frame.has_request()) requests.push_back(frame.request());
  }

  void say(pb::Frame frame) { peer->send(session.number(frame), true); }
  void answer(const pb::Request& request, const std::string& job) {
    pb::Frame frame;
    frame.mutable_response()->set_id(request.id());
    frame.mutable_response()->mutable_job()->set_job_id(job);
    say(std::move(frame));
  }
  void outcomes(const std::string& job, const std::vector<std::uint32_t>& indices) {
    pb::Frame frame;
    frame.mutable_outcomes()->set_job_id(job);
    for (const std::uint32_t index : indices) {
      pb::Outcome* outcome = frame.mutable_outcomes()->add_outcomes();
      outcome->set_index(index);
      outcome->set_end(pb::TASK_COMPLETED);
    }
    say(std::move(frame));
  }
  void lose() {
    on_loop([&] { peer->close(1001, "going"); });
  }

  void connect() {
    FarmClient::Events events;
    events.on_outcomes = [this](const pb::Outcomes& some) {
      for (const pb::Outcome& outcome : some.outcomes()) got.push_back(outcome.index());
    };
    client = std::make_unique<FarmClient>(
        loop, FarmClientOptions{"ws://127.0.0.1:" + std::to_string(listener->port()) + "/ws", "", 0},
        std::move(events));
    const auto connected = client->connect(Millis{5000});
    ASSERT_TRUE(connected.ok()) << connected.error().message;
  }
  static pb::JobSpec spec() {
    pb::JobSpec spec;
    spec.set_engine("builtin");
    spec.set_count(10);
    return spec;
  }

  net::Loop loop;
  std::unique_ptr<net::Listener> listener;
  net::ConnectionPtr peer;
  wire::Session session;
  bool resumes = true;
  int hellos = 0;
  std::vector<pb::Request> requests;
  std::vector<std::uint32_t> got;
  int answers = 0;
  std::unique_ptr<FarmClient> client;
};

TEST_F(FarmClientTest, SubmitsAndHandsOutcomesOut) {
  connect();
  client->submit(spec(), {}, true,
                 [&](const pb::Response& response) { answers += response.job().job_id() == "7" ? 1 : 100; });
  ASSERT_TRUE(eventually([&] { return requests.size() == 1; }));
  EXPECT_TRUE(requests[0].submit().follow());
  EXPECT_FALSE(requests[0].submit().spec().key().empty()) << "or it could not be repeated safely";
  on_loop([&] {
    answer(requests[0], "7");
    outcomes("7", {0, 1, 2, 5});
  });
  EXPECT_TRUE(eventually([&] { return answers == 1 && got == std::vector<std::uint32_t>{0, 1, 2, 5}; }));
}

TEST_F(FarmClientTest, AResumedSessionRepeatsNothing) {
  connect();
  client->submit(spec(), {}, true, [&](const pb::Response&) { ++answers; });
  ASSERT_TRUE(eventually([&] { return requests.size() == 1; }));
  on_loop([&] {
    answer(requests[0], "7");
    outcomes("7", {0, 1});
  });
  ASSERT_TRUE(eventually([&] { return got.size() == 2; }));
  lose();
  ASSERT_TRUE(eventually([&] { return hellos == 2; }));
  on_loop([&] { outcomes("7", {2, 3}); });
  EXPECT_TRUE(eventually([&] { return got == std::vector<std::uint32_t>{0, 1, 2, 3}; }));
  EXPECT_EQ(requests.size(), 1u);
  EXPECT_EQ(client->repeats(), 0u);
}

TEST_F(FarmClientTest, ARestartedServerIsAskedAgainAndToldWhatWeHave) {
  connect();
  client->submit(spec(), {}, true, [&](const pb::Response&) { ++answers; });
  client->submit(spec(), {}, false, [&](const pb::Response&) { ++answers; });
  ASSERT_TRUE(eventually([&] { return requests.size() == 2; }));
  on_loop([&] {
    answer(requests[0], "7");  // the second stays without an answer
    outcomes("7", {0, 1, 4});
  });
  ASSERT_TRUE(eventually([&] { return got.size() == 3 && answers == 1; }));
  const std::string key = requests[1].submit().spec().key();
  on_loop([&] {
    resumes = false;
    requests.clear();
  });
  lose();
  ASSERT_TRUE(eventually([&] { return requests.size() == 2; }));
  EXPECT_EQ(requests[0].submit().spec().key(), key) << "the same job, not a second one";
  ASSERT_TRUE(requests[1].has_follow());
  EXPECT_EQ(requests[1].follow().job_id(), "7");
  const auto& follow = requests[1].follow();
  EXPECT_EQ(std::vector<std::uint32_t>(follow.have_first().begin(), follow.have_first().end()),
            (std::vector<std::uint32_t>{0, 4}));
  EXPECT_EQ(std::vector<std::uint32_t>(follow.have_end().begin(), follow.have_end().end()),
            (std::vector<std::uint32_t>{2, 5}));
  on_loop([&] { outcomes("7", {1, 2, 3, 4, 5}); });  // some again: each is handed out once
  EXPECT_TRUE(eventually([&] { return got == std::vector<std::uint32_t>{0, 1, 4, 2, 3, 5}; }));
  EXPECT_EQ(client->repeats(), 2u);
}

TEST_F(FarmClientTest, WhatIsAskedWhileAwayGoesOutLater) {
  connect();
  lose();
  client->submit(spec(), {}, false, [&](const pb::Response&) { ++answers; });
  ASSERT_TRUE(eventually([&] { return hellos == 2 && requests.size() == 1; }));
  on_loop([&] { answer(requests[0], "8"); });
  EXPECT_TRUE(eventually([&] { return answers == 1; }));
}

TEST_F(FarmClientTest, SaysSoWhenNobodyIsThere) {
  const auto port = listener->port();
  on_loop([&] { listener.reset(); });
  FarmClient nobody(loop, {"ws://127.0.0.1:" + std::to_string(port) + "/ws", "", 1}, {});
  EXPECT_FALSE(nobody.connect(Millis{5000}).ok());
}

}  // namespace
}  // namespace grange::cli
