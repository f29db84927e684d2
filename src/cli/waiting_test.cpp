#include "cli/waiting.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace grange::cli {
namespace {

json::object worker(double cpus, std::uint64_t memory, std::initializer_list<const char*> engines = {"command"}) {
  json::array names;
  for (const char* name : engines) names.emplace_back(name);
  return {{"connected", true},         {"status", "online"},       {"cpus", cpus},
          {"memory_bytes", memory},    {"engines", names},         {"gpus", json::array{1}},
          {"disk_bytes", 10ull << 30}, {"labels", {{"zone", "a"}}}};
}

std::string why(const json::object& spec, const json::array& workers) {
  return not_offered(json::value(spec), workers);
}

TEST(NotOffered, NothingToSayWhenOneWorkerCould) {
  json::object busy = worker(4, 8ull << 30);
  busy["status"] = "busy";
  EXPECT_EQ(
      why({{"engine", "command"}, {"cpus", 4}, {"memory", 8ull << 30}, {"gpus", 0.5}, {"labels", {{"zone", "a"}}}},
          {worker(1, 1), busy}),
      "");
  EXPECT_EQ(why({{"engine", "command"}}, {worker(1, 1)}), "");
}

TEST(NotOffered, NamesWhatIsMissingAndTheMostThereIs) {
  const json::array workers{worker(4, 8ull << 30), worker(2, 16ull << 30)};
  EXPECT_EQ(why({{"engine", "command"}, {"cpus", 64}}, workers), "no connected worker offers 64 cpus (most: 4)");
  EXPECT_EQ(why({{"cpus", 4.5}, {"memory", 32ull << 30}, {"gpus", 2}}, workers),
            "no connected worker offers 4.5 cpus (most: 4), 32 GiB of memory (most: 16 GiB) and 2 GPUs (most: 1)");
  EXPECT_EQ(why({{"engine", "python"}}, workers), "no connected worker offers the engine \"python\"");
  EXPECT_EQ(why({{"labels", {{"zone", "b"}}}}, workers), "no connected worker offers the label zone=b");
  EXPECT_EQ(why({{"disk", 1ull << 40}}, workers), "no connected worker offers 1.0 TiB of disk (most: 10 GiB)");
  EXPECT_EQ(why({{"cpus", 4}, {"memory", 16ull << 30}}, workers),
            "no connected worker offers 4 cpus and 16 GiB of memory together");
}

TEST(NotOffered, CountsOnlyWorkersThatTakeWork) {
  json::object gone = worker(64, 1), draining = worker(64, 1);
  gone["connected"] = false;
  draining["status"] = "draining";
  EXPECT_EQ(why({{"cpus", 1}}, {}), "no worker is connected");
  EXPECT_EQ(why({{"cpus", 1}}, {gone}), "no worker is connected");
  EXPECT_EQ(why({{"cpus", 1}}, {gone, draining}), "each connected worker is draining");
  EXPECT_EQ(why({{"cpus", 8}}, {gone, draining, worker(2, 1)}), "no connected worker offers 8 cpus (most: 2)");
}

}  // namespace
}  // namespace grange::cli
