// Counts the primes up to n, in four ways that must agree.
#pragma once

#include <optional>
#include <string_view>

#include "compute/control.hpp"

namespace grange::compute {

enum class PrimesAlgorithm : std::uint8_t { segmented_sieve, simple_sieve, trial_division, primesieve };

std::string_view name(PrimesAlgorithm algorithm);
std::optional<PrimesAlgorithm> primes_algorithm(std::string_view name);

// The largest n of each: beyond it the run would take days, or more memory than a machine has.
std::uint64_t largest_n(PrimesAlgorithm algorithm);

struct PrimesOptions {
  PrimesAlgorithm algorithm = PrimesAlgorithm::segmented_sieve;
  std::uint64_t n = 0;
  unsigned threads = 1;
  Bytes memory = 0;  // that it may use; 0: what is free
};

struct PrimesResult {
  std::uint64_t count = 0;
  double seconds = 0;
  std::optional<std::uint64_t> expected;  // where the true count is known
  bool wrong() const { return expected && *expected != count; }
};

// Runs to the end on `threads` threads, one of them the caller's. Once for each Control.
Result<PrimesResult> count_primes(const PrimesOptions& options, Control& control);

// The number of primes up to n, when n is a power of ten up to 10^13.
std::optional<std::uint64_t> known_count(std::uint64_t n);

}  // namespace grange::compute
