#include "store/logs.hpp"

#include <thread>

#include "base/limits.hpp"
#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Scratch;

LogLine line(std::uint32_t job, std::uint32_t index, std::string text) {
  return {TaskId::of({job}, index), 2, 1, {77}, std::move(text)};
}

TEST(Logs, AreReadByTaskAndByJobWithACursor) {
  const Scratch scratch;
  {
    auto logs = *LogStore::open(scratch.path());
    for (std::uint32_t i = 0; i < 30; ++i)
      ASSERT_TRUE(logs->append({line(1 + i % 2, i % 3, "line " + std::to_string(i))}));
    logs->flush();
    const auto all = *logs->read({1}, {}, 0, 100);
    ASSERT_EQ(all.size(), 15u);
    EXPECT_EQ(all[1].line.data, "line 2");
    EXPECT_EQ(all[1].line.task, TaskId::of({1}, 2));
    EXPECT_EQ(all[1].line.attempt, 2u);
    EXPECT_EQ(all[1].line.stream, 1u);
    EXPECT_EQ(all[1].line.at.ms, 77);
    const auto rest = *logs->read({1}, {}, all[9].id, 3);
    ASSERT_EQ(rest.size(), 3u);
    EXPECT_EQ(rest[0].line.data, all[10].line.data);
    const auto one = *logs->read({2}, 0, 0, 100);
    ASSERT_EQ(one.size(), 5u);
    EXPECT_EQ(one[0].line.data, "line 3");
    EXPECT_EQ((*logs->read({2}, 0, one[3].id, 100)).size(), 1u);
    EXPECT_TRUE((*logs->read({3}, {}, 0, 100)).empty());
  }
  auto logs = *LogStore::open(scratch.path());
  const auto last = (*logs->read({1}, {}, 0, 100)).back().id;
  ASSERT_TRUE(logs->append({line(1, 0, "after a start")}));
  logs->flush();
  const auto more = *logs->read({1}, {}, last, 100);
  ASSERT_EQ(more.size(), 1u) << "cursors go on over a restart";
  EXPECT_EQ(more[0].line.data, "after a start");
}

TEST(Logs, ClosingWritesWhatIsQueued) {
  const Scratch scratch;
  {
    auto logs = *LogStore::open(scratch.path());
    std::vector<LogLine> lines;
    for (std::uint32_t i = 0; i < 20'000; ++i) lines.push_back(line(1, 0, "x"));
    ASSERT_TRUE(logs->append(std::move(lines)));
  }
  EXPECT_EQ((*(*LogStore::open(scratch.path()))->read({1}, {}, 0, 100'000)).size(), 20'000u);
}

TEST(Logs, AFullQueueSaysSoAndTakesNothing) {
  const Scratch scratch;
  auto logs = *LogStore::open(scratch.path());
  std::uint64_t taken = 0, refused = 0;
  for (int i = 0; i < 40; ++i) {
    std::vector<LogLine> lines;
    for (int k = 0; k < 60; ++k) lines.push_back(line(1, 0, std::string(limits::kLogChunk, 'x')));
    logs->append(std::move(lines)) ? taken += 60 : ++refused;
  }
  logs->flush();
  EXPECT_GT(refused, 0u) << "160 MB at once are more than the queue holds";
  std::uint64_t found = 0;
  for (std::int64_t after = 0;;) {
    const auto rows = *logs->read({1}, {}, after, 100);
    if (rows.empty()) break;
    found += rows.size();
    after = rows.back().id;
  }
  EXPECT_EQ(found, taken);
  EXPECT_TRUE(logs->append({line(1, 0, "room again")}));
}

TEST(Logs, ForgetOneJobOrAll) {
  const Scratch scratch;
  auto logs = *LogStore::open(scratch.path());
  for (std::uint32_t job = 1; job <= 3; ++job) {
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(logs->append({line(job, 0, "x")}));
  }
  ASSERT_TRUE(logs->forget({2}).ok());
  EXPECT_EQ((*logs->read({1}, {}, 0, 100)).size(), 10u);
  EXPECT_EQ((*logs->read({2}, {}, 0, 100)).size(), 0u);
  EXPECT_EQ((*logs->read({3}, {}, 0, 100)).size(), 10u);
  ASSERT_TRUE(logs->forget_all().ok());
  EXPECT_EQ((*logs->read({3}, {}, 0, 100)).size(), 0u);
}

TEST(Logs, ManyThreadsKeepEachTasksOrder) {
  const Scratch scratch;
  auto logs = *LogStore::open(scratch.path());
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        while (!logs->append({line(1, t, std::to_string(i))})) std::this_thread::yield();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  logs->flush();
  for (std::uint32_t t = 0; t < 4; ++t) {
    const auto rows = *logs->read({1}, t, 0, 1000);
    ASSERT_EQ(rows.size(), 500u);
    for (std::size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i].line.data, std::to_string(i));
  }
}

}  // namespace
}  // namespace grange::store
