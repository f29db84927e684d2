// The whole server: graphs, explaining, pausing, adding, dead letters, users, schedules, and the refusals of each.
#include "server/server_testing.hpp"

namespace grange::server {
namespace {

using namespace testing;

class Control : public Whole {
 protected:
  boost::json::object object(const net::ClientResponse& answer) {
    auto value = wire::parse_json(answer.body);
    if (!value || !value->is_object()) {
      ADD_FAILURE() << answer.status << " " << answer.body;
      return {};
    }
    return value->as_object();
  }
  std::string message(const net::ClientResponse& answer) {
    const auto body = object(answer);
    return body.contains("error") ? std::string(body.at("error").at("message").as_string()) : "";
  }
  void expect(int status, const std::string& method, const std::string& path, const std::string& body = "",
              const std::string& words = "") {
    const auto answer = ask(method, path, body);
    EXPECT_EQ(answer.status, status) << method << " " << path << " " << body << ": " << answer.body;
    EXPECT_NE(answer.body.find(words), std::string::npos) << method << " " << path << ": " << answer.body;
  }
  // The next orders that hold an assignment.
  static std::optional<pb::WorkerOrders> assigned(ProtoPeer& worker) {
    for (;;) {
      auto frame = worker.next();
      if (!frame || !frame->has_orders()) return std::nullopt;
      if (frame->orders().assign_size() > 0) return frame->orders();
    }
  }
  static void end(ProtoPeer& worker, const pb::Assignment& assign, const std::function<void(pb::TaskResult&)>& how) {
    pb::Frame report;
    pb::TaskResult& result = *report.mutable_report()->add_results();
    result.set_task(assign.task());
    result.set_attempt(assign.attempt());
    result.set_epoch(assign.epoch());
    result.set_ok(true);
    how(result);
    worker.send(report);
  }
  bool eventually(const std::function<bool()>& yes) {
    for (int i = 0; i < 400; ++i) {
      if (yes()) return true;
      std::this_thread::sleep_for(20ms);
    }
    return false;
  }
};

TEST_F(Control, AGraphRunsParentsFirstAndHandsResultsOn) {
  start();
  const auto answer = ask("POST", "/api/graphs", R"({"jobs":[
    {"name":"child","builtin":{"op":"echo"},"after":[{"job":"parent","pass":true}]},
    {"name":"parent","builtin":{"op":"echo"},"args":["a","b"]}]})");
  ASSERT_EQ(answer.status, 201) << answer.body;
  const auto jobs = object(answer).at("jobs").as_array();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].at("name").as_string(), "child");
  EXPECT_EQ(jobs[0].at("blocked_tasks").to_number<int>(), 1);
  const std::string child(jobs[0].at("id").as_string());
  const auto why = get("/api/jobs/" + child + "/explain").as_object();
  ASSERT_FALSE(why.at("waits").as_array().empty()) << boost::json::serialize(why);
  EXPECT_EQ(why.at("waits").as_array()[0].at("code").as_string(), "dependency");
  EXPECT_EQ(get("/api/jobs/" + child + "/tasks").as_array()[0].at("status").as_string(), "blocked");

  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  std::vector<pb::Assignment> parents;
  while (parents.size() < 2) {
    const auto orders = assigned(worker);
    ASSERT_TRUE(orders);
    parents.insert(parents.end(), orders->assign().begin(), orders->assign().end());
  }
  for (const pb::Assignment& one : parents) {
    EXPECT_EQ(one.inputs_size(), 0);
    end(worker, one, [&](pb::TaskResult& result) { result.set_value("result of " + one.args()); });
  }
  const auto orders = assigned(worker);
  ASSERT_TRUE(orders);
  const pb::Assignment& last = orders->assign(0);
  ASSERT_EQ(last.inputs_size(), 2);
  EXPECT_EQ(last.inputs(0).value(), "result of a");
  EXPECT_EQ(last.inputs(1).value(), "result of b");
  EXPECT_EQ(last.inputs(0).encoding(), pb::ENCODING_RAW);
  end(worker, last, [](pb::TaskResult&) {});
  EXPECT_EQ(get("/api/jobs/" + child + "?wait=8").as_object().at("status").as_string(), "completed");
  EXPECT_EQ(get("/api/tasks/" + child + "/0/explain").as_object().at("state").as_string(), "completed");
}

