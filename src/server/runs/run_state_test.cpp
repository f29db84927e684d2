#include "server/runs/run_state.hpp"

#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

#include "base/prng.hpp"
#include "server/runs/run_book.hpp"
#include "server/runs/run_export.hpp"
#include "server/runs/run_summary.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

using namespace run_events;
constexpr Micros kLease{30'000'000};

RunSpec spec_of(const char* body) {
  auto read = read_run(wire::parse_json(body)->as_object());
  EXPECT_TRUE(read.ok()) << read.error().message;
  return read ? *read : RunSpec{};
}

RunState two_machines(const char* body = R"({"kind":"llm","model":"m","prompt":"p","repeats":2,"warmup":1})") {
  RunState run;
  run.id = "2024-01-15_143022_abc123";
  run.spec = spec_of(body);
  run.phases = run.spec.phases();
  std::uint32_t job = 1;
  for (const char* name : {"macbook", "macmini"}) {
    MachineState m;
    m.machine.id = std::string("id-") + name;
    m.machine.name = name;
    m.phases.resize(run.phases.size());
    for (PhaseState& phase : m.phases) phase.job = {job++};
    run.machines.push_back(std::move(m));
  }
  return run;
}

TaskOver good(std::size_t machine, std::uint32_t phase, std::uint32_t repeat, double ttft, double rate) {
  return {.machine = machine,
          .phase = phase,
          .repeat = repeat,
          .end = core::TaskEnd::completed,
          .run_us = 1000,
          .value = json::object{{"engine", "ollama"},
                                {"text", "hello"},
                                {"ttft_ms", ttft},
                                {"gen_tokens", 10},
                                {"gen_tokens_per_s", rate},
                                {"total_ms", ttft * 2},
                                {"itl_ms", json::object{{"mean", 2.5}, {"p50", 2}}}},
          .error = {},
          .message = {}};
}

class Race : public ::testing::Test {
 protected:
  std::vector<std::string> tell(const RunEvent& event) {
    std::vector<std::string> types;
    for (const RunEffect& effect : step(run, event, now, kLease)) {
      if (const auto* what = std::get_if<Tell>(&effect)) types.push_back(what->type);
      if (std::holds_alternative<CancelJob>(effect)) types.emplace_back("cancel");
      if (std::holds_alternative<RunEnded>(effect)) types.emplace_back("ended");
    }
    now = now + Micros{1000};
    return types;
  }
  using Types = std::vector<std::string>;
  RunState run = two_machines();
  Instant now{1'000'000};
};

TEST_F(Race, EndsWhenEachMachineHasEnded) {
  EXPECT_EQ(tell(Began{0, 0, 0, 1}), (Types{"job_start"}));
  EXPECT_EQ(tell(Said{0, 0, 0, 1, "llm_token", R"({"text":"a"})"}), (Types{"llm_token"}));
  EXPECT_EQ(tell(Said{0, 0, 0, 1, "job_done", "{}"}), (Types{})) << "its end is told from the store";
  EXPECT_EQ(tell(good(0, 0, 0, 500, 1)), (Types{"job_done"})) << "the warm-up";
  EXPECT_EQ(tell(JobOver{0, 0}), (Types{}));
  EXPECT_EQ(tell(good(0, 1, 0, 10, 40)), (Types{"job_done"}));
  EXPECT_EQ(tell(good(0, 1, 0, 99, 99)), (Types{})) << "a second time";
  EXPECT_EQ(tell(good(0, 1, 1, 20, 60)), (Types{"job_done"}));
  EXPECT_EQ(tell(JobOver{0, 1}), (Types{"run_lifecycle"}));
  EXPECT_EQ(run.machines[0].fate, Fate::completed);
  EXPECT_FALSE(run.over);
  EXPECT_EQ(tell(WorkerLost{1}), (Types{"run_lifecycle", "cancel", "cancel", "ended"}));
  EXPECT_EQ(run.machines[1].fate, Fate::lost);
  EXPECT_EQ(run.status(), "partial");
  EXPECT_EQ(tell(good(1, 1, 0, 1, 1)), (Types{})) << "too late";

  const json::object summary = summary_json(run);
  const json::object& one = summary.at("machines").at("macbook").as_object();
  EXPECT_EQ(one.at("ttft_ms"), 15) << "the warm-up does not count";
  EXPECT_EQ(one.at("gen_tokens_per_s"), 50);
  EXPECT_EQ(one.at("gen_tokens"), 10);
  EXPECT_EQ(one.at("itl_ms"), 2.5);
  EXPECT_EQ(one.at("engine"), "ollama");
  EXPECT_EQ(one.at("status"), "completed");
  EXPECT_EQ(summary.at("machines").at("macmini").at("error"), "worker_lost");
  EXPECT_TRUE(summary.at("machines").at("macmini").at("ttft_ms").is_null());
  EXPECT_TRUE(summary.at("ranking").at("winner").is_null()) << "two requests decide nothing";
}

