// One count of primes, as the engine does it: compute_bench ALGORITHM N THREADS. Prints count and seconds.
#include <cstdio>
#include <cstdlib>

#include "compute/primes.hpp"

int main(int argc, char** argv) {
  using namespace grange::compute;
  const auto algorithm = argc == 4 ? primes_algorithm(argv[1]) : std::nullopt;
  if (!algorithm) {
    std::fprintf(stderr, "compute_bench segmented_sieve|simple_sieve|trial_division|primesieve N THREADS\n");
    return 2;
  }
  PrimesOptions options;
  options.algorithm = *algorithm;
  options.n = std::strtoull(argv[2], nullptr, 10);
  options.threads = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
  Control control;
  const auto result = count_primes(options, control);
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    return 1;
  }
  std::printf("%llu %.4f\n", static_cast<unsigned long long>(result->count), result->seconds);
  if (result->wrong()) {
    std::fprintf(stderr, "That is wrong: it should be %llu.\n", static_cast<unsigned long long>(*result->expected));
    return 1;
  }
  return 0;
}