TEST_F(Control, GraphsAndWaitsThatCannotBeAreRefusedWhole) {
  start();
  expect(
      400, "POST", "/api/graphs",
      R"({"jobs":[{"name":"a","builtin":{"op":"noop"},"after":["b"]},{"name":"b","builtin":{"op":"noop"},"after":["a"]}]})",
      "waits for");
  expect(404, "POST", "/api/graphs",
         R"({"jobs":[{"name":"prep","builtin":{"op":"noop"}},{"name":"b","builtin":{"op":"noop"},"after":["prap"]}]})",
         "Did you mean \\\"prep\\\"");
  expect(400, "POST", "/api/graphs",
         R"({"jobs":[{"name":"a","builtin":{"op":"noop"}},{"name":"a","builtin":{"op":"noop"}}]})", "Two jobs");
  expect(
      400, "POST", "/api/graphs",
      R"({"jobs":[{"name":"a","builtin":{"op":"noop"}},{"name":"b","builtin":{"op":"noop"},"after":[{"job":"a","index":5}]}]})",
      "no task 5");
  expect(400, "POST", "/api/graphs", R"({"jobs":[{"name":"a","builtin":{"op":"noop"}},{"builtin":{"op":"explode"}}]})",
         "explode");
  expect(400, "POST", "/api/graphs", "[]");
  expect(404, "POST", "/api/jobs", R"({"builtin":{"op":"noop"},"after":["nobody"]})", "nobody");
  EXPECT_TRUE(get("/api/jobs").as_array().empty());
  // The same graph again under the same key is the same graph.
  const std::string graph =
      R"({"jobs":[{"name":"a","builtin":{"op":"noop"}},{"name":"b","builtin":{"op":"noop"},"after":["a"]}]})";
  EXPECT_EQ(ask("POST", "/api/graphs", graph, {{"Idempotency-Key", "g"}}).status, 201);
  const auto again = ask("POST", "/api/graphs", graph, {{"Idempotency-Key", "g"}});
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(get("/api/jobs").as_array().size(), 2u);
}

TEST_F(Control, ExplainAndPlan) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("small", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"noop"},"cpus":64})").status, 201);
  for (const char* path : {"/api/jobs/1/explain", "/api/tasks/1/0/explain", "/api/jobs/1/tasks/0/explain"}) {
    const auto why = get(path).as_object();
    EXPECT_FALSE(why.at("summary").as_string().empty());
    EXPECT_EQ(why.at("job").as_string(), "1");
    EXPECT_EQ(why.at("workers_in_all").to_number<int>(), 1);
    EXPECT_EQ(why.at("workers_could").to_number<int>(), 0);
    ASSERT_EQ(why.at("workers").as_array().size(), 1u);
    EXPECT_EQ(why.at("workers").as_array()[0].at("worker").as_string(), "small");
    EXPECT_FALSE(why.at("workers").as_array()[0].at("why").as_array().empty());
  }
  const auto plan = object(ask("POST", "/api/plan", R"({"builtin":{"op":"noop"}})"));
  EXPECT_EQ(plan.at("workers_now").to_number<int>(), 1) << boost::json::serialize(plan);
  EXPECT_EQ(plan.at("job"), nullptr);
  EXPECT_EQ(get("/api/jobs").as_array().size(), 1u) << "nothing was submitted";
  expect(400, "POST", "/api/plan", R"({"builtin":{"op":"explode"}})");
  expect(400, "POST", "/api/plan", "{");
  expect(404, "GET", "/api/jobs/9/explain");
  expect(404, "GET", "/api/tasks/1/1/explain", "", "no task 1");
  expect(400, "GET", "/api/tasks/1/x/explain");
}

