// A sieve on the wheel of 30: one byte is the eight numbers in thirty that 2, 3 and 5 do not divide. It goes in
// segments that stay in the second cache; the smallest primes come as ready patterns, small ones in slices of the first
// cache.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "compute/primes_parts.hpp"

namespace grange::compute {

namespace {

constexpr std::array<std::uint8_t, 8> kResidue = {1, 7, 11, 13, 17, 19, 23, 29};
constexpr std::size_t kSlice = 32 * KiB;          // of the first cache
constexpr std::size_t kSmallSegment = 512 * KiB;  // of the second
constexpr std::size_t kLargeSegment = 8 * MiB;
constexpr std::uint64_t kSmallPrime = 12'000;  // up to here a prime strikes often enough in a slice
constexpr std::size_t kRun = 16;               // segments that a thread takes at once, where there are enough

constexpr std::size_t index_of(std::size_t residue) {
  std::size_t i = 0;
  while (kResidue[i] != residue) ++i;
  return i;
}

// A prime 30q + kResidue[i] times a cofactor 30t + kResidue[j] lies in byte p * t + q * kResidue[j] + carry, at the bit
// that `kept` lacks.
constexpr std::size_t carry(std::size_t i, std::size_t j) {
  return std::size_t{kResidue[i]} * kResidue[j] / 30;
}
constexpr std::uint8_t kept(std::size_t i, std::size_t j) {
  return static_cast<std::uint8_t>(~(1u << index_of(std::size_t{kResidue[i]} * kResidue[j] % 30)));
}

constexpr auto kKept = [] {
  std::array<std::array<std::uint8_t, 8>, 8> all{};
  for (std::size_t i = 0; i < 8; ++i) {
    for (std::size_t j = 0; j < 8; ++j) all[i][j] = kept(i, j);
  }
  return all;
}();
constexpr auto kCarry = [] {
  std::array<std::array<std::uint8_t, 8>, 8> all{};
  for (std::size_t i = 0; i < 8; ++i) {
    for (std::size_t j = 0; j < 8; ++j) all[i][j] = static_cast<std::uint8_t>(carry(i, j));
  }
  return all;
}();

template <std::size_t I>
std::size_t off_at(std::size_t q, std::size_t j) {
  return q * (kResidue[j] - 1u) + kCarry[I][j];
}

struct Striker {
  std::uint32_t q;     // of the prime
  std::uint32_t next;  // byte * 8 + index of the cofactor's residue
};

// Strikes out the multiples of each prime in `size` bytes, and leaves `next` as seen from their end.
template <std::size_t I>
void strike(std::uint8_t* sieve, std::size_t size, Striker* first, Striker* last) {
  for (Striker* s = first; s != last; ++s) {
    const std::size_t q = s->q;
    const std::size_t p = 30 * q + kResidue[I];
    // Where the eight multiples of a turn of the wheel lie, as seen from its first; kResidue[0] carries nothing.
    const std::array<std::size_t, 8> off = {0,
                                            q * (kResidue[1] - 1) + carry(I, 1),
                                            q * (kResidue[2] - 1) + carry(I, 2),
                                            q * (kResidue[3] - 1) + carry(I, 3),
                                            q * (kResidue[4] - 1) + carry(I, 4),
                                            q * (kResidue[5] - 1) + carry(I, 5),
                                            q * (kResidue[6] - 1) + carry(I, 6),
                                            q * (kResidue[7] - 1) + carry(I, 7)};
    const std::size_t next = s->next / 8;
    if (next >= size) {
      s->next -= static_cast<std::uint32_t>(size * 8);
      continue;
    }
    const std::size_t j = s->next % 8;
    // The turn may have begun before the sieve: `at` then wraps, and its sum with an offset wraps back.
    std::size_t at = next - off_at<I>(q, j);
    const auto has = [&](std::size_t k) { return at + off[k] < size; };
    const auto hit = [&]<std::size_t K>() { sieve[at + off[K]] &= kept(I, K); };
    if (has(7)) {
      switch (j) {
        case 0:
          hit.template operator()<0>();
          [[fallthrough]];
        case 1:
          hit.template operator()<1>();
          [[fallthrough]];
        case 2:
          hit.template operator()<2>();
          [[fallthrough]];
        case 3:
          hit.template operator()<3>();
          [[fallthrough]];
        case 4:
          hit.template operator()<4>();
          [[fallthrough]];
        case 5:
          hit.template operator()<5>();
          [[fallthrough]];
        case 6:
          hit.template operator()<6>();
          [[fallthrough]];
        default:
          hit.template operator()<7>();
      }
      at += p;
      if (size > off[7]) {
        for (const std::size_t end = size - off[7]; at < end; at += p) {
          hit.template operator()<0>();
          hit.template operator()<1>();
          hit.template operator()<2>();
          hit.template operator()<3>();
          hit.template operator()<4>();
          hit.template operator()<5>();
          hit.template operator()<6>();
          hit.template operator()<7>();
        }
      }
      std::size_t k = 7;  // the first beyond the end
      do {
        if (!has(0)) {
          k = 0;
          break;
        }
        hit.template operator()<0>();
        if (!has(1)) {
          k = 1;
          break;
        }
        hit.template operator()<1>();
        if (!has(2)) {
          k = 2;
          break;
        }
        hit.template operator()<2>();
        if (!has(3)) {
          k = 3;
          break;
        }
        hit.template operator()<3>();
        if (!has(4)) {
          k = 4;
          break;
        }
        hit.template operator()<4>();
        if (!has(5)) {
          k = 5;
          break;
        }
        hit.template operator()<5>();
        if (!has(6)) {
          k = 6;
          break;
        }
        hit.template operator()<6>();
      } while (false);
      s->next = static_cast<std::uint32_t>((at + off_at<I>(q, k) - size) * 8 + k);
      continue;
    }
    std::size_t k = j;  // a prime that makes less than a turn here
    for (; at + off_at<I>(q, k) < size; ++k) sieve[at + off_at<I>(q, k)] &= kKept[I][k];
    s->next = static_cast<std::uint32_t>((at + off_at<I>(q, k) - size) * 8 + k);
  }
}

using Strikers = std::array<std::vector<Striker>, 8>;  // by the prime's residue

template <std::size_t... I>
void strike_all(std::uint8_t* sieve, std::size_t size, Strikers& primes, std::index_sequence<I...>) {
  (strike<I>(sieve, size, primes[I].data(), primes[I].data() + primes[I].size()), ...);
}
void strike_all(std::uint8_t* sieve, std::size_t size, Strikers& primes) {
  strike_all(sieve, size, primes, std::make_index_sequence<8>());
}

// The multiples of a few primes repeat after their product; several such patterns, one on the other, are a start that
// spares the sieve its densest primes.
class Patterns {
 public:
  static constexpr std::uint32_t kLast = 103;

