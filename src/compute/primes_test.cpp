#include "compute/primes.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/prng.hpp"
#include "compute/primes_parts.hpp"

namespace grange::compute {
namespace {

constexpr PrimesAlgorithm kAll[] = {PrimesAlgorithm::segmented_sieve, PrimesAlgorithm::simple_sieve,
                                    PrimesAlgorithm::trial_division, PrimesAlgorithm::primesieve};

std::uint64_t count(PrimesAlgorithm algorithm, std::uint64_t n, unsigned threads = 1) {
  Control control;
  PrimesOptions options;
  options.algorithm = algorithm;
  options.n = n;
  options.threads = threads;
  const auto result = count_primes(options, control);
  if (!result) {
    ADD_FAILURE() << name(algorithm) << " " << n << ": " << result.error().message;
    return 0;
  }
  EXPECT_FALSE(result->wrong()) << name(algorithm) << " " << n;
  return result->count;
}

// How many primes there are up to each number, by a sieve too plain to be wrong.
std::vector<std::uint32_t> naive(std::size_t n) {
  std::vector<bool> composite(n + 1);
  std::vector<std::uint32_t> up_to(n + 1);
  for (std::size_t i = 2; i <= n; ++i) {
    up_to[i] = up_to[i - 1] + (composite[i] ? 0 : 1);
    for (std::size_t m = 2 * i; !composite[i] && m <= n; m += i) composite[m] = true;
  }
  return up_to;
}

TEST(Primes, EveryWayFindsTheKnownCounts) {
  std::uint64_t n = 1;
  for (int power = 0; power <= 8; ++power, n *= 10) {
    for (const PrimesAlgorithm algorithm : kAll) {
      if (algorithm == PrimesAlgorithm::trial_division && power > 6) continue;
      if (algorithm == PrimesAlgorithm::simple_sieve && power > 7) continue;
      EXPECT_EQ(count(algorithm, n), *known_count(n)) << name(algorithm) << " 10^" << power;
    }
  }
}

TEST(Primes, KnownCountsAreThoseOfPowersOfTenOnly) {
  EXPECT_EQ(known_count(1), 0u);
  EXPECT_EQ(known_count(10'000'000'000), 455'052'511u);
  EXPECT_EQ(known_count(10'000'000'000'000), 346'065'536'839u);
  EXPECT_FALSE(known_count(0));
  EXPECT_FALSE(known_count(11));
  EXPECT_FALSE(known_count(100'000'000'000'000));
  PrimesResult result;
  result.count = 24;
  result.expected = 25;
  EXPECT_TRUE(result.wrong());
}

TEST(Primes, EverySmallNumber) {
  const auto truth = naive(400);
  for (std::uint64_t n = 0; n <= 400; ++n) {
    for (const PrimesAlgorithm algorithm : kAll)
      ASSERT_EQ(count(algorithm, n, static_cast<unsigned>(1 + n % 3)), truth[n]) << name(algorithm) << " " << n;
  }
}

TEST(Primes, RandomNumbersOnOneToThreeThreads) {
  const auto truth = naive(3'000'000);
  Prng prng(4);
  for (int round = 0; round < 12; ++round) {
    const std::uint64_t n = prng.below(3'000'001);
    for (unsigned threads = 1; threads <= 3; ++threads) {
      for (const PrimesAlgorithm algorithm : kAll) {
        if (algorithm == PrimesAlgorithm::trial_division && round % 4 != 0) continue;
        ASSERT_EQ(count(algorithm, n, threads), truth[n]) << name(algorithm) << " " << n << " on " << threads;
      }
    }
  }
}

// Squares of primes are struck by one prime alone; multiples of 30 begin a byte, of 30 * 512 Ki a segment.
TEST(Primes, AtBorders) {
  std::vector<std::uint64_t> borders;
  for (const std::uint64_t p : {7ull, 103ull, 107ull, 109ull, 997ull, 7919ull, 11'987ull, 12'007ull})
    borders.push_back(p * p);
  for (const std::uint64_t bytes : {8ull, 32ull << 10, 64ull << 10, 512ull << 10, 1024ull << 10})
    borders.push_back(30 * bytes);
  for (const std::uint64_t border : borders) {
    for (const std::uint64_t n : {border - 1, border, border + 7}) {
      const std::uint64_t truth = count(PrimesAlgorithm::primesieve, n);
      ASSERT_EQ(count(PrimesAlgorithm::segmented_sieve, n, 2), truth) << n;
      if (n < 2'000'000) {
        ASSERT_EQ(count(PrimesAlgorithm::simple_sieve, n, 2), truth) << n;
      }
    }
  }
}

TEST(Primes, ManyRunsOfSegmentsOnThreeThreads) {
  const std::uint64_t n = 312'345'678;
  EXPECT_EQ(count(PrimesAlgorithm::segmented_sieve, n, 3), count(PrimesAlgorithm::primesieve, n, 3)) << n;
}

TEST(Primes, RefusesWhatIsTooMuch) {
  for (const PrimesAlgorithm algorithm : kAll) {
    Control control;
    PrimesOptions options;
    options.algorithm = algorithm;
    options.n = largest_n(algorithm) + 1;
    const auto result = count_primes(options, control);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().cls, ErrorClass::invalid_argument);
    EXPECT_NE(result.error().message.find(std::to_string(largest_n(algorithm))), std::string::npos);
    options.n = 10;
    for (const unsigned threads : {0u, kMaxThreads + 1}) {
      options.threads = threads;
      EXPECT_FALSE(count_primes(options, control));
    }
  }
  Control control;
  PrimesOptions options;
  options.algorithm = PrimesAlgorithm::simple_sieve;
  options.n = 1'000'000'000;
  options.memory = 32 * MiB;
  const auto result = count_primes(options, control);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cls, ErrorClass::too_large);
  EXPECT_NE(result.error().message.find("60 MiB"), std::string::npos) << result.error().message;
}

TEST(Primes, StopsInTheMiddle) {
  for (const PrimesAlgorithm algorithm : kAll) {
    std::atomic<int> told{0};
    Control* at = nullptr;
    Control control(
        [&](const Control::Progress& p) {
          EXPECT_GT(p.fraction, 0);
          EXPECT_LT(p.fraction, 1);
          ++told;
          at->stop();
        },
        Micros{1});
    at = &control;
    PrimesOptions options;
    options.algorithm = algorithm;
    options.n = algorithm == PrimesAlgorithm::simple_sieve ? 2'000'000'000 : 10'000'000'000;
    options.threads = 2;
    const auto result = count_primes(options, control);
    ASSERT_FALSE(result) << name(algorithm);
    EXPECT_EQ(result.error().cls, ErrorClass::cancelled);
    EXPECT_GE(told, 1);
  }
}

TEST(Primes, ProgressGrowsAndEndsAtTheCount) {
  double fraction = 0;
  std::uint64_t found = 0;
  int told = 0;
  Control control(
      [&](const Control::Progress& p) {
        ++told;
        EXPECT_GE(p.fraction, fraction);
        EXPECT_GE(p.found, found);
        fraction = p.fraction;
        found = p.found;
      },
      Micros{0});
  PrimesOptions options;
  options.n = 100'000'000;
  const auto result = count_primes(options, control);
  ASSERT_TRUE(result);
  EXPECT_GE(told, 2);
  EXPECT_DOUBLE_EQ(fraction, 1);
  EXPECT_EQ(found, result->count);
}

TEST(Control, APauseHoldsTheKernelAndItsStopwatch) {
  Control control;
  control.pause(true);
  const double held = control.seconds();
  std::atomic<bool> over{false};
  std::thread kernel([&] {
    PrimesOptions options;
    options.n = 1'000'000;
    EXPECT_TRUE(count_primes(options, control));
    over = true;
  });
  std::this_thread::sleep_for(Millis{30});
  EXPECT_FALSE(over);
  EXPECT_EQ(control.seconds(), held);
  control.pause(false);
  kernel.join();
  EXPECT_TRUE(over);
}

TEST(Control, AFailureOfOneThreadEndsAll) {
  Control control;
  const auto result = on_threads(3, control, [&](unsigned index) {
    if (index == 2) throw std::bad_alloc();
    while (control.go_on()) std::this_thread::yield();
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cls, ErrorClass::too_large);
}

}  // namespace
}  // namespace grange::compute
