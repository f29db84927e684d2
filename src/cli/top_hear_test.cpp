// What the server says, in the views of a job and a worker, and what it is asked.
#include "cli/top_testing.hpp"

namespace grange::cli::top {
namespace {

using namespace testing;

// -------------------------------------------------------------------------------------------------------------- views

TEST_F(TopModel, AJobOpens) {
  server.at["/api/jobs/2/tasks?status=running"] = [](const Ask& ask) {
    return Answer{
        ask.id, 200,
        R"([{"index":4,"status":"running","attempt":1,"worker_id":"w-2","progress":{"done":1,"total":4,"text":"warm"}}])"};
  };
  server.at["/api/jobs/2/tasks?status=failed"] = [](const Ask& ask) {
    return Answer{
        ask.id, 200,
        R"([{"index":1,"status":"failed","attempt":3,"worker_id":"w-1","failure":"exit_code","message":"exit 3"}])"};
  };
  server.jobs[1].as_object()["failed_tasks"] = 1;
  server.at["/api/jobs/2/logs"] = [](const Ask& ask) {
    return Answer{
        ask.id, 200,
        ask.path.ends_with("after=0")
            ? R"([{"cursor":5,"index":4,"stream":"stdout","text":"half "},{"cursor":6,"index":4,"stream":"stdout","text":"whole\nnext\n"}])"
            : "[]"};
  };
  type(state, "2j\n");
  ASSERT_TRUE(state.job_view);
  server.serve(state, later(1000));
  server.serve(state, later(2000));
  for (const char* what : {"Job 2", "beta  running", "50%", "5 of 10 tasks", "4 completed", "1 failed", "2 running",
                           "Tasks (1 of exit_code)", "bellows", "1/4 (25%) warm", "attempt 3", "exit 3", "Log",
                           "[4] half whole", "[4] next"})
    EXPECT_TRUE(shows(state, what, later(2000))) << what << "\n" << frame_text(state, later(2000));
  EXPECT_TRUE(asked_of("/explain").empty()) << "it runs: there is nothing to explain";
  type(state, "t");
  EXPECT_FALSE(shows(state, "[4] next"));
  type(state, "t");
  EXPECT_FALSE(shows(state, "exit 3"));
  EXPECT_TRUE(shows(state, "[4] next"));
  type(state, "c");
  EXPECT_TRUE(state.question);
  type(state, "n\x1b");
  EXPECT_FALSE(state.job_view);
  server.asked.clear();
  server.serve(state, later(4000));
  EXPECT_TRUE(asked_of("/api/jobs/2").empty()) << "what is not looked at is not asked for";
}

TEST_F(TopModel, AWaitingJobSaysWhy) {
  server.at["/api/jobs/3/explain"] = [](const Ask& ask) {
    return Answer{
        ask.id, 200,
        R"({"summary":"Waits for cores: it needs 900.","waits":[{"code":"cpus"}],"workers_in_all":2,"workers_now":0})"};
  };
  type(state, "2\n");
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "Waits for cores: it needs 900."));
}

TEST_F(TopModel, AJobThatIsNotListedOpensByItsId) {
  server.at["/api/jobs/77"] = [](const Ask& ask) {
    if (ask.path == "/api/jobs/77") return Answer{ask.id, 200, json::serialize(a_job(77, "ancient", "completed"))};
    return Answer{ask.id, 200, "[]"};
  };
  type(state, "2/77\n\n");
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "ancient  completed"));
  type(state, "\x1b/no such\n\n");
  EXPECT_FALSE(state.job_view);
  type(state, "\x1b/78\n\n");
  server.serve(state, later(2000));
  EXPECT_TRUE(shows(state, "There is no such job."));
  type(state, "c");
  EXPECT_FALSE(state.question);
}

TEST_F(TopModel, AJobThatGoesIsSaid) {
  type(state, "2\n");
  server.jobs.erase(server.jobs.begin());
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "not there any more"));
}

