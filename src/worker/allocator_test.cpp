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

TEST(Allocator, TicketsNameTheirGpus) {
  Allocator a(Need{9, 9000, 0, 100, 100}, {24 * GiB, 80 * GiB, 24 * GiB});
  EXPECT_EQ(a.total().gpus_milli, 3000u);
  const auto big = a.allocate(Need{1, 1000, 1000, 0, 0, 40 * GiB});
  ASSERT_TRUE(big);
  EXPECT_EQ(a.devices(*big), std::vector<std::uint32_t>{1}) << "the only one with so much memory";
  EXPECT_FALSE(a.fits(Need{1, 1000, 1000, 0, 0, 40 * GiB}));
  EXPECT_TRUE(a.ever_fits(Need{1, 1000, 1000, 0, 0, 40 * GiB}));
  EXPECT_FALSE(a.ever_fits(Need{1, 1000, 2000, 0, 0, 40 * GiB}));
  const auto half = a.allocate(Need{1, 1000, 500, 0, 0, 10 * GiB});
  const auto other = a.allocate(Need{1, 1000, 500, 0, 0, 10 * GiB});
  ASSERT_TRUE(half && other);
  EXPECT_EQ(a.devices(*half), a.devices(*other)) << "parts share one, so that the other stays whole";
  EXPECT_FALSE(a.fits(Need{1, 1000, 1500, 0, 0, 0})) << "one is whole, and no part is left beside it";
  const auto whole = a.allocate(Need{1, 1000, 1000, 0, 0, 0});
  ASSERT_TRUE(whole);
  EXPECT_EQ(a.devices(*whole), std::vector<std::uint32_t>{2});
  EXPECT_TRUE(a.release(*half));
  EXPECT_TRUE(a.devices(*half).empty());
  EXPECT_FALSE(a.fits(Need{1, 1000, 200, 0, 0, 20 * GiB})) << "its memory is the other half's";
  EXPECT_TRUE(a.fits(Need{1, 1000, 200, 0, 0, 14 * GiB}));
}

TEST(Allocator, NoGpuIsSharedBeyondItsBounds) {
  EXPECT_TRUE(rc::check("random GPU needs", [] {
    const auto small = [](std::uint32_t max) { return *rc::gen::inRange<std::uint32_t>(0, max); };
    std::vector<Bytes> memory;
    for (std::uint32_t i = 0, n = 1 + small(4); i < n; ++i) memory.push_back(10 + small(20));
    Allocator a(Need{99, 99'000, 0, 0, 0}, memory);
    std::vector<std::pair<Allocator::Ticket, Need>> held;
    for (int i = 0; i < 40; ++i) {
      if (held.empty() || small(3) != 0) {
        const Need need{1, 1, small(3) == 0 ? 1000 * small(3) : small(1000), 0, 0, small(12)};
        const bool could = a.fits(need);
        const auto ticket = a.allocate(need);
        RC_ASSERT(could == ticket.has_value());
        RC_ASSERT(!could || a.ever_fits(need));
        if (ticket) held.emplace_back(*ticket, need);
      } else {
        const auto at = static_cast<std::size_t>(small(static_cast<std::uint32_t>(held.size())));
        RC_ASSERT(a.release(held[at].first));
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      }
      std::vector<std::uint32_t> milli(memory.size());
      std::vector<Bytes> bytes(memory.size());
      for (const auto& [ticket, need] : held) {
        const auto devices = a.devices(ticket);
        RC_ASSERT(devices.size() == (need.gpus_milli + 999) / 1000);
        for (const std::uint32_t d : devices) {
          RC_ASSERT(memory[d] >= need.gpu_memory);
          milli[d] += need.gpus_milli < 1000 ? need.gpus_milli : 1000;
          bytes[d] += need.gpu_memory;
        }
      }
      for (std::size_t d = 0; d < memory.size(); ++d) RC_ASSERT(milli[d] <= 1000 && bytes[d] <= memory[d]);
    }
    for (const auto& [ticket, need] : held) RC_ASSERT(a.release(ticket));
    RC_ASSERT(a.used() == (Need{0, 0, 0, 0, 0, 0}));
  }));
}

}  // namespace
}  // namespace grange::worker
