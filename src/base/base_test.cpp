#include <gtest/gtest.h>

#include <set>

#include "base/edit_distance.hpp"
#include "base/ids.hpp"
#include "base/prng.hpp"
#include "base/range_set.hpp"
#include "base/result.hpp"

namespace grange {
namespace {

TEST(TaskId, PacksJobAndIndexAndKeepsTheirOrder) {
  const TaskId a = TaskId::of({7}, 4'000'000'000u);
  EXPECT_EQ(a.job().value, 7u);
  EXPECT_EQ(a.index(), 4'000'000'000u);
  EXPECT_LT(a, TaskId::of({8}, 0));
}

TEST(RangeSet, AgreesWithASetUnderRandomAdds) {
  Prng prng(42);
  for (int round = 0; round < 200; ++round) {
    RangeSet ranges;
    std::set<std::uint32_t> truth;
    for (int step = 0; step < 40; ++step) {
      const auto first = static_cast<std::uint32_t>(prng.below(100));
      const auto end = first + static_cast<std::uint32_t>(prng.below(12));
      ranges.add(first, end);
      for (auto i = first; i < end; ++i) truth.insert(i);
      const auto gone = static_cast<std::uint32_t>(prng.below(100));
      ranges.remove(gone);
      truth.erase(gone);
      ASSERT_EQ(ranges.size(), truth.size());
    }
    std::set<std::uint32_t> missing;
    for (auto [first, end] : ranges.gaps(5, 95)) {
      ASSERT_LT(first, end);
      for (auto i = first; i < end; ++i) missing.insert(i);
    }
    for (std::uint32_t i = 0; i < 120; ++i) {
      ASSERT_EQ(ranges.contains(i), truth.contains(i)) << i;
      ASSERT_EQ(missing.contains(i), i >= 5 && i < 95 && !truth.contains(i)) << i;
    }
    std::uint32_t last_end = 0;
    for (auto [first, end] : ranges.ranges()) {
      if (last_end != 0) {
        ASSERT_GT(first, last_end) << "neighbours must have been joined";
      }
      last_end = end;
    }
  }
}

TEST(Prng, StaysBelowItsBoundAndRepeatsWithItsSeed) {
  Prng a(1), b(1), c(2);
  bool differs = false;
  for (int i = 0; i < 1000; ++i) {
    const auto x = a.below(10);
    EXPECT_LT(x, 10u);
    EXPECT_EQ(x, b.below(10));
    differs |= x != c.below(10);
    const double u = a.unit();
    EXPECT_TRUE(u >= 0 && u < 1);
    (void)b.unit();
    (void)c.unit();
  }
  EXPECT_TRUE(differs);
}

TEST(Result, CarriesAValueOrAnErrorWithAClass) {
  Result<int> good = 3;
  Result<int> bad = Error{ErrorClass::not_found, "no such job", {}};
  EXPECT_EQ(*good, 3);
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(code(bad.error().cls), "not_found");
  EXPECT_EQ(http_status(bad.error().cls), 404);
}

TEST(EditDistance, CountsChangesAndSwaps) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

}  // namespace
}  // namespace grange
