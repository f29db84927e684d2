// The whole server over real sockets: Protobuf sessions and REST.
#include "server/server_testing.hpp"
#include "store/blobs.hpp"

namespace grange::server {
namespace {

using namespace testing;

TEST_F(Whole, EchoThroughAWorkerAndBack) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  auto welcome = worker.next();
  ASSERT_TRUE(welcome && welcome->has_welcome());
  EXPECT_FALSE(welcome->welcome().resumed());
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  client.send(echo(1, 500));
  work(worker, 500);
  const auto response = client.next();
  ASSERT_TRUE(response && response->has_response());
  EXPECT_EQ(response->response().id(), 1u);
  EXPECT_FALSE(response->response().has_error()) << response->response().error().message();
  std::map<std::uint32_t, pb::Outcome> outcomes;
  const pb::JobStatus ended = collect(client, outcomes);
  EXPECT_EQ(ended.state(), "completed");
  ASSERT_EQ(outcomes.size(), 500u);
  EXPECT_EQ(outcomes[123].value(), "arg123");
  EXPECT_EQ(outcomes[123].worker(), "w1");

  const auto job = get("/api/jobs/" + response->response().job().job_id()).as_object();
  EXPECT_EQ(job.at("status").as_string(), "completed");
  EXPECT_EQ(job.at("completed_tasks").to_number<int>(), 500);
  const auto stats = get("/api/stats").as_object();
  for (const char* field :
       {"total_jobs", "completed_jobs", "pending_jobs", "connected_workers", "active_tasks", "total_tasks_completed"}) {
    EXPECT_TRUE(stats.contains(field)) << field;
  }
  EXPECT_EQ(stats.at("total_tasks_completed").to_number<int>(), 500);
  EXPECT_EQ(get("/api/jobs/1/results?after=122&limit=1").as_array().at(0).as_object().at("value").as_string(),
            "arg123");
  EXPECT_EQ(get("/api/jobs/1/tasks?limit=1000&status=completed").as_array().size(), 500u);
  const auto workers = get("/api/workers").as_array();
  ASSERT_EQ(workers.size(), 1u);
  EXPECT_EQ(workers[0].as_object().at("status").as_string(), "online");
}

TEST_F(Whole, KeysAreIdempotentAndConflictsAreSaid) {
  start();
  const std::string body = R"({"builtin":{"op":"noop"},"count":3,"key":"k1"})";
  const auto first = ask("POST", "/api/jobs", body), second = ask("POST", "/api/jobs", body);
  EXPECT_EQ(first.status, 201) << first.body;
  EXPECT_EQ(second.status, 200) << second.body;
  EXPECT_EQ(wire::parse_json(first.body)->as_object().at("id"), wire::parse_json(second.body)->as_object().at("id"));
  EXPECT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"noop"},"count":4,"key":"k1"})").status, 409);
  EXPECT_EQ(get("/api/jobs").as_array().size(), 1u);
  // The same key over Protobuf, other content: the same refusal.
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  client.send(echo(9, 2, true, "k1"));
  const auto refused = client.next();
  ASSERT_TRUE(refused && refused->has_response());
  EXPECT_EQ(refused->response().error().code(), "conflict");
}

