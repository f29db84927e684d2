// A whole server in one process, and peers that speak to it over real sockets, for tests.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include <boost/json/serialize.hpp>

#include "net/connection_manager.hpp"
#include "net/http_client.hpp"
#include "server/server.hpp"
#include "wire/json_dialect.hpp"
#include "wire/session.hpp"

namespace grange::server::testing {

namespace pb = ::grange::v1;
using namespace std::chrono_literals;

inline constexpr auto kPatience = 8s;

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "grange-server-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A WebSocket whose messages a test takes one by one.
class Line {
 public:
  Line(net::Loop& loop, const std::string& url, std::map<std::string, std::string> headers = {})
      : loop_(loop), state_(std::make_shared<State>()) {
    loop.post([this, url, headers, state = state_] {
      dialer_ = net::websocket_dialer(loop_, url, headers);
      attempt_ = dialer_->dial([state](Result<net::ConnectionPtr> opened) {
        const std::lock_guard lock(state->mutex);
        state->dialled = true;
        if (!opened) {
          state->refused = opened.error().message;
        } else {
          state->connection = *opened;
          state->connection->set_events({.on_message =
                                             [state](std::string bytes, bool) {
                                               const std::lock_guard inner(state->mutex);
                                               state->heard.push_back(std::move(bytes));
                                               state->wake.notify_all();
                                             },
                                         .on_closed =
                                             [state](Error) {
                                               const std::lock_guard inner(state->mutex);
                                               state->closed = true;
                                               state->wake.notify_all();
                                             }});
        }
        state->wake.notify_all();
      });
    });
    std::unique_lock lock(state_->mutex);
    state_->wake.wait_for(lock, kPatience, [this] { return state_->dialled; });
  }
  ~Line() {
    std::promise<void> done;
    loop_.post([&] {
      if (state_->connection) state_->connection->close(1000, "");
      state_->connection = nullptr;
      attempt_ = nullptr;
      dialer_ = nullptr;
      done.set_value();
    });
    done.get_future().wait();
  }
  bool open() const { return state_->connection != nullptr; }
  std::string refused() const { return state_->refused; }
  void send(std::string bytes, bool binary) {
    loop_.post([c = state_->connection, bytes = std::move(bytes), binary]() mutable {
      if (c) c->send(std::move(bytes), binary);
    });
  }
  // nullopt: it was closed, or nothing came in time.
  std::optional<std::string> next(std::chrono::milliseconds patience = kPatience) {
    std::unique_lock lock(state_->mutex);
    state_->wake.wait_for(lock, patience, [this] { return !state_->heard.empty() || state_->closed; });
    if (state_->heard.empty()) return std::nullopt;
    std::string out = std::move(state_->heard.front());
    state_->heard.pop_front();
    return out;
  }
  bool closes() {
    std::unique_lock lock(state_->mutex);
    return state_->wake.wait_for(lock, kPatience, [this] { return state_->closed; });
  }
  // Without a goodbye of the session.
  void drop() {
    loop_.post([c = state_->connection] { c->close(1001, "drop"); });
    EXPECT_TRUE(closes());
  }

  // JSON
  void say(const std::string& text) { send(text, false); }
  boost::json::object hear() {
    const auto text = next();
    if (!text) {
      ADD_FAILURE() << "nothing was heard";
      return {};
    }
    return wire::parse_json(*text)->as_object();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::string> heard;
    net::ConnectionPtr connection;
    bool dialled = false, closed = false;
    std::string refused;
  };
  net::Loop& loop_;
  std::shared_ptr<State> state_;
  std::unique_ptr<net::Dialer> dialer_;
  std::unique_ptr<net::Dialer::Attempt> attempt_;
};

// The dialling side of a Protobuf session, in script form.
class ProtoPeer {
 public:
  ProtoPeer(net::Loop& loop, std::string url, pb::Hello hello)
      : loop_(loop), url_(std::move(url)), hello_(std::move(hello)) {
    hello_.set_protocol(1);
    connect();
  }
  void connect() {
    line_ = nullptr;
    line_ = std::make_unique<Line>(loop_, url_);
    pb::Frame frame;
    hello_.set_received(session.received());
    *frame.mutable_hello() = hello_;
    line_->send(session.unnumbered(frame), true);
  }
  void send(pb::Frame frame) { line_->send(session.number(frame), true); }
  // The next frame that says something; acknowledgements and heartbeats are passed over, repeats too.
  std::optional<pb::Frame> next(std::chrono::milliseconds patience = kPatience) {
    for (;;) {
      const auto bytes = line_->next(patience);
      if (!bytes) return std::nullopt;
      pb::Frame frame;
      if (!wire::decode(*bytes, frame)) {
        ADD_FAILURE() << "not a frame";
        return std::nullopt;
      }
      const auto verdict = session.arrived(frame);
      EXPECT_NE(verdict, wire::Session::Verdict::gap);
      if (verdict != wire::Session::Verdict::fresh || frame.has_only_ack() || frame.has_heartbeat()) continue;
      return frame;
    }
  }
  Line& line() { return *line_; }
  pb::Hello& hello() { return hello_; }
  wire::Session session;

