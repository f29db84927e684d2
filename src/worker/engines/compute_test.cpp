#include "worker/engines/compute.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <map>

namespace grange::worker {
namespace {

namespace json = boost::json;

struct Host final : EngineHost {
  void ended(TaskId task, Attempt, pb::TaskResult result) override { results[task.index()] = std::move(result); }
  bool log(TaskId, Attempt, pb::Stream, std::string_view) override { return true; }
  void progress(TaskId, Attempt, double done, double total, std::string) override {
    EXPECT_LE(done, total);
    ++progresses;
  }
  void checkpoint(TaskId, Attempt, std::string) override {}
  void event(TaskId task, Attempt, std::string type, std::string data) override {
    EXPECT_EQ(type, "compute_line");
    lines[task.index()].emplace_back(json::parse(data).at("line").as_string());
  }
  void stage(TaskId, Attempt, pb::Stage) override {}
  void engine_off(Kind, std::string) override {}

  std::map<std::uint32_t, pb::TaskResult> results;
  std::map<std::uint32_t, std::vector<std::string>> lines;
  int progresses = 0;
};

// The engine on a loop of its own, looked at from the test's thread.
struct ComputeEngineTest : testing::Test {
  ComputeEngineTest() {
    std::string path = testing::TempDir() + "grange_compute_XXXXXX";
    folder = mkdtemp(path.data());
    loop.start_thread();
    loop.call([&] { engine = make_compute_engine(loop, host, folder); });
  }
  ~ComputeEngineTest() override {
    loop.call([&] { engine.reset(); });
    loop.stop();
    std::filesystem::remove_all(folder);
  }

  void run(std::uint32_t index, const std::string& argument, std::uint32_t cpus = 1000) {
    loop.call([&] {
      auto job = std::make_shared<JobInfo>();
      job->spec.mutable_compute()->set_op("primes");
      job->spec.mutable_compute()->set_n(1000);
      worker::Run order;
      order.fence = {TaskId::of({1}, index), 1, 1};
      order.job = job;
      order.args = argument;
      order.cpus_milli = cpus;
      engine->run(std::move(order));
    });
  }
  bool until(const std::function<bool()>& what) {
    for (int i = 0; i < 6000; ++i) {
      bool now = false;
      loop.call([&] { now = what(); });
      if (now) return true;
      usleep(5000);
    }
    return false;
  }
  bool ended(std::uint32_t index) {
    return until([&] { return host.results.contains(index); });
  }
  void stop(std::uint32_t index, StopHow how) {
    loop.call([&] { engine->stop(TaskId::of({1}, index), 1, how); });
  }
  void freeze(std::uint32_t index, bool on) {
    loop.call([&] { engine->freeze(TaskId::of({1}, index), 1, on); });
  }
  json::object value(std::uint32_t index) {
    json::object out;
    loop.call([&] {
      EXPECT_TRUE(host.results[index].ok()) << host.results[index].message();
      json::error_code failed;
      const json::value parsed = json::parse(host.results[index].value(), failed);
      if (!failed && parsed.is_object()) out = parsed.get_object();
    });
    return out;
  }

