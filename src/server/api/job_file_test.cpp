#include "server/api/job_file.hpp"

#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

#include "base/limits.hpp"
#include "server/api/validate.hpp"
#include "store/blobs.hpp"

namespace grange::server {
namespace {

const std::string kSha(64, 'a');
const BlobFacts kBlobs{[](const std::string& sha256) { return sha256 == kSha; }};

std::string refusal(std::string_view text) {
  auto file = read_job_file(text);
  if (!file) return file.error().message;
  const auto valid = validate_job(file->spec, file->id, file->pages, kBlobs);
  return valid ? "" : valid.error().message;
}

TEST(JobFile, CommandWithEverything) {
  auto file = read_job_file(
      R"({"name":"n","command":["convert","{}"],"args":["a",2,[1,2]],"env":{"A":"b","N":3},"stdin":"in","files_out":["out/x.txt"],
    "priority":-5,"retries":2,"timeout":"10m","cpus":0.5,"memory":"2GiB","gpus":1,"disk":"1GB","labels":{"zone":"lab"},"user":"ann","key":"k","fail_fast":true,
    "retry":{"base_seconds":2,"cap_seconds":"1m","crash_limit":4}})");
  ASSERT_TRUE(file.ok()) << file.error().message;
  ASSERT_TRUE(validate_job(file->spec, file->id, file->pages, kBlobs).ok());
  const pb::JobSpec& spec = file->spec;
  EXPECT_EQ(spec.engine(), "command");
  EXPECT_EQ(spec.count(), 3u);
  EXPECT_EQ(spec.command().env().at("N"), "3");
  EXPECT_EQ(spec.requirements().cpus_milli(), 500u);
  EXPECT_EQ(spec.requirements().memory_bytes(), 2 * GiB);
  EXPECT_EQ(spec.requirements().disk_bytes(), 1'000'000'000u);
  EXPECT_EQ(spec.time_limit_ms(), 600'000u);
  EXPECT_EQ(spec.retry().max_attempts(), 3u);
  EXPECT_EQ(spec.retry().cap_ms(), 60'000u);
  ASSERT_EQ(file->pages.size(), 1u);
  EXPECT_EQ(file->pages[0].bytes, "a2[1,2]");
  EXPECT_EQ(file->pages[0].sizes, (std::vector<std::uint32_t>{1, 1, 5}));
  const core::JobHeader header = make_header(spec);
  EXPECT_EQ(header.priority, -5);
  EXPECT_EQ(header.request.labels.front().second, "lab");
  // What is written back reads the same.
  auto again = read_job_file(write_job_file(spec, &file->pages));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->spec.time_limit_ms(), spec.time_limit_ms());
  ASSERT_TRUE(validate_job(again->spec, again->id, again->pages, kBlobs).ok());
  EXPECT_EQ(job_digest(again->spec, again->pages), job_digest(spec, file->pages));
}

TEST(JobFile, PythonTakesPositionalArguments) {
  auto file = read_job_file(R"({"python":{"code_sha256":")" + kSha + R"("},"args":[1,[1,2],"x"]})");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->spec.encoding(), pb::ENCODING_JSON);
  EXPECT_EQ(file->pages[0].bytes, R"([1][1,2]["x"])");
  EXPECT_EQ(make_header(file->spec).request.engine, kPythonJson);
}

TEST(JobFile, RefusalsNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"comand":["x"]})", "Did you mean \"command\""},
      {R"({"command":["x"],"timout":3})", "Did you mean \"timeout\""},
      {R"({"command":["x"],"timeout":"soon"})", "timeout"},
      {R"({"command":["x"],"memory":"lots"})", "memory"},
      {R"({"command":["x"],"priority":5000})", "priority"},
      {R"({"command":["x"],"count":0})", "count"},
      {R"({"command":["x"],"count":2,"args":["a"]})", "count"},
      {R"({"command":["x"],"args":[]})", "args"},
      {R"({"command":["x"],"script":"y"})", "script"},
      {R"({"command":[]})", "empty"},
      {R"({"command":["x"],"files_out":["../etc/passwd"]})", "files_out"},
      {R"({"command":["x"],"files_in":["local.txt"]})", "files_in"},
      {R"({"env":{"A":"b"}})", "command"},
      {R"({"name":"x"})", "nothing to run"},
      {R"({"builtin":{"op":"explode"}})", "explode"},
      {R"({"engine":"quantum","command":["x"]})", "quantum"},
      {R"({"python":{"code_sha256":"zz"}})", "code_sha256"},
      {R"({"python":{"code_sha256":")" + std::string(64, 'b') + R"("}})", "not here"},
      {R"({"command":["x"],"id":"123"})", "own id"},
      {R"({"command":["x"],"args_file":"x"})", "args_file"},
      {"[]", "object"},
      {"{", "ends before"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_NE(refusal(text).find(expected), std::string::npos) << text << " -> " << refusal(text);
  }
}

