#include "server/api/graph.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "base/limits.hpp"
#include "base/prng.hpp"

namespace grange::server {
namespace {

std::vector<const pb::JobSpec*> specs(const std::vector<JobFile>& files) {
  std::vector<const pb::JobSpec*> out;
  for (const JobFile& file : files) out.push_back(&file.spec);
  return out;
}

std::string graph_refusal(std::string_view text) {
  auto files = read_graph_file(text);
  if (!files) return files.error().message;
  auto order = order_graph(specs(*files));
  return order ? "" : order.error().message;
}

TEST(Graph, ParentsStandFirst) {
  auto files = read_graph_file(R"({"jobs":[
    {"name":"report","after":["train","prep","outside"],"command":["r"]},
    {"name":"train","after":["prep"],"command":["t"]},
    {"name":"prep","command":["p"]},
    {"command":["alone"]}]})");
  ASSERT_TRUE(files.ok()) << files.error().message;
  auto order = order_graph(specs(*files));
  ASSERT_TRUE(order.ok()) << order.error().message;
  EXPECT_EQ(order->order, (std::vector<std::size_t>{2, 1, 0, 3}));
  ASSERT_EQ(order->siblings[0].size(), 3u);
  EXPECT_EQ(order->siblings[0][0], 1u);
  EXPECT_EQ(order->siblings[0][1], 2u);
  EXPECT_EQ(order->siblings[0][2], std::nullopt);
}

TEST(Graph, RefusalsSayWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"jobs":[{"name":"a","command":["x"],"after":["b"]},{"name":"b","command":["x"],"after":["c"]},
                   {"name":"c","command":["x"],"after":["a"]},{"name":"d","command":["x"],"after":["a"]}]})",
       R"("a" waits for "b" waits for "c" waits for "a".)"},
      {R"({"jobs":[{"name":"d","command":["x"],"after":["a"]},{"name":"a","command":["x"],"after":["a"]}]})",
       R"(: "a" waits for "a".)"},
      {R"({"jobs":[{"name":"a","command":["x"]},{"name":"a","command":["y"]}]})", "Two jobs of the graph are named"},
      {R"({"jobs":[]})", "empty"},
      {R"({"jobs":[7]})", "Job 1"},
      {R"({"jobs":[{"command":["x"]},{"comand":["x"]}]})", "Job 2 of the graph: \"comand\""},
      {R"({"jobs":[{"command":["x"]}],"job":1})", "\"job\""},
      {R"({"job":[]})", "list of job files"},
      {"[]", "list of job files"},
      {"{", "ends before"},
  };
  for (const auto& [text, expected] : cases)
    EXPECT_NE(graph_refusal(text).find(expected), std::string::npos) << text << " -> " << graph_refusal(text);
  std::string many = R"({"jobs":[)";
  for (std::size_t i = 0; i <= limits::kGraphJobs; ++i) many += std::string(i == 0 ? "" : ",") + "{}";
  EXPECT_NE(graph_refusal(many + "]}").find("may have"), std::string::npos);
}

// A random graph is ordered exactly when it has no cycle; a cycle that is named is one.
TEST(Graph, AnyGraphIsOrderedOrRefused) {
  int cycles = 0;
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Prng prng(seed);
    const std::size_t n = 1 + prng.below(12);
    std::vector<pb::JobSpec> jobs(n);
    std::vector<std::set<std::size_t>> after(n);
    std::vector<std::size_t> rank(n);
    std::iota(rank.begin(), rank.end(), 0);
    for (std::size_t i = n; i > 1; --i) std::swap(rank[i - 1], rank[prng.below(i)]);
    const bool careful = prng.below(2) == 0;
    for (std::size_t i = 0; i < n; ++i) {
      jobs[i].set_name("j" + std::to_string(i));
      for (std::size_t edges = prng.below(4); edges > 0; --edges) {
        const std::size_t parent = prng.below(n);
        if (careful && rank[parent] >= rank[i]) continue;
        if (after[i].insert(parent).second) jobs[i].add_depends_on()->set_job_id("j" + std::to_string(parent));
      }
    }
    std::vector<const pb::JobSpec*> all;
    for (const pb::JobSpec& job : jobs) all.push_back(&job);
    const auto order = order_graph(all);
    // By another hand: take away what waits for nothing, again and again.
    std::set<std::size_t> left;
    for (std::size_t i = 0; i < n; ++i) left.insert(i);
    for (bool moved = true; moved;) {
      moved = false;
      for (const std::size_t i : std::vector<std::size_t>(left.begin(), left.end())) {
        bool waits = false;
        for (const std::size_t parent : after[i]) waits = waits || left.contains(parent);
        if (!waits) moved = left.erase(i) > 0 || moved;
      }
    }
    ASSERT_EQ(order.ok(), left.empty()) << "seed " << seed;
    if (!order) {
      ++cycles;
      EXPECT_NE(order.error().message.find("waits for"), std::string::npos);
      continue;
    }
    std::vector<std::size_t> place(n, n);
    for (std::size_t k = 0; k < order->order.size(); ++k) place[order->order[k]] = k;
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_LT(place[i], n);
      for (const std::size_t parent : after[i]) EXPECT_LT(place[parent], place[i]) << "seed " << seed;
    }
  }
  EXPECT_GT(cycles, 200);
}

}  // namespace
}  // namespace grange::server
