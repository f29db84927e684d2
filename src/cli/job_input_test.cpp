#include "cli/explain_text.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/job_input.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"

namespace grange::cli {
namespace {

const json::value kBlocked = json::parse(R"({
  "job": "7", "task": "7/3", "state": "pending", "summary": "Waits for GPUs: it needs 2.",
  "waits": [{"code": "quota_running", "text": "anna has 10 tasks running and may have 10", "have": 10, "need": 11},
            {"code": "backoff", "text": "tried again after a failure", "until": "2026-12-01T08:00:12.000Z"}],
  "workers": [{"worker": "big", "could": true, "now": false, "alternative": 1,
               "why": [{"code": "cpus", "text": "2 of 4 cpus are free"}]},
              {"worker": "small", "could": false, "now": false, "alternative": 0,
               "why": [{"code": "gpus", "text": "has 0 GPUs"}, {"code": "label", "text": "has no label zone"}]}],
  "workers_in_all": 60, "workers_could": 1, "workers_now": 0, "tasks_before": 1200,
  "next_change": "2026-12-01T08:00:12.000Z"})");

TEST(ExplainText, TheSentenceComesFirstThenTheNumbers) {
  const std::string text = explain_text(kBlocked, parse_iso_ms("2026-12-01T08:00:00Z"), 0, false);
  EXPECT_EQ(text.rfind("Waits for GPUs: it needs 2.\n", 0), 0u) << text;
  for (const char* part :
       {"quota_running", "anna has 10 tasks", "in 12 s", "60 workers in all: 1 could run it, 0 could now", "any_of[1]",
        "2 of 4 cpus are free", "has 0 GPUs; has no label zone", "never", "and 58 that fit less", "About 1,200 tasks"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
}

TEST(ExplainText, NothingButTheSentenceOfWhatEnded) {
  const std::string text = explain_text(json::parse(R"({"summary": "It has completed."})"), 0, 0, false);
  EXPECT_EQ(text, "It has completed.\n");
}

TEST(WhyItWaits, OnlyWhenItDoes) {
  EXPECT_EQ(why_it_waits(kBlocked), "Waits for GPUs: it needs 2.");
  EXPECT_EQ(why_it_waits(json::parse(
                R"({"summary":"Runs soon.","state":"pending","waits":[],"workers_could":2,"workers_now":1})")),
            "");
  EXPECT_EQ(why_it_waits(json::parse(
                R"({"summary":"Nobody.","state":"pending","waits":[],"workers_in_all":3,"workers_now":0})")),
            "Nobody.");
  EXPECT_EQ(why_it_waits(json::parse(R"({"summary":"It runs on worker 1.","waits":[],"workers_in_all":0})")), "");
}

TEST(RetryOn, ReadsClassTypeAndCount) {
  EXPECT_EQ(*parse_retry_on("out_of_memory=0"), (json::object{{"on", "out_of_memory"}, {"max_attempts", 1u}}));
  EXPECT_EQ(*parse_retry_on("exception:pkg.Odd=5"),
            (json::object{{"on", "exception"}, {"max_attempts", 6u}, {"type", "pkg.Odd"}}));
  for (const char* wrong : {"", "x", "=1", "exception", "exception=", "exception=-1", "exception=100", "exception:=1",
                            "time_limit:ValueError=1", "exception=1x"})
    EXPECT_FALSE(parse_retry_on(wrong).ok()) << wrong;
  EXPECT_NE(parse_retry_on("out_of_memroy=1").error().message.find("out_of_memory"), std::string::npos);
}

TEST(JobFlags, WinOverTheFile) {
  JobFlags flags;
  flags.after = {"7", "8/3", "prep"};
  flags.retry_on = {"refused=0"};
  flags.finish_in = "2h";
  flags.gpu_memory = "8GiB";
  flags.nodes = 4;
  flags.pool = "fast";
  json::object job = json::parse(R"({"after": "one", "pool": "slow",
      "retry": {"rules": [{"on": "exception"}], "crash_limit": 2}})")
                         .as_object();
  apply(flags, job);
  EXPECT_EQ(job["after"], json::parse(R"(["one", "7", {"job": "8", "index": 3}, "prep"])"));
  EXPECT_EQ(job["retry"],
            json::parse(R"({"rules": [{"on": "refused", "max_attempts": 1}, {"on": "exception"}], "crash_limit": 2})"));
  EXPECT_EQ(job["finish_in"], 7200.0);
  EXPECT_EQ(job["gpu_memory"], 8ull << 30);
  EXPECT_EQ(job["nodes"], 4);
  EXPECT_EQ(job["pool"], "fast");
  flags.deadline = "2026-12-01T08:00:00Z";
  EXPECT_THROW(apply(flags, job), Exit);
}

}  // namespace
}  // namespace grange::cli