TEST_F(Whole, BadRequestsAreAnsweredAndHarmNothing) {
  start();
  EXPECT_EQ(ask("GET", "/api/jobs/999").status, 404);
  EXPECT_EQ(ask("GET", "/api/jobs/no-such-job/results").status, 404);
  EXPECT_EQ(ask("GET", "/api/nothing").status, 404);
  EXPECT_EQ(ask("PATCH", "/api/jobs").status, 405);
  EXPECT_EQ(ask("POST", "/api/jobs", "{").status, 400);
  EXPECT_EQ(ask("POST", "/api/jobs", R"({"comand":["x"]})").status, 400);
  EXPECT_EQ(ask("GET", "/api/jobs?limit=none").status, 400);
  EXPECT_EQ(ask("DELETE", "/api/db").status, 400);
  EXPECT_EQ(ask("PUT", "/api/policy", R"({"policy":"luck"})").status, 400);
  EXPECT_EQ(ask("PUT", "/api/blobs/xyz", "data").status, 400);
  EXPECT_EQ(ask("GET", "/api/stats", "", {{"Origin", "http://evil.example"}}).status, 403);
  const auto error = wire::parse_json(ask("GET", "/api/jobs/999").body)->as_object().at("error").as_object();
  EXPECT_EQ(error.at("code").as_string(), "not_found");
  EXPECT_TRUE(error.contains("message") && error.contains("details"));
  EXPECT_TRUE(get("/health").as_object().contains("status"));

  Line garbage(loop_, ws());
  garbage.send(std::string("\xff\xff\xff not a frame", 15), true);
  EXPECT_TRUE(garbage.closes());
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  worker.line().send("\xff\xff", true);
  auto said = worker.next();
  ASSERT_TRUE(said && said->has_error());
  EXPECT_EQ(said->error().code(), "invalid_argument");
  worker.line().send(std::string(limits::kFrame + 100, 'x'), true);  // the listener's limit, or ours
  ProtoPeer next(loop_, ws(), worker_hello("w2", "s2"));
  ASSERT_TRUE(next.next()->has_welcome()) << "the server lives";
  pb::Hello old = worker_hello("w3", "s3");
  ProtoPeer outdated(loop_, ws(), old);
  ASSERT_TRUE(outdated.next()->has_welcome());
  pb::Frame wrong;
  wrong.mutable_request()->set_id(1);
  outdated.send(wrong);
  said = outdated.next();
  ASSERT_TRUE(said && said->has_error());
}

TEST_F(Whole, ResultsOfOthersAreStale) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ProtoPeer thief(loop_, ws(), worker_hello("w2", "s2", 1));
  ASSERT_TRUE(thief.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b"]})").status, 201);
  const auto mine = worker.next();
  ASSERT_TRUE(mine && mine->has_orders());
  const pb::Assignment& assign = mine->orders().assign(0);
  const auto claim = [&](ProtoPeer& who, std::uint32_t attempt) {
    pb::Frame frame;
    pb::TaskResult& result = *frame.mutable_report()->add_results();
    result.set_task(assign.task());
    result.set_attempt(attempt);
    result.set_epoch(assign.epoch());
    result.set_ok(true);
    result.set_value("stolen");
    who.send(frame);
    for (;;) {
      const auto answer = who.next();
      if (!answer) return pb::VERDICT_UNSPECIFIED;
      for (const pb::ResultAck& ack : answer->orders().acks()) {
        if (ack.task() == assign.task()) return ack.verdict();
      }
    }
  };
  EXPECT_EQ(claim(thief, assign.attempt()), pb::VERDICT_STALE);
  EXPECT_EQ(claim(worker, assign.attempt() + 1), pb::VERDICT_STALE);
  EXPECT_EQ(claim(worker, assign.attempt()), pb::VERDICT_ACCEPTED);
}

TEST_F(Whole, AWorkerIdIsConnectedOnce) {
  start();
  ProtoPeer first(loop_, ws(), worker_hello("same", "s1"));
  ASSERT_TRUE(first.next()->has_welcome());
  ProtoPeer second(loop_, ws(), worker_hello("same", "s2"));
  // The first answers the server's question, so it lives and keeps its id.
  const auto question = first.line().next();
  ASSERT_TRUE(question.has_value());
  pb::Frame alive;
  alive.mutable_heartbeat();
  first.line().send(first.session.unnumbered(alive), true);
  const auto refused = second.next();
  ASSERT_TRUE(refused && refused->has_error());
  EXPECT_EQ(refused->error().code(), "conflict");
  EXPECT_TRUE(second.line().closes());
}