  Patterns() {
    for (const auto& group : kGroups) {
      std::size_t length = 1;
      for (const std::uint32_t p : group) length *= p == 0 ? 1 : p;
      std::vector<std::uint8_t> pattern(length, 0xff);
      for (const std::uint32_t p : group) {
        if (p == 0) continue;
        for (std::size_t m = p; m < length * 30; m += p) {
          const auto bit = std::find(kResidue.begin(), kResidue.end(), m % 30);
          if (bit != kResidue.end())
            pattern[m / 30] = static_cast<std::uint8_t>(pattern[m / 30] & ~(1u << (bit - kResidue.begin())));
        }
      }
      patterns_.push_back(std::move(pattern));
    }
  }

  void lay(std::uint8_t* sieve, std::size_t size, std::uint64_t first_byte) const {
    for (std::size_t g = 0; g < patterns_.size(); ++g) {
      const std::vector<std::uint8_t>& pattern = patterns_[g];
      std::size_t from = first_byte % pattern.size();
      for (std::size_t at = 0; at < size; from = 0) {
        const std::size_t run = std::min(size - at, pattern.size() - from);
        if (g == 0) {
          std::memcpy(sieve + at, pattern.data() + from, run);
        } else {
          keep_common(sieve + at, pattern.data() + from, run);
        }
        at += run;
      }
    }
  }

 private:
  static constexpr std::array<std::array<std::uint32_t, 3>, 11> kGroups = {{{7, 23, 37},
                                                                            {11, 19, 31},
                                                                            {13, 17, 29},
                                                                            {41, 103, 0},
                                                                            {43, 101, 0},
                                                                            {47, 97, 0},
                                                                            {53, 89, 0},
                                                                            {59, 83, 0},
                                                                            {61, 79, 0},
                                                                            {67, 73, 0},
                                                                            {71, 0, 0}}};

  static void keep_common(std::uint8_t* to, const std::uint8_t* from, std::size_t size) {
    using Wide [[gnu::vector_size(16), gnu::may_alias, gnu::aligned(1)]] = std::uint64_t;
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
      Wide a = *reinterpret_cast<const Wide*>(to + i);
      a &= *reinterpret_cast<const Wide*>(from + i);
      *reinterpret_cast<Wide*>(to + i) = a;
    }
    for (; i < size; ++i) to[i] &= from[i];
  }

