// A set of 32-bit numbers kept as disjoint ranges: what has arrived of an array, in memory that follows its gaps, not
// its size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace grange {

class RangeSet {
 public:
  // Adds [first, end). Empty ranges are ignored.
  void add(std::uint32_t first, std::uint32_t end) {
    if (first >= end) return;
    auto it = ranges_.upper_bound(first);
    if (it != ranges_.begin()) {
      auto before = std::prev(it);
      if (before->second >= first) {
        first = before->first;
        end = std::max(end, before->second);
        size_ -= before->second - before->first;
        it = ranges_.erase(before);
      }
    }
    while (it != ranges_.end() && it->first <= end) {
      end = std::max(end, it->second);
      size_ -= it->second - it->first;
      it = ranges_.erase(it);
    }
    ranges_.emplace(first, end);
    size_ += end - first;
  }
  void add(std::uint32_t one) { add(one, one + 1); }
  void remove(std::uint32_t one) {
    auto it = ranges_.upper_bound(one);
    if (it == ranges_.begin() || std::prev(it)->second <= one) return;
    --it;
    const auto [first, end] = *it;
    ranges_.erase(it);
    if (first < one) ranges_.emplace(first, one);
    if (one + 1 < end) ranges_.emplace(one + 1, end);
    size_ -= 1;
  }
  bool contains(std::uint32_t one) const {
    auto it = ranges_.upper_bound(one);
    return it != ranges_.begin() && std::prev(it)->second > one;
  }
  // Members of [first, end) that are not in the set, as ranges.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> gaps(std::uint32_t first, std::uint32_t end) const {
    std::vector<std::pair<std::uint32_t, std::uint32_t>> out;
    auto it = ranges_.upper_bound(first);
    if (it != ranges_.begin()) --it;
    for (; first < end && it != ranges_.end() && it->first < end; ++it) {
      if (it->second <= first) continue;
      if (it->first > first) out.emplace_back(first, it->first);
      first = it->second;
    }
    if (first < end) out.emplace_back(first, end);
    return out;
  }
  std::uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const std::map<std::uint32_t, std::uint32_t>& ranges() const { return ranges_; }

 private:
  std::map<std::uint32_t, std::uint32_t> ranges_;  // first -> end
  std::uint64_t size_ = 0;
};

}  // namespace grange
