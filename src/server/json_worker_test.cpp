// Workers of the JSON dialect: which task a message is about, what follows a cancellation, and how long silence is
// life.
#include "server/server_testing.hpp"

namespace grange::server {
namespace {

using namespace testing;

class JsonWorker : public Whole {
 protected:
  void submit(const std::string& job, int tasks = 1) {
    std::string args = "[1]";
    for (int i = 1; i < tasks; ++i) args += ",[1]";
    Line client(loop_, ws());
    client.say(R"({"type":"submit_job","job_id":")" + job + R"(","data":{"func_code":"80","ack":true,"args_list":[)" +
               args + "]}}");
    EXPECT_EQ(client.hear().at("type").as_string(), "job_accepted");
  }
  static std::string code_of(Line& line, const std::string& text) {
    line.say(text);
    const auto answer = line.hear();
    return answer.at("type").as_string() == "error" ? std::string(answer.at("data").as_object().at("code").as_string())
                                                    : std::string(answer.at("type").as_string());
  }
  void until_task_is(const std::string& job, std::set<std::string> wanted) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      const auto tasks = get("/api/jobs/" + job + "/tasks").as_array();
      const std::string status(tasks.at(0).as_object().at("status").as_string());
      if (wanted.contains(status)) return;
      ASSERT_LT(std::chrono::steady_clock::now(), end) << status;
      std::this_thread::sleep_for(5ms);
    }
  }
  std::string result_of(const std::string& job) {
    EXPECT_EQ(get("/api/jobs/" + job + "?wait=5").as_object().at("status").as_string(), "completed");
    return boost::json::serialize(get("/api/jobs/" + job + "/results").as_array().at(0).as_object().at("value"));
  }
  // The worker runs task a/0; a is cancelled, and b/0 waits behind it.
  void cancel_what_runs(Line& worker) {
    submit("a");
    worker.say(R"({"type":"register_worker","worker_id":"w"})");
    ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
    submit("b");
    ASSERT_EQ(ask("POST", "/api/jobs/a/cancel", "{}").status, 200);
    until_task_is("b", {"assigned", "running"});
    EXPECT_EQ(code_of(worker, R"({"type":"ping"})"), "pong") << "b waits until the worker is done with a";
  }
};

TEST_F(JsonWorker, AResultNamesItsJobAndTask) {
  start();
  submit("a");
  submit("b");
  Line worker(loop_, ws());
  worker.say(R"({"type":"register_worker","worker_id":"w"})");
  ASSERT_EQ(worker.hear().at("job_id").as_string(), "a");
  for (const char* wrong : {R"({"type":"task_result","job_id":"b","data":{"result":"wrong"}})",
                            R"({"type":"task_result","job_id":"b","data":{"task_id":"0","result":"wrong"}})",
                            R"({"type":"task_result","job_id":"b","data":{"task_id":"a/0","result":"wrong"}})",
                            R"({"type":"task_result","job_id":"a","data":{"task_id":"b/0","result":"wrong"}})",
                            R"({"type":"task_result","data":{"task_id":"0","result":"wrong"}})",
                            R"({"type":"task_error","job_id":"b","data":{"error":"wrong"}})",
                            R"({"type":"progress_update","job_id":"b","data":{"progress":1}})"}) {
    EXPECT_EQ(code_of(worker, wrong), "stale") << wrong;
  }
  EXPECT_EQ(code_of(worker, R"({"type":"task_result","job_id":"a","data":{"task_id":"0","result":"of a"}})"),
            "assign_task");
  worker.say(R"({"type":"task_result","job_id":"2","data":{"task_id":"2/0","result":"of b"}})");
  EXPECT_EQ(result_of("a"), "\"of a\"");
  EXPECT_EQ(result_of("b"), "\"of b\"");
}

TEST_F(JsonWorker, ACancelledTasksEndIsNotTheNextOnesResult) {
  start();
  Line worker(loop_, ws());
  cancel_what_runs(worker);
  EXPECT_EQ(code_of(worker, R"({"type":"task_result","job_id":"b","data":{"result":"early"}})"), "stale");
  worker.say(R"({"type":"task_result","data":{"result":"of a"}})");
  const auto next = worker.hear();
  ASSERT_EQ(next.at("type").as_string(), "assign_task");
  EXPECT_EQ(next.at("job_id").as_string(), "b");
  worker.say(R"({"type":"task_result","data":{"result":"of b"}})");
  EXPECT_EQ(result_of("b"), "\"of b\"");
}

