#include "cli/race_view.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "cli/term.hpp"

namespace grange::cli {
namespace {

json::value data(const char* machine, const char* payload) {
  return json::object{{"machine", machine}, {"repeat", 0}, {"warmup", false}, {"payload", json::parse(payload)}};
}

TEST(RaceView, PlainLinesAreWholeAndNamed) {
  RaceView view({"a", "b"});
  EXPECT_EQ(view.heard("job_start", data("a", "{}")), "[a] #1 starts\n");
  EXPECT_EQ(view.heard("llm_token", data("a", R"({"text":"The "})")), "");
  EXPECT_EQ(view.heard("llm_token", data("b", R"({"text":"One"})")), "");
  EXPECT_EQ(view.heard("llm_token", data("a", R"({"text":"end\nand"})")), "[a] The end\n");
  EXPECT_EQ(view.heard("compute_line", data("b", R"({"line":"x"})")), "[b] Onex\n");
  EXPECT_EQ(view.heard("job_done", data("a", R"({"ok":true,"ttft_ms":89.5,"gen_tokens_per_s":45,"total_ms":3442})")),
            "[a] and\n[a] #1 TTFT 89.500 ms  45 t/s  total 3442 ms\n");
  EXPECT_EQ(view.heard("job_done", data("b", R"({"ok":false,"error":"oom","message":"too\u001b[2Jbig"})")),
            "[b] #1 oom: too?[2Jbig\n")
      << "an escape of another machine moves no cursor";
  EXPECT_EQ(view.heard("llm_token", data("nobody", R"({"text":"x\n"})")), "");
  EXPECT_FALSE(view.over());
  view.heard("run_lifecycle", json::object{{"payload", json::object{{"type", "run_end"}}}});
  EXPECT_TRUE(view.over());
}

TEST(RaceView, ThePictureFitsTheTerminal) {
  RaceView view({"first", "second", "third"});
  for (const char* name : {"first", "second", "third"}) {
    view.heard("job_start", data(name, "{}"));
    for (int i = 0; i < 500; ++i) view.heard("llm_token", data(name, R"({"text":"wörter und \u001b[31m "})"));
  }
  for (const int width : {20, 40, 80, 200}) {
    for (const int height : {5, 12, 20}) {
      const auto lines = view.picture(width, height, false);
      EXPECT_LE(lines.size(), static_cast<std::size_t>(std::max(height, 4)));
      for (const std::string& line : lines) {
        EXPECT_LE(columns(line), static_cast<std::size_t>(std::max(width, 8))) << line;
        EXPECT_EQ(line.find('\x1b'), std::string::npos);
      }
    }
  }
  const std::string head = view.picture(120, 10, false).front();
  EXPECT_NE(head.find("first  running"), std::string::npos);
  EXPECT_NE(head.find("third  running"), std::string::npos) << "side by side";
}

TEST(RaceView, SaysWhyAMachineWaits) {
  RaceView view({"a", "b"});
  view.heard("job_start", data("b", "{}"));
  EXPECT_EQ(
      view.heard("run_lifecycle", data("a", R"({"type":"machine_waits","why":"its ollama is down","ends_in_s":30})")),
      "[a] waits: its ollama is down; its part ends in 30 s unless that changes\n");
  const auto shown = [&] {
    std::string all;
    for (const std::string& line : view.picture(120, 10, false)) all += line + "\n";
    return all;
  };
  EXPECT_NE(shown().find("waits: its ollama is down"), std::string::npos);
  view.heard("job_start", data("a", "{}"));
  EXPECT_EQ(shown().find("waits:"), std::string::npos);
}

TEST(RaceTable, HasTheFiguresOfItsOp) {
  const json::value summary = json::parse(R"({"kind":"compute","op":"memory","machines":{
    "a":{"status":"completed","engine":"compute","op":"memory","n":1073741824,"ok":1,"requests":1,
         "gb_per_s_copy":11.5,"gb_per_s_scale":12.5,"gb_per_s_add":13.5,"gb_per_s_triad":14.5,"wall_seconds":2}},
    "ranking":{"sentence":""}})");
  const std::string text = race_table(summary, 0, false);
  for (const char* part : {"WHAT", "memory 1.0 GiB", "TRIAD GB/S", "14.500", "11.500"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  EXPECT_EQ(text.find("PRIMES"), std::string::npos);
}

TEST(RaceTable, SaysWhatEachMachineDidAndWhy) {
  const json::value summary = json::parse(R"({"kind":"llm","machines":{
    "fast":{"status":"completed","engine":"ollama","fit":"GOOD","ok":3,"requests":3,"ttft_ms":12.5,"gen_tokens":64,
            "gen_tokens_per_s":45.25,"total_ms":3000},
    "off":{"status":"failed","engine":"mock","mock":true,"mock_reason":"missing_model","ok":0,"requests":3,
           "ttft_ms":null,"error":"oom","message":"no room","advice":"Take less."}},
    "ranking":{"sentence":"fast is first."}})");
  const std::string text = race_table(summary, 0, false);
  for (const char* part :
       {"12.500", "45.250", "3/3", "mock (missing_model)", "oom: no room Take less.", "fast is first."})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

}  // namespace
}  // namespace grange::cli