 private:
  net::Loop& loop_;
  std::string url_;
  pb::Hello hello_;
  std::unique_ptr<Line> line_;
};

class Whole : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_.start_thread();
    client_ = std::make_unique<net::HttpClient>(loop_);
  }
  void TearDown() override {
    stop();
    client_ = nullptr;
    loop_.stop();
  }
  void start(std::string token = "") {
    ServerOptions options;
    options.port = 0;
    options.ws_port = 0;
    options.data_dir = folder_.path();
    options.token = std::move(token);
    options.lease = lease_;
    options.heartbeat = heartbeat_;
    options.retain_jobs = retain_jobs_;
    auto server = Server::start(loop_, options);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
  }
  void stop() {
    if (!server_) return;
    std::promise<void> done;
    loop_.post([&] { server_->stop([&] { done.set_value(); }); });
    EXPECT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
    std::promise<void> gone;
    loop_.post([&] {
      server_ = nullptr;
      gone.set_value();
    });
    gone.get_future().wait();
  }
  net::ClientResponse ask(std::string method, const std::string& path, std::string body = "",
                          std::map<std::string, std::string> headers = {}) {
    auto answer = client_->fetch({.method = std::move(method),
                                  .url = server_->url() + path,
                                  .headers = std::move(headers),
                                  .body = std::move(body)});
    if (!answer) {
      ADD_FAILURE() << answer.error().message;
      return {};
    }
    return *answer;
  }
  boost::json::value get(const std::string& path) {
    const auto answer = ask("GET", path);
    EXPECT_EQ(answer.status, 200) << path << ": " << answer.body;
    auto value = wire::parse_json(answer.body);
    EXPECT_TRUE(value.ok()) << answer.body;
    return value ? *value : boost::json::value();
  }
  static pb::Hello worker_hello(const std::string& id, const std::string& session, std::uint32_t window = 100) {
    pb::Hello hello;
    hello.set_role(pb::ROLE_WORKER);
    hello.set_session_id(session);
    hello.mutable_worker()->set_worker_id(id);
    hello.mutable_worker()->set_window(window);
    hello.mutable_worker()->mutable_manifest()->set_slots(window);
    hello.mutable_worker()->mutable_manifest()->set_cpus_milli(window * 1000);
    hello.mutable_worker()->mutable_manifest()->add_engines("builtin");
    return hello;
  }
  static pb::Hello client_hello(const std::string& session) {
    pb::Hello hello;
    hello.set_role(pb::ROLE_CLIENT);
    hello.set_session_id(session);
    return hello;
  }
  static pb::Frame echo(std::uint64_t id, std::uint32_t count, bool follow = true, const std::string& key = "") {
    pb::Frame frame;
    frame.mutable_request()->set_id(id);
    pb::SubmitJob& submit = *frame.mutable_request()->mutable_submit();
    submit.set_follow(follow);
    pb::JobSpec& spec = *submit.mutable_spec();
    spec.set_engine("builtin");
    spec.mutable_builtin()->set_op("echo");
    spec.set_count(count);
    spec.set_key(key);
    pb::Payload& payload = *submit.add_payloads();
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string arg = "arg" + std::to_string(i);
      payload.add_sizes(static_cast<std::uint32_t>(arg.size()));
      *payload.mutable_bytes() += arg;
    }
    return frame;
  }
  // Runs what it is given, until `tasks` results were acknowledged.
  static void work(ProtoPeer& worker, std::uint32_t tasks) {
    std::uint32_t acknowledged = 0;
    while (acknowledged < tasks) {
      const auto frame = worker.next();
      ASSERT_TRUE(frame.has_value()) << acknowledged << " of " << tasks;
      ASSERT_TRUE(frame->has_orders()) << frame->ShortDebugString();
      pb::Frame report;
      for (const pb::Assignment& assign : frame->orders().assign()) {
        pb::TaskResult& result = *report.mutable_report()->add_results();
        result.set_task(assign.task());
        result.set_attempt(assign.attempt());
        result.set_epoch(assign.epoch());
        result.set_ok(true);
        result.set_value(assign.args());
      }
      if (report.has_report()) worker.send(report);
      acknowledged += static_cast<std::uint32_t>(frame->orders().acks_size());
    }
  }
  // Reads outcomes until the job's end; each index must come once.
  static pb::JobStatus collect(ProtoPeer& client, std::map<std::uint32_t, pb::Outcome>& outcomes) {
    for (;;) {
      const auto frame = client.next();
      if (!frame) {
        ADD_FAILURE() << "the end did not come; outcomes: " << outcomes.size();
        return {};
      }
      if (!frame->has_outcomes()) continue;
      for (const pb::Outcome& one : frame->outcomes().outcomes())
        EXPECT_TRUE(outcomes.emplace(one.index(), one).second) << "twice: " << one.index();
      if (frame->outcomes().has_ended()) return frame->outcomes().ended();
    }
  }
  std::string ws() const { return "ws" + server_->url().substr(4) + "/ws"; }

  Millis lease_{3000}, heartbeat_{1000};
  std::uint64_t retain_jobs_ = 1000;
  Folder folder_;
  net::Loop loop_;
  std::unique_ptr<net::HttpClient> client_;
  std::unique_ptr<Server> server_;
};

}  // namespace grange::server::testing