TEST_F(TopModel, AWorkerOpens) {
  server.at["/api/workers/w-2"] = [](const Ask& ask) {
    return Answer{ask.id, 200, R"({"id":"w-2","tasks":[{"job_id":"2","index":4,"name":"beta","attempt":2}]})"};
  };
  type(state, "3j\n");
  server.serve(state, later(1000));
  for (const char* what : {"bellows  busy", "50% of 4", "4.0/8.0 GiB", "room=a", "command", "2/4", "beta  attempt 2"})
    EXPECT_TRUE(shows(state, what)) << what << "\n" << frame_text(state);
  state.height = 12;
  const std::string before = frame_text(state);
  type(state, "G");
  EXPECT_NE(frame_text(state), before);
  EXPECT_TRUE(shows(state, "beta  attempt 2"));
  type(state, "g");
  EXPECT_EQ(frame_text(state), before);
}

TEST_F(TopModel, AnOlderServerTellsNoTasksOfAWorker) {
  type(state, "3\n");
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "anvil  online"));
  EXPECT_FALSE(shows(state, "What it runs"));
}

TEST_F(TopModel, ALogScrollsAndFollows) {
  std::int64_t lines = 50;
  server.at["/api/jobs/2/logs"] = [&](const Ask& ask) {
    const std::int64_t after = std::stoll(ask.path.substr(ask.path.find("after=") + 6));
    json::array out;
    for (std::int64_t i = after + 1; i <= std::min(lines, after + 60); ++i)
      out.push_back(
          json::object{{"cursor", i}, {"index", 0}, {"stream", "stdout"}, {"text", fmt::format("line-{}.\n", i)}});
    return Answer{ask.id, 200, json::serialize(out)};
  };
  type(state, "2j\n");
  server.serve(state, kStart);
  EXPECT_TRUE(shows(state, "line-50."));
  type(state, "kkk");
  EXPECT_FALSE(shows(state, "line-50."));
  EXPECT_TRUE(shows(state, "3 lines below"));
  type(state, "g");
  EXPECT_TRUE(shows(state, "line-1."));
  type(state, "j");
  EXPECT_FALSE(shows(state, "line-1."));
  type(state, "G");
  EXPECT_TRUE(shows(state, "line-50."));
  lines = 55;
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "line-55."));
}

