// Alerts, use by day, and children of jobs in the store.
#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Scratch;
using testing::take;

TEST(AlertRows, AreKeptAndTheOldestEndedGo) {
  const Scratch scratch;
  {
    auto store = *Store::open({.directory = scratch.path()});
    ASSERT_TRUE(store->load().ok());
    ASSERT_TRUE(store
                    ->put_alerts({{"job_waits", R"({"threshold":5})"}, {"disk_low", "{}"}},
                                 {{1, "worker_lost", "w1", "{}", {10}, {0}},
                                  {2, "worker_lost", "w2", "{}", {20}, {25}},
                                  {3, "job_failed", "7", "{}", {30}, {35}},
                                  {4, "job_failed", "8", "{}", {40}, {0}}},
                                 100)
                    .ok());
    ASSERT_TRUE(store->put_alerts({{"disk_low", ""}}, {}, 100).ok());
  }
  auto store = *Store::open({.directory = scratch.path()});
  ASSERT_TRUE(store->load().ok());
  const auto reader = *store->reader();
  const auto rules = take(reader->alert_rules());
  ASSERT_EQ(rules.size(), 1u);
  EXPECT_EQ(rules[0].kind, "job_waits");
  EXPECT_EQ(rules[0].rule, R"({"threshold":5})");
  ASSERT_EQ(take(reader->alerts()).size(), 4u);
  // The first one ends last: it is the newest of the ended, whatever its number.
  ASSERT_TRUE(store->put_alerts({}, {{1, "worker_lost", "w1", R"({"a":1})", {10}, {50}}}, 2).ok());
  const auto alerts = take(reader->alerts());
  ASSERT_EQ(alerts.size(), 3u);
  EXPECT_EQ(alerts[0].id, 1u);
  EXPECT_EQ(alerts[0].ended.ms, 50);
  EXPECT_EQ(alerts[0].record, R"({"a":1})");
  EXPECT_EQ(alerts[1].id, 3u);
  EXPECT_EQ(alerts[2].id, 4u) << "open ones are not counted";
}

TEST(UsageRows, AreReplacedAndOldDaysGoByTheirNumber) {
  const Scratch scratch;
  auto store = *Store::open({.directory = scratch.path()});
  ASSERT_TRUE(store->load().ok());
  std::vector<UsageRow> rows;
  for (std::int64_t day = 1; day <= 10; ++day) {
    rows.push_back({day, "ann", "m", "1"});
    rows.push_back({day, "bob", "m", "2"});
  }
  ASSERT_TRUE(store->put_usage(rows, 0).ok());
  ASSERT_TRUE(store->put_usage({{10, "ann", "m", "3"}}, 0).ok());
  const auto reader = *store->reader();
  EXPECT_EQ(take(reader->usage(0)).size(), 20u);
  const auto last = take(reader->usage(10));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0].figures, "3");
  ASSERT_TRUE(store->put_usage({{9'999'999, "ann", "m", "4"}}, 4).ok()) << "a clock that is far ahead";
  const auto left = take(reader->usage(0));
  ASSERT_EQ(left.size(), 7u);
  EXPECT_EQ(left.front().day, 8);
  ASSERT_TRUE(store->put_usage({}, 100).ok());
  EXPECT_EQ(take(reader->usage(0)).size(), 7u);
}

}  // namespace
}  // namespace grange::store
