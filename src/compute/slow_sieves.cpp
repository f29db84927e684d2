// The two ways of the school book: one array for all, and division by each smaller prime.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "compute/primes_parts.hpp"

namespace grange::compute {

namespace {

constexpr std::uint64_t kStrikes = 1 << 20;     // between two looks at the control
constexpr std::uint64_t kCandidates = 1 << 14;  // numbers that a thread takes at once

// Zeroed by the system when it is touched, and given back to it at once.
class Pages {
 public:
  explicit Pages(Bytes size) : size_(static_cast<std::size_t>(size)) {
    at_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Pages() { munmap(at_, size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::uint64_t* words() const { return static_cast<std::uint64_t*>(at_); }

 private:
  std::size_t size_;
  void* at_;
};

// p is odd, from 3 on; `primes` are the odd ones up to its root at least.
template <class Word>
bool is_prime(Word p, const std::vector<std::uint32_t>& primes) {
  for (const std::uint32_t d : primes) {
    if (Word{d} * Word{d} > p) return true;
    if (p % d == 0) return false;
  }
  return true;
}

}  // namespace

Bytes simple_sieve_bytes(std::uint64_t n) {
  return (n / 2 / 64 + 1) * 8;
}

// Bit i is 2i + 1. Each thread has a stretch of words to itself, and does all primes on it.
std::uint64_t simple_sieve(std::uint64_t n, unsigned threads, Control& control) {
  if (n < 2) return 0;
  const std::uint64_t bits = (n + 1) / 2;
  const std::uint64_t words = (bits + 63) / 64;
  const std::vector<std::uint32_t> primes = odd_primes_up_to(square_root(n));
  std::atomic<std::uint64_t> struck{0}, found{1};  // 2
  double work = 0;
  for (const std::uint32_t p : primes) work += static_cast<double>(bits) / p;
  try {
    const Pages pages(simple_sieve_bytes(n));
    std::uint64_t* const composite = pages.words();
    (void)on_threads(threads, control, [&](unsigned index) {
      const std::uint64_t first_word = words * index / threads, end_word = words * (index + 1) / threads;
      const std::uint64_t first = first_word * 64, end = std::min(bits, end_word * 64);
      if (first >= end) return;
      if (first == 0) composite[0] |= 1;
      for (const std::uint32_t p : primes) {
        std::uint64_t at = std::uint64_t{p} * p / 2;
        if (at < first) at += (first - at + p - 1) / p * p;
        while (at < end) {
          if (!control.go_on()) return;
          const std::uint64_t from = at, stop = std::min(end, at + kStrikes * p);
          for (; at < stop; at += p) composite[at / 64] |= std::uint64_t{1} << (at % 64);
          struck += (at - from) / p;
        }
        control.report(std::min(1.0, static_cast<double>(struck) / work), 0);  // what is a prime shows at the end
      }
      if (end == bits && bits % 64 != 0) composite[words - 1] |= ~std::uint64_t{0} << (bits % 64);
      for (std::uint64_t word = first_word; word < end_word && control.go_on(); word += kStrikes) {
        const std::uint64_t count = std::min(kStrikes, end_word - word);
        found += count * 64 - count_bits(composite + word, static_cast<std::size_t>(count));
      }
    });
  } catch (const std::bad_alloc&) {
    control.fail({ErrorClass::too_large, "The system did not give " + std::to_string(simple_sieve_bytes(n) / MiB + 1) +
                                             " MiB of memory; take a smaller n, or segmented_sieve."});
  }
  return found;
}

std::uint64_t trial_division(std::uint64_t n, unsigned threads, Control& control) {
  if (n < 2) return 0;
  const std::vector<std::uint32_t> primes = odd_primes_up_to(square_root(n));
  const std::uint64_t candidates = (n + 1) / 2 - 1;  // 3, 5, …
  std::atomic<std::uint64_t> next{0}, done{0}, found{1};
  (void)on_threads(threads, control, [&](unsigned) {
    for (std::uint64_t from = next.fetch_add(kCandidates); from < candidates && control.go_on();
         from = next.fetch_add(kCandidates)) {
      const std::uint64_t end = std::min(candidates, from + kCandidates);
      std::uint64_t here = 0;
      for (std::uint64_t i = from; i < end; ++i) {
        const std::uint64_t p = 2 * i + 3;
        here += (p >> 32 == 0 ? is_prime(static_cast<std::uint32_t>(p), primes) : is_prime(p, primes)) ? 1 : 0;
      }
      found += here;
      done += end - from;
      // The work for a number grows with its root.
      control.report(std::pow(static_cast<double>(done) / static_cast<double>(candidates), 1.5), found);
    }
  });
  return found;
}

}  // namespace grange::compute