  std::vector<std::vector<std::uint8_t>> patterns_;
};

const Patterns& patterns() {
  static const Patterns made;
  return made;
}

// What all threads share.
struct Plan {
  std::uint64_t n = 0, bytes = 0;
  std::size_t segment = 0;
  std::uint64_t run = 0, runs = 0;  // a run is some segments in a row
  std::vector<std::uint32_t> primes;
  std::atomic<std::uint64_t> next_run{0}, bytes_done{0}, found{0};
};

// The first multiple in or after byte `from` with a cofactor that is not below the prime.
std::uint32_t first_strike(std::uint64_t p, std::uint64_t from) {
  const std::uint64_t least = std::max(p, (from * 30 + p - 1) / p);
  std::uint64_t t = least / 30;
  std::size_t j = 0;
  while (j < 8 && kResidue[j] < least % 30) ++j;
  if (j == 8) {
    ++t;
    j = 0;
  }
  const std::uint64_t byte = p * (t * 30 + kResidue[j]) / 30;
  // Beyond this run of segments any place will do, as long as it stays beyond.
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(byte - from, (std::uint64_t{1} << 29) - 1) * 8 + j);
}

class Sieve {
 public:
  explicit Sieve(Plan& plan) : plan_(plan), words_(plan.segment / 8) {}

  void run(std::uint64_t first, std::uint64_t end, Control& control) {
    start_at(first);
    for (std::uint64_t from = first; from < end && control.go_on(); from += plan_.segment) {
      const std::uint64_t left = end - from;
      const std::size_t size = left < plan_.segment ? static_cast<std::size_t>(left) : plan_.segment;
      add_primes(from + size);
      plan_.found += segment(from, size);
      const std::uint64_t done = plan_.bytes_done += size;
      control.report(static_cast<double>(done) / static_cast<double>(plan_.bytes), plan_.found);
    }
  }

 private:
  void start_at(std::uint64_t first) {
    for (auto& list : small_) list.clear();
    for (auto& list : large_) list.clear();
    added_ = 0;
    first_ = first;
    add_primes(first + 1);
    // Those whose square is in the run come when it is reached.
  }

  // Each prime joins in the segment of its square, so that none is carried along for nothing.
  void add_primes(std::uint64_t end) {
    while (added_ < plan_.primes.size()) {
      const std::uint64_t p = plan_.primes[added_];
      if (p * p / 30 >= end) break;
      const Striker striker{static_cast<std::uint32_t>(p / 30), first_strike(p, first_)};
      (p <= kSmallPrime ? small_ : large_)[index_of(p % 30)].push_back(striker);
      ++added_;
    }
  }

  std::uint64_t segment(std::uint64_t from, std::size_t size) {
    auto* const sieve = reinterpret_cast<std::uint8_t*>(words_.data());
    for (std::size_t at = 0; at < size; at += kSlice) {
      const std::size_t slice = std::min(kSlice, size - at);
      patterns().lay(sieve + at, slice, from + at);
      if (from == 0 && at == 0) sieve[0] &= 0xfe;  // 1
      strike_all(sieve + at, slice, small_);
    }
    strike_all(sieve, size, large_);
    first_ = from + size;
    if (first_ == plan_.bytes) {
      for (std::size_t bit = 0; bit < 8; ++bit) {
        if (kResidue[bit] > plan_.n % 30) sieve[size - 1] = static_cast<std::uint8_t>(sieve[size - 1] & ~(1u << bit));
      }
    }
    for (std::size_t i = size; i % 8 != 0; ++i) sieve[i] = 0;
    return count_bits(words_.data(), (size + 7) / 8);
  }

  Plan& plan_;
  std::vector<std::uint64_t> words_;
  Strikers small_, large_;
  std::size_t added_ = 0;
  std::uint64_t first_ = 0;  // where the next segment begins
};

}  // namespace

std::uint64_t segmented_sieve(std::uint64_t n, unsigned threads, Control& control) {
  Plan plan;
  plan.n = n;
  plan.bytes = n / 30 + 1;
  const std::uint64_t root = square_root(n);
  const std::uint64_t wanted = std::clamp<std::uint64_t>(root / 4, kSmallSegment, kLargeSegment);
  plan.segment = static_cast<std::size_t>((wanted + kSlice - 1) / kSlice * kSlice);
  const std::uint64_t segments = (plan.bytes + plan.segment - 1) / plan.segment;
  plan.run = std::clamp<std::uint64_t>(segments / (threads * std::uint64_t{8}), 1, kRun) * plan.segment;
  plan.runs = (plan.bytes + plan.run - 1) / plan.run;
  for (const std::uint32_t p : odd_primes_up_to(root)) {
    if (p > Patterns::kLast) plan.primes.push_back(p);
  }
  // The wheel and the patterns strike these themselves.
  for (const std::uint32_t p : odd_primes_up_to(Patterns::kLast)) plan.found += p <= n ? 1 : 0;
  plan.found += n >= 2 ? 1 : 0;
  const auto useful = static_cast<unsigned>(std::min<std::uint64_t>(threads, plan.runs));
  (void)on_threads(useful, control, [&](unsigned) {
    Sieve sieve(plan);
    for (std::uint64_t i = plan.next_run++; i < plan.runs && control.go_on(); i = plan.next_run++)
      sieve.run(i * plan.run, std::min(plan.bytes, (i + 1) * plan.run), control);
  });
  return plan.found;
}

}  // namespace grange::compute
