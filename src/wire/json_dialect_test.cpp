#include "wire/json_dialect.hpp"

#include <gtest/gtest.h>

#include "base/limits.hpp"
#include "base/prng.hpp"

namespace grange::wire {
namespace {

std::string refusal(std::string_view text) {
  auto message = decode_json(text);
  if (!message) return message.error().message;
  if (message->kind == JsonKind::submit_job) {
    auto submit = read_submit(*message);
    return submit ? "" : submit.error().message;
  }
  return "";
}

TEST(JsonDialect, TheSeedsMessages) {
  auto submit = decode_json(
      R"({"type":"submit_job","job_id":"job-123","data":{"func_code":"80ff","args_list":[[1],[2],["a",{"b":[3]}]],"total_tasks":3}})");
  ASSERT_TRUE(submit.ok());
  auto job = read_submit(*submit);
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->job_id, "job-123");
  EXPECT_EQ(job->code, "\x80\xff");
  EXPECT_EQ(job->args, (std::vector<std::string>{"[1]", "[2]", R"(["a",{"b":[3]}])"}));
  EXPECT_FALSE(job->ack);

  auto result = decode_json(
      R"({"type":"task_result","job_id":"job-123","worker_id":"worker-1","data":{"task_id":"job-123/1","result":{"x":1.5}}})");
  ASSERT_TRUE(result.ok());
  auto end = read_task_end(*result);
  ASSERT_TRUE(end.ok());
  EXPECT_TRUE(end->ok);
  EXPECT_EQ(end->ref.task, "job-123/1");
  EXPECT_FALSE(end->ref.attempt);
  EXPECT_EQ(parse_json(end->result)->as_object().at("x").as_double(), 1.5);

  for (const char* type : {"worker_failure", "task_error"}) {
    auto failure = decode_json(std::string(R"({"type":")") + type +
                               R"(","worker_id":"w","data":{"task_id":"7/0","error":"boom","attempt":2}})");
    ASSERT_TRUE(failure.ok());
    auto failed = read_task_end(*failure);
    ASSERT_TRUE(failed.ok());
    EXPECT_FALSE(failed->ok);
    EXPECT_EQ(failed->message, "boom");
    EXPECT_EQ(failed->ref.attempt, 2u);
  }
  EXPECT_EQ(decode_json(R"({"type":"register_worker","worker_id":"worker-1"})")->worker_id, "worker-1");
}

TEST(JsonDialect, RefusalsNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "ends before"},
      {"nonsense", "not JSON"},
      {"{} {}", "not JSON"},
      {"[1]", "object"},
      {"{}", "type"},
      {R"({"type":5})", "not known"},
      {R"({"type":"launch"})", "launch"},
      {R"({"type":"ping","data":[]})", "data"},
      {R"({"type":"submit_job","data":{}})", "func_code"},
      {R"({"type":"submit_job","data":{"func_code":"serialized_function_hex","args_list":[[1]]}})", "hexadecimal"},
      {R"({"type":"submit_job","data":{"func_code":"00"}})", "args_list"},
      {R"({"type":"submit_job","data":{"func_code":"00","args_list":[]}})", "args_list"},
      {R"({"type":"submit_job","data":{"func_code":"00","args_list":[1]}})", "args_list[0]"},
      {R"({"type":"submit_job","data":{"func_code":"00","args_list":[[1]],"total_tasks":2}})", "total_tasks"},
      {R"({"type":"submit_job","data":{"func_code":"00","args_list":[[1]],"priority":"high"}})", "priority"},
  };
  for (const auto& [text, expected] : cases)
    EXPECT_NE(refusal(text).find(expected), std::string::npos) << text << " -> " << refusal(text);
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  EXPECT_NE(refusal(deep).find("deep"), std::string::npos);
  EXPECT_NE(decode_json(R"({"type":"launch"})").error().details.find("submit_job"), std::string::npos);
}

TEST(JsonDialect, WhatWeSayReadsBack) {
  auto frame = parse_json(json_assign({.job_id = "j\"1",
                                       .worker_id = "w",
                                       .task = "7/0",
                                       .function = "f",
                                       .code_hex = "80",
                                       .args_json = "[1,\"x\"]",
                                       .attempt = 1,
                                       .epoch = 1ull << 41}));
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->as_object().at("job_id").as_string(), "j\"1");
  EXPECT_EQ(frame->as_object().at("data").as_object().at("task_args").as_array().size(), 2u);
  auto error = parse_json(json_error({ErrorClass::not_found, "no \"x\"", ""}, "j"));
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(error->as_object().at("data").as_object().at("code").as_string(), "not_found");
}

TEST(JsonDialect, AnyBytesGetAnAnswer) {
  const std::string good =
      R"({"type":"submit_job","job_id":"j","data":{"func_code":"80ff","args_list":[[1],[2]],"total_tasks":2,"timeout":3.5}})";
  Prng prng(11);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (std::uint64_t n = prng.below(4) + 1; n > 0; --n)
      text[prng.below(text.size())] = static_cast<char>(prng.next());
    if (prng.below(4) == 0) text.resize(prng.below(text.size()));
    auto message = decode_json(text);
    if (!message) {
      EXPECT_FALSE(message.error().message.empty());
      continue;
    }
    static_cast<void>(read_submit(*message).ok());
    static_cast<void>(read_task_end(*message).ok());
    static_cast<void>(read_progress(*message).ok());
  }
}

TEST(JsonText, NumbersAsPeopleWriteThem) {
  const auto text = [](std::string_view in) { return json_text(*parse_json(in)); };
  EXPECT_EQ(text(R"({"a":0E0,"b":9.713E0,"c":[1,-2.50,1e21],"d":{},"e":[],"f":"x\"y","g":null})"),
            R"({"a":0,"b":9.713,"c":[1,-2.5,1e+21],"d":{},"e":[],"f":"x\"y","g":null})");
  EXPECT_EQ(text(R"({"run_ms":1.0,"value":{"x":[1.0,2]}})"), R"({"run_ms":1,"value":{"x":[1.0,2]}})")
      << "somebody's floats stay floats";
  EXPECT_EQ(*parse_json(text("0.1")), *parse_json("0.1"));
}

}  // namespace
}  // namespace grange::wire
