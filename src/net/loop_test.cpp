#include "net/loop.hpp"

#include <csignal>

#include "net/net_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

class Loops : public NetTest {};

TEST_F(Loops, PostsRunInOrderOnItsThread) {
  std::vector<int> seen;
  for (int i = 0; i < 1000; ++i) {
    loop.post([&, i] {
      EXPECT_TRUE(loop.on_thread());
      seen.push_back(i);
    });
  }
  ASSERT_TRUE(eventually([&] { return seen.size() == 1000; }));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_FALSE(loop.on_thread());
}

TEST_F(Loops, TimersFireRepeatAndAreCancelled) {
  int once = 0, often = 0, never = 0;
  std::unique_ptr<Timer> a, b, c;
  on_loop([&] {
    a = loop.after(Millis{1}, [&] { ++once; });
    b = loop.every(Millis{1}, [&] {
      if (++often == 5) b.reset();
    });
    c = loop.after(Millis{1}, [&] { ++never; });
    c.reset();
  });
  EXPECT_TRUE(eventually([&] { return once == 1 && often == 5; }));
  on_loop([&] {
    EXPECT_EQ(never, 0);
    a.reset();
  });
}

TEST_F(Loops, ACallbackThatThrowsDoesNotEndIt) {
  loop.post([] { throw std::runtime_error("oops"); });
  int after = 0;
  on_loop([&] { ++after; });
  EXPECT_EQ(after, 1);
}

TEST_F(Loops, SignalsAreHeard) {
  std::vector<int> heard;
  on_loop([&] { loop.on_signals([&](int n) { heard.push_back(n); }); });
  ::kill(::getpid(), SIGTERM);
  ASSERT_TRUE(eventually([&] { return heard.size() == 1; }));
  ::kill(::getpid(), SIGINT);
  ASSERT_TRUE(eventually([&] { return heard.size() == 2; }));
  EXPECT_EQ(heard[0], SIGTERM);
}

TEST(LoopAlone, RunsOnTheCallersThreadUntilStopped) {
  Loop loop;
  int ran = 0;
  loop.post([&] { ++ran; });
  loop.post([&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(ran, 1);
  loop.call([&] { ++ran; });  // nobody runs it: here and now
  EXPECT_EQ(ran, 2);
}

// Everything open at once, in the middle of things; then the end, in both orders. Nothing may stay.
void open_and_shut(bool loop_first) {
  const auto before = open_counts();
  const int files = open_files();
  {
    Loop loop;
    loop.start_thread();
    std::vector<ConnectionPtr> served;
    std::vector<HttpExchangePtr> pending;
    ListenerHandlers handlers = on_http([&](HttpExchangePtr e) {
      if (e->request().path == "/quick") return e->respond({200, {}, "x"});
      if (e->request().path == "/stream") e->start_stream({200, {}, ""});
      pending.push_back(std::move(e));
    });
    handlers.on_websocket = [&](ConnectionPtr c, const HttpRequest&) {
      c->set_events({});
      served.push_back(std::move(c));
    };
    auto listener = listen(loop, {}, handlers);
    ASSERT_TRUE(listener.ok());
    const std::string host = "127.0.0.1:" + std::to_string((*listener)->port());
    auto client = std::make_unique<HttpClient>(loop);
    EXPECT_TRUE(client->fetch({.url = "http://" + host + "/quick"}).ok());
    std::vector<std::unique_ptr<ConnectionManager>> managers;
    std::vector<std::unique_ptr<HttpClient::Call>> calls;
    int ups = 0;
    loop.call([&] {
      for (int i = 0; i < 10; ++i) {
        managers.push_back(
            std::make_unique<ConnectionManager>(loop, websocket_dialer(loop, "ws://" + host + "/ws", {}), LinkOptions{},
                                                LinkEvents{.on_up =
                                                               [&](ConnectionPtr c) {
                                                                 ++ups;
                                                                 c->set_events({});
                                                                 c->send(std::string(1'000'000, 'x'), true);
                                                               },
                                                           .on_down = {}},
                                                1));
        managers.back()->start();
        calls.push_back(client->send({.url = "http://" + host + (i % 2 == 0 ? "/stream" : "/wait")},
                                     [](Result<ClientResponse>) { ADD_FAILURE(); }));
      }
    });
    Raw half((*listener)->port());
    half.send("GET / HTTP/1.1\r\nHo");
    const auto until = std::chrono::steady_clock::now() + kPatience;
    for (bool ready = false; !ready && std::chrono::steady_clock::now() < until;) {
      loop.call([&] { ready = ups == 10 && served.size() == 10 && pending.size() == 8; });
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    EXPECT_EQ(ups, 10);
    EXPECT_GT(open_counts().coroutines, before.coroutines + 20);
    EXPECT_GT(open_counts().connections, before.connections + 20);
    if (loop_first) {
      loop.stop();
      while (loop.running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    loop.call([&] {
      calls.clear();
      managers.clear();
      pending.clear();
      served.clear();
    });
    listener->reset();
    client.reset();
    if (!loop_first) {
      // The clients' goodbyes, which nobody answers any more, end by the server's closing.
      while (open_counts().coroutines != before.coroutines && std::chrono::steady_clock::now() < until)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  EXPECT_EQ(open_counts().coroutines, before.coroutines);
  EXPECT_EQ(open_counts().connections, before.connections);
  EXPECT_EQ(open_files(), files);
}

TEST(Shutdown, LeavesNothingOpen) {
  open_and_shut(false);
}
TEST(Shutdown, LeavesNothingOpenWhenTheLoopStopsFirst) {
  open_and_shut(true);
}

}  // namespace
}  // namespace grange::net
