// Races in the store.
#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Scratch;
using testing::take;

RunRow run(const std::string& id, std::int64_t started, std::int64_t ended, const std::string& digest = "d") {
  return {.id = id,
          .kind = "llm",
          .user = "ann",
          .digest = digest,
          .status = ended == 0 ? "running" : "completed",
          .started = {started},
          .ended = {ended},
          .record = R"({"a":1})",
          .summary = ended == 0 ? "" : R"({"b":2})"};
}

std::vector<std::string> ids(const std::vector<RunRow>& rows) {
  std::vector<std::string> out;
  for (const RunRow& row : rows) out.push_back(row.id);
  return out;
}

using Ids = std::vector<std::string>;

TEST(Runs, AreKeptListedAndForgotten) {
  const Scratch scratch;
  {
    auto store = *Store::open({.directory = scratch.path()});
    ASSERT_TRUE(store->load().ok());
    ASSERT_TRUE(store->put_run(run("r1", 10, 0)).ok());
    ASSERT_TRUE(store->put_run(run("r1", 10, 15)).ok());
    ASSERT_TRUE(store->put_run(run("r2", 20, 25, "other")).ok());
    ASSERT_TRUE(store->put_run(run("r3", 20, 0)).ok());
    ASSERT_TRUE(store->put_run(run("r4", 40, 45)).ok());
  }
  auto store = *Store::open({.directory = scratch.path()});
  ASSERT_TRUE(store->load().ok());
  const auto reader = *store->reader();
  const auto row = **reader->run("r1");
  EXPECT_EQ(row.status, "completed");
  EXPECT_EQ(row.record, R"({"a":1})");
  EXPECT_EQ(row.summary, R"({"b":2})");
  EXPECT_EQ(row.ended.ms, 15);
  EXPECT_FALSE((*reader->run("none")).has_value());
  EXPECT_EQ(ids(take(reader->runs({}))), (Ids{"r4", "r3", "r2", "r1"}));
  EXPECT_EQ(ids(take(reader->runs({.before = "r3"}))), (Ids{"r2", "r1"}));
  EXPECT_EQ(ids(take(reader->runs({.digest = "d", .before = "r4"}))), (Ids{"r3", "r1"}));
  EXPECT_EQ(ids(take(reader->runs({.unfinished = true}))), (Ids{"r3"}));
  EXPECT_EQ(ids(take(reader->runs({.limit = 2}))), (Ids{"r4", "r3"}));
  EXPECT_TRUE(take(reader->runs({.kind = "image"})).empty());
  EXPECT_EQ(take(reader->runs({})).front().summary, "");
  EXPECT_EQ(take(reader->runs({.summaries = true})).front().summary, R"({"b":2})");

  EXPECT_EQ(take(store->forget_runs(1)), (Ids{"r2", "r1"})) << "what goes on stays";
  EXPECT_EQ(ids(take(reader->runs({}))), (Ids{"r4", "r3"}));
  EXPECT_TRUE(*store->drop_run("r4"));
  EXPECT_FALSE(*store->drop_run("r4"));
  ASSERT_TRUE(store->forget_all().ok());
  EXPECT_TRUE(take(reader->runs({})).empty());
}

TEST(History, KeepsTheNewestOfEachStep) {
  const Scratch scratch;
  auto store = *Store::open({.directory = scratch.path()});
  std::vector<HistoryRow> rows;
  for (std::int64_t at = 0; at < 10; ++at) rows.push_back({.step = Millis{30}, .at = {at}, .figures = "{}"});
  rows.push_back({.step = Millis{900}, .at = {0}, .figures = "{\"old\":1}"});
  ASSERT_TRUE(store->put_history(rows, 4).ok());
  ASSERT_TRUE(store->put_history({{.step = Millis{900}, .at = {0}, .figures = "{\"new\":1}"}}, 4).ok());
  auto reader = *store->reader();
  const auto fine = take(reader->history(Millis{30}));
  ASSERT_EQ(fine.size(), 4u);
  EXPECT_EQ(fine.front().at.ms, 6);
  const auto all = take(reader->history(std::nullopt));
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all.back().figures, "{\"new\":1}") << "replaced";
}

}  // namespace
}  // namespace grange::store