TEST_F(Race, ATimeLimitIsATimeout) {
  TaskOver late = good(0, 1, 0, 1, 1);
  late.end = core::TaskEnd::failed;
  late.failure = core::FailureClass::time_limit;
  EXPECT_EQ(tell(late), (Types{"job_timeout"}));
  tell(good(0, 1, 1, 1, 1));
  tell(JobOver{0, 0});
  tell(JobOver{0, 1});
  EXPECT_EQ(run.machines[0].fate, Fate::timeout);
  EXPECT_EQ(run.machines[0].error, "time_limit");
}

TEST_F(Race, ACancelEndsIt) {
  tell(Began{0, 0, 0, 1});
  const Types types = tell(Cancel{"enough"});
  EXPECT_EQ(std::count(types.begin(), types.end(), "cancel"), 4);
  EXPECT_EQ(types.back(), "ended");
  EXPECT_EQ(run.status(), "cancelled");
  EXPECT_EQ(tell(Cancel{"again"}), (Types{}));
}

TEST_F(Race, GoesOnWithoutAMachineThatDoesNothing) {
  for (MachineState& m : run.machines) m.moved = now;
  now = now + std::chrono::duration_cast<Micros>(run.spec.limit()) + kRunPatience;
  tell(Began{1, 0, 0, 1});
  now = now + Micros{1'000'000};
  const Types types = tell(Tick{});
  EXPECT_EQ(types, (Types{"run_lifecycle", "cancel", "cancel"}));
  EXPECT_EQ(run.machines[0].fate, Fate::timeout);
  EXPECT_EQ(run.machines[1].fate, Fate::running);
}

TEST_F(Race, AServiceThatIsGoneEndsItsMachinesPartAndOneThatRestartsDoesNot) {
  tell(Began{0, 1, 0, 1});
  tell(Began{1, 1, 0, 1});
  const Instant began = now;
  EXPECT_EQ(tell(Waits{0, "its ollama is down", "service_down"}), (Types{"run_lifecycle"}));
  EXPECT_EQ(tell(Waits{0, "its ollama is down", "service_down"}), (Types{})) << "it is said once";
  EXPECT_EQ(tell(Waits{1, "its ollama is down", "service_down"}), (Types{"run_lifecycle"}));
  EXPECT_EQ(summary_json(run).at("machines").at("macbook").at("waits"), "its ollama is down");
  now = began + (kServicePatience - Micros{1'000'000});
  EXPECT_EQ(tell(Tick{}), (Types{}));
  EXPECT_EQ(tell(Waits{1, "its ollama is loading", ""}), (Types{"run_lifecycle"})) << "it is back";
  now = began + kServicePatience + Micros{1'000'000};
  EXPECT_EQ(tell(Tick{}), (Types{"run_lifecycle", "cancel", "cancel"}));
  EXPECT_EQ(run.machines[0].fate, Fate::failed);
  EXPECT_EQ(run.machines[0].error, "service_down");
  EXPECT_NE(run.machines[0].message.find("its ollama is down"), std::string::npos);
  EXPECT_EQ(run.machines[1].fate, Fate::running);
  EXPECT_EQ(tell(Began{1, 1, 1, 1}), (Types{"job_start"}));
  EXPECT_EQ(run.machines[1].waits, "");
  const json::object summary = summary_json(run);
  const json::object& ended = summary.at("machines").at("macbook").as_object();
  EXPECT_FALSE(ended.contains("waits"));
  EXPECT_NE(ended.at("advice").as_string().find("Start the service"), std::string::npos);
}

