#include "cli/top_model.hpp"

#include <random>

#include "base/utf8.hpp"
#include "cli/top_testing.hpp"

namespace grange::cli::top {
namespace {

using namespace testing;

// ------------------------------------------------------------------------------------------------------------- frames

TEST_F(TopModel, ShowsTheFarm) {
  const std::string text = frame_text(state);
  for (const char* what :
       {"http://farm:8000", "0.1.0", "up 10s", "fair_share", "waiting  7", "running  2", "2, 8 slots", "cores    4.0/8",
        "memory   8.0/16 GiB", "gamma", "beta", "4/10", "anvil", "busy"})
    EXPECT_NE(text.find(what), std::string::npos) << what << "\n" << text;
}

TEST_F(TopModel, HostileNamesReachNoCell) {
  const char* evil =
      "\x1b[2J\x1b]0;x\x07\xc2\x9b"
      "1m\xe2\x80\xae"
      "日本語\xff🚀e\xcc\x81";
  server.jobs = {a_job(9, evil, "running"), a_job(8, evil, "pending")};
  server.jobs[0].as_object()["user"] = evil;
  server.jobs[0].as_object()["id"] = evil;
  server.workers = {a_worker(evil, evil)};
  server.workers[0].as_object()["hostname"] = evil;
  server.workers[0].as_object()["labels"] = json::object{{evil, evil}};
  server.workers[0].as_object()["notes"] = json::array{evil};
  server.at["/api/jobs/8/explain"] = [&](const Ask& ask) {
    return Answer{
        ask.id, 200,
        json::serialize(json::object{{"summary", evil}, {"waits", json::array{json::object{{"text", evil}}}}})};
  };
  server.at["/api/jobs/8/logs"] = [&](const Ask& ask) {
    json::array lines;
    if (ask.path.ends_with("after=0"))
      lines.push_back(json::object{{"cursor", 1}, {"index", 0}, {"stream", "stdout"}, {"text", evil}});
    return Answer{ask.id, 200, json::serialize(lines)};
  };
  for (const bool utf8 : {true, false}) {
    for (const char* keys :
         {"1", "2", "3", "2G\n", "2g\n", "2\nt", "2\ntt", "3\n", "?", "2c", "2/\xe6\x97\xa5", "1\tss"}) {
      for (const auto& [columns, rows] : {std::pair{40, 10}, {41, 11}, {57, 13}, {80, 24}, {120, 40}, {233, 61}}) {
        State here = start("http://farm:8000", 1000, utf8);
        here.width = columns;
        here.height = rows;
        server.serve(here, kStart);
        type(here, keys);
        server.serve(here, kStart);
        const Frame frame = draw(here, kStart);
        EXPECT_EQ(frame.height(), rows);
        for (int y = 0; y < rows; ++y) {
          std::string line;
          for (const Span& span : frame.spans(y)) line += span.text;
          EXPECT_EQ(width(line), columns) << keys << " line " << y << ": " << line;
          EXPECT_TRUE(is_utf8(line));
          EXPECT_EQ(clean(line, utf8), line) << "line " << y;
        }
      }
    }
  }
  for (const std::string& line : text_of(state, 80, kStart)) EXPECT_EQ(clean(line, true), line);
}

TEST_F(TopModel, SaysThatItIsTooSmall) {
  for (const auto& [columns, rows] : {std::pair{39, 24}, {80, 9}, {12, 3}, {1, 1}, {0, 0}}) {
    state.width = columns;
    state.height = rows;
    const Frame frame = draw(state, kStart);
    const bool room = columns > 20 && rows > 2;
    EXPECT_EQ(frame_text(state).find("too small: 40x10") != std::string::npos, room);
    EXPECT_EQ(frame.width(), columns);
  }
  state.width = 40;
  state.height = 10;
  EXPECT_TRUE(shows(state, "beta"));
  EXPECT_FALSE(shows(state, "too small"));
}

TEST_F(TopModel, ColumnsGoWhereThereIsNoRoom) {
  type(state, "2");
  state.width = 160;
  EXPECT_TRUE(shows(state, "USER"));
  EXPECT_TRUE(shows(state, "PRIO"));
  state.width = 80;
  EXPECT_FALSE(shows(state, "PRIO"));
  EXPECT_TRUE(shows(state, "FAILED"));
  state.width = 40;
  EXPECT_FALSE(shows(state, "FAILED"));
  EXPECT_TRUE(shows(state, "STATE"));
}

TEST_F(TopModel, AllOfItAsText) {
  const std::vector<std::string> lines = text_of(state, 80, kStart);
  std::string text;
  for (const std::string& line : lines) {
    EXPECT_LE(width(line), 80);
    text += line + "\n";
  }
  for (const char* what : {"alpha", "gamma", "crane", "offline", "waiting"})
    EXPECT_NE(text.find(what), std::string::npos) << what;
}

// --------------------------------------------------------------------------------------------------------------- keys

TEST_F(TopModel, TabsTurn) {
  for (const Tab next : {Tab::jobs, Tab::workers, Tab::overview}) {
    type(state, "\t");
    EXPECT_EQ(state.tab, next);
  }
  press(state, {Key::back_tab}, kStart);
  EXPECT_EQ(state.tab, Tab::workers);
  type(state, "2");
  EXPECT_EQ(state.tab, Tab::jobs);
  type(state, "?");
  EXPECT_TRUE(shows(state, "drain the worker"));
  type(state, "q");
  EXPECT_FALSE(state.quit) << "help goes first";
  type(state, "q");
  EXPECT_TRUE(state.quit);
}

TEST_F(TopModel, Sorts) {
  EXPECT_EQ(names_shown(state), (Names{"beta", "gamma", "alpha"})) << "what runs, what waits, what has ended";
  type(state, "2");
  EXPECT_EQ(names_shown(state), (Names{"gamma", "beta", "alpha"})) << "by number";
  type(state, "S");
  EXPECT_EQ(names_shown(state), (Names{"alpha", "beta", "gamma"}));
  type(state, "s");
  EXPECT_EQ(names_shown(state), (Names{"alpha", "beta", "gamma"})) << "by name";
  EXPECT_TRUE(shows(state, "NAME▼"));
  type(state, "S");
  EXPECT_EQ(names_shown(state), (Names{"gamma", "beta", "alpha"}));
  EXPECT_TRUE(shows(state, "NAME▲"));
  type(state, "s");
  EXPECT_EQ(names_shown(state), (Names{"beta", "gamma", "alpha"})) << "by state";
  type(state, "s");
  EXPECT_EQ(names_shown(state), (Names{"alpha", "beta", "gamma"})) << "by what is done";
  for (int i = 0; i < 40; ++i) {
    type(state, "s");
    EXPECT_EQ(names_shown(state).size(), 3u);
  }
  type(state, "3");
  EXPECT_EQ(names_shown(state), (Names{"anvil", "bellows", "crane"}));
  type(state, "ssS");
  EXPECT_EQ(names_shown(state).front(), "crane") << "by state, the other way round";
}

TEST_F(TopModel, Filters) {
  type(state, "2/BET");
  EXPECT_EQ(names_shown(state), Names{"beta"});
  press(state, {Key::backspace}, kStart);
  type(state, "ann run\n");
  EXPECT_EQ(names_shown(state), Names{}) << "BEann is nowhere";
  type(state, "\x1b/ann RUN\n");
  EXPECT_EQ(names_shown(state), Names{"beta"}) << "every word, anywhere";
  EXPECT_TRUE(shows(state, "1 of 3 jobs: ann RUN"));
  type(state, "c");
  ASSERT_TRUE(state.question) << "keys are keys again";
  EXPECT_NE(state.question->question.find("beta"), std::string::npos);
  type(state, "n\x1b");
  EXPECT_EQ(names_shown(state).size(), 3u);
  type(state, "/q");
  EXPECT_FALSE(state.quit);
  EXPECT_TRUE(shows(state, "Enter opens job q;"));
  press(state, {Key::character, U'日'}, kStart);
  EXPECT_EQ(state.all_jobs.filter, "q日");
  press(state, {Key::backspace}, kStart);
  EXPECT_EQ(state.all_jobs.filter, "q");
}

TEST_F(TopModel, TheChosenRowStaysChosen) {
  type(state, "2j");
  EXPECT_EQ(state.all_jobs.chosen, "2");
  server.jobs.insert(server.jobs.begin(), a_job(4, "delta", "pending"));
  server.serve(state, later(1000));
  EXPECT_EQ(names_shown(state).front(), "delta");
  type(state, "k", later(1000));
  EXPECT_EQ(state.all_jobs.chosen, "3");
  type(state, "G");
  EXPECT_EQ(state.all_jobs.chosen, "1");
  type(state, "jj");
  EXPECT_EQ(state.all_jobs.chosen, "1");
  press(state, {Key::page_up}, kStart);
  EXPECT_EQ(state.all_jobs.chosen, "4");
  press(state, {Key::end}, kStart);
  server.jobs.erase(server.jobs.end() - 1);
  server.serve(state, later(2000));
  type(state, "c", later(2000));
  ASSERT_TRUE(state.question);
  EXPECT_NE(state.question->path.find("/2/"), std::string::npos) << "the place of the one that is gone, or the last";
}

TEST_F(TopModel, AChosenRowIsOnTheScreen) {
  server.jobs.clear();
  for (int i = 300; i > 0; --i) server.jobs.push_back(a_job(i, fmt::format("job-{}-", i).c_str(), "pending"));
  server.serve(state, later(1000));
  type(state, "2");
  for (int i = 0; i < 40; ++i) {
    press(state, {i % 3 == 0 ? Key::page_down : Key::down}, kStart);
    EXPECT_TRUE(shows(state, "job-" + state.all_jobs.chosen + "-")) << state.all_jobs.chosen;
  }
  type(state, "G");
  EXPECT_TRUE(shows(state, "job-1-"));
  type(state, "g");
  EXPECT_TRUE(shows(state, "job-300-"));
}

TEST_F(TopModel, CancelAsksFirst) {
  type(state, "2jc");
  ASSERT_TRUE(state.question);
  EXPECT_TRUE(shows(state, "Cancel job 2 (beta), 6 tasks that have not ended? y/n"));
  type(state, "x");
  server.serve(state, kStart);
  EXPECT_TRUE(asked_of("cancel").empty());
  EXPECT_TRUE(shows(state, "Nothing was done."));
  server.at["/api/jobs/2/cancel"] = [](const Ask& ask) { return Answer{ask.id, 200, R"({"cancelled":6})"}; };
  type(state, "cy");
  server.serve(state, kStart);
  EXPECT_EQ(asked_of("cancel"), Names{"POST /api/jobs/2/cancel"});
  EXPECT_TRUE(shows(state, "Cancel of job 2 (beta): 6 tasks cancelled."));
  EXPECT_FALSE(shows(state, "cancelled.", later(10'000))) << "said for a while";
  type(state, "Gc");
  EXPECT_FALSE(state.question);
  EXPECT_TRUE(shows(state, "Job 1 has ended: it is completed."));
}

TEST_F(TopModel, PauseResumeRetry) {
  type(state, "2jp");
  server.serve(state, kStart);
  server.jobs[1].as_object()["paused"] = true;
  server.serve(state, later(1000));
  EXPECT_TRUE(shows(state, "paused", later(1000)));
  type(state, "p", later(1000));
  server.serve(state, later(1000));
  type(state, "r", later(1000));
  EXPECT_TRUE(shows(state, "no failed or cancelled task", later(1000)));
  server.jobs[1].as_object()["failed_tasks"] = 2;
  server.serve(state, later(2000));
  server.at["/api/jobs/2/retry"] = [](const Ask& ask) {
    return Answer{ask.id, 409, R"({"error":{"message":"It is being cancelled."}})"};
  };
  type(state, "r", later(2000));
  server.serve(state, later(2000));
  EXPECT_EQ(asked_of("POST"), (Names{"POST /api/jobs/2/pause", "POST /api/jobs/2/resume", "POST /api/jobs/2/retry"}));
  EXPECT_TRUE(shows(state, "It is being cancelled.", later(2000)));
}

TEST_F(TopModel, DrainAsksFirst) {
  type(state, "2d");
  EXPECT_TRUE(shows(state, "That goes with a worker"));
  type(state, "3d");
  EXPECT_TRUE(shows(state, "Drain worker anvil"));
  type(state, "y");
  server.serve(state, kStart);
  EXPECT_EQ(asked_of("POST"), Names{"POST /api/workers/w-1/drain"});
  type(state, "p");
  EXPECT_TRUE(shows(state, "cannot pause a worker"));
  server.workers[0].as_object()["paused"] = false;
  server.serve(state, later(1000));
  type(state, "p", later(1000));
  server.serve(state, later(1000));
  EXPECT_EQ(asked_of("POST").back(), "POST /api/workers/w-1/pause");
  type(state, "Gd", later(1000));
  EXPECT_TRUE(shows(state, "Worker crane is offline.", later(1000)));
  type(state, "c", later(1000));
  EXPECT_TRUE(shows(state, "That goes with a job", later(1000)));
}

TEST_F(TopModel, AnyKeysInAnyOrder) {
  std::mt19937 random(7);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const std::u32string characters = U"123?/sSjkgGtcprdyn ab日\x15";
  Clock now = kStart;
  for (int i = 0; i < 3'000; ++i) {
    if (pick(4) == 0) {
      const auto kind = static_cast<Key::Kind>(1 + pick(static_cast<int>(Key::backspace)));
      press(state, {kind}, now);
    } else {
      press(state, {Key::character, characters[static_cast<std::size_t>(pick(static_cast<int>(characters.size())))]},
            now);
    }
    now = {now.mono_ms + pick(400), now.wall_ms + pick(400)};
    if (pick(5) == 0) {
      const int number = pick(6);
      server.jobs.erase(std::remove_if(server.jobs.begin(), server.jobs.end(),
                                       [&](const json::value& job) { return num(job, "job") == number; }),
                        server.jobs.end());
      if (pick(2) == 0) {
        static constexpr const char* kStates[] = {"pending", "running", "completed", "failed", "cancelled"};
        server.jobs.push_back(a_job(number, "x", kStates[pick(5)], pick(3), pick(3)));
      }
      if (pick(3) == 0) server.workers = pick(2) == 0 ? json::array{} : json::array{a_worker("w-1", "anvil")};
    }
    for (const Ask& ask : asks(state, now)) {
      if (pick(10) == 0) continue;  // never answered
      hear(state, pick(50) == 0 ? Answer{ask.id, 0, "gone"} : server.answer(ask), now);
    }
    if (pick(200) == 0) hear(state, {state.slots["stats"].busy, 0, "gone"}, now);
    state.width = 40 + pick(100);
    state.height = 10 + pick(40);
    const Frame frame = draw(state, now);
    for (int y = 0; y < state.height; ++y) ASSERT_LE(width(frame.line(y)), state.width);
    ASSERT_FALSE(state.quit);
    ASSERT_LE(state.slots.size(), 16u);
    ASSERT_LE(state.history.size(), 20u);
  }
}

}  // namespace
}  // namespace grange::cli::top
