#include "compute/primes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

#include "compute/primes_parts.hpp"

namespace grange::compute {

namespace {

constexpr std::array<std::string_view, 4> kNames = {"segmented_sieve", "simple_sieve", "trial_division", "primesieve"};
constexpr std::array<std::uint64_t, 4> kLargest = {1'000'000'000'000'000, std::uint64_t{1} << 36, 10'000'000'000,
                                                   1'000'000'000'000'000};
constexpr std::array<std::uint64_t, 14> kKnown = {
    0,       4,         25,         168,         1'229,         9'592,          78'498,
    664'579, 5'761'455, 50'847'534, 455'052'511, 4'118'054'813, 37'607'912'018, 346'065'536'839};

std::uint64_t count_bits_plain(const std::uint64_t* words, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<std::uint64_t>(std::popcount(words[i]));
  return sum;
}

#if defined(__x86_64__) && !defined(__POPCNT__)
__attribute__((target("popcnt"))) std::uint64_t count_bits_popcnt(const std::uint64_t* words, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<std::uint64_t>(__builtin_popcountll(words[i]));
  return sum;
}
#endif

}  // namespace

std::string_view name(PrimesAlgorithm algorithm) {
  return kNames[static_cast<std::size_t>(algorithm)];
}

std::optional<PrimesAlgorithm> primes_algorithm(std::string_view name) {
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) return std::nullopt;
  return static_cast<PrimesAlgorithm>(it - kNames.begin());
}

std::uint64_t largest_n(PrimesAlgorithm algorithm) {
  return kLargest[static_cast<std::size_t>(algorithm)];
}

std::optional<std::uint64_t> known_count(std::uint64_t n) {
  std::uint64_t power = 1;
  for (const std::uint64_t count : kKnown) {
    if (n == power) return count;
    power *= 10;
  }
  return std::nullopt;
}

std::uint64_t square_root(std::uint64_t n) {
  auto root = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(n)));
  while (root * root > n) --root;
  while ((root + 1) * (root + 1) <= n) ++root;
  return root;
}

std::vector<std::uint32_t> odd_primes_up_to(std::uint64_t n) {
  std::vector<std::uint32_t> primes;
  std::vector<bool> composite(n / 2 + 1);  // of 2i + 1
  for (std::uint64_t i = 1; 2 * i + 1 <= n; ++i) {
    if (composite[i]) continue;
    const std::uint64_t p = 2 * i + 1;
    primes.push_back(static_cast<std::uint32_t>(p));
    for (std::uint64_t m = p * p; m <= n; m += 2 * p) composite[m / 2] = true;
  }
  return primes;
}

std::uint64_t count_bits(const std::uint64_t* words, std::size_t count) {
#if defined(__x86_64__) && !defined(__POPCNT__)
  static const bool has = __builtin_cpu_supports("popcnt") != 0;
  if (has) return count_bits_popcnt(words, count);
#endif
  return count_bits_plain(words, count);
}

Result<PrimesResult> count_primes(const PrimesOptions& options, Control& control) {
  const std::uint64_t limit = largest_n(options.algorithm);
  if (options.n > limit) {
    return Error{ErrorClass::invalid_argument, std::string(name(options.algorithm)) + " takes an n up to " +
                                                   std::to_string(limit) + ", not " + std::to_string(options.n) + "."};
  }
  if (options.threads == 0 || options.threads > kMaxThreads)
    return Error{ErrorClass::invalid_argument, "threads is 1 to " + std::to_string(kMaxThreads) + "."};
  if (options.algorithm == PrimesAlgorithm::simple_sieve) {
    if (auto fits = check_memory(simple_sieve_bytes(options.n), options.memory); !fits)
      return std::move(fits).error().with_context("simple_sieve keeps a bit for each odd number");
  }
  PrimesResult result;
  const double before = control.seconds();
  switch (options.algorithm) {
    case PrimesAlgorithm::segmented_sieve:
      result.count = segmented_sieve(options.n, options.threads, control);
      break;
    case PrimesAlgorithm::simple_sieve:
      result.count = simple_sieve(options.n, options.threads, control);
      break;
    case PrimesAlgorithm::trial_division:
      result.count = trial_division(options.n, options.threads, control);
      break;
    case PrimesAlgorithm::primesieve:
      result.count = library_sieve(options.n, options.threads, control);
      break;
  }
  result.seconds = control.seconds() - before;
  if (auto ended = control.outcome(); !ended) return ended.error();
  result.expected = known_count(options.n);
  return result;
}

}  // namespace grange::compute