TEST_F(Race, WhatWasAskedIsNoFigure) {
  run = two_machines(R"({"kind":"compute","op":"gemm","n":512,"threads":2,"repeats":3})");
  for (std::size_t k = 0; k < 2; ++k) {
    for (std::uint32_t i = 0; i < 3; ++i) {
      TaskOver event = good(k, 0, i, 1, 1);
      event.value = json::object{
          {"engine", "compute"}, {"op", "gemm"},    {"n", 512},
          {"threads", 2},        {"correct", true}, {"gflops", 50 - 20. * static_cast<double>(k) + i * 0.1},
          {"wall_seconds", 1}};
      tell(event);
    }
    tell(JobOver{k, 0});
  }
  const json::object summary = summary_json(run);
  const json::object& machine = summary.at("machines").at("macbook").as_object();
  const json::object& stats = machine.at("phases").at(0).at("stats").as_object();
  EXPECT_TRUE(stats.contains("gflops"));
  EXPECT_FALSE(stats.contains("n"));
  EXPECT_FALSE(stats.contains("threads"));
  EXPECT_EQ(machine.at("n"), 512) << "it is still said what was asked";
  EXPECT_FALSE(machine.contains("primes_found"));
  EXPECT_EQ(summary.at("ranking").at("metric"), "gflops");
  EXPECT_EQ(summary.at("ranking").at("winner"), "macbook");
  EXPECT_EQ(summary.at("what"), "gemm");
  json::object before = summary;
  EXPECT_TRUE(compare_json(summary, before).at("machines").at("macbook").as_object().contains("gflops"));
  const std::string html = run_html(metadata_json(run), summary);
  EXPECT_NE(html.find("GFLOP/s"), std::string::npos);
  EXPECT_EQ(html.find("primes"), std::string::npos);
  const std::string csv = run_csv(metadata_json(run), summary);
  EXPECT_NE(csv.find(",compute,gemm,"), std::string::npos) << csv;
}

TEST_F(Race, PromptsOutOfACacheAreSaidToBe) {
  run = two_machines(R"({"kind":"llm","model":"m","prompt":"p","repeats":2})");
  TaskOver cached = good(0, 0, 0, 1, 1);
  cached.value.as_object()["cached_tokens"] = 40;
  cached.value.as_object()["prompt_tokens"] = 41;
  tell(cached);
  TaskOver said = good(1, 0, 0, 1, 1);
  said.value.as_object()["prompt_tokens"] = 41;
  tell(said);
  const json::object first = summary_json(run);
  const std::string note(first.at("machines").at("macbook").at("cache_note").as_string());
  EXPECT_NE(note.find("1 of 1 requests took up to 40 tokens"), std::string::npos) << note;
  EXPECT_EQ(first.at("machines").at("macbook").at("warnings").at(0), json::value(note));
  EXPECT_FALSE(first.at("machines").at("macmini").as_object().contains("cache_note"));
  tell(good(1, 0, 1, 1, 1));  // Ollama leaves out what is zero
  EXPECT_NE(summary_json(run).at("machines").at("macmini").at("cache_note").as_string().find("1 of 2"),
            json::string::npos);
}

TEST_F(Race, AMachineThatDoesNotComeBackAfterARestartIsLost) {
  run.machines[0].away = run.machines[1].away = now;
  tell(WorkerBack{1});
  now = now + kLease * 2 + Micros{1'000'000};
  tell(Tick{});
  EXPECT_EQ(run.machines[0].fate, Fate::lost);
  EXPECT_FALSE(over(run.machines[1].fate));
}

TEST_F(Race, AWrongResultIsNoResult) {
  run = two_machines(R"({"kind":"compute","n":1000})");
  for (std::size_t k = 0; k < 2; ++k) {
    TaskOver event = good(k, 0, 0, 1, 1);
    event.value = json::object{
        {"engine", "compute"}, {"primes_found", k == 0 ? 168 : 167}, {"correct", k == 0}, {"wall_seconds", 1 + k}};
    EXPECT_EQ(tell(event), (Types{"compute_done"}));
    tell(JobOver{k, 0});
  }
  EXPECT_EQ(run.machines[0].fate, Fate::completed);
  EXPECT_EQ(run.machines[1].error, "wrong_result");
  const json::object summary = summary_json(run);
  EXPECT_EQ(summary.at("machines").at("macbook").at("primes_found"), 168);
  EXPECT_EQ(summary.at("machines").at("macmini").at("correct"), false);
  EXPECT_EQ(summary.at("ranking").at("order").as_array().size(), 1u);
}