TEST_F(Control, APlanAndARetrySayThatAParentFailed) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"}})").status, 201);
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"after":["1"]})").status, 201);
  const auto orders = assigned(worker);
  ASSERT_TRUE(orders);
  end(worker, orders->assign(0), [](pb::TaskResult& result) {
    result.set_ok(false);
    result.set_permanent(true);
    result.set_failure(pb::FAILURE_EXCEPTION);
  });
  ASSERT_EQ(get("/api/jobs/2?wait=8").as_object().at("status").as_string(), "failed");
  const std::string said(get("/api/jobs/2/tasks/0/explain").as_object().at("summary").as_string());
  EXPECT_NE(said.find("Job 1 failed."), std::string::npos) << said;
  const std::string whole(get("/api/jobs/2/explain").as_object().at("summary").as_string());
  EXPECT_NE(whole.find("Job 1 failed."), std::string::npos) << whole;
  EXPECT_EQ(get("/api/jobs/2/tasks").as_array()[0].at("message").as_string(), "What it waits for did not succeed.");
  expect(409, "POST", "/api/jobs/2/retry", "", "Job 2 waits for job 1, which failed. Retry that one first.");

  const auto plan = [&](const std::string& after) {
    return object(ask("POST", "/api/plan", R"({"builtin":{"op":"noop"},"after":)" + after + "}"));
  };
  for (const char* after : {R"(["1"])", R"([{"job":"1","index":0}])", R"([{"job":"1","each":true}])"}) {
    const auto bad = plan(after);
    ASSERT_FALSE(bad.at("waits").as_array().empty()) << after;
    EXPECT_EQ(bad.at("waits").as_array()[0].at("code").as_string(), "dependency");
    EXPECT_NE(boost::json::serialize(bad.at("summary")).find("would fail at once"), std::string::npos) << after;
  }
  EXPECT_TRUE(plan(R"(["1"],"when":"all_finished")").at("waits").as_array().empty());
}

TEST_F(Control, ACancelledRangeSaysThatItWasCancelled) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"noop"},"count":3})").status, 201);
  expect(400, "POST", "/api/jobs/1/cancel", R"({"raeson":"enough"})", "Did you mean \\\"reason\\\"");
  ASSERT_EQ(ask("POST", "/api/jobs/1/cancel", R"({"reason":"enough"})").status, 200);
  const auto tasks = get("/api/jobs/1/tasks").as_array();
  ASSERT_EQ(tasks.size(), 3u);
  EXPECT_EQ(tasks[2].at("status").as_string(), "cancelled");
  EXPECT_EQ(tasks[2].at("failure").as_string(), "cancelled");
  EXPECT_EQ(tasks[2].at("fault").as_string(), "job");
}

TEST_F(Control, WhatIsNotKnownIsRefusedEverywhere) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"noop"},"open":true})").status, 201);
  for (const char* path :
       {"/api/jobs/1/cancel", "/api/jobs/1/pause", "/api/jobs/1/resume", "/api/jobs/1/tasks", "/api/jobs/1/retry",
        "/api/jobs/1/close", "/api/jobs/1/tasks/0/pause", "/api/jobs/1/tasks/0/resume", "/api/queue/pause",
        "/api/queue/resume", "/api/dead-letters/redrive", "/api/schedules/x/run", "/api/schedules/x/pause"}) {
    expect(400, "POST", path, R"({"xyzzy":1,"job":"1"})");
  }
  expect(400, "PUT", "/api/users/ann", R"({"wieght":1})", "weight");
  expect(400, "GET", "/api/dead-letters?jb=3", "", "Did you mean \\\"job\\\"");
  for (const char* path : {"/api/queue?x=1", "/api/users?x=1", "/api/users/ann?x=1", "/api/schedules?x=1",
                           "/api/policies?x=1", "/api/jobs/1/explain?id=1"}) {
    expect(400, "GET", path, "", "not a parameter");
  }
  expect(404, "GET", "/api/dead-letters?job=77");
  expect(400, "POST", "/api/jobs", R"({"builtin":{"op":"noop"},"user":"a/b"})", "user");
  expect(400, "POST", "/api/jobs", R"({"builtin":{"op":"noop"},"start_in":10,"deadline":"2001-01-01T00:00:00Z"})");
  expect(400, "POST", "/api/jobs", R"({"builtin":{"op":"noop"},"start_in":300000000000})", "10000");
  expect(200, "GET", "/api/jobs/1", "", "pending");
}