TEST_F(Whole, AWorkerResumes) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b","c"]})").status, 201);
  std::vector<pb::Assignment> held;
  while (held.size() < 3) {
    const auto orders = worker.next();
    ASSERT_TRUE(orders && orders->has_orders());
    held.insert(held.end(), orders->orders().assign().begin(), orders->orders().assign().end());
  }
  worker.line().drop();
  worker.connect();
  const auto welcome = worker.next();
  ASSERT_TRUE(welcome && welcome->has_welcome());
  EXPECT_TRUE(welcome->welcome().resumed());
  EXPECT_EQ(welcome->welcome().refused_size(), 0);
  pb::Frame report;
  for (const pb::Assignment& assign : held) {
    pb::TaskResult& result = *report.mutable_report()->add_results();
    result.set_task(assign.task());
    result.set_attempt(assign.attempt());
    result.set_epoch(assign.epoch());
    result.set_ok(true);
  }
  worker.send(report);
  int accepted = 0;
  while (accepted < 3) {
    const auto acks = worker.next();
    ASSERT_TRUE(acks && acks->has_orders());
    EXPECT_EQ(acks->orders().assign_size(), 0) << "what is held is not given again";
    for (const pb::ResultAck& ack : acks->orders().acks()) {
      EXPECT_EQ(ack.verdict(), pb::VERDICT_ACCEPTED);
      ++accepted;
    }
  }
}

TEST_F(Whole, AWorkerThatDrainsItselfGetsNothingNew) {
  start();
  ProtoPeer says_later(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(says_later.next()->has_welcome());
  pb::Frame report;
  report.mutable_report()->set_draining(true);
  says_later.send(report);
  pb::Hello hello = worker_hello("w2", "s2");
  hello.mutable_worker()->set_draining(true);
  ProtoPeer says_at_once(loop_, ws(), hello);
  ASSERT_TRUE(says_at_once.next()->has_welcome());
  const auto draining = [&] {
    int count = 0;
    const auto workers = get("/api/workers");
    for (const auto& worker : workers.as_array()) count += worker.at("status") == "draining" ? 1 : 0;
    return count == 2;
  };
  for (int i = 0; i < 200 && !draining(); ++i) std::this_thread::sleep_for(20ms);
  ASSERT_TRUE(draining());
  ProtoPeer takes(loop_, ws(), worker_hello("w3", "s3", 1));
  ASSERT_TRUE(takes.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b","c"]})").status, 201);
  work(takes, 3);
  EXPECT_FALSE(says_later.next(50ms).has_value());
  EXPECT_FALSE(says_at_once.next(50ms).has_value());
}

TEST_F(Whole, ASpecComesAgainAfterItsTaskWasReturned) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a"]})").status, 201);
  for (int round = 0; round < 3; ++round) {
    const auto orders = worker.next();
    ASSERT_TRUE(orders && orders->has_orders());
    ASSERT_EQ(orders->orders().assign_size(), 1);
    EXPECT_EQ(orders->orders().specs_size(), 1) << "round " << round;
    pb::Frame report;
    pb::Fence& fence = *report.mutable_report()->add_returned();
    fence.set_task(orders->orders().assign(0).task());
    fence.set_attempt(orders->orders().assign(0).attempt());
    fence.set_epoch(orders->orders().assign(0).epoch());
    worker.send(report);
  }
}

TEST_F(Whole, ASpecComesAgainAfterManyOthers) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b"]})").status, 201);
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  const auto first = worker.next();
  ASSERT_TRUE(first && first->has_orders());
  ASSERT_EQ(first->orders().assign_size(), 1);
  ASSERT_EQ(first->orders().specs_size(), 1);
  for (std::size_t i = 0; i < limits::kSpecsKept; ++i)
    ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["x"],"priority":9})").status, 201);
  pb::Assignment last = first->orders().assign(0);
  bool again = false;
  for (std::size_t ended = 0; ended < limits::kSpecsKept + 2;) {
    pb::Frame report;
    pb::TaskResult& result = *report.mutable_report()->add_results();
    result.set_task(last.task());
    result.set_attempt(last.attempt());
    result.set_epoch(last.epoch());
    result.set_ok(true);
    worker.send(report);
    if (++ended == limits::kSpecsKept + 2) break;
    std::optional<pb::Frame> orders;
    do {
      orders = worker.next();
      ASSERT_TRUE(orders && orders->has_orders());
    } while (orders->orders().assign_size() == 0);
    last = orders->orders().assign(0);
    EXPECT_EQ(orders->orders().specs_size(), 1);
    again = again || TaskId{last.task()}.job() == TaskId{first->orders().assign(0).task()}.job();
  }
  EXPECT_TRUE(again);
}

