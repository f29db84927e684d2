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
  EXPECT_EQ(header.request.labels.front().value, "lab");
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

TEST(JobFile, SchedulingKeys) {
  auto file = read_job_file(R"({"command":["train"],"count":3,"name":"n",
    "gpus":0.5,"gpu_memory":"8GiB","labels":{"gpu":"a100","zone":"*","not":{"os":"windows"}},"needs_model":"llama3:8b",
    "pool":"fast","min_life":"2h","weight":2.5,"max_running":100,"not_before":"2026-12-01T08:00:00Z",
    "deadline":"2026-12-01T10:30:00.250+01:00","open":true,"when":"all_finished",
    "after":["prep",7,{"job":"x","index":3},{"job":"y","each":true,"pass":true}],
    "speculate":{"factor":1.5,"min_done":7},"result_ttl":"1d","grace":"10s","unique":{"word":"w","for":"10m"},
    "stages":{"reserve":"1m","startup":2,"download":3,"execute":"4s","upload":5},
    "retry":{"max_attempts":4,"base_seconds":2,"rules":[{"on":"exception","type":"ValueError","max_attempts":1},
                                       {"on":"worker_lost","max_attempts":9,"base_seconds":3,"cap_seconds":30},
                                       {"on":"engine_error"}]}})");
  ASSERT_TRUE(file.ok()) << file.error().message;
  const auto valid = validate_job(file->spec, file->id, file->pages, kBlobs);
  ASSERT_TRUE(valid.ok()) << valid.error().message;
  const core::JobHeader h = make_header(file->spec);
  EXPECT_EQ(h.kind, "command:train");
  EXPECT_EQ(h.request.gpus_milli, 500u);
  EXPECT_EQ(h.request.gpu_memory, 8 * GiB);
  EXPECT_EQ(h.request.model, "llama3:8b");
  EXPECT_EQ(h.request.pool, "fast");
  EXPECT_EQ(h.request.min_life, Millis{7'200'000});
  ASSERT_EQ(h.request.labels.size(), 3u);
  EXPECT_TRUE(h.request.labels[1].negate);
  EXPECT_EQ(h.request.labels[1].key, "os");
  EXPECT_EQ(h.request.labels[2].value, "*");
  EXPECT_EQ(h.weight_milli, 2500u);
  EXPECT_EQ(h.max_running, 100u);
  EXPECT_TRUE(h.open);
  EXPECT_EQ(h.not_before.ms, 1'796'112'000'000);
  EXPECT_EQ(h.deadline.ms, 1'796'112'000'000 + 90 * 60'000 + 250);
  EXPECT_EQ(h.when, core::When::all_finished);
  ASSERT_EQ(h.after.size(), 4u);
  EXPECT_EQ(file->spec.depends_on(1).job_id(), "7");
  EXPECT_EQ(h.after[2].index, 3u);
  EXPECT_EQ(h.after[0].index, core::Dependency::kAll);
  EXPECT_TRUE(h.after[3].each && h.after[3].pass);
  EXPECT_TRUE(h.speculation.on);
  EXPECT_EQ(h.speculation.factor_milli, 1500u);
  EXPECT_EQ(h.speculation.min_done, 7u);
  EXPECT_EQ(h.result_ttl, Millis{86'400'000});
  ASSERT_EQ(h.retry.rules.size(), 3u);
  EXPECT_EQ(h.retry.rules[0].exception, "ValueError");
  EXPECT_EQ(h.retry.rules[0].base, Millis{2000}) << "the job's own";
  EXPECT_EQ(h.retry.rules[1].failure, core::FailureClass::worker_lost);
  EXPECT_EQ(h.retry.rules[1].cap, Millis{30'000});
  EXPECT_EQ(h.retry.rules[2].failure, core::FailureClass::engine);
  EXPECT_EQ(file->spec.stages().execute_ms(), 4000u);
  EXPECT_EQ(file->spec.grace_ms(), 10'000u);
  EXPECT_EQ(file->spec.unique(), "w");
  EXPECT_EQ(file->spec.unique_ms(), 600'000u);
  // What is written back reads the same.
  auto again = read_job_file(write_job_file(file->spec, nullptr));
  ASSERT_TRUE(again.ok()) << again.error().message;
  ASSERT_TRUE(validate_job(again->spec, again->id, again->pages, kBlobs).ok());
  EXPECT_EQ(serialize_stably(again->spec), serialize_stably(file->spec));
}

TEST(JobFile, ThisOrThat) {
  auto file = read_job_file(
      R"({"command":["x"],"memory":"1GiB","gpus":1,"any_of":[{"cpus":4},{"cpus":32,"gpus":0},{"labels":{"a":"b"}}]})");
  ASSERT_TRUE(file.ok()) << file.error().message;
  const core::JobHeader h = make_header(file->spec);
  ASSERT_EQ(h.alternatives.size(), 2u);
  EXPECT_EQ(h.request.cpus_milli, 4000u);
  EXPECT_EQ(h.request.gpus_milli, 1000u);
  EXPECT_EQ(h.alternatives[0].cpus_milli, 32'000u);
  EXPECT_EQ(h.alternatives[0].gpus_milli, 0u);
  EXPECT_EQ(h.alternatives[0].memory, 1 * GiB);
  EXPECT_EQ(h.alternatives[1].cpus_milli, 1000u);
  auto again = read_job_file(write_job_file(file->spec, nullptr));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(make_header(again->spec).request, h.request);
  EXPECT_EQ(make_header(again->spec).alternatives, h.alternatives);
}

TEST(JobFile, TimesFromNowOnAreKeptApart) {
  auto file = read_job_file(R"({"command":["x"],"start_in":"10m","finish_in":"2h"})");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->start_in, Millis{600'000});
  EXPECT_EQ(file->finish_in, Millis{7'200'000});
  EXPECT_EQ(file->spec.not_before_ms(), 0u);
}

TEST(JobFile, TimesOfPeople) {
  EXPECT_EQ(*read_time_ms("1970-01-01T00:00:00Z"), 0u);
  EXPECT_EQ(*read_time_ms("2024-02-29T12:00Z"), 1'709'208'000'000u);
  EXPECT_EQ(*read_time_ms("2000-02-29 23:59:59.999-00:30"), 951'870'599'999u);
  for (const char* bad :
       {"", "2026", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00", "2026-01-01T00:00:00+1", "2026-01-01T00:00:00Zx", "2026-01-01", "2026-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+01:00", "-026-01-01T00:00:00Z"}) {
    EXPECT_FALSE(read_time_ms(bad).ok()) << bad;
  }
}

TEST(JobFile, KindsOfWork) {
  const auto kind = [](std::string_view text) {
    auto file = read_job_file(text);
    EXPECT_TRUE(file.ok());
    EXPECT_TRUE(validate_job(file->spec, "", file->pages, kBlobs).ok());
    return make_header(file->spec).kind;
  };
  EXPECT_EQ(kind(R"({"command":["/usr/bin/convert","{}"]})"), "command:convert");
  EXPECT_EQ(kind(R"({"builtin":{"op":"echo"},"name":"mine"})"), "builtin:echo");
  EXPECT_EQ(kind(R"({"python":{"function":"fit","code_sha256":")" + kSha + "\"}}"), "python:fit");
}

TEST(JobFile, WorkersOfTheJsonDialectGetNoInputsAndNoGangs) {
  const std::string python = R"("python":{"code_sha256":")" + kSha + "\"}";
  const auto engine = [](const std::string& text) { return make_header(read_job_file(text)->spec).request.engine; };
  EXPECT_EQ(engine("{" + python + "}"), kPythonJson);
  EXPECT_EQ(engine("{" + python + R"(,"nodes":2})"), "python");
  EXPECT_EQ(engine("{" + python + R"(,"after":[{"job":"1","pass":true}]})"), "python");
  EXPECT_EQ(engine("{" + python + R"(,"after":["1"]})"), kPythonJson);
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
      {R"({"command":["x"],"gpus":1.5})", "gpus is 1.5"},
      {R"({"command":["x"],"gpu_memory":"1GiB"})", "add gpus"},
      {R"({"command":["x"],"labels":{"not":"x"}})", "labels.not"},
      {R"({"command":["x"],"labels":{"a":["b"]}})", "labels"},
      {R"({"command":["x"],"any_of":[]})", "any_of"},
      {R"({"command":["x"],"any_of":[{"cpu":1}]})", "Did you mean \"cpus\""},
      {R"({"command":["x"],"any_of":[{"gpus":2.5}]})", "gpus is 2.5"},
      {R"({"command":["x"],"nodes":0})", "nodes"},
      {R"({"command":["x"],"nodes":2,"speculate":true})", "speculat"},
      {R"({"command":["x"],"speculate":{"factor":0.5}})", "factor"},
      {R"({"command":["x"],"speculate":"yes"})", "speculate"},
      {R"({"command":["x"],"weight":0})", "weight"},
      {R"({"command":["x"],"not_before":"tomorrow"})", "not_before"},
      {R"({"command":["x"],"not_before":"2026-01-01T00:00:00Z","start_in":"1m"})", "start_in"},
      {R"({"command":["x"],"deadline":"2026-01-01T00:00:00Z","finish_in":"1m"})", "finish_in"},
      {R"({"command":["x"],"not_before":"2026-01-02T00:00:00Z","deadline":"2026-01-01T00:00:00Z"})", "deadline"},
      {R"({"command":["x"],"after":[{"index":1}]})", "names no job"},
      {R"({"command":["x"],"after":[{"job":"a","index":1,"each":true}]})", "exclude"},
      {R"({"command":["x"],"after":["a","a"]})", "twice"},
      {R"({"command":["x"],"after":[1.5]})", "after"},
      {R"({"command":["x"],"after":["a"],"when":"maybe"})", "when"},
      {R"({"command":["x"],"unique":{"for":"1m"}})", "word"},
      {R"({"command":["x"],"grace":0})", "grace"},
      {R"({"command":["x"],"stages":{"exceute":"1m"}})", "Did you mean \"execute\""},
      {R"({"command":["x"],"retry":{"rules":[{"on":"bad luck"}]}})", "worker_lost"},
      {R"({"command":["x"],"retry":{"rules":[{"on":"cancelled"}]}})", "worker_lost"},
      {R"({"command":["x"],"retry":{"rules":[{"type":"X"}]}})", "retry.rules.on"},
      {R"({"command":["x"],"retry":{"rules":[{"on":"refused","type":"X"}]}})", "type"},
      {R"({"command":["x"],"retry":{"rules":[{"on":"refused","max_attempts":0}]}})", "max_attempts"},
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

TEST(JobFile, RefusesWhatContradictsItself) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"start_in":"2h","finish_in":"1h"})", "later than"},
      {R"({"retries":2,"retry":{"max_attempts":2}})", "contradict"},
      {R"({"unique":{"word":""}})", "empty"},
      {R"({"unique":""})", "empty"},
      {R"({"any_of":[{"priority":1}]})", "\"any_of.priority\" is a key of a job, but not a requirement"},
      {R"({"any_of":[{"cpu":1}]})", "Did you mean \"cpus\""}};
  for (const auto& [text, words] : cases) {
    const auto file = read_job_file(text);
    ASSERT_FALSE(file.ok()) << text;
    EXPECT_NE(file.error().message.find(words), std::string::npos) << file.error().message;
  }
  EXPECT_TRUE(read_job_file(R"({"retries":2,"retry":{"max_attempts":3}})").ok());
  pb::JobSpec spec;
  spec.set_deadline_ms(253'402'300'800'000);
  EXPECT_FALSE(check_times(spec).ok());
  spec.set_deadline_ms(5);
  spec.set_not_before_ms(6);
  EXPECT_FALSE(check_times(spec).ok());
  EXPECT_TRUE(valid_user("anna k."));
  for (const char* bad : {"a/b", "", ".", "..", "a\n"}) EXPECT_FALSE(valid_user(bad)) << bad;
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
