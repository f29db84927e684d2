#include "net/connection_manager.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "net/net_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

RC_GTEST_PROP(Backoff, GrowsWithinItsBounds, (std::uint64_t seed)) {
  Prng prng(seed);
  const int n = *rc::gen::inRange(0, 200);
  const int first = *rc::gen::inRange(1, 5000);
  const int last = first + *rc::gen::inRange(0, 100'000);
  const double jitter = *rc::gen::inRange(0, 100) / 100.0;
  const double base = n > 40 ? last : std::min<double>(last, first * std::pow(2.0, n));
  const auto delay = backoff(n, Millis{first}, Millis{last}, jitter, prng).count();
  RC_ASSERT(static_cast<double>(delay) >= base * (1 - jitter) - 1);
  RC_ASSERT(static_cast<double>(delay) <= base * (1 + jitter) + 1);
}

TEST(Breaker, OpensTriesAndCloses) {
  CircuitBreaker breaker({.failures = 3, .open_for = Millis{10}});
  using S = CircuitBreaker::State;
  const auto at = [](int ms) { return Instant{ms * 1000}; };
  struct Step {
    int time;
    char what;  // a: allowed, n: not allowed, f: failed, s: succeeded
    S then;
  };
  const Step steps[] = {{0, 'f', S::closed}, {0, 'f', S::closed},     {0, 's', S::closed},     {1, 'f', S::closed},
                        {1, 'f', S::closed}, {1, 'a', S::closed},     {2, 'f', S::open},       {3, 'n', S::open},
                        {11, 'n', S::open},  {12, 'a', S::half_open}, {12, 'n', S::half_open}, {13, 'f', S::open},
                        {22, 'n', S::open},  {23, 'a', S::half_open}, {24, 's', S::closed},    {24, 'a', S::closed},
                        {25, 'f', S::closed}};
  int i = 0;
  for (const auto& step : steps) {
    switch (step.what) {
      case 'a':
        EXPECT_TRUE(breaker.allow(at(step.time))) << i;
        break;
      case 'n':
        EXPECT_FALSE(breaker.allow(at(step.time))) << i;
        break;
      case 'f':
        breaker.failed(at(step.time));
        break;
      case 's':
        breaker.succeeded();
        break;
      default:
        FAIL();
    }
    EXPECT_EQ(breaker.state(), step.then) << i;
    ++i;
  }
}

// A dialer that does what the test says.
struct Script {
  std::vector<std::function<void(Result<ConnectionPtr>)>> asked;
};
class ScriptedDialer final : public Dialer {
 public:
  explicit ScriptedDialer(Script& script) : script_(script) {}
  std::unique_ptr<Attempt> dial(std::function<void(Result<ConnectionPtr>)> done) override {
    script_.asked.push_back(std::move(done));
    return std::make_unique<Attempt>();
  }

 private:
  Script& script_;
};

class Manager : public NetTest {
 protected:
  void make(LinkOptions options) {
    on_loop([&] {
      manager =
          std::make_unique<ConnectionManager>(loop, std::make_unique<ScriptedDialer>(script), options, events(), 1);
      manager->start();
    });
  }
  LinkEvents events() {
    return {.on_up =
                [this](ConnectionPtr c) {
                  ++ups;
                  up = c;
                  up->set_events({.on_message = [this](std::string m, bool) { heard.push_back(std::move(m)); },
                                  .on_closed = [this](Error why) { closed = std::move(why); }});
                },
            .on_down = [this](const Error& why) { downs.push_back(why); },
            .on_state = [this](LinkState s) { states.push_back(s); }};
  }
  ~Manager() override {
    on_loop([&] {
      manager.reset();
      up.reset();
      far.reset();
    });
  }
  void answer(Result<ConnectionPtr> result) {
    on_loop([&] { script.asked.back()(std::move(result)); });
  }
  void answer_open() {
    on_loop([&] {
      auto [near, other] = memory_pair(loop);
      far = std::move(other);
      far->set_events({});
      script.asked.back()(near);
    });
  }
  bool asked(std::size_t n) {
    return eventually([&] { return script.asked.size() >= n; });
  }
  Script script;
  std::unique_ptr<ConnectionManager> manager;
  ConnectionPtr up, far;
  int ups = 0;
  std::vector<Error> downs;
  std::vector<LinkState> states;
  std::vector<std::string> heard;
  std::optional<Error> closed;
};

LinkOptions quick() {
  return {.first = Millis{2}, .last = Millis{8}, .breaker = {.failures = 100}};
}

TEST_F(Manager, DialsUntilItIsUpAndAgainAfterALoss) {
  make(quick());
  for (std::size_t i = 1; i <= 4; ++i) {
    ASSERT_TRUE(asked(i));
    answer(Error{ErrorClass::unavailable, "no"});
  }
  ASSERT_TRUE(asked(5));
  answer_open();
  on_loop([&] {
    EXPECT_EQ(manager->state(), LinkState::connected);
    EXPECT_EQ(manager->counters().dials, 5u);
    EXPECT_EQ(manager->counters().failed, 4u);
    EXPECT_DOUBLE_EQ(manager->counters().success_rate(), 0.2);
    far->send("hello", true);
  });
  ASSERT_TRUE(eventually([&] { return heard.size() == 1; }));
  on_loop([&] { far->close(1000, "restart"); });
  ASSERT_TRUE(asked(6));
  EXPECT_TRUE(closed.has_value());
  EXPECT_EQ(downs.size(), 5u);
  answer_open();
  on_loop([&] {
    EXPECT_EQ(ups, 2);
    EXPECT_EQ(manager->counters().lost, 1u);
    manager->stop();
    EXPECT_EQ(manager->state(), LinkState::disconnected);
  });
  EXPECT_EQ(states, (std::vector{LinkState::connecting, LinkState::reconnecting, LinkState::connected,
                                 LinkState::reconnecting, LinkState::connected, LinkState::disconnected}));
}

TEST_F(Manager, GivesUpAfterItsAttempts) {
  auto options = quick();
  options.attempts = 2;
  make(options);
  ASSERT_TRUE(asked(1));
  answer(Error{ErrorClass::unavailable, "no"});
  ASSERT_TRUE(asked(2));
  answer(Error{ErrorClass::unavailable, "no"});
  on_loop([&] {
    EXPECT_EQ(manager->state(), LinkState::failed);
    EXPECT_EQ(manager->next_delay(), Millis{0});
    manager->start();
    EXPECT_EQ(manager->state(), LinkState::connecting);
  });
  ASSERT_TRUE(asked(3));
  answer(Error{ErrorClass::unauthenticated, "token"});
  on_loop([&] { EXPECT_EQ(manager->state(), LinkState::failed); });
}

TEST_F(Manager, ARefusalIsRetriedSeldom) {
  LinkOptions options;
  options.jitter = 0;
  make(options);
  ASSERT_TRUE(asked(1));
  answer(Error{ErrorClass::forbidden, "no"});
  on_loop([&] {
    EXPECT_EQ(manager->state(), LinkState::reconnecting);
    EXPECT_EQ(manager->next_delay(), limits::kReconnectLast);
  });
}

TEST_F(Manager, AnOpenCircuitWaits) {
  auto options = quick();
  options.breaker = {.failures = 2, .open_for = Millis{60'000}};
  make(options);
  ASSERT_TRUE(asked(1));
  answer(Error{ErrorClass::unavailable, "no"});
  ASSERT_TRUE(asked(2));
  answer(Error{ErrorClass::unavailable, "no"});
  EXPECT_TRUE(eventually([&] { return manager->next_delay() > Millis{1000}; }));
  EXPECT_EQ(script.asked.size(), 2u);
}

TEST_F(Manager, SilenceIsALoss) {
  auto options = quick();
  options.idle = Millis{60};
  make(options);
  ASSERT_TRUE(asked(1));
  // A connection whose other end never answers a ping.
  class Deaf final : public Connection {
   public:
    void set_events(ConnectionEvents) override {}
    bool send(std::string, bool) override { return true; }
    void close(std::uint16_t, std::string) override { open_ = false; }
    bool open() const override { return open_; }
    std::size_t unsent_bytes() const override { return 0; }
    std::string peer() const override { return "deaf"; }
    ConnectionCounters counters() const override { return {}; }

   private:
    bool open_ = true;
  };
  answer(ConnectionPtr(std::make_shared<Deaf>()));
  ASSERT_TRUE(asked(2));
  ASSERT_EQ(downs.size(), 1u);
  EXPECT_EQ(downs[0].cls, ErrorClass::timeout);
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(closed->cls, ErrorClass::timeout);
  answer_open();  // this one answers pings
  int pinged = 0;
  on_loop([&] { far->set_events({.on_alive = [&] { ++pinged; }}); });
  ASSERT_TRUE(eventually([&] { return pinged >= 6; }));
  on_loop([&] {
    EXPECT_EQ(manager->state(), LinkState::connected);
    far->set_events({});
  });
}

TEST_F(Manager, TheOwnersLossIsOneLoss) {
  make(quick());
  ASSERT_TRUE(asked(1));
  answer_open();
  on_loop([&] {
    manager->lost({ErrorClass::internal, "a bad frame"});
    manager->lost({ErrorClass::internal, "a bad frame"});
    EXPECT_EQ(manager->counters().lost, 1u);
  });
  ASSERT_TRUE(asked(2));
  EXPECT_FALSE(closed.has_value());
  answer_open();
  on_loop([&] { EXPECT_EQ(manager->state(), LinkState::connected); });
}

TEST_F(Manager, ReconnectsWhenTheServerIsBack) {
  std::vector<ConnectionPtr> served;
  ListenerHandlers handlers = on_http([](HttpExchangePtr) {});
  handlers.on_websocket = [&](ConnectionPtr c, const HttpRequest&) {
    c->set_events({.on_message = [raw = c.get()](std::string m, bool binary) { raw->send("echo " + m, binary); },
                   .on_closed = {}});
    served.push_back(std::move(c));
  };
  auto listener = serve(handlers);
  const auto port = listener->port();
  on_loop([&] {
    manager = std::make_unique<ConnectionManager>(loop, websocket_dialer(loop, url(*listener, "/ws", "ws"), {}),
                                                  quick(), events(), 1);
    manager->start();
  });
  for (int round = 1; round <= 3; ++round) {
    ASSERT_TRUE(eventually([&] { return ups == round; }));
    on_loop([&] { up->send(std::to_string(round), true); });
    ASSERT_TRUE(eventually([&] { return heard.size() == static_cast<std::size_t>(round); }));
    EXPECT_EQ(heard.back(), "echo " + std::to_string(round));
    if (round == 3) break;
    on_loop([&] { served.clear(); });
    listener.reset();
    ASSERT_TRUE(eventually([&] { return manager->counters().failed >= static_cast<std::uint64_t>(round); }));
    listener = serve(handlers, {.port = port});
  }
  on_loop([&] {
    manager.reset();
    up.reset();
    served.clear();
  });
}

}  // namespace
}  // namespace grange::net
