// For tests: the whole worker against a scripted server over connections in memory.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>

#include "net/memory_transport.hpp"
#include "wire/session.hpp"
#include "worker/core.hpp"
#include "worker/data_dir.hpp"
#include "worker/sha256.hpp"
#include "worker/worker.hpp"

namespace grange::worker {

struct ScriptedServer;

struct PairDialer final : net::Dialer {
  explicit PairDialer(ScriptedServer& s) : server(s) {}
  std::unique_ptr<Attempt> dial(std::function<void(Result<net::ConnectionPtr>)> done) override;
  ScriptedServer& server;
};

struct ScriptedServer {
  net::Loop loop;
  net::ConnectionPtr here;
  wire::Session session;
  std::vector<pb::Hello> hellos;
  std::vector<pb::TaskResult> results;
  std::vector<pb::Fence> started, returned, paused, resumed, preempted;
  std::vector<pb::Checkpoint> checkpoints;
  std::string logs, system_logs, goodbye;
  int heartbeats = 0, drainings = 0;
  bool resume = true, acks = true;
  std::vector<pb::Held> refuse;
  std::string dir = testing::TempDir() + "grange_worker_" + random_id(6);
  std::unique_ptr<Worker> worker;

  explicit ScriptedServer(WorkerOptions options = {}) {
    options.data_dir = dir;
    options.health_port = 0;
    options.slots = 2;
    if (options.python.empty()) options.python = "none";
    worker = std::make_unique<Worker>(loop, options, std::make_unique<PairDialer>(*this));
    const auto began = worker->start();
    if (!began) ADD_FAILURE() << began.error().message;
  }
  ~ScriptedServer() {
    worker.reset();
    here.reset();
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }

