#include "worker/allocator.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace grange::worker {
namespace {

bool below(const Need& used, const Need& total) {
  return used.slots <= total.slots && used.cpus_milli <= total.cpus_milli && used.gpus_milli <= total.gpus_milli &&
         used.memory <= total.memory && used.disk <= total.disk;
}

TEST(Allocator, AllOrNothing) {
  Allocator a(Need{4, 4000, 1000, 100, 100});
  ASSERT_TRUE(a.allocate(Need{1, 1000, 600, 10, 10}));
  const Need before = a.used();
  EXPECT_FALSE(a.allocate(Need{1, 1000, 600, 10, 10}));  // only the GPU is short
  EXPECT_EQ(a.used(), before);
  EXPECT_TRUE(a.ever_fits(Need{1, 1000, 1000, 10, 10}));
  EXPECT_FALSE(a.ever_fits(Need{1, 1000, 1001, 10, 10}));
}

TEST(Allocator, ReleasedOnce) {
  Allocator a(Need{2, 2000, 0, 0, 0});
  const auto first = a.allocate(Need{1, 1000, 0, 0, 0});
  ASSERT_TRUE(first);
  EXPECT_TRUE(a.release(*first));
  EXPECT_FALSE(a.release(*first));
  const auto second = a.allocate(Need{1, 1000, 0, 0, 0});  // takes the same place
  ASSERT_TRUE(second);
  EXPECT_FALSE(a.release(*first)) << "an old ticket must not free a newer holder";
  EXPECT_EQ(a.held(), 1u);
  EXPECT_FALSE(a.release(0));
  EXPECT_FALSE(a.release(77));
}

TEST(Allocator, HugeNeedDoesNotWrap) {
  Allocator a(Need{2, 2000, 0, 10, 10});
  ASSERT_TRUE(a.allocate(Need{1, 1000, 0, 5, 5}));
  EXPECT_FALSE(a.fits(Need{1, UINT32_MAX, 0, 0, 0}));
  EXPECT_FALSE(a.fits(Need{1, 1, 0, UINT64_MAX, 0}));
}

TEST(Allocator, NeverOverCapacity) {
  EXPECT_TRUE(rc::check("random allocate and release", [] {
    const auto small = [](std::uint32_t max) { return *rc::gen::inRange<std::uint32_t>(0, max); };
    const Need total{1 + small(6), small(6000), small(3000), small(100), small(100)};
    Allocator a(total);
    std::vector<std::pair<Allocator::Ticket, Need>> held;
    const auto steps = *rc::gen::inRange(1, 60);
    for (int i = 0; i < steps; ++i) {
      if (held.empty() || small(3) != 0) {
        const Need need{small(3), small(2500), small(1500), small(60), small(60)};
        const bool could = a.fits(need);
        const auto ticket = a.allocate(need);
        RC_ASSERT(could == ticket.has_value());
        if (ticket) held.emplace_back(*ticket, need);
      } else {
        const auto at = static_cast<std::size_t>(small(static_cast<std::uint32_t>(held.size())));
        RC_ASSERT(a.release(held[at].first));
        RC_ASSERT(!a.release(held[at].first));
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      }
      Need sum{0, 0, 0, 0, 0};
      for (const auto& [ticket, need] : held) {
        sum.slots += need.slots, sum.cpus_milli += need.cpus_milli, sum.gpus_milli += need.gpus_milli;
        sum.memory += need.memory, sum.disk += need.disk;
      }
      RC_ASSERT(a.used() == sum);
      RC_ASSERT(below(a.used(), total));
      RC_ASSERT(a.held() == held.size());
    }
    for (const auto& [ticket, need] : held) RC_ASSERT(a.release(ticket));
    RC_ASSERT(a.used() == (Need{0, 0, 0, 0, 0}));
  }));
}

}  // namespace
}  // namespace grange::worker