TEST(JobFile, UnitsAndPaths) {
  EXPECT_EQ(*read_duration_ms("1.5s"), 1500u);
  EXPECT_EQ(*read_duration_ms("2h"), 7'200'000u);
  EXPECT_EQ(*read_bytes("1.5 GiB"), 3 * GiB / 2);
  for (const char* bad : {"", "-1s", "1x", "s", "nan", "inf", "1e400"}) EXPECT_FALSE(read_duration_ms(bad).ok()) << bad;
  for (const char* fine : {"a", "a/b.txt", "..a/b", ".hidden"}) EXPECT_TRUE(safe_path(fine)) << fine;
  for (const char* unsafe : {"", "/a", "a/../b", "..", "a//b", "./a", "a/", "a\\b"})
    EXPECT_FALSE(safe_path(unsafe)) << unsafe;
}

TEST(Validate, PagesMustFit) {
  const auto with = [](std::uint32_t count, std::vector<core::ArgumentPage> pages) {
    pb::JobSpec spec;
    spec.set_engine("builtin");
    spec.mutable_builtin()->set_op("echo");
    spec.set_count(count);
    return validate_job(spec, "", pages, kBlobs);
  };
  EXPECT_TRUE(with(2, {{.first = 0, .sizes = {1, 2}, .bytes = "abc"}}).ok());
  EXPECT_TRUE(with(1, {{.first = 0, .sizes = {core::ArgumentPage::kBlobSize}, .bytes = kSha}}).ok());
  EXPECT_FALSE(with(3, {{.first = 0, .sizes = {1, 2}, .bytes = "abc"}}).ok());
  EXPECT_FALSE(with(2, {{.first = 0, .sizes = {1, 1}, .bytes = "abc"}}).ok());
  EXPECT_FALSE(with(2, {{.first = 0, .sizes = {1, 9}, .bytes = "abc"}}).ok());
  EXPECT_FALSE(with(2, {{.first = 1, .sizes = {1}, .bytes = "a"}}).ok());
  EXPECT_FALSE(with(1, {{.first = 0, .sizes = {core::ArgumentPage::kBlobSize}, .bytes = "short"}}).ok());
  EXPECT_EQ(with(1, {{.first = 0, .sizes = {limits::kInline + 1}, .bytes = std::string(limits::kInline + 1, 'x')}})
                .error()
                .cls,
            ErrorClass::too_large);
}

TEST(Validate, DigestFollowsContentNotItsCut) {
  pb::JobSpec spec;
  spec.set_engine("builtin");
  (*spec.mutable_labels())["b"] = "2";
  (*spec.mutable_labels())["a"] = "1";
  const std::vector<core::ArgumentPage> one = {{.first = 0, .sizes = {1, 2}, .bytes = "abc"}};
  const std::vector<core::ArgumentPage> two = {{.first = 0, .sizes = {1}, .bytes = "a"},
                                               {.first = 1, .sizes = {2}, .bytes = "bc"}};
  EXPECT_EQ(job_digest(spec, one), job_digest(spec, two));
  EXPECT_NE(job_digest(spec, one), job_digest(spec, {}));
}

}  // namespace
}  // namespace grange::server
