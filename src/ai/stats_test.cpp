#include "ai/stats.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

namespace grange::ai {
namespace {

using V = std::vector<double>;

TEST(Stats, PercentilesInterpolateBetweenRanks) {
  const V values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(*percentile(values, 50), 2.5);
  EXPECT_DOUBLE_EQ(*percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(*percentile(values, 100), 4);
  EXPECT_DOUBLE_EQ(*percentile(values, 90), 3.7);
  EXPECT_DOUBLE_EQ(*percentile(V{7}, 99), 7);
  EXPECT_FALSE(percentile(V{}, 50).has_value());
  EXPECT_FALSE(percentile(values, 101).has_value());
  EXPECT_DOUBLE_EQ(*percentile(V{1, std::nan(""), 3}, 50), 2) << "what is not a number is left out";
}

TEST(Stats, SummaryHasStudentsInterval) {
  const Summary s = summarize(V{10, 12, 14});
  EXPECT_EQ(s.n, 3u);
  EXPECT_DOUBLE_EQ(*s.mean, 12);
  EXPECT_DOUBLE_EQ(*s.stddev, 2);
  EXPECT_NEAR(*s.ci_high - 12, 4.302653 * 2 / std::sqrt(3.0), 1e-5);  // t of 2 degrees of freedom at 97.5 %
  EXPECT_NEAR(12 - *s.ci_low, 4.302653 * 2 / std::sqrt(3.0), 1e-5);
  EXPECT_FALSE(summarize(V{5}).ci_low.has_value());
  EXPECT_TRUE(to_json(summarize(V{})).at("mean").is_null());
}

TEST(Stats, GoodputCountsWhatMeetsEachTarget) {
  const std::vector<Served> all = {{true, 100, 10}, {true, 300, 10}, {true, 100, 60}, {false, 100, 10}, {true, {}, 10}};
  const Goodput got = goodput(all, {200, 50}, 2);
  EXPECT_EQ(got.met, 1u);
  EXPECT_DOUBLE_EQ(*got.per_s, 0.5);
  EXPECT_DOUBLE_EQ(*got.share, 0.2);
  EXPECT_EQ(goodput(all, {}, 2).met, 4u);
  EXPECT_FALSE(goodput({}, {}, 0).per_s.has_value());
}

TEST(Stats, ADifferenceNeedsRunsAndMustBeReal) {
  using A = Comparison::Answer;
  EXPECT_EQ(compare(V{1, 1}, V{9, 9}, Better::higher).answer, A::not_enough_runs);
  EXPECT_EQ(compare(V{100, 101, 99, 100}, V{50, 51, 49, 50}, Better::higher).answer, A::first);
  EXPECT_EQ(compare(V{100, 101, 99, 100}, V{50, 51, 49, 50}, Better::lower).answer, A::second);
  EXPECT_EQ(compare(V{100, 140, 60, 100}, V{90, 130, 50, 95}, Better::higher).answer, A::equal) << "noise";
  EXPECT_EQ(compare(V{1000, 1000, 1000}, V{1001, 1001, 1001}, Better::higher).answer, A::equal) << "sure, but small";
  EXPECT_EQ(compare(V{5, 5, 5}, V{4, 4, 4}, Better::higher).answer, A::first) << "no spread at all";
  EXPECT_EQ(compare(V{0, 0, 0}, V{0, 0, 0}, Better::higher).answer, A::equal);
  // t = -2.8165 with 27.877 degrees of freedom; p by numerical integration of the density.
  const V a = {27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4};
  const V b = {27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 23.8};
  EXPECT_NEAR(*compare(a, b, Better::higher).p, 0.00881793, 1e-7);
}

TEST(Stats, AWinnerBeatsEachOther) {
  std::vector<Contender> all = {{"slow", {10, 11, 10, 10}, true},
                                {"fast", {30, 31, 30, 29}, true},
                                {"mock", {900, 900, 900}, false},
                                {"dead", {}, true}};
  const Ranking got = rank(all, Better::higher);
  EXPECT_EQ(got.order, (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(got.winner, 1u);
  EXPECT_NE(got.sentence.find("fast wins"), std::string::npos);
  all.push_back({"near", {30, 30, 31, 29.5}, true});
  EXPECT_FALSE(rank(all, Better::higher).winner.has_value());
  all = {{"a", {1, 1}, true}, {"b", {9, 9}, true}};
  EXPECT_FALSE(rank(all, Better::lower).winner.has_value());
  EXPECT_EQ(rank(all, Better::lower).order.front(), 0u);
  EXPECT_TRUE(rank({}, Better::lower).order.empty());
}

RC_GTEST_PROP(Stats, AnyNumbersGiveFiguresInOrder, (const V& values, const V& others)) {
  const Summary s = summarize(values);
  if (s.n > 0) {
    RC_ASSERT(*s.min <= *s.p50 && *s.p50 <= *s.p90 && *s.p90 <= *s.p95 && *s.p95 <= *s.p99 && *s.p99 <= *s.max);
  }
  const Comparison ab = compare(values, others, Better::higher);
  const Comparison ba = compare(others, values, Better::higher);
  RC_ASSERT((ab.answer == Comparison::Answer::first) == (ba.answer == Comparison::Answer::second));
}

}  // namespace
}  // namespace grange::ai