TEST_F(Control, PauseAndResumeOfJobTaskAndQueue) {
  start();
  ASSERT_EQ(ask("POST", "/api/queue/pause").status, 200);
  EXPECT_TRUE(get("/api/queue").as_object().at("paused").as_bool());
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b"]})").status, 201);
  EXPECT_FALSE(worker.next(100ms).has_value()) << "the queue is paused";
  ASSERT_EQ(ask("POST", "/api/jobs/1/pause").status, 200);
  EXPECT_TRUE(get("/api/jobs/1").as_object().at("paused").as_bool());
  ASSERT_EQ(ask("POST", "/api/queue/resume").status, 200);
  EXPECT_FALSE(worker.next(100ms).has_value()) << "the job is paused";
  ASSERT_EQ(ask("POST", "/api/jobs/1/tasks/0/pause", R"({"how":"requeue"})").status, 200);
  ASSERT_EQ(ask("POST", "/api/jobs/1/resume").status, 200);
  auto orders = assigned(worker);
  ASSERT_TRUE(orders);
  EXPECT_EQ(orders->assign(0).args(), "b") << "task 0 is held back";
  EXPECT_EQ(get("/api/jobs/1/tasks").as_array()[0].at("status").as_string(), "paused");
  EXPECT_EQ(get("/api/jobs/1").as_object().at("paused_tasks").to_number<int>(), 1);

  // What runs is told to freeze, says that it did, and goes on.
  pb::Frame report;
  pb::Fence fence;
  fence.set_task(orders->assign(0).task());
  fence.set_attempt(orders->assign(0).attempt());
  fence.set_epoch(orders->assign(0).epoch());
  *report.mutable_report()->add_started() = fence;
  worker.send(report);
  ASSERT_TRUE(eventually([&] { return get("/api/jobs/1/tasks").as_array()[1].at("status") == "running"; }));
  ASSERT_EQ(ask("POST", "/api/jobs/1/tasks/1/pause").status, 200);
  auto frame = worker.next();
  ASSERT_TRUE(frame && frame->has_orders() && frame->orders().pause_size() == 1) << frame->ShortDebugString();
  EXPECT_EQ(frame->orders().pause(0).how(), pb::PAUSE_FREEZE);
  report.Clear();
  *report.mutable_report()->add_paused() = fence;
  worker.send(report);
  ASSERT_TRUE(eventually([&] { return get("/api/jobs/1/tasks").as_array()[1].at("status") == "paused"; }));
  ASSERT_EQ(ask("POST", "/api/jobs/1/tasks/1/resume").status, 200);
  frame = worker.next();
  ASSERT_TRUE(frame && frame->has_orders() && frame->orders().pause_size() == 1);
  EXPECT_EQ(frame->orders().pause(0).how(), pb::PAUSE_RESUME);
  report.Clear();
  *report.mutable_report()->add_resumed() = fence;
  worker.send(report);
  ASSERT_TRUE(eventually([&] { return get("/api/jobs/1/tasks").as_array()[1].at("status") == "running"; }));
  ASSERT_EQ(ask("POST", "/api/jobs/1/tasks/0/resume").status, 200);

  expect(400, "POST", "/api/jobs/1/pause", R"({"freeze":"yes"})");
  expect(400, "POST", "/api/jobs/1/tasks/1/pause", R"({"how":"gently"})");
  expect(400, "POST", "/api/jobs/1/tasks/x/pause");
  expect(404, "POST", "/api/jobs/1/tasks/9/pause");
  expect(404, "POST", "/api/jobs/77/pause");
  expect(404, "POST", "/api/jobs/77/resume");
  ASSERT_EQ(ask("POST", "/api/jobs/1/cancel", R"({"reason":"enough"})").status, 200);
  do {
    frame = worker.next();
    ASSERT_TRUE(frame && frame->has_orders());
  } while (frame->orders().cancel_size() == 0);
  EXPECT_EQ(frame->orders().cancel(0).reason(), "enough");
  end(worker, orders->assign(0), [](pb::TaskResult& result) {
    result.set_ok(false);
    result.set_failure(pb::FAILURE_CANCELLED);
  });
  get("/api/jobs/1?wait=8");
  expect(409, "POST", "/api/jobs/1/pause");
}

