// Job files of AI work: what is taken, filled in, written back, and refused.
#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

#include "server/api/job_file.hpp"
#include "server/api/validate.hpp"

namespace grange::server {
namespace {

Result<pb::JobSpec> valid(std::string_view text) {
  auto file = read_job_file(text);
  if (!file) return file.error();
  const BlobFacts blobs{[](const std::string&) { return true; }};
  if (auto ok = validate_job(file->spec, file->id, file->pages, blobs); !ok) return ok.error();
  return file->spec;
}

TEST(JobEngines, APromptAsksForItsModelAndContext) {
  const auto spec = valid(R"({"llm": {"model": "m:1b", "options": {"num_ctx": 8192}}, "args": ["one", "two"]})");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->engine(), "llm");
  EXPECT_EQ(spec->llm().op(), "chat");
  EXPECT_EQ(spec->count(), 2u);
  EXPECT_EQ(spec->requirements().model(), "m:1b");
  EXPECT_EQ(spec->requirements().context(), 8192u);
  EXPECT_EQ(spec->name(), "m:1b");
  EXPECT_EQ(make_header(*spec).request.engine, "llm");
}

TEST(JobEngines, WhereAMockMayAnswerNoModelIsAskedFor) {
  const auto spec = valid(R"({"llm": {"model": "m", "allow_mock": true}})");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->requirements().model(), "");
  EXPECT_EQ(make_header(*spec).request.engine, "llm-mock");
}

TEST(JobEngines, ARetryRuleMayNameAClassOfEngineError) {
  const auto with = [](std::string_view on) {
    return valid(R"({"llm": {"model": "m"}, "retry": {"rules": [{"on": ")" + std::string(on) +
                 R"(", "type": "busy", "max_attempts": 10}]}})");
  };
  EXPECT_TRUE(with("engine_error"));
  const auto other = with("worker_lost");
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("engine_error"), std::string::npos) << other.error().message;
}

TEST(JobEngines, ArgumentsAreJsonLists) {
  const auto file = read_job_file(R"({"llm": {"model": "m"}, "args": ["a", {"prompt": "b"}]})");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->pages.at(0).bytes, R"(["a"][{"prompt":"b"}])");
}

TEST(JobEngines, CountsMayBeWrittenAsPeopleWriteThem) {
  const auto spec = valid(R"({"compute": {"op": "gemm", "algorithm": "single", "n": 1e3}, "count": 2.0})");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->compute().n(), 1000u);
  EXPECT_EQ(spec->count(), 2u);
}

TEST(JobEngines, EachIsWrittenBackAsItWasRead) {
  for (
      const char* text : {
          R"({"engine":"compute","count":3,"compute":{"op":"primes","algorithm":"segmented_sieve","n":1000,"threads":2}})",
          R"({"engine":"llm","llm":{"op":"chat","model":"m","prompt":"{}","system":"s","options":{"max_tokens":5},"service":"o"}})",
          R"({"engine":"image","image":{"params":{"checkpoint":"c","prompt":"p"},"stall":2.5,"previews":true}})",
          R"({"engine":"image","image":{"workflow":{"1":{"class_type":"X"}},"allow_mock":true}})",
          R"({"engine":"remote","remote":{"service":"runpod","op":"run","target":"e","input":{"a":1},"stream":true}})",
          R"({"engine":"models","models":{"op":"fetch","model":"f.gguf","url":"http://x/f","folder":"gguf"}})",
      }) {
    const auto first = valid(text);
    ASSERT_TRUE(first) << text << ": " << first.error().message;
    const auto again = valid(boost::json::serialize(write_job_file(*first, nullptr)));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(serialize_stably(*first), serialize_stably(*again)) << text;
  }
}

TEST(JobEngines, WhatMakesNoSenseIsRefusedByName) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"llm": {}})", "llm.model"},
      {R"({"llm": {"model": "m", "promt": "x"}})", "llm.prom"},
      {R"({"llm": {"model": "m", "options": 5}})", "llm.options"},
      {R"({"llm": {"model": "m", "options": {"num_ctx": "many"}}})", "num_ctx"},
      {R"({"llm": {"model": "m", "options": {"max_token": 5}}})", "Did you mean \"max_tokens\"?"},
      {R"({"llm": {"model": "m", "options": {"extra": [1]}}})", "llm.options.extra"},
      {R"({"llm": {"model": "m", "op": "sing"}})", "llm.op"},
      {R"({"compute": {"op": "sums"}})", "compute.op"},
      {R"({"compute": {"op": "gemm", "algorithm": "primesieve"}})", "compute.algorithm"},
      {R"({"compute": {"n": -1}})", "compute.n"},
      {R"({"compute": {"n": 1.5}})", "compute.n"},
      {R"({"compute": {"op": "disk", "algorithm": "single"}})", "compute.algorithm"},
      {R"({"image": {}})", "image.params"},
      {R"({"remote": {"target": "x"}})", "remote.service"},
      {R"({"remote": {"service": "openai"}})", "remote.target"},
      {R"({"models": {"op": "fetch", "model": "f"}})", "models.url"},
      {R"({"models": {"op": "fetch", "model": "f", "url": "http://x", "folder": "../up"}})", "models.folder"},
      {R"({"engine": "llms"})", "not known"},
  };
  for (const auto& [text, word] : wrong) {
    const auto spec = valid(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_NE(spec.error().message.find(word), std::string::npos) << text << ": " << spec.error().message;
  }
}

}  // namespace
}  // namespace grange::server