  void accept(net::ConnectionPtr connection) {
    here = std::move(connection);
    net::ConnectionEvents events;
    events.on_message = [this, me = here.get()](const std::string& bytes, bool) {
      if (here.get() == me) heard(bytes);
    };
    events.on_closed = [](const Error&) {};
    here->set_events(std::move(events));
  }
  void heard(const std::string& bytes) {
    pb::Frame frame;
    ASSERT_TRUE(wire::decode(bytes, frame));
    if (frame.has_hello()) {
      hellos.push_back(frame.hello());
      pb::Frame answer;
      pb::Welcome& w = *answer.mutable_welcome();
      w.set_protocol(1);
      w.set_heartbeat_ms(500);
      w.set_lease_ms(30'000);
      w.set_inline_limit_bytes(limits::kInline);
      w.set_resumed(resume && hellos.size() > 1);
      if (!w.resumed()) session.reset();
      w.set_received(session.received());
      for (const auto& one : refuse) *w.add_refused() = one;
      std::vector<std::string> again;
      ASSERT_TRUE(session.resend(w.resumed() ? frame.hello().received() : 0, again));
      here->send(session.unnumbered(answer), true);
      for (auto& one : again) here->send(one, true);
      return;
    }
    const auto verdict = session.arrived(frame);
    EXPECT_NE(verdict, wire::Session::Verdict::gap);
    if (verdict != wire::Session::Verdict::fresh) return;
    if (frame.has_heartbeat()) ++heartbeats;
    if (frame.has_goodbye()) goodbye = frame.goodbye().reason();
    if (!frame.has_report()) return;
    for (const auto& f : frame.report().started()) started.push_back(f);
    for (const auto& f : frame.report().returned()) returned.push_back(f);
    for (const auto& f : frame.report().paused()) paused.push_back(f);
    for (const auto& f : frame.report().resumed()) resumed.push_back(f);
    for (const auto& f : frame.report().preempted()) preempted.push_back(f);
    for (const auto& c : frame.report().checkpoints()) checkpoints.push_back(c);
    for (const auto& l : frame.report().logs()) (l.stream() == pb::STREAM_SYSTEM ? system_logs : logs) += l.data();
    if (frame.report().draining()) ++drainings;
    pb::WorkerOrders orders;
    for (const auto& r : frame.report().results()) {
      results.push_back(r);
      pb::ResultAck& ack = *orders.add_acks();
      ack.set_task(r.task());
      ack.set_attempt(r.attempt());
    }
    if (acks) send(orders);
  }
  void send(const pb::WorkerOrders& orders) {
    pb::Frame frame;
    *frame.mutable_orders() = orders;
    here->send(session.number(frame), true);
  }
  void cut() {
    const auto old = std::exchange(here, nullptr);
    old->close(1000, "cut");
  }
  bool until(const std::function<bool()>& reached) {
    bool ok = false;
    const auto look = loop.every(Millis(2), [&] {
      if (reached()) ok = true, loop.stop();
    });
    const auto limit = loop.after(Millis(15'000), [&] { loop.stop(); });
    loop.context().restart();  // it may have been stopped by an earlier wait
    loop.run();
    return ok;
  }
  // Bytes that the worker finds in its cache, as if it had fetched them.
  std::string blob(const std::string& bytes) {
    const std::string sha = sha256(bytes);
    std::ofstream(dir + "/cache/" + sha) << bytes;
    return sha;
  }
  bool online() {
    return until([&] { return worker->status().online; });
  }
};

inline std::unique_ptr<net::Dialer::Attempt> PairDialer::dial(std::function<void(Result<net::ConnectionPtr>)> done) {
  server.loop.post([this, done = std::move(done)] {
    auto [theirs, ours] = net::memory_pair(server.loop);
    server.accept(ours);
    done(theirs);
  });
  return std::make_unique<Attempt>();
}

inline pb::SpecOrder& builtin(pb::WorkerOrders& orders, std::uint32_t job, const char* op, std::uint32_t ms = 0) {
  pb::SpecOrder& order = *orders.add_specs();
  order.set_job(job);
  order.mutable_spec()->set_engine("builtin");
  order.mutable_spec()->mutable_builtin()->set_op(op);
  order.mutable_spec()->mutable_builtin()->set_ms(ms);
  return order;
}
inline pb::SpecOrder& shell_job(pb::WorkerOrders& orders, std::uint32_t job, const std::string& script) {
  pb::SpecOrder& order = *orders.add_specs();
  order.set_job(job);
  order.mutable_spec()->set_engine("command");
  order.mutable_spec()->mutable_command()->set_shell(true);
  order.mutable_spec()->mutable_command()->add_argv(script);
  return order;
}
inline pb::Assignment& assign(pb::WorkerOrders& orders, std::uint32_t job, std::uint32_t index,
                              const std::string& args = "") {
  pb::Assignment& a = *orders.add_assign();
  a.set_task(TaskId::of(JobNo{job}, index).packed);
  a.set_attempt(1);
  a.set_epoch(5);
  a.set_args(args);
  return a;
}

// An interpreter with the grange package: GRANGE_TEST_PYTHON, and GRANGE_TEST_PYTHONPATH when it is not installed.
// False: there is none.
inline bool with_python(WorkerOptions& options) {
  const char* python = std::getenv("GRANGE_TEST_PYTHON");
  const char* path = std::getenv("GRANGE_TEST_PYTHONPATH");
  if (python == nullptr) return false;
  options.python = python;
  options.python_path = path != nullptr ? path : "";
  return true;
}

// A job of a function named by reference ("cposix\nsystem\n."), which needs no cloudpickle; its arguments are JSON.
inline pb::JobSpec& python_job(pb::WorkerOrders& orders, std::uint32_t job, const std::string& sha) {
  pb::SpecOrder& order = *orders.add_specs();
  order.set_job(job);
  order.mutable_spec()->set_engine("python");
  order.mutable_spec()->set_encoding(pb::ENCODING_JSON);
  order.mutable_spec()->mutable_python()->set_code_sha256(sha);
  return *order.mutable_spec();
}

}  // namespace grange::worker
