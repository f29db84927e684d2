// Parts of the server on their own, with a store that has no room for a question or a line.
#include "server/server_testing.hpp"

#include "net/memory_transport.hpp"
#include "server/client_sessions.hpp"
#include "server/task_output.hpp"

namespace grange::server {
namespace {

using namespace testing;

class FullLogs final : public store::LogStore {
 public:
  bool append(std::vector<store::LogLine>&& more) override {
    if (full) return false;
    for (store::LogLine& line : more) lines.push_back(std::move(line));
    return true;
  }
  void flush() override {}
  Result<std::vector<store::StoredLog>> read(JobNo, std::optional<std::uint32_t>, std::int64_t,
                                             std::uint32_t) override {
    return std::vector<store::StoredLog>{};
  }
  Result<> forget(JobNo) override { return {}; }
  Result<> forget_all() override { return {}; }
  bool full = true;
  std::vector<store::LogLine> lines;
};

class Parts : public ::testing::Test {
 protected:
  Parts() {
    s_.post = [this](std::function<void()> work) { loop_.post(std::move(work)); };
    s_.options.data_dir = folder_.path();
    s_.events = &events_;
  }
  Folder folder_;
  net::Loop loop_;
  SystemClock clock_;
  Events events_{1};
  Services s_{.loop = loop_, .options = {}, .clock = clock_, .authenticator = Authenticator(""), .post = {}};
};

TEST_F(Parts, NobodyIsWokenForLinesThatTheStoreDidNotTake) {
  FullLogs logs;
  s_.logs = &logs;
  TaskOutput output(s_);
  int woken = 0;
  const JobNo job{7}, other{8};
  output.on_logs(job, [&] { ++woken; });
  output.log({.task = TaskId::of(job, 0), .attempt = 1, .stream = 0, .at = {}, .data = "a line"});
  output.task_ended(job);
  output.tick();
  output.tick();
  EXPECT_EQ(woken, 0);
  EXPECT_TRUE(output.holds(job));
  EXPECT_FALSE(output.holds(other));
  logs.full = false;
  output.tick();
  EXPECT_EQ(woken, 1);
  ASSERT_EQ(logs.lines.size(), 1u);
  EXPECT_EQ(logs.lines[0].data, "a line");
  EXPECT_FALSE(output.holds(job));
  output.tick();
  EXPECT_EQ(woken, 1);
}

// The end of a job that ended before it was followed is found, though the first looks at the store were refused.
TEST_F(Parts, AFollowerAsksAgainWhenTheReadersWereFull) {
  loop_.start_thread();
  auto store = store::Store::open({.directory = folder_.path()});
  ASSERT_TRUE(store.ok());
  auto queue = queue::LocalQueue::start(**store, clock_, {}, [](queue::Delivery) {});
  ASSERT_TRUE(queue.ok());
  auto free = ReaderPool::start(**store, 1, s_.post), full = ReaderPool::start(**store, 1, s_.post);
  ASSERT_TRUE(free.ok() && full.ok());
  (*full)->stop();  // takes no question any more
  auto blobs = store::BlobStore::open(folder_.path());
  ASSERT_TRUE(blobs.ok());
  JobBook jobs(**free);
  s_.queue = queue->get();
  s_.blobs = blobs->get();
  s_.readers = s_.files = free->get();
  s_.jobs = &jobs;
  WorkerHub hub(s_);
  s_.workers = &hub;
  JobWatch watch;
  Operations operations(s_, watch);
  auto sessions = std::make_unique<ClientSessions>(s_, operations);
  const Principal who{"local", PrincipalKind::local};

  std::promise<void> ended;
  loop_.call([&] {
    SubmitInput input;
    input.spec.set_engine("builtin");
    input.spec.mutable_builtin()->set_op("noop");
    input.spec.set_count(1);
    operations.submit(who, std::move(input), [&](Result<SubmitAnswer> submitted) {
      EXPECT_TRUE(submitted.ok());
      operations.cancel(who, "1", std::nullopt, "", [&](Result<std::uint32_t> n) {
        EXPECT_TRUE(n.ok());
        ended.set_value();
      });
    });
  });
  ASSERT_EQ(ended.get_future().wait_for(kPatience), std::future_status::ready);

  net::ConnectionPtr near, far;
  std::promise<void> refused, told;
  std::vector<SocketPtr> sockets;
  loop_.call([&] {
    s_.readers = full->get();
    std::tie(near, far) = net::memory_pair(loop_);
    bool first = true;
    far->set_events({.on_message = [&, first](std::string bytes, bool) mutable {
      pb::Frame frame;
      ASSERT_TRUE(wire::decode(bytes, frame).ok());
      if (frame.has_response() && frame.response().has_error() && std::exchange(first, false)) refused.set_value();
      if (frame.has_outcomes() && frame.outcomes().has_ended()) told.set_value();
    }});
    sockets.push_back(std::make_shared<Socket>(near, who));
    sockets[0]->listen([] {});
    pb::Frame hello;
    hello.mutable_hello()->set_protocol(1);
    hello.mutable_hello()->set_role(pb::ROLE_CLIENT);
    hello.mutable_hello()->set_session_id("c1");
    sessions->hello(sockets[0], hello);
    pb::Frame follow;
    follow.set_seq(1);
    follow.mutable_request()->set_id(1);
    follow.mutable_request()->mutable_follow()->set_job_id("1");
    far->send(follow.SerializeAsString(), true);
  });
  ASSERT_EQ(refused.get_future().wait_for(kPatience), std::future_status::ready);
  auto heard = told.get_future();
  const auto end = std::chrono::steady_clock::now() + kPatience;
  loop_.call([&] { s_.readers = free->get(); });
  while (heard.wait_for(20ms) != std::future_status::ready) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "the job's end was never told";
    loop_.call([&] { sessions->tick(clock_.now()); });
  }
  loop_.call([&] {
    far->close(1000, "");
    sockets.clear();
    sessions = nullptr;
  });
  (*free)->stop();
  (*queue)->stop();
  loop_.stop();
}

// A table full of sessions that nobody came back to keeps nobody out; one full of sessions that are here does.
TEST_F(Parts, TheSessionGoneLongestMakesRoom) {
  loop_.start_thread();
  auto store = store::Store::open({.directory = folder_.path()});
  ASSERT_TRUE(store.ok());
  auto queue = queue::LocalQueue::start(**store, clock_, {}, [](queue::Delivery) {});
  ASSERT_TRUE(queue.ok());
  s_.queue = queue->get();
  JobWatch watch;
  Operations operations(s_, watch);
  const Principal who{"local", PrincipalKind::local};
  loop_.call([&] {
    ClientSessions sessions(s_, operations, 2);
    std::vector<SocketPtr> sockets;
    std::vector<net::ConnectionPtr> far;
    const auto enter = [&](const std::string& id) {
      auto [near, other] = net::memory_pair(loop_);
      far.push_back(other);
      sockets.push_back(std::make_shared<Socket>(near, who));
      sockets.back()->listen([] {});
      pb::Frame hello;
      hello.mutable_hello()->set_protocol(1);
      hello.mutable_hello()->set_session_id(id);
      sessions.hello(sockets.back(), hello);
      return sockets.back()->open();
    };
    EXPECT_TRUE(enter("a"));
    EXPECT_TRUE(enter("b"));
    EXPECT_FALSE(enter("c")) << "both are here";
    sessions.find("a")->closed({ErrorClass::timeout, ""});
    EXPECT_TRUE(enter("c"));
    EXPECT_EQ(sessions.size(), 2u);
    EXPECT_EQ(sessions.find("a"), nullptr);
    EXPECT_NE(sessions.find("b"), nullptr);
    sessions.find("b")->retire(1000, "");
    sessions.find("c")->retire(1000, "");
    for (const auto& one : far) one->close(1000, "");
  });
  (*queue)->stop();
  loop_.stop();
}

class Named final : public WorkerChannel {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  void assign(queue::Assign&, const JobMetaPtr&) override {}
  void cancel(const queue::Order&) override {}
  void pause(const queue::PauseOrder&) override {}
  void take_back(const queue::Order&) override {}
  void acknowledge(const queue::AckOrder&) override {}
  void drain() override {}
  void flush() override {}
  void lost() override {}
  const std::string& id() const override { return name_; }
  const std::string& host() const override { return name_; }
  WorkerFigures figures() const override { return {}; }