TEST_F(Control, OpenJobsGrowAndClose) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a"],"open":true})").status, 201);
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  pb::Frame follow;
  follow.mutable_request()->set_id(1);
  follow.mutable_request()->mutable_follow()->set_job_id("1");
  client.send(follow);
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  work(worker, 1);
  EXPECT_TRUE(get("/api/jobs/1").as_object().at("open").as_bool());
  EXPECT_EQ(object(ask("POST", "/api/jobs/1/tasks", R"({"args":["b","c"]})")).at("total_tasks").to_number<int>(), 3);
  work(worker, 2);
  // Over Protobuf too.
  pb::Frame extend;
  extend.mutable_request()->set_id(2);
  extend.mutable_request()->mutable_extend()->set_job_id("1");
  pb::Payload& payload = *extend.mutable_request()->mutable_extend()->add_payloads();
  payload.add_sizes(1);
  payload.set_bytes("d");
  client.send(extend);
  work(worker, 1);
  EXPECT_EQ(get("/api/jobs/1/results").as_array().size(), 4u);
  expect(400, "POST", "/api/jobs/1/tasks", "{}");
  expect(400, "POST", "/api/jobs/1/tasks", R"({"args":["x"],"count":2})");
  expect(400, "POST", "/api/jobs/1/tasks", R"({"arg":["x"]})", "args");
  expect(404, "POST", "/api/jobs/9/tasks", R"({"count":1})");
  EXPECT_EQ(object(ask("POST", "/api/jobs/1/close")).at("total_tasks").to_number<int>(), 4);
  std::map<std::uint32_t, pb::Outcome> outcomes;
  EXPECT_EQ(collect(client, outcomes).count(), 4u);
  EXPECT_EQ(outcomes.size(), 4u);
  EXPECT_EQ(outcomes[3].value(), "d");
  EXPECT_EQ(get("/api/jobs/1").as_object().at("status").as_string(), "completed");
  expect(409, "POST", "/api/jobs/1/tasks", R"({"count":1})");
}

TEST_F(Control, DeadLettersRetryByClassAndTheSecondOutcome) {
  start();
  ASSERT_EQ(
      ask("POST", "/api/jobs", R"({"id":"mine","user":"ann","builtin":{"op":"echo"},"args":["a","b","c"],"retries":0})")
          .status,
      201);
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  pb::Frame follow;
  follow.mutable_request()->set_id(1);
  follow.mutable_request()->mutable_follow()->set_job_id("mine");
  client.send(follow);
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1"));
  ASSERT_TRUE(worker.next()->has_welcome());
  std::map<std::string, pb::Assignment> held;
  while (held.size() < 3) {
    const auto orders = assigned(worker);
    ASSERT_TRUE(orders);
    for (const pb::Assignment& one : orders->assign()) held[one.args()] = one;
  }
  end(worker, held["a"], [](pb::TaskResult& result) {
    result.set_ok(false);
    result.set_failure(pb::FAILURE_EXCEPTION);
    result.set_exception("ValueError");
    result.set_stage(pb::STAGE_EXECUTE);
    result.set_message("no good");
  });
  end(worker, held["b"], [](pb::TaskResult& result) {
    result.set_ok(false);
    result.set_failure(pb::FAILURE_ENGINE);
    result.set_stage(pb::STAGE_DOWNLOAD);
    result.set_message("no blob");
  });
  std::map<std::uint32_t, pb::Outcome> first;
  while (first.size() < 2) {
    const auto frame = client.next();
    ASSERT_TRUE(frame);
    for (const pb::Outcome& one : frame->outcomes().outcomes()) first[one.index()] = one;
  }
  EXPECT_EQ(first[0].exception(), "ValueError");
  EXPECT_EQ(first[0].stage(), pb::STAGE_EXECUTE);
  EXPECT_EQ(first[0].fault(), "job");
  EXPECT_EQ(first[1].fault(), "system");

  const auto dead = get("/api/dead-letters").as_array();
  ASSERT_EQ(dead.size(), 2u);
  const auto& one = dead[0].as_object().at("index").to_number<int>() == 0 ? dead[0] : dead[1];
  EXPECT_EQ(one.at("id").as_string(), "mine/0");
  EXPECT_EQ(one.at("failure").as_string(), "exception");
  EXPECT_EQ(one.at("fault").as_string(), "job");
  EXPECT_EQ(one.at("stage").as_string(), "execute");
  EXPECT_EQ(one.at("message").as_string(), "no good");
  EXPECT_EQ(one.at("user").as_string(), "ann");
  EXPECT_EQ(get("/api/dead-letters?class=engine_error&job=mine").as_array().size(), 1u);
  EXPECT_EQ(get("/api/dead-letters?user=bob").as_array().size(), 0u);
  const auto page = ask("GET", "/api/dead-letters?limit=1");
  ASSERT_TRUE(page.headers.contains("x-next-before"));
  EXPECT_EQ(get("/api/dead-letters?limit=1&before=" + page.headers.at("x-next-before")).as_array().size(), 1u);
  const auto task = get("/api/jobs/mine/tasks").as_array()[1].as_object();
  EXPECT_EQ(task.at("fault").as_string(), "system");
  EXPECT_EQ(task.at("stage").as_string(), "download");
  expect(400, "GET", "/api/dead-letters?class=luck");
  expect(400, "GET", "/api/dead-letters?before=mine");
  expect(404, "GET", "/api/dead-letters?job=nobody");
  expect(400, "POST", "/api/dead-letters/redrive", "{}", "job");
  expect(400, "POST", "/api/dead-letters/redrive", R"({"job":"mine","classes":["luck"]})");
  expect(404, "POST", "/api/dead-letters/redrive", R"({"job":"nobody"})");
  expect(400, "POST", "/api/jobs/mine/retry", R"({"indices":["a"]})");
  expect(404, "POST", "/api/jobs/mine/retry", R"({"indices":[3]})");

  // The job still runs. One class of failure is taken up again, and its second outcome is told to who follows.
  EXPECT_EQ(object(ask("POST", "/api/dead-letters/redrive", R"({"job":"mine","classes":["engine_error"]})"))
                .at("retried")
                .to_number<int>(),
            1);
  const auto again = assigned(worker);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->assign(0).args(), "b");
  EXPECT_GT(again->assign(0).attempt(), first[1].attempt());
  end(worker, again->assign(0), [](pb::TaskResult& result) { result.set_value("better"); });
  end(worker, held["c"], [](pb::TaskResult&) {});
  std::map<std::uint32_t, pb::Outcome> second;
  EXPECT_EQ(collect(client, second).state(), "failed");
  EXPECT_EQ(second.size(), 2u);
  EXPECT_EQ(second[1].value(), "better");
  EXPECT_EQ(get("/api/dead-letters").as_array().size(), 1u);
}