TEST_F(Whole, AClientResumesInMidStreamAndFollowsAnew) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 10));
  ASSERT_TRUE(worker.next()->has_welcome());
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  client.send(echo(1, 300));
  std::map<std::uint32_t, pb::Outcome> outcomes;
  work(worker, 100);
  ASSERT_TRUE(client.next()->has_response());
  for (const auto frame = client.next(); const pb::Outcome& one : frame->outcomes().outcomes())
    outcomes[one.index()] = one;
  client.line().drop();
  work(worker, 200);
  client.connect();
  const auto welcome = client.next();
  ASSERT_TRUE(welcome && welcome->has_welcome());
  EXPECT_TRUE(welcome->welcome().resumed());
  EXPECT_EQ(collect(client, outcomes).state(), "completed");
  EXPECT_EQ(outcomes.size(), 300u);

  // Another session, which has some already: only the rest, then the end.
  ProtoPeer other(loop_, ws(), client_hello("c2"));
  ASSERT_TRUE(other.next()->has_welcome());
  pb::Frame follow;
  follow.mutable_request()->set_id(1);
  follow.mutable_request()->mutable_follow()->set_job_id("1");
  follow.mutable_request()->mutable_follow()->add_have_first(50);
  follow.mutable_request()->mutable_follow()->add_have_end(290);
  other.send(follow);
  std::map<std::uint32_t, pb::Outcome> rest;
  collect(other, rest);
  EXPECT_EQ(rest.size(), 60u);
  EXPECT_FALSE(rest.contains(50));
}

TEST_F(Whole, CancelTellsOfEveryTaskAndRetryRunsThemAgain) {
  start();
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  client.send(echo(1, 1000));
  ASSERT_TRUE(client.next()->has_response());
  const auto cancelled = ask("POST", "/api/jobs/1/cancel", R"({"reason":"test"})");
  EXPECT_EQ(cancelled.status, 200) << cancelled.body;
  EXPECT_EQ(wire::parse_json(cancelled.body)->as_object().at("cancelled").to_number<int>(), 1000);
  std::map<std::uint32_t, pb::Outcome> outcomes;
  EXPECT_EQ(collect(client, outcomes).state(), "cancelled");
  EXPECT_EQ(outcomes.size(), 1000u);
  EXPECT_EQ(outcomes[999].end(), pb::TASK_CANCELLED);
  EXPECT_EQ(ask("POST", "/api/jobs/1/cancel").status, 409);
  EXPECT_EQ(wire::parse_json(ask("POST", "/api/jobs/1/retry").body)->as_object().at("retried").to_number<int>(), 1000);
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 200));
  ASSERT_TRUE(worker.next()->has_welcome());
  work(worker, 1000);
  EXPECT_EQ(get("/api/jobs/1?wait=5").as_object().at("status").as_string(), "completed");
}

TEST_F(Whole, TheTokenIsWantedEverywhere) {
  start("a-token-of-some-length");
  EXPECT_EQ(ask("GET", "/health").status, 200);
  EXPECT_EQ(ask("GET", "/").status, 200);
  EXPECT_EQ(ask("GET", "/api/stats").status, 401);
  EXPECT_EQ(ask("GET", "/api/stats", "", {{"Authorization", "Bearer wrong"}}).status, 401);
  EXPECT_EQ(ask("GET", "/api/stats", "", {{"Authorization", "Bearer a-token-of-some-length"}}).status, 200);
  // Nobody unknown makes the server read a body, not even where everybody may look.
  for (const char* path : {"/api/jobs", "/api/blobs/xyz", "/nothing", "/health"}) {
    const auto refused = ask("POST", path, std::string(100, 'x'));
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_NE(refused.body.find("GRANGE_TOKEN"), std::string::npos) << refused.body;
  }
  EXPECT_EQ(ask("GET", "/nothing").status, 404);
  EXPECT_EQ(ask("GET", "/docs").status, 200);
  EXPECT_EQ(ask("GET", "/openapi.json").status, 200);
  EXPECT_EQ(ask("GET", "/assets/docs.js").status, 200);
  EXPECT_FALSE(Line(loop_, ws()).open());
  EXPECT_FALSE(Line(loop_, ws(), {{"Authorization", "Bearer wrong"}}).open());
  EXPECT_TRUE(Line(loop_, ws(), {{"Authorization", "Bearer a-token-of-some-length"}}).open());
}