 private:
  std::string name_;
};

TEST_F(Parts, NamesOfWorkersThatAnybodyCanMakeUpAreBounded) {
  WorkerHub hub(s_);
  const auto here = std::make_shared<Named>("here");
  hub.bind(WorkerNo{1}, here);
  hub.left(WorkerNo{1}, Instant{1});  // and came back
  const std::uint32_t many = limits::kWorkers + 500;
  for (std::uint32_t i = 2; i <= many; ++i) {
    hub.remember(WorkerNo{i}, "made up " + std::to_string(i));
    hub.left(WorkerNo{i}, Instant{static_cast<std::int64_t>(i)});
  }
  hub.tick(Instant{static_cast<std::int64_t>(many)});
  const Instant later = Instant{static_cast<std::int64_t>(many)} + std::chrono::duration_cast<Micros>(s_.options.lease);
  hub.tick(later);
  EXPECT_EQ(hub.names(), std::size_t{limits::kWorkers});
  EXPECT_EQ(hub.name_of(WorkerNo{1}), "here");
  EXPECT_EQ(hub.name_of(WorkerNo{2}), "");
  EXPECT_EQ(hub.name_of(WorkerNo{many}), "made up " + std::to_string(many));
  hub.unbind(WorkerNo{1}, here.get());
}

TEST(EventsOfTasks, AreAskedForByWhoFollowsThem) {
  Events events(1);
  const Events::Sink deaf{.fact = [](const Fact&) { return true; }, .gap = [](std::uint64_t) { return true; }};
  const auto follow = [&](std::vector<std::string> names) {
    std::string bad;
    return *events.follow(*Topics::parse(names, bad), std::nullopt, deaf);
  };
  const auto jobs = follow({});
  EXPECT_FALSE(events.tasks_followed());
  const auto one = follow({"job:mine"});
  EXPECT_TRUE(events.tasks_followed());
  EXPECT_TRUE(events.tasks_followed(JobNo{7}, "mine"));
  EXPECT_FALSE(events.tasks_followed(JobNo{8}, "other"));
  const auto all = follow({"tasks"});
  EXPECT_TRUE(events.tasks_followed(JobNo{8}, "other"));
  events.unfollow(all);
  events.unfollow(all);
  EXPECT_FALSE(events.tasks_followed(JobNo{8}, "other"));
  events.unfollow(one);
  events.unfollow(jobs);
  EXPECT_FALSE(events.tasks_followed());
}

}  // namespace
}  // namespace grange::server