TEST_F(Control, UsersPoliciesAndQuarantine) {
  start();
  expect(404, "GET", "/api/users/ann");
  const auto set = object(ask("PUT", "/api/users/ann", R"({"weight":2.5,"max_cpus":0.5,"max_queued":10})"));
  EXPECT_EQ(set.at("weight").to_number<double>(), 2.5);
  EXPECT_EQ(set.at("max_running").to_number<int>(), 0);
  const auto ann = get("/api/users/ann").as_object();
  EXPECT_EQ(ann.at("max_cpus").to_number<double>(), 0.5);
  EXPECT_EQ(get("/api/users").as_array().size(), 1u);
  const auto refused = ask("POST", "/api/jobs", R"({"user":"ann","builtin":{"op":"noop"},"count":11})");
  EXPECT_EQ(refused.status, 429) << refused.body;
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  expect(400, "PUT", "/api/users/ann", R"({"weight":0})");
  expect(400, "PUT", "/api/users/ann", R"({"wieght":1})", "Did you mean \\\"weight\\\"");
  expect(400, "PUT", "/api/users/ann", R"({"max_running":-1})");
  expect(400, "PUT", "/api/users/ann", "[]");
  expect(200, "DELETE", "/api/users/ann");
  expect(201, "POST", "/api/jobs", R"({"user":"ann","builtin":{"op":"noop"},"count":11})");

  const auto policies = get("/api/policies").as_array();
  EXPECT_EQ(policies.size(), 5u);
  int active = 0;
  for (const auto& one : policies) active += one.at("active").as_bool() ? 1 : 0;
  EXPECT_EQ(active, 1);
  expect(404, "POST", "/api/workers/nobody/release");
  pb::Hello hello = worker_hello("w1", "s1", 1);
  pb::Manifest& manifest = *hello.mutable_worker()->mutable_manifest();
  manifest.set_pool("fast");
  manifest.add_models("llama3:8b");
  manifest.add_gpus()->set_memory_bytes(1000);
  manifest.add_gpus()->set_memory_bytes(500);
  ProtoPeer worker(loop_, ws(), hello);
  ASSERT_TRUE(worker.next()->has_welcome());
  const auto shown = get("/api/workers").as_array()[0].as_object();
  EXPECT_EQ(shown.at("pool").as_string(), "fast");
  EXPECT_EQ(boost::json::serialize(shown.at("models")), R"(["llama3:8b"])");
  EXPECT_EQ(shown.at("failed_in_a_row").to_number<int>(), 0);
  EXPECT_EQ(shown.at("quarantined_until"), nullptr);
  const auto fits = [&](const std::string& needs) {
    return object(ask("POST", "/api/plan", R"({"builtin":{"op":"noop"},)" + needs + "}")).at("workers_could") == 1;
  };
  EXPECT_TRUE(fits(R"("pool":"fast","needs_model":"llama3:8b","gpus":1,"gpu_memory":500)"));
  EXPECT_FALSE(fits(R"("gpus":1,"gpu_memory":501)")) << "the smallest one counts";
  EXPECT_FALSE(fits(R"("pool":"slow")"));
  EXPECT_FALSE(fits(R"("needs_model":"other")"));
}