TEST_F(Race, MocksAreLabelledAndNotRanked) {
  run = two_machines(R"({"kind":"llm","model":"m","prompt":"p","repeats":5,"allow_mock":true})");
  for (std::uint32_t i = 0; i < 5; ++i) {
    TaskOver mock = good(0, 0, i, 1, 1000 + i);
    mock.value.as_object()["engine"] = "mock";
    mock.value.as_object()["mock_reason"] = "ollama_unreachable";
    tell(mock);
    tell(good(1, 0, i, 100, 10 + i * 0.01));
  }
  tell(JobOver{0, 0});
  tell(JobOver{1, 0});
  const json::object summary = summary_json(run);
  EXPECT_EQ(summary.at("machines").at("macbook").at("mock_reason"), "ollama_unreachable");
  EXPECT_EQ(summary.at("machines").at("macbook").at("engine"), "mock");
  const json::array& order = summary.at("ranking").at("order").as_array();
  ASSERT_EQ(order.size(), 1u);
  EXPECT_EQ(order[0], "macmini");
}

TEST_F(Race, AWinnerIsOneThatIsSurelyBetter) {
  run = two_machines(R"({"kind":"llm","model":"m","prompt":"p","repeats":5,"target_ttft_ms":50})");
  for (std::uint32_t i = 0; i < 5; ++i) {
    tell(good(0, 0, i, 10 + i, 100 + i));
    tell(good(1, 0, i, 90 + i, 20 + i));
  }
  tell(JobOver{0, 0});
  tell(JobOver{1, 0});
  const json::object summary = summary_json(run);
  EXPECT_EQ(summary.at("ranking").at("winner"), "macbook");
  EXPECT_EQ(summary.at("ranking").at("by_metric").at("ttft_ms").at("winner"), "macbook");
  const json::value& fast = summary.at("machines").at("macbook").at("phases").at(0);
  EXPECT_EQ(fast.at("goodput").at("met"), 5);
  EXPECT_EQ(fast.at("stats").at("ttft_ms").at("p50"), 12);
  EXPECT_EQ(summary.at("machines").at("macmini").at("phases").at(0).at("goodput").at("met"), 0);

  json::object before = summary;
  for (json::value& sample : before.at("samples").as_array())
    sample.at("metrics").at("gen_tokens_per_s") = sample.at("metrics").at("gen_tokens_per_s").to_number<double>() / 2;
  before["run_id"] = "earlier";
  const json::object compared = compare_json(summary, before);
  EXPECT_EQ(compared.at("run_id"), "earlier");
  EXPECT_EQ(compared.at("machines").at("macbook").at("gen_tokens_per_s").at("verdict"), "better");
  EXPECT_EQ(compared.at("machines").at("macbook").at("gen_tokens_per_s").at("ratio"), 2);
}

// Any events in any order: it never breaks, ends at most once, and says nothing after its end.
TEST_F(Race, AnyEventsInAnyOrder) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    run = two_machines();
    int ends = 0;
    for (int i = 0; i < 60; ++i) {
      const auto machine = static_cast<std::size_t>(prng.below(3));
      const auto phase = static_cast<std::uint32_t>(prng.below(3)), repeat = static_cast<std::uint32_t>(prng.below(3));
      TaskOver over_event = good(machine, phase, repeat, 1, 1);
      over_event.end = static_cast<core::TaskEnd>(1 + prng.below(3));
      over_event.failure = static_cast<core::FailureClass>(prng.below(11));
      const RunEvent events[] = {
          Began{machine, phase, repeat, 1},
          Said{machine, phase, repeat, 1, "llm_token", "{}"},
          over_event,
          over_event,
          JobOver{machine, phase},
          prng.below(20) == 0 ? RunEvent(WorkerLost{machine}) : RunEvent(WorkerBack{machine}),
          Waits{machine, prng.below(2) == 0 ? "x" : "", prng.below(2) == 0 ? "service_down" : ""},
          Tick{}};
      const bool was_over = run.over;
      const Types types = tell(events[prng.below(std::size(events))]);
      EXPECT_TRUE(!was_over || types.empty()) << seed;
      ends += static_cast<int>(std::count(types.begin(), types.end(), "ended"));
      summary_json(run);
    }
    EXPECT_LE(ends, 1);
    EXPECT_EQ(run.over, ends == 1);
    if (!run.over) {
      const Types types = tell(Cancel{"end"});
      EXPECT_EQ(std::count(types.begin(), types.end(), "ended"), 1) << seed;
    }
    const std::string text = json::serialize(summary_json(run));
    EXPECT_TRUE(wire::parse_json(text).ok());
  }
}