TEST(TopLog, FindsTheEndOfALongOne) {
  for (const std::int64_t size : {0, 1, 59, 60, 61, 1000, 123'456, 2'000'000}) {
    // Lines of this job between lines of others: every third number is one of ours.
    LogTail tail;
    int pages = 0;
    for (bool more = true; more; ++pages) {
      ASSERT_LT(pages, 100) << size;
      json::array page;
      const std::int64_t from = tail.asks_after() / 3 + 1;
      for (std::int64_t i = from; i <= std::min(size, from + LogTail::kPage - 1); ++i)
        page.push_back(
            json::object{{"cursor", i * 3}, {"index", 0}, {"stream", "stdout"}, {"text", fmt::format("{}\n", i)}});
      more = tail.take(page);
    }
    ASSERT_EQ(tail.lines.empty(), size == 0);
    EXPECT_EQ(size == 0 ? "0" : tail.lines.back().text, std::to_string(size));
    EXPECT_GE(static_cast<std::int64_t>(tail.lines.size()), std::min<std::int64_t>(size, 50)) << size;
    EXPECT_EQ(tail.asks_after(), size * 3);
  }
}

// Each line once looked through all before it: this would have taken minutes, and a whole page days.
TEST(TopLog, ManyShortLinesAreQuicklyTaken) {
  LogTail tail;
  json::array page;
  for (int i = 0; i < 10; ++i)
    page.push_back(json::object{
        {"cursor", i + 1}, {"index", i % 2}, {"stream", "stdout"}, {"text", std::string(64 << 10, '\n') + "half"}});
  (void)tail.take(page);
  ASSERT_EQ(tail.lines.size(), 1000u);
  EXPECT_EQ(tail.lines.back().text, "half");
  json::array rest;
  rest.push_back(json::object{{"cursor", 11}, {"index", 1}, {"stream", "stdout"}, {"text", " and whole\n"}});
  (void)tail.take(rest);
  EXPECT_EQ(tail.lines.back().text, "half and whole");
  EXPECT_TRUE(tail.lines.back().ended);
}

// ------------------------------------------------------------------------------------------------------- the server

TEST_F(TopModel, AsksOnceAndInTime) {
  EXPECT_TRUE(complete(state));
  EXPECT_TRUE(asks(state, later(999)).empty());
  const std::vector<Ask> first = asks(state, later(1000));
  EXPECT_EQ(first.size(), 5u);
  EXPECT_TRUE(asks(state, later(5000)).empty()) << "not while the answer is under way";
  EXPECT_TRUE(shows(state, "the server has not answered for 4 s", later(5000)));
  for (const Ask& ask : first) hear(state, server.answer(ask), later(5000));
  EXPECT_FALSE(shows(state, "has not answered", later(5000)));
  EXPECT_EQ(asks(state, later(5000)).size(), 5u);
}

TEST_F(TopModel, ALostServerIsSaidAndComesBack) {
  const auto lose_all = [&](Clock now) {
    const std::vector<Ask> some = asks(state, now);
    for (const Ask& ask : some) hear(state, {ask.id, 0, "connection refused"}, now);
    return some.size();
  };
  type(state, "2jcy");
  EXPECT_EQ(lose_all(later(1000)), 6u);
  EXPECT_TRUE(shows(state, "not connected, trying again in 1 s: connection refused", later(1000)));
  EXPECT_TRUE(shows(state, "Cancel of job 2 (beta): the server did not answer.", later(1000)));
  EXPECT_TRUE(shows(state, "beta", later(1000))) << "what was known stays";
  EXPECT_EQ(lose_all(later(1500)), 0u);
  EXPECT_EQ(lose_all(later(2000)), 1u) << "one try";
  EXPECT_TRUE(shows(state, "trying again in 2 s", later(2000)));
  EXPECT_EQ(lose_all(later(4000)), 1u);
  EXPECT_TRUE(shows(state, "trying again in 4 s", later(4000)));
  EXPECT_TRUE(shows(state, "trying again in 1 s", later(7500)));
  EXPECT_LE(rests(state, later(7500)), 500);
  server.asked.clear();
  type(state, "p", later(7600));
  EXPECT_TRUE(shows(state, "Nothing was done: not connected.", later(7600)));
  server.serve(state, later(8000));
  EXPECT_TRUE(asked_of("POST").empty()) << "nothing is done later that was asked for meanwhile";
  EXPECT_FALSE(shows(state, "not connected, trying", later(8000)));
  EXPECT_EQ(state.link.state, Link::up);
  EXPECT_EQ(server.asked.front(), "/api/overview") << "it may have come back as a newer one";
  EXPECT_FALSE(asked_of("/api/workers").empty());
}

TEST_F(TopModel, LateAnswersAreNone) {
  const std::vector<Ask> some = asks(state, later(1000));
  hear(state, {some.front().id, 0, "gone"}, later(1000));
  const std::string before = frame_text(state, later(1000));
  for (const Ask& ask : some) hear(state, server.answer(ask), later(1000));
  hear(state, {999'999, 200, "{}"}, later(1000));
  EXPECT_EQ(frame_text(state, later(1000)), before);
}

TEST_F(TopModel, NonsenseIsNoServer) {
  server.at["/api/"] = [](const Ask& ask) { return Answer{ask.id, 200, "<html>"}; };
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "is not a Grange server", later(1000)));
  for (const char* body : {"[]", "7", "null", "{}", R"({"stats":7})", R"({"total_jobs":{}})", R"([null,{"id":3}])"}) {
    State other = start("http://farm", 1000, true);
    server.at["/api/"] = [&](const Ask& ask) { return Answer{ask.id, 200, body}; };
    for (int i = 0; i < 3; ++i) {
      server.serve(other, later(2000 * i));
      type(other, "2\n3\n", later(2000 * i));
      draw(other, later(2000 * i));
    }
  }
}

TEST_F(TopModel, ATokenThatIsWanted) {
  server.at["/api/"] = [](const Ask& ask) { return Answer{ask.id, 401, "{}"}; };
  server.serve(state, later(1000));
  EXPECT_NE(state.refused.find("--token-file"), std::string::npos);
}

TEST_F(TopModel, ANewerServerSaysMore) {
  json::object overview{
      {"stats", some_stats()},
      {"throughput", json::object{{"completed_per_s", 12.5}, {"failed_per_s", 0.5}}},
      {"wait_ms", json::object{{"p50", 2500.0}}},
      {"use", json::object{{"cores", json::object{{"used", 3.5}, {"total", 16}}},
                           {"memory", json::object{{"used_bytes", 1073741824}, {"total_bytes", 4294967296}}},
                           {"gpus", json::object{{"used", 1}, {"total", 2}}}}},
      {"attention",
       json::array{json::object{{"kind", "no_workers"}, {"severity", "error"}, {"title", "Help"}, {"text", "here"}}}}};
  server.at["/api/overview"] = [&](const Ask& ask) { return Answer{ask.id, 200, json::serialize(overview)}; };
  State newer = start("http://farm", 1000, true);
  server.asked.clear();
  server.serve(newer, kStart);
  EXPECT_TRUE(asked_of("/api/stats").empty());
  for (const char* what :
       {"tasks/s  13", "cores    3.5/16", "memory   1.0/4.0 GiB", "GPUs     1.0/2", "2.5 s", "Help: here"})
    EXPECT_TRUE(shows(newer, what)) << what << "\n" << frame_text(newer);
}

TEST_F(TopModel, WhatNeedsAttention) {
  server.stats["paused"] = true;
  server.stats["storage_full"] = true;
  server.workers[0].as_object()["status"] = "quarantined";
  server.serve(state, later(1000));
  server.serve(state, later(2000));
  for (const char* what : {"PAUSED", "queue is paused", "disk of the server is full", "Worker anvil is quarantined"})
    EXPECT_TRUE(shows(state, what)) << what << "\n" << frame_text(state);
}

TEST_F(TopModel, TheRateIsByTheServersClock) {
  for (int i = 1; i <= 3; ++i) {
    server.stats = some_stats(10 + i, 100 + 50 * i);
    server.serve(state, later(1000 * i));
  }
  ASSERT_TRUE(state.figures->per_second);
  EXPECT_DOUBLE_EQ(*state.figures->per_second, 50);
  server.stats = some_stats(1, 3);  // started anew
  server.serve(state, later(4000));
  EXPECT_FALSE(state.figures->per_second);
}

TEST_F(TopModel, TimeThatIsLeft) {
  const Job* beta = &*std::find_if(state.jobs.begin(), state.jobs.end(), [](const Job& j) { return j.name == "beta"; });
  EXPECT_FALSE(left_of(state, *beta, kStart)) << "nothing was seen to move yet";
  for (int i = 1; i <= 4; ++i) {
    server.jobs[1].as_object()["completed_tasks"] = 4 + i;
    server.serve(state, later(1000 * i));
  }
  beta = &*std::find_if(state.jobs.begin(), state.jobs.end(), [](const Job& j) { return j.name == "beta"; });
  ASSERT_TRUE(left_of(state, *beta, later(4000)));
  EXPECT_DOUBLE_EQ(*left_of(state, *beta, later(4000)), 2);
}

}  // namespace
}  // namespace grange::cli::top