TEST_F(Control, GangsAreToldTheirHosts) {
  start();
  std::vector<std::unique_ptr<ProtoPeer>> workers;
  for (const char* name : {"w1", "w2"}) {
    pb::Hello hello = worker_hello(name, name, 1);
    hello.mutable_worker()->mutable_manifest()->set_hostname(std::string("host-of-") + name);
    workers.push_back(std::make_unique<ProtoPeer>(loop_, ws(), hello));
    ASSERT_TRUE(workers.back()->next()->has_welcome());
  }
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"nodes":2})").status, 201);
  std::set<std::uint32_t> ranks;
  std::vector<std::string> hosts;
  for (const auto& worker : workers) {
    const auto orders = assigned(*worker);
    ASSERT_TRUE(orders);
    ranks.insert(orders->assign(0).rank());
    ASSERT_EQ(orders->assign(0).gang_size(), 2);
    const std::string name = "host-of-" + worker->hello().worker().worker_id();
    EXPECT_EQ(orders->assign(0).gang(static_cast<int>(orders->assign(0).rank())), name);
  }
  EXPECT_EQ(ranks, (std::set<std::uint32_t>{0, 1}));
}

TEST_F(Control, Schedules) {
  start();
  const std::string job = R"("job":{"builtin":{"op":"noop"},"name":"nightly"})";
  const auto put = ask("PUT", "/api/schedules/nightly", R"({"cron":"0 4 * * *",)" + job + R"(,"overlap":false})");
  ASSERT_EQ(put.status, 200) << put.body;
  const auto shown = get("/api/schedules/nightly").as_object();
  EXPECT_EQ(shown.at("cron").as_string(), "0 4 * * *");
  EXPECT_FALSE(shown.at("overlap").as_bool());
  EXPECT_TRUE(shown.at("next").is_string());
  EXPECT_EQ(shown.at("job").at("name").as_string(), "nightly");
  const auto run = ask("POST", "/api/schedules/nightly/run");
  ASSERT_EQ(run.status, 201) << run.body;
  const std::string id(object(run).at("job_id").as_string());
  EXPECT_EQ(get("/api/jobs/" + id).as_object().at("name").as_string(), "nightly");
  EXPECT_TRUE(get("/api/schedules/nightly").at("last").is_string());
  EXPECT_TRUE(object(ask("POST", "/api/schedules/nightly/pause")).at("paused").as_bool());
  stop();
  start();
  const auto kept = get("/api/schedules").as_array();
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_TRUE(kept[0].at("paused").as_bool());
  EXPECT_EQ(kept[0].at("runs").to_number<int>(), 1);
  EXPECT_EQ(kept[0].at("last_job").as_string(), id);
  EXPECT_FALSE(object(ask("POST", "/api/schedules/nightly/resume")).at("paused").as_bool());

  expect(400, "PUT", "/api/schedules/x", "{" + job + "}", "cron");
  expect(400, "PUT", "/api/schedules/x", R"({"cron":"0 0 30 2 *",)" + job + "}", "never runs");
  expect(400, "PUT", "/api/schedules/x", R"({"cron":"@daily"})", "job");
  expect(400, "PUT", "/api/schedules/x", R"({"cron":"@daily","job":{"builtin":{"op":"noop"},"key":"k"}})", "key");
  expect(400, "PUT", "/api/schedules/x", R"({"cron":"@daily","job":{"builtin":{"op":"explode"}}})", "explode");
  expect(400, "PUT", "/api/schedules/x", R"({"chron":"@daily",)" + job + "}");
  expect(400, "PUT", "/api/schedules/a%20b", R"({"cron":"@daily",)" + job + "}");
  expect(404, "GET", "/api/schedules/x");
  expect(404, "DELETE", "/api/schedules/x");
  for (const char* what : {"pause", "resume", "run"}) expect(404, "POST", std::string("/api/schedules/x/") + what);
  expect(200, "DELETE", "/api/schedules/nightly");
  EXPECT_TRUE(get("/api/schedules").as_array().empty());
}

