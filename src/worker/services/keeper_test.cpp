// The keeper with real processes: a shell, and a listener of the test's that says that it is well.
#include "worker/services/keeper.hpp"

#include <signal.h>

#include "net/net_testing.hpp"
#include "worker/process_testing.hpp"

namespace grange::worker {
namespace {

using net::testing::contents;

class Keepers : public net::testing::NetTest {
 protected:
  Keepers() {
    listener = serve(net::testing::on_http([this](const net::HttpExchangePtr& e) { e->respond({status, {}, "ok"}); }));
  }
  ~Keepers() override {
    on_loop([&] {
      keeper.reset();
      http.reset();
    });
  }
  CareSpec shell(const std::string& script) {
    CareSpec out;
    out.name = "a";
    out.kind = "other";
    out.url = url(*listener, "");
    out.command = {"sh", "-c", script};
    out.cwd = "/";
    out.restarts = 2;
    return out;
  }
  void keep(CareSpec spec) {
    auto all = checked_care({std::move(spec)});
    ASSERT_TRUE(all.ok()) << all.error().message;
    on_loop([&] {
      http = std::make_unique<net::HttpClient>(loop);
      keeper = make_keeper(loop, *http, nullptr, clock, {*all, scratch.file("services"), std::string(kPath)});
      EXPECT_TRUE(keeper->start().ok());
    });
  }
  bool becomes(CareState state) {
    return eventually([&] { return keeper->shown("a")->state == state; });
  }
  Keeper::Shown shown() {
    Keeper::Shown out;
    on_loop([&] { out = *keeper->shown("a"); });
    return out;
  }

  net::testing::Scratch scratch;
  SystemClock clock;
  int status = 200;
  std::unique_ptr<net::Listener> listener;
  std::unique_ptr<net::HttpClient> http;
  std::unique_ptr<Keeper> keeper;
};

TEST_F(Keepers, OneThatIsKilledIsBack) {
  keep(shell("echo up; exec sleep 600"));
  ASSERT_TRUE(becomes(CareState::ready));
  const pid_t first = shown().pid;
  ASSERT_TRUE(alive(first));
  ::kill(first, SIGKILL);
  ASSERT_TRUE(eventually([&] { return keeper->shown("a")->restarts == 1; }));
  ASSERT_TRUE(becomes(CareState::ready));
  EXPECT_NE(shown().pid, first);
  EXPECT_NE(shown().last_error.find("signal 9 (SIGKILL)"), std::string::npos);
  EXPECT_NE(shown().last_error.find("up"), std::string::npos);
}

TEST_F(Keepers, WishesAreDoneAndRefused) {
  keep(shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"));
  ASSERT_TRUE(becomes(CareState::ready));
  const pid_t first = shown().pid;
  on_loop([&] {
    EXPECT_FALSE(keeper->wish("b", CareWish::stop).ok());
    EXPECT_TRUE(keeper->wish("a", CareWish::stop).ok());
    EXPECT_TRUE(keeper->wish("a", CareWish::stop).ok());
  });
  ASSERT_TRUE(eventually([&] { return !keeper->shown("a")->alive; }));
  EXPECT_FALSE(alive(first));
  EXPECT_EQ(shown().state, CareState::stopped);
  std::optional<ServiceLog::Tail> tail;
  on_loop([&] {
    EXPECT_FALSE(keeper->log("b", 10, 0, [](const ServiceLog::Tail&) {}));
    EXPECT_TRUE(keeper->log("a", 10, 0, [&](ServiceLog::Tail got) { tail = std::move(got); }));
  });
  ASSERT_TRUE(eventually([&] { return tail.has_value(); }));
  EXPECT_NE(tail->text.find("\nup\n"), std::string::npos) << tail->text;
  EXPECT_NE(tail->text.find("\nbye\n-- grange "), std::string::npos) << tail->text;
  on_loop([&] { EXPECT_TRUE(keeper->wish("a", CareWish::start).ok()); });
  ASSERT_TRUE(becomes(CareState::ready));
  bool ended = false;
  on_loop([&] { keeper->end([&] { ended = true; }); });
  ASSERT_TRUE(eventually([&] { return ended; }));
  on_loop([&] { EXPECT_FALSE(keeper->wish("a", CareWish::start).ok()); });
}

TEST_F(Keepers, MuchOutputIsTakenAtThePaceOfTheDisk) {
  keep(shell("head -c 30000000 /dev/zero | tr '\\0' x | fold -w 100; echo; echo the end; exec sleep 600"));
  const std::string log = scratch.file("services/a.log");
  ASSERT_TRUE(eventually([&] { return contents(log).ends_with("\nthe end\n"); }));
  EXPECT_LE(std::filesystem::file_size(log), kServiceLog);
  EXPECT_LE(std::filesystem::file_size(log + ".1"), kServiceLog);
  on_loop([&] {
    pb::Heartbeat beat;
    keeper->fill(beat, clock.now().mono);
    ASSERT_EQ(beat.services_size(), 1);
    EXPECT_GT(beat.services(0).memory_bytes(), 0u);
  });
}

TEST_F(Keepers, OneThatCannotStartFails) {
  CareSpec spec = shell("true");
  spec.command = {"/no/such/program"};
  spec.restarts = 0;
  keep(spec);
  ASSERT_TRUE(becomes(CareState::failed));
  EXPECT_NE(shown().last_error.find("/no/such/program: command not found"), std::string::npos);
}

TEST_F(Keepers, ItsEndIsTheirs) {
  keep(shell("sleep 600 & wait"));
  ASSERT_TRUE(becomes(CareState::ready));
  const pid_t pid = shown().pid;
  on_loop([&] { keeper.reset(); });
  EXPECT_TRUE(gone_soon(pid));
}

}  // namespace
}  // namespace grange::worker