TEST(RunSpecs, AreReadWrittenAndToldApart) {
  const RunSpec spec = spec_of(R"({"model":"m","prompt":"p {} q","concurrency":[1,4],"repeats":2,"warmup":1,"seed":7,
    "workers":["a"],"options":{"min_p":0.5},"timeout":"2m"})");
  EXPECT_EQ(spec.kind, RunKind::llm);
  EXPECT_EQ(spec.limit(), Millis{120'000});
  const RunSpec again = spec_of(json::serialize(write_run(spec)).c_str());
  EXPECT_EQ(write_run(again), write_run(spec));
  EXPECT_EQ(digest_of(again), digest_of(spec));
  RunSpec other = spec;
  other.repeats = 9;
  other.workers.clear();
  EXPECT_EQ(digest_of(other), digest_of(spec)) << "who and how often is not what";
  other.prompt = "q";
  EXPECT_NE(digest_of(other), digest_of(spec));

  const auto phases = spec.phases();
  ASSERT_EQ(phases.size(), 3u);
  EXPECT_TRUE(phases[0].warmup);
  EXPECT_EQ(phases[2].tasks, 4u) << "four at once need four";
  const auto jobs =
      jobs_of(spec, "2024-01-15_143022_abc123", "ann", 0, {.id = "w1", .name = "one", .model = "m:latest"});
  ASSERT_EQ(jobs.size(), 3u);
  EXPECT_EQ(jobs[1].spec.llm().model(), "m:latest");
  EXPECT_EQ(jobs[1].spec.llm().prompt(), "");
  EXPECT_EQ(jobs[1].pages.at(0).bytes, R"("p {} q""p {} q")");
  EXPECT_EQ(jobs[1].spec.requirements().labels().at("grange.worker"), "w1");
  EXPECT_EQ(jobs[2].spec.depends_on(0).job_id(), jobs[1].spec.name());
  EXPECT_EQ(jobs[2].spec.max_running(), 4u);
  EXPECT_EQ(jobs[1].spec.retry().max_attempts(), 1u);
  ASSERT_EQ(jobs[1].spec.retry().rules_size(), 2);
  EXPECT_EQ(jobs[1].spec.retry().rules(0).exception(), "unreachable");
  const json::object options = wire::parse_json(jobs[1].spec.llm().options_json())->as_object();
  EXPECT_EQ(options.at("max_tokens"), 256);
  EXPECT_EQ(options.at("min_p"), 0.5);
  EXPECT_EQ(options.at("cache_prompt"), false) << "the second repeat is as cold as the first";
  const RunSpec warm = spec_of(R"({"model":"m","prompt":"p","cache":true})");
  EXPECT_EQ(write_run(warm).at("cache"), true);
  const auto kept = jobs_of(warm, "2024-01-15_143022_abc123", "ann", 0, {.id = "w1", .name = "one", .model = "m"});
  EXPECT_FALSE(wire::parse_json(kept[0].spec.llm().options_json())->as_object().contains("cache_prompt"));
  EXPECT_EQ(options.at("seed"), 7);
}

TEST(RunSpecs, SeedsOfPicturesDifferByRepeatAndNotByMachine) {
  const RunSpec spec = spec_of(R"({"checkpoint":"c","prompt":"p","repeats":2,"seed":100,"warmup":1,"steps":5})");
  for (std::size_t machine = 0; machine < 2; ++machine) {
    const auto jobs = jobs_of(spec, "2024-01-15_143022_abc123", "ann", machine, {.id = "w", .name = "w", .model = ""});
    EXPECT_EQ(jobs[1].pages.at(0).bytes, R"({"seed":100}{"seed":101})");
    EXPECT_NE(jobs[0].pages.at(0).bytes.find("1000100"), std::string::npos);
    EXPECT_EQ(wire::parse_json(jobs[1].spec.image().params_json())->at("steps"), 5);
  }
}

TEST(RunSpecs, WhatMakesNoSenseIsRefused) {
  for (const char* body :
       {R"({})", R"({"kind":"run"})", R"({"kind":"llm","model":"m"})", R"({"kind":"llm","prompt":"p"})",
        R"({"kind":"llm","model":"m","prompt":"p","repeats":0})",
        R"({"kind":"llm","model":"m","prompt":"p","concurency":1})",
        R"({"kind":"llm","model":"m","prompt":"p","concurrency":[]})",
        R"({"kind":"llm","model":"m","prompt":"p","concurrency":[0]})",
        R"({"kind":"llm","model":"m","prompt":"p","workers":[1]})",
        R"({"kind":"llm","model":"m","prompt":"p","timeout":0})", R"({"kind":"compute","algorithm":"guess"})",
        R"({"kind":"compute","op":"nap"})", R"({"kind":"compute","n":-1})", R"({"kind":"image","prompt":"p"})",
        R"({"kind":"image","checkpoint":"c"})", R"({"kind":"llm","model":"m","prompt":"p","target_ttft_ms":0})",
        R"({"kind":"compute","model":"m"})"}) {
    EXPECT_FALSE(read_run(wire::parse_json(body)->as_object()).ok()) << body;
  }
}

TEST(RunRecords, AreReadAgain) {
  RunState run = two_machines();
  run.machines[1].machine.forced = true;
  run.warnings = {"a"};
  run.machines[0].checked = {{"fit", "GOOD"}};
  const auto again = read_record({.id = run.id, .user = "ann", .record = write_record(run)});
  ASSERT_TRUE(again);
  EXPECT_EQ(write_record(*again), write_record(run));
  EXPECT_EQ(again->phases.size(), 2u);
  EXPECT_FALSE(read_record({.record = "{"}));
  EXPECT_FALSE(read_record({.record = R"({"spec":{},"machines":[]})"}));
}

TEST(RunExports, EscapeWhatOthersSaid) {
  RunState run =
      two_machines(R"({"kind":"llm","model":"<b>m</b>","prompt":"</pre><script>alert(1)</script>","repeats":1})");
  run.machines[0].machine.name = "=cmd|' /C calc'!A0,\"x\"";
  run.machines[1].machine.name = "<img src=x onerror=alert(1)>";
  for (std::size_t k = 0; k < 2; ++k) {
    TaskOver event = good(k, 0, 0, 5, 7);
    event.value.as_object()["text"] = "</pre><script src=//evil></script>";
    event.value.as_object()["=metric"] = 3;
    step(run, event, {}, kLease);
    step(run, JobOver{k, 0}, {}, kLease);
  }
  const std::string html = run_html(metadata_json(run), summary_json(run));
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("http"), html.find("http-equiv")) << "nothing from outside";
  EXPECT_NE(html.find("<svg"), std::string::npos);
  EXPECT_NE(html.find("&lt;script&gt;alert(1)"), std::string::npos);
  const std::string csv = run_csv(metadata_json(run), summary_json(run));
  EXPECT_NE(csv.find(R"("'=cmd|' /C calc'!A0,""x""")"), std::string::npos) << csv;
  EXPECT_NE(csv.find(",'=metric"), std::string::npos) << csv;
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 3);
}

WorkerFacts worker(const char* id, const char* name) {
  WorkerFacts facts{.worker = {1}, .id = id, .name = name, .connected = true, .manifest = {}};
  facts.manifest.add_engines("compute");
  facts.manifest.add_engines("llm-mock");
  facts.manifest.set_cpus_milli(4000);
  return facts;
}

pb::Model& add_model(WorkerFacts& facts, const char* name) {
  if (facts.manifest.services_size() == 0) {
    pb::Service& service = *facts.manifest.add_services();
    service.set_name("ollama");
    service.set_kind("ollama");
    service.set_state("ready");
    facts.manifest.add_engines("llm");
  }
  pb::Model& model = *facts.manifest.mutable_services(0)->add_models();
  model.set_name(name);
  model.set_quantization("Q4_K_M");
  model.set_good_context(4096);
  model.set_max_context(8192);
  model.set_fit("GOOD");
  model.set_loaded(true);
  return model;
}

TEST(Preflights, SayWhatEachMachineCouldDo) {
  std::vector<WorkerFacts> workers = {worker("w1", "one"), worker("w2", "two"), worker("w3", "three"),
                                      worker("w4", "four")};
  add_model(workers[0], "m:latest");
  add_model(workers[1], "other");
  add_model(workers[2], "m").set_quantization("Q8_0");
  workers[2].running = 2;
  workers[3].connected = false;
  add_model(workers[3], "m");

  const RunSpec all = spec_of(R"({"model":"m","prompt":"p"})");
  Preflight checked = preflight(all, workers);
  ASSERT_EQ(checked.chosen().size(), 2u);
  EXPECT_EQ(checked.chosen()[0]->machine.model, "m:latest");
  EXPECT_EQ(checked.chosen()[0]->fit, "GOOD");
  EXPECT_EQ(checked.chosen()[1]->warnings.size(), 1u) << "busy";
  ASSERT_EQ(checked.warnings.size(), 2u) << "quantisations, and one that is left out";
  EXPECT_NE(checked.warnings[0].find("Q8_0"), std::string::npos);
  EXPECT_NE(checked.warnings[1].find("other"), std::string::npos);

  checked = preflight(spec_of(R"({"model":"m","prompt":"p","num_ctx":8000,"workers":["one"]})"), workers);
  EXPECT_EQ(checked.chosen().at(0)->fit, "RISK");
  const RunSpec big = spec_of(R"({"model":"m","prompt":"p","num_ctx":9000,"workers":["w1","w4","nobody"]})");
  checked = preflight(big, workers);
  EXPECT_EQ(checked.machines.at(0).fit, "FAIL");
  EXPECT_TRUE(checked.chosen().empty());
  EXPECT_EQ(checked.machines.size(), 3u);
  const auto left = anything_left(big, checked);
  ASSERT_FALSE(left.ok());
  EXPECT_EQ(left.error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(left.error().message, "There is no worker \"nobody\". Connected are: one, two, three.");
  EXPECT_EQ(preflight_json(big, checked).at("ok"), false);
  const RunSpec slip = spec_of(R"({"model":"m","prompt":"p","workers":["thre"],"force":true})");
  EXPECT_NE(anything_left(slip, preflight(slip, workers)).error().message.find("Did you mean \"three\"?"),
            std::string::npos);
  const RunSpec too_big = spec_of(R"({"model":"m","prompt":"p","num_ctx":9000,"workers":["w1","w4"]})");
  const auto none = anything_left(too_big, preflight(too_big, workers));
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().cls, ErrorClass::conflict);
  EXPECT_NE(none.error().message.find("--force"), std::string::npos);
  EXPECT_NE(none.error().message.find("--num-ctx 4096 is the largest that fits well"), std::string::npos)
      << none.error().message;

  RunSpec forced = big;
  forced.force = true;
  checked = preflight(forced, workers);
  ASSERT_EQ(checked.chosen().size(), 1u) << "no force brings back who is not there";
  EXPECT_TRUE(checked.chosen()[0]->machine.forced);

  checked = preflight(spec_of(R"({"model":"none","prompt":"p","allow_mock":true,"workers":["two"]})"), workers);
  ASSERT_EQ(checked.chosen().size(), 1u);
  EXPECT_TRUE(checked.chosen()[0]->mock);

  const RunSpec sieve = spec_of(R"({"kind":"compute","threads":8})");
  checked = preflight(sieve, workers);
  EXPECT_EQ(checked.chosen().size(), 3u);
  EXPECT_EQ(checked.chosen()[0]->machine.cores, 4u);
  EXPECT_FALSE(anything_left(sieve, preflight(sieve, {})).ok());
}

TEST(Preflights, NamesOfMachinesAreMadeUnique) {
  const Preflight checked =
      preflight(spec_of(R"({"kind":"compute"})"), {worker("aaaaaaaaaaaa", "box"), worker("bbbbbbbbbbbb", "box")});
  EXPECT_EQ(checked.machines[0].machine.name, "box (aaaaaaaa)");
  EXPECT_EQ(checked.machines[1].machine.name, "box (bbbbbbbb)");
}

}  // namespace
}  // namespace grange::server