TEST_F(Whole, TasksSayHowFarTheyAreAndWhyTheyFailed) {
  start();
  pb::Hello hello = worker_hello("w1", "s1", 1);
  hello.mutable_worker()->mutable_manifest()->add_engines("command");
  ProtoPeer worker(loop_, ws(), hello);
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"command":["false"],"retries":0})").status, 201);
  const auto orders = worker.next();
  ASSERT_TRUE(orders && orders->has_orders());
  const pb::Assignment& assign = orders->orders().assign(0);
  pb::Frame running;
  pb::Fence& fence = *running.mutable_report()->add_started();
  pb::Progress& progress = *running.mutable_report()->add_progress();
  fence.set_task(assign.task());
  progress.set_task(assign.task());
  fence.set_attempt(assign.attempt());
  progress.set_attempt(assign.attempt());
  fence.set_epoch(assign.epoch());
  progress.set_epoch(assign.epoch());
  progress.set_done(2.5);
  progress.set_total(10);
  progress.set_text("half of \"five\"");
  worker.send(running);
  boost::json::object task;
  for (int i = 0; i < 500 && !(task.contains("progress") && task.at("progress").is_object()); ++i) {
    task = get("/api/jobs/1/tasks").as_array().at(0).as_object();
  }
  ASSERT_TRUE(task.at("progress").is_object()) << boost::json::serialize(task);
  EXPECT_EQ(boost::json::serialize(task.at("progress").at("text")), R"("half of \"five\"")");
  EXPECT_NE(ask("GET", "/api/jobs/1/tasks").body.find(R"({"done":2.5,"total":10,)"), std::string::npos);
  EXPECT_EQ(task.at("exit_code"), nullptr);

  pb::Frame report;
  pb::TaskResult& result = *report.mutable_report()->add_results();
  result.set_task(assign.task());
  result.set_attempt(assign.attempt());
  result.set_epoch(assign.epoch());
  result.set_failure(pb::FAILURE_EXIT_CODE);
  result.set_exit_code(3);
  result.set_message("exit code 3: no such disk");
  worker.send(report);
  ASSERT_TRUE(get("/api/jobs/1?wait=20").at("completed_at").is_string());
  task = get("/api/jobs/1/tasks").as_array().at(0).as_object();
  EXPECT_EQ(task.at("status").as_string(), "failed");
  EXPECT_EQ(task.at("message").as_string(), "exit code 3: no such disk");
  EXPECT_EQ(task.at("failure").as_string(), "exit_code");
  EXPECT_EQ(task.at("exit_code").to_number<int>(), 3);
  EXPECT_EQ(task.at("progress"), nullptr);
}

TEST_F(Whole, SettingsThatCannotBeAreRefused) {
  const auto refusal = [&](auto change) {
    ServerOptions options;
    options.port = options.ws_port = 0;
    options.data_dir = folder_.path();
    change(options);
    auto server = Server::start(loop_, options);
    return server ? std::string() : server.error().message;
  };
  EXPECT_NE(refusal([](ServerOptions& o) { o.host = "0.0.0.0"; }).find("--token-file"), std::string::npos);
  EXPECT_NE(refusal([](ServerOptions& o) { o.policy = "luck"; }).find("priority"), std::string::npos);
  EXPECT_NE(refusal([](ServerOptions& o) { o.data_dir = "/proc/nowhere"; }), "");
  start();
  EXPECT_NE(refusal([](ServerOptions&) {}), "") << "the folder is in use";
}