  net::Loop loop;
  Host host;
  std::string folder;
  std::unique_ptr<Engine> engine;
};

TEST_F(ComputeEngineTest, CountsAndTells) {
  run(0, "");
  run(1, R"({"n": 1e6, "algorithm": "trial_division", "threads": 2})", 3000);
  run(2, R"({"n": 1234})", 3000);
  ASSERT_TRUE(ended(0) && ended(1) && ended(2));
  const json::object plain = value(0), trial = value(1), other = value(2);
  EXPECT_EQ(plain.at("engine"), "compute");
  EXPECT_EQ(plain.at("op"), "primes");
  EXPECT_EQ(plain.at("algorithm"), "segmented_sieve");
  EXPECT_EQ(plain.at("primes_found").to_number<int>(), 168);
  EXPECT_EQ(plain.at("expected").to_number<int>(), 168);
  EXPECT_TRUE(plain.at("correct").as_bool());
  EXPECT_EQ(plain.at("threads").to_number<int>(), 1);
  EXPECT_EQ(trial.at("primes_found").to_number<int>(), 78498);
  EXPECT_EQ(trial.at("threads").to_number<int>(), 2);
  EXPECT_GT(trial.at("wall_seconds").as_double(), 0);
  EXPECT_GT(trial.at("primes_per_s").as_double(), 0);
  EXPECT_EQ(other.at("threads").to_number<int>(), 3) << "the cores that it got";
  EXPECT_TRUE(other.at("expected").is_null());
  EXPECT_TRUE(other.at("correct").is_null());
  const auto& lines = host.lines[1];
  ASSERT_GE(lines.size(), 6u);
  EXPECT_EQ(lines[0], "Compute: Count primes <= 1000000");
  EXPECT_EQ(lines[lines.size() - 5], "Algorithm: trial_division");
  EXPECT_EQ(lines[lines.size() - 4], "N: 1000000");
  EXPECT_EQ(lines[lines.size() - 3], "Primes: 78498");
}

TEST_F(ComputeEngineTest, OtherOps) {
  run(0, R"({"op": "gemm", "n": 100})");
  run(1, R"({"op": "gemm", "n": 100, "algorithm": "single"})");
  run(2, R"({"op": "memory", "n": 1000000})");
  run(3, R"({"op": "disk", "n": 1000000})");
  for (const std::uint32_t i : {0u, 1u, 2u, 3u}) ASSERT_TRUE(ended(i));
  EXPECT_GT(value(0).at("gflops").as_double(), 0);
  EXPECT_EQ(value(1).at("algorithm"), "single");
  EXPECT_GT(value(2).at("gb_per_s").at("triad").as_double(), 0);
  EXPECT_GT(value(3).at("mb_per_s").at("write").as_double(), 0);
  for (const std::uint32_t i : {0u, 1u, 2u, 3u}) EXPECT_TRUE(value(i).at("correct").as_bool());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(ComputeEngineTest, RefusesWhatMakesNoSense) {
  const char* const arguments[] = {"{",
                                   "[1]",
                                   R"({"n": -1})",
                                   R"({"n": 1.5})",
                                   R"({"n": 0})",
                                   R"({"n": "many"})",
                                   R"({"m": 1})",
                                   R"({"op": "dance"})",
                                   R"({"algorithm": "guess"})",
                                   R"({"threads": 100000})",
                                   R"({"n": 1000000000000, "algorithm": "simple_sieve"})",
                                   R"({"op": "disk", "algorithm": "x"})",
                                   R"({"progress_interval_s": 0})",
                                   "\x80\x04K"};
  std::uint32_t index = 0;
  for (const char* argument : arguments) {
    run(index, argument);
    ASSERT_TRUE(ended(index)) << argument;
    EXPECT_EQ(host.results[index].failure(), pb::FAILURE_REFUSED) << argument;
    EXPECT_TRUE(host.results[index].permanent()) << argument;
    EXPECT_FALSE(host.results[index].message().empty());
    ++index;
  }
}

TEST_F(ComputeEngineTest, StopsInTheMiddleSoftAndHard) {
  const std::string endless = R"({"n": 1e13, "progress_interval_s": 0.05})";
  run(0, endless);
  run(1, R"({"n": 1e13, "algorithm": "primesieve", "progress_interval_s": 0.05})");
  ASSERT_TRUE(until([&] { return host.lines[0].size() > 1 && host.lines[1].size() > 1; })) << "there is progress";
  EXPECT_EQ(host.lines[0][1].rfind("Progress: 0% | primes: ", 0), 0u) << host.lines[0][1];
  stop(0, StopHow::soft);
  stop(1, StopHow::hard);
  stop(7, StopHow::hard);
  ASSERT_TRUE(ended(0) && ended(1));
  EXPECT_EQ(host.results[0].failure(), pb::FAILURE_CANCELLED);
  EXPECT_EQ(host.results[1].failure(), pb::FAILURE_CANCELLED);
  EXPECT_GT(host.progresses, 0);
  run(2, endless);  // and the engine's end ends it
}

TEST_F(ComputeEngineTest, AFrozenOneStandsStillAndCanBeStopped) {
  run(0, R"({"n": 1e13, "progress_interval_s": 0.05})");
  ASSERT_TRUE(until([&] { return host.lines[0].size() > 1; }));
  freeze(0, true);
  usleep(200'000);  // what was under way ends its piece
  std::size_t lines = 0;
  loop.call([&] { lines = host.lines[0].size(); });
  usleep(200'000);
  loop.call([&] { EXPECT_EQ(host.lines[0].size(), lines); });
  freeze(0, false);
  ASSERT_TRUE(until([&] { return host.lines[0].size() > lines; }));
  freeze(0, true);
  stop(0, StopHow::soft);
  ASSERT_TRUE(ended(0));
  EXPECT_EQ(host.results[0].failure(), pb::FAILURE_CANCELLED);
}

TEST(ComputeLines, AsInTheSeed) {
  EXPECT_EQ(progress_line({"primes", "", 10, 1, {}}, {0.459, 1'400'000, 6.3}),
            "Progress: 45% | primes: 1.4M | elapsed: 6.3s");
  EXPECT_EQ(progress_line({"gemm", "", 10, 1, {}}, {1, 0, 0.25}), "Progress: 100% | elapsed: 0.2s");
  EXPECT_EQ(short_count(0), "0");
  EXPECT_EQ(short_count(999), "999");
  EXPECT_EQ(short_count(1000), "1.0K");
  EXPECT_EQ(short_count(999'960), "1.0M");
  EXPECT_EQ(short_count(4'118'054'813), "4.1B");
}

}  // namespace
}  // namespace grange::worker