TEST_F(JsonWorker, AWorkerThatAsksAgainIsFree) {
  start();
  Line worker(loop_, ws());
  cancel_what_runs(worker);
  worker.say(R"({"type":"task_request","worker_id":"w"})");
  ASSERT_EQ(worker.hear().at("job_id").as_string(), "b");
  EXPECT_EQ(code_of(worker, R"({"type":"task_result","job_id":"a","data":{"task_id":"a/0","result":"of a"}})"),
            "stale");
  worker.say(R"({"type":"task_result","data":{"result":"of b"}})");
  EXPECT_EQ(result_of("b"), "\"of b\"");
}

TEST_F(JsonWorker, WhatWaitsBehindACancelledTaskCanBeCancelledToo) {
  start();
  Line worker(loop_, ws());
  cancel_what_runs(worker);
  ASSERT_EQ(ask("POST", "/api/jobs/b/cancel", "{}").status, 200);
  submit("c");
  until_task_is("c", {"assigned", "running"});
  worker.say(R"({"type":"task_error","job_id":"a","data":{"task_id":"a/0","error":"late"}})");
  ASSERT_EQ(worker.hear().at("job_id").as_string(), "c");
  worker.say(R"({"type":"task_result","data":{"result":"of c"}})");
  EXPECT_EQ(result_of("c"), "\"of c\"");
}

TEST_F(JsonWorker, ALoopThatComputesKeepsItsTask) {
  lease_ = Millis{450};
  heartbeat_ = Millis{150};
  start();
  submit("a");
  net::Loop elsewhere;
  elsewhere.start_thread();
  {
    Line worker(elsewhere, ws());
    worker.say(R"({"type":"register_worker","worker_id":"w"})");
    ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
    elsewhere.call([] { std::this_thread::sleep_for(1000ms); });  // longer than two leases: no pong, no word
    EXPECT_EQ(get("/api/workers").as_array().at(0).as_object().at("connected").as_bool(), true);
    worker.say(R"({"type":"task_result","data":{"result":"slow"}})");
    EXPECT_EQ(result_of("a"), "\"slow\"");
    // And without a task it answers pings, so it stays.
    std::this_thread::sleep_for(1000ms);
    EXPECT_EQ(code_of(worker, R"({"type":"ping"})"), "pong");
    EXPECT_EQ(get("/api/jobs/a/tasks").as_array().at(0).as_object().at("attempt").to_number<int>(), 1);
  }
  elsewhere.stop();
}

TEST_F(JsonWorker, SingleTasksAreToldToWhoFollowsThem) {
  start();
  const auto first = get("/api/stats").as_object().at("next_event").to_number<std::uint64_t>();
  submit("unseen");
  Line worker(loop_, ws());
  worker.say(R"({"type":"register_worker","worker_id":"w"})");
  ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
  worker.say(R"({"type":"task_result","data":{"result":1}})");
  result_of("unseen");
  Line follower(loop_, ws());
  follower.say(R"({"type":"subscribe","data":{"topics":["tasks"],"from":)" + std::to_string(first) + "}}");
  EXPECT_EQ(follower.hear().at("type").as_string(), "subscribed");
  Line of_job(loop_, ws());
  of_job.say(R"({"type":"subscribe","data":{"topics":["job:seen"]}})");
  EXPECT_EQ(of_job.hear().at("type").as_string(), "subscribed");
  submit("seen");
  ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
  worker.say(R"({"type":"task_result","data":{"result":1}})");
  submit("stopped");
  ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
  EXPECT_EQ(ask("POST", "/api/jobs/stopped/cancel", "{}").status, 200);
  const auto hear = [](Line& line) {
    const auto event = line.hear();
    const auto& fact = event.at("data").as_object();
    return std::string(fact.at("type").as_string()) + " " + std::string(fact.at("job_id").as_string());
  };
  // Each job's events come in their order; those of two jobs may come in either.
  std::map<std::string, std::string> heard;
  for (int i = 0; i < 4; ++i) {
    const auto line = hear(follower);
    const auto space = line.find(' ');
    heard[line.substr(space + 1)] += line.substr(0, space) + ";";
  }
  EXPECT_EQ(heard, (std::map<std::string, std::string>{{"seen", "task_started;task_completed;"},
                                                       {"stopped", "task_started;task_cancelled;"}}));
  std::set<std::string> told;
  while (!told.contains("job_ended seen")) told.insert(hear(of_job));
  EXPECT_TRUE(told.contains("task_started seen"));
  EXPECT_TRUE(told.contains("task_completed seen"));
}

}  // namespace
}  // namespace grange::server