TEST_F(Whole, BlobsAndModels) {
  start();
  const std::string bytes(300'000, 'b');
  const std::string sha256 = store::sha256_hex(bytes);
  EXPECT_EQ(ask("PUT", "/api/blobs/" + sha256, bytes).status, 201);
  EXPECT_EQ(ask("PUT", "/api/blobs/" + sha256, bytes).status, 200);
  EXPECT_EQ(ask("PUT", "/api/blobs/" + std::string(64, 'a'), bytes).status, 400) << "the name is not the bytes' hash";
  EXPECT_EQ(ask("GET", "/api/blobs/" + sha256).body, bytes);
  const auto part = ask("GET", "/api/blobs/" + sha256, "", {{"Range", "bytes=299990-"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body.size(), 10u);
  EXPECT_EQ(ask("GET", "/api/blobs/" + sha256, "", {{"If-None-Match", "\"" + sha256 + "\""}}).status, 304);
  EXPECT_TRUE(get("/api/blobs/" + sha256 + "/status").as_object().at("complete").as_bool());
  EXPECT_EQ(ask("PUT", "/models/resize/1", "code").status, 201);
  EXPECT_EQ(ask("PUT", "/models/resize/1", "other").status, 409);
  EXPECT_EQ(get("/models/resize/1").as_object().at("code").as_string(), "636f6465");
  EXPECT_EQ(ask("GET", "/models/resize/2").status, 404);
  EXPECT_EQ(ask("POST", "/api/jobs", R"({"engine":"python","model":"resize/1","args":[1]})").status, 201);
}

TEST_F(Whole, LogsAreFollowedToTheirEnd) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"}})").status, 201);
  const auto orders = worker.next();
  ASSERT_TRUE(orders && orders->has_orders());
  auto following = std::async(std::launch::async, [&] { return ask("GET", "/api/jobs/1/logs?follow=1").body; });
  const pb::Assignment& assign = orders->orders().assign(0);
  for (const char* text : {"one\n", "two\n"}) {
    pb::Frame frame;
    pb::LogChunk& log = *frame.mutable_report()->add_logs();
    log.set_task(assign.task());
    log.set_attempt(assign.attempt());
    log.set_epoch(assign.epoch());
    log.set_data(text);
    worker.send(frame);
  }
  pb::Frame foreign;
  foreign.mutable_report()->add_logs()->set_task(12345);
  foreign.mutable_report()->mutable_logs(0)->set_data("not mine");
  worker.send(foreign);
  pb::Frame done;
  pb::TaskResult& result = *done.mutable_report()->add_results();
  result.set_task(assign.task());
  result.set_attempt(assign.attempt());
  result.set_epoch(assign.epoch());
  result.set_ok(true);
  worker.send(done);
  ASSERT_EQ(following.wait_for(kPatience), std::future_status::ready);
  const std::string stream = following.get();
  EXPECT_NE(stream.find("\"text\":\"one\\n\""), std::string::npos) << stream;
  EXPECT_NE(stream.find("\"text\":\"two\\n\""), std::string::npos);
  EXPECT_EQ(stream.find("not mine"), std::string::npos);
  EXPECT_NE(stream.find("event: end"), std::string::npos);
  EXPECT_EQ(get("/api/jobs/1/logs").as_array().size(), 2u);
}

TEST_F(Whole, ARestartKeepsWhatWasAccepted) {
  start();
  {
    ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 5));
    ASSERT_TRUE(worker.next()->has_welcome());
    ASSERT_EQ(ask("POST", "/api/jobs", R"({"id":"mine","builtin":{"op":"echo"},"args":["a","b","c"]})").status, 201);
    work(worker, 3);
  }
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["d","e"]})").status, 201);
  const auto incarnation = get("/api/stats").as_object().at("next_event").to_number<std::uint64_t>() >> 32;
  stop();
  start();
  EXPECT_GT(get("/api/stats").as_object().at("next_event").to_number<std::uint64_t>() >> 32, incarnation);
  EXPECT_EQ(get("/api/jobs/mine").as_object().at("status").as_string(), "completed");
  EXPECT_EQ(get("/api/jobs/mine/results").as_array().at(2).as_object().at("value").as_string(), "c");
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 5));
  const auto welcome = worker.next();
  ASSERT_TRUE(welcome && welcome->has_welcome());
  EXPECT_FALSE(welcome->welcome().resumed());
  work(worker, 2);
  EXPECT_EQ(get("/api/jobs/2?wait=5").as_object().at("status").as_string(), "completed");
}

}  // namespace
}  // namespace grange::server
