// The JSON dialect against the whole server: what seed 001's example client and worker do, word for word.
#include "server/server_testing.hpp"

namespace grange::server {
namespace {

using namespace testing;

const char* const kSubmit =
    R"({"type":"submit_job","job_id":"job-123","data":{"func_code":"80ff","args_list":[[1],[2],[3],[4],[5]],"total_tasks":5}})";

TEST_F(Whole, TheSeedsClientAndWorker) {
  start();
  Line client(loop_, ws());
  client.say(kSubmit);
  Line worker(loop_, ws());
  worker.say(R"({"type":"register_worker","worker_id":"worker-1"})");
  for (int i = 0; i < 5; ++i) {
    const auto task = worker.hear();
    ASSERT_EQ(task.at("type").as_string(), "assign_task");
    EXPECT_EQ(task.at("job_id").as_string(), "job-123");
    EXPECT_EQ(task.at("worker_id").as_string(), "worker-1");
    const auto& data = task.at("data").as_object();
    EXPECT_EQ(data.at("func_code").as_string(), "80ff");
    const auto n = data.at("task_args").as_array().at(0).as_int64();
    worker.say(R"({"type":"task_result","job_id":"job-123","worker_id":"worker-1","data":{"task_id":")" +
               std::string(data.at("task_id").as_string()) + R"(","result":)" + std::to_string(n * n) + "}}");
  }
  const auto result = client.hear();  // its one recv()
  ASSERT_EQ(result.at("type").as_string(), "job_result");
  const auto& data = result.at("data").as_object();
  EXPECT_EQ(data.at("status").as_string(), "completed");
  EXPECT_EQ(boost::json::serialize(data.at("results")), "[1,4,9,16,25]");
  EXPECT_TRUE(data.at("errors").as_array().empty());
  EXPECT_EQ(data.at("total_tasks").to_number<int>(), 5);

  // The same job again: the same result, at once. Other content under its id: a conflict.
  Line again(loop_, ws());
  again.say(kSubmit);
  EXPECT_EQ(again.hear().at("type").as_string(), "job_result");
  again.say(R"({"type":"submit_job","job_id":"job-123","data":{"func_code":"80ff","args_list":[[9]]}})");
  EXPECT_EQ(again.hear().at("data").as_object().at("code").as_string(), "conflict");
  again.say(R"({"type":"get_results","job_id":"job-123"})");
  EXPECT_EQ(again.hear().at("type").as_string(), "job_results");
}

TEST_F(Whole, AJsonWorkerThatVanishesLosesItsTaskToAnother) {
  start();
  Line client(loop_, ws());
  client.say(R"({"type":"submit_job","job_id":"j","data":{"func_code":"80","args_list":[[1]],"ack":true}})");
  EXPECT_EQ(client.hear().at("type").as_string(), "job_accepted");
  {
    Line first(loop_, ws());
    first.say(R"({"type":"worker_ready","worker_id":"w1"})");
    EXPECT_EQ(first.hear().at("type").as_string(), "assign_task");
  }
  Line second(loop_, ws());
  second.say(R"({"type":"task_request","worker_id":"w2"})");
  auto message = second.hear();
  if (message.at("type").as_string() == "no_task") message = second.hear();
  ASSERT_EQ(message.at("type").as_string(), "assign_task");
  second.say(
      R"({"type":"task_result","worker_id":"w2","data":{"task_id":"j/0","attempt":1,"result":0}})");  // of the first
                                                                                                      // worker's
                                                                                                      // attempt
  EXPECT_EQ(second.hear().at("data").as_object().at("code").as_string(), "stale");
  second.say(R"({"type":"result_submit","worker_id":"w2","data":{"result":"done"}})");
  EXPECT_EQ(client.hear().at("data").as_object().at("results").as_array().at(0).as_string(), "done");
}

TEST_F(Whole, JsonErrorsAndSmallTalk) {
  start();
  Line line(loop_, ws());
  const auto code = [&](const std::string& text) {
    line.say(text);
    const auto answer = line.hear();
    return answer.at("type").as_string() == "error" ? std::string(answer.at("data").as_object().at("code").as_string())
                                                    : std::string(answer.at("type").as_string());
  };
  EXPECT_EQ(code("not json"), "invalid_argument");
  EXPECT_EQ(code(R"({"type":"launch_rocket"})"), "invalid_argument");
  EXPECT_EQ(
      code(R"({"type":"submit_job","job_id":"j","data":{"func_code":"serialized_function_hex","args_list":[[1]]}})"),
      "invalid_argument");
  EXPECT_EQ(code(R"({"type":"get_job_status","job_id":"nope"})"), "not_found");
  EXPECT_EQ(code(R"({"type":"task_result","worker_id":"w","data":{"result":1}})"), "invalid_argument");
  EXPECT_EQ(code(R"({"type":"ping"})"), "pong");
  EXPECT_EQ(code(R"({"type":"heartbeat","worker_id":"w"})"), "heartbeat_ack");
  EXPECT_EQ(code(R"({"type":"task_request","worker_id":"w"})"), "no_task");
  Line twin(loop_, ws());
  twin.say(R"({"type":"register_worker","worker_id":"w"})");
  EXPECT_EQ(twin.hear().at("data").as_object().at("code").as_string(), "conflict");
}

TEST_F(Whole, FailuresAreCountedAndEventsTold) {
  start();
  Line follower(loop_, ws());
  follower.say(R"({"type":"subscribe","data":{"topics":["jobs","tasks","workers"]}})");
  EXPECT_EQ(follower.hear().at("type").as_string(), "subscribed");
  Line client(loop_, ws());
  client.say(R"({"type":"submit_job","job_id":"j","data":{"func_code":"80","args_list":[[1]],"max_attempts":1}})");
  Line worker(loop_, ws());
  worker.say(R"({"type":"register_worker","worker_id":"w"})");
  ASSERT_EQ(worker.hear().at("type").as_string(), "assign_task");
  worker.say(R"({"type":"worker_failure","worker_id":"w","data":{"error":"boom"}})");
  const auto result = client.hear();
  EXPECT_EQ(result.at("data").as_object().at("status").as_string(), "failed");
  EXPECT_EQ(result.at("data").as_object().at("errors").as_array().at(0).as_object().at("message").as_string(), "boom");
  std::set<std::string> types;
  std::uint64_t last = 0;
  while (!types.contains("job_ended")) {
    const auto event = follower.hear();
    ASSERT_EQ(event.at("type").as_string(), "event");
    const auto& fact = event.at("data").as_object();
    EXPECT_GT(fact.at("event").to_number<std::uint64_t>(), last);
    last = fact.at("event").to_number<std::uint64_t>();
    types.emplace(fact.at("type").as_string());
  }
  EXPECT_TRUE(types.contains("worker_connected"));
  EXPECT_TRUE(types.contains("task_failed"));
  EXPECT_EQ(get("/api/worker-failures?worker_id=w").as_array().size(), 1u);
  EXPECT_EQ(get("/api/worker-failure-stats").as_array().at(0).as_object().at("failures").to_number<int>(), 1);
}

}  // namespace
}  // namespace grange::server
