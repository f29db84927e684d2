#include "server/event_batch.hpp"

#include <gtest/gtest.h>

#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

std::shared_ptr<const Fact> fact(std::uint64_t number, std::uint32_t job, const std::string& type) {
  return std::make_shared<const Fact>(Fact{.number = number,
                                           .topic = Topic::jobs,
                                           .job = {job},
                                           .job_id = std::to_string(job),
                                           .type = type,
                                           .json = R"({"event":)" + std::to_string(number) + "}"});
}

std::vector<std::int64_t> told(EventBatch& batch, std::int64_t& next) {
  const auto value = wire::parse_json(batch.take());
  std::vector<std::int64_t> out;
  next = value->as_object().at("next").as_int64();
  for (const auto& one : value->as_object().at("events").as_array())
    out.push_back(one.as_object().at("event").as_int64());
  return out;
}

TEST(EventBatch, KeepsOnlyTheNewestProgressOfAJob) {
  EventBatch batch;
  std::int64_t next = 0;
  EXPECT_TRUE(batch.empty());
  batch.add(fact(1, 1, "job_submitted"));
  batch.add(fact(2, 1, "job_progress"));
  batch.add(fact(3, 2, "job_progress"));
  batch.add(fact(4, 1, "job_progress"));
  batch.add(fact(5, 2, "job_progress"));
  EXPECT_EQ(told(batch, next), (std::vector<std::int64_t>{1, 4, 5}));
  EXPECT_EQ(next, 6);
  EXPECT_TRUE(batch.empty());
}

TEST(EventBatch, AnEndTakesTheProgressBeforeItAndIsNeverLeftOut) {
  EventBatch batch;
  std::int64_t next = 0;
  batch.add(fact(1, 1, "job_progress"));
  batch.add(fact(2, 1, "job_ended"));
  batch.add(fact(3, 1, "job_submitted"));  // retried
  batch.add(fact(4, 1, "job_progress"));
  EXPECT_EQ(told(batch, next), (std::vector<std::int64_t>{2, 3, 4}));
  EXPECT_EQ(next, 5);
}

TEST(EventBatch, TasksAndWorkersAreAllTold) {
  EventBatch batch;
  std::int64_t next = 0;
  for (std::uint64_t n = 0; n < 3; ++n) {
    batch.add(std::make_shared<const Fact>(Fact{.number = n,
                                                .topic = Topic::tasks,
                                                .job = {1},
                                                .job_id = "1",
                                                .json = R"({"event":)" + std::to_string(n) + "}"}));
  }
  EXPECT_GT(batch.bytes(), 30u);
  EXPECT_EQ(told(batch, next).size(), 3u);
  EXPECT_EQ(batch.bytes(), 0u);
}

}  // namespace
}  // namespace grange::server
