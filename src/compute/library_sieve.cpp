#include <primesieve.hpp>

#include <algorithm>
#include <mutex>

#include "compute/primes_parts.hpp"

namespace grange::compute {

namespace {

constexpr double kPieceSeconds = 0.08;  // how long a stop may take
constexpr std::uint64_t kLeastPiece = 200'000'000;
constexpr std::uint64_t kRoots = 100;  // a piece has so many roots of n, or the library's own start outweighs it

}  // namespace

// The library cannot be halted, so it gets the range in pieces, each on one of our threads: as long as a stop may take,
// and shorter towards the end, so that no thread waits long for the others.
std::uint64_t library_sieve(std::uint64_t n, unsigned threads, Control& control) {
  static std::once_flag once;
  std::call_once(once, [] { primesieve::set_num_threads(1); });
  const std::uint64_t least = std::max(kLeastPiece, square_root(n) * kRoots);
  const auto useful = static_cast<unsigned>(std::min<std::uint64_t>(threads, n / least + 1));
  std::mutex mutex;
  std::uint64_t next = 0, done = 0, found = 0;
  double speed = 0;  // of one thread, numbers a second; the last measured
  (void)on_threads(useful, control, [&](unsigned) {
    while (control.go_on()) {
      std::uint64_t from = 0, to = 0;
      {
        const std::lock_guard lock(mutex);
        if (next > n) return;
        const std::uint64_t left = n - next + 1;
        const std::uint64_t timely = std::max(least, static_cast<std::uint64_t>(speed * kPieceSeconds));
        from = next;
        next += std::min(left, useful == 1 ? timely : std::clamp(left / (2 * useful), least, timely));
        to = next - 1;
      }
      const double before = control.seconds();
      const std::uint64_t here = primesieve::count_primes(from, to);
      const double took = control.seconds() - before;
      std::uint64_t sum = 0;
      double fraction = 0;
      {
        const std::lock_guard lock(mutex);
        if (took > 0) speed = static_cast<double>(to - from + 1) / took;
        done += to - from + 1;
        sum = found += here;
        fraction = static_cast<double>(done) / static_cast<double>(n + 1);
      }
      control.report(fraction, sum);
    }
  });
  return found;
}

}  // namespace grange::compute
