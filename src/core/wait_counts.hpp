// How long tasks waited, as counts by the logarithm of the wait: four steps a doubling, so a percentile read from it is
// within a tenth of the truth. Small enough to be kept for every second.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "base/units.hpp"

namespace grange::core {

class WaitCounts {
 public:
  static constexpr std::size_t kBuckets = 128;  // from under a millisecond to fifty days

  static std::size_t bucket(Micros wait) {
    if (wait.count() < 1000) return 0;
    const double steps = 4 * std::log2(static_cast<double>(wait.count()) / 1000);
    return std::min(kBuckets - 1, 1 + static_cast<std::size_t>(steps));
  }
  // The middle of a bucket, in milliseconds.
  static double middle(std::size_t bucket) {
    return bucket == 0 ? 0.5 : std::exp2((static_cast<double>(bucket) - 0.5) / 4);
  }
  void add(Micros wait, std::uint32_t n = 1) { add(bucket(wait), n); }
  void add(std::size_t bucket, std::uint32_t n) {
    counts_[bucket] += n;
    total_ += n;
  }
  void add(const WaitCounts& other) {
    if (other.total_ == 0) return;
    for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
  }
  // Of an earlier state of the same counts: what came since. They only grow.
  WaitCounts since(const WaitCounts& earlier) const {
    WaitCounts out;
    for (std::size_t i = 0; i < kBuckets; ++i) out.add(i, counts_[i] - earlier.counts_[i]);
    return out;
  }
  std::uint64_t total() const { return total_; }
  std::uint32_t at(std::size_t bucket) const { return counts_[bucket]; }
  // In milliseconds; nothing waited: nullopt. share in (0, 1].
  std::optional<double> percentile(double share) const {
    if (total_ == 0) return std::nullopt;
    const auto wanted = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(total_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (seen >= std::max<std::uint64_t>(1, wanted)) return middle(i);
    }
    return middle(kBuckets - 1);
  }

 private:
  std::array<std::uint32_t, kBuckets> counts_{};
  std::uint64_t total_ = 0;
};

}  // namespace grange::core