TEST_F(Control, ProtobufPauseAndItsRefusals) {
  start();
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"args":["a","b"]})").status, 201);
  std::uint64_t id = 0;
  const auto say = [&](pb::PauseHow how, std::optional<std::uint32_t> index, const std::string& job = "1") {
    pb::Frame frame;
    frame.mutable_request()->set_id(++id);
    pb::PauseRequest& pause = *frame.mutable_request()->mutable_pause();
    pause.set_job_id(job);
    pause.set_how(how);
    pause.set_one_task(index.has_value());
    pause.set_index(index.value_or(0));
    client.send(frame);
    const auto answer = client.next();
    return answer && answer->has_response() ? answer->response() : pb::Response();
  };
  EXPECT_TRUE(say(pb::PAUSE_FREEZE, std::nullopt).job().paused());
  EXPECT_FALSE(say(pb::PAUSE_RESUME, std::nullopt).job().paused());
  EXPECT_FALSE(say(pb::PAUSE_REQUEUE, 1).has_error());
  EXPECT_EQ(say(pb::PAUSE_REQUEUE, std::nullopt).error().code(), "invalid_argument");
  EXPECT_EQ(say(pb::PAUSE_FREEZE, 7).error().code(), "not_found");
  EXPECT_EQ(say(pb::PAUSE_FREEZE, std::nullopt, "9").error().code(), "not_found");
  // More than a follower may name.
  pb::Frame follow;
  follow.mutable_request()->set_id(++id);
  follow.mutable_request()->mutable_follow()->set_job_id("1");
  for (std::size_t i = 0; i <= limits::kHaveRanges; ++i) {
    follow.mutable_request()->mutable_follow()->add_have_first(0);
    follow.mutable_request()->mutable_follow()->add_have_end(0);
  }
  client.send(follow);
  const auto refused = client.next();
  ASSERT_TRUE(refused && refused->has_response());
  EXPECT_EQ(refused->response().error().code(), "too_large");
}

TEST_F(Control, APageOfLogsEndsAtSomeBytes) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"}})").status, 201);
  const auto orders = assigned(worker);
  ASSERT_TRUE(orders);
  pb::Frame frame;
  pb::LogChunk& log = *frame.mutable_report()->add_logs();
  log.set_task(orders->assign(0).task());
  log.set_attempt(orders->assign(0).attempt());
  log.set_epoch(orders->assign(0).epoch());
  log.set_data(std::string(6 * MiB, 'x'));  // one message, cut into pieces
  worker.send(frame);
  end(worker, orders->assign(0), [](pb::TaskResult&) {});
  get("/api/jobs/1?wait=8");
  std::size_t bytes = 0, pages = 0;
  std::string after = "0";
  while (!after.empty()) {
    const auto page = ask("GET", "/api/jobs/1/logs?after=" + after);
    ASSERT_EQ(page.status, 200);
    EXPECT_LT(page.body.size(), 5 * MiB);
    const auto lines = wire::parse_json(page.body);
    ASSERT_TRUE(lines.ok());
    for (const auto& line : lines->as_array()) bytes += line.at("text").as_string().size();
    after = page.headers.contains("x-next-after") ? page.headers.at("x-next-after") : "";
    ASSERT_LT(++pages, 10u);
  }
  EXPECT_EQ(bytes, 6 * MiB);
  EXPECT_EQ(pages, 2u);
}

}  // namespace
}  // namespace grange::server
