// What one follower of one job has been sent, and what it still lacks. Pure: each outcome goes out exactly once,
// whichever way it comes (live, or read from the store), and a slow follower falls behind instead of filling the
// memory.
#pragma once

#include <algorithm>
#include <optional>

#include "base/range_set.hpp"

namespace grange::server {

class Follow {
 public:
  Follow(std::uint32_t count, bool complete_so_far) : count_(count), behind_(!complete_so_far) {}

  void has(std::uint32_t first, std::uint32_t end) { sent_.add(first, std::min(end, count_)); }
  // An outcome came by. True: it is news, send it now.
  bool take(std::uint32_t index, bool can_send) {
    if (index >= count_ || sent_.contains(index)) return false;
    if (!can_send) {
      behind_ = true;
      return false;
    }
    sent_.add(index);
    return true;
  }
  void job_ended() {
    if (!ended_ && sent_.size() < count_)
      behind_ = true;  // what has no outcome now never will: a last look tells which
    ended_ = true;
  }
  // A look at the store may begin: where. nullopt: there is nothing to look for, or one is under way.
  std::optional<std::uint32_t> begin_sweep() {
    if (sweeping_ || !behind_) return std::nullopt;
    sweeping_ = true;
    behind_ = false;
    ended_at_start_ = ended_;
    return next_gap(0);
  }
  // Goes on behind `index`; nullopt: nothing is lacking there.
  std::optional<std::uint32_t> sweep_on(std::uint32_t from) const {
    const std::uint32_t next = next_gap(from);
    return next < count_ ? std::optional(next) : std::nullopt;
  }
  void end_sweep() {
    sweeping_ = false;
    if (ended_ && !ended_at_start_ && sent_.size() < count_) behind_ = true;
    if (ended_at_start_ && !behind_) swept_after_end_ = true;
  }
  void pause_sweep() {  // the follower can take no more: begin again later
    sweeping_ = false;
    behind_ = true;
  }
  bool sweeping() const { return sweeping_; }
  bool behind() const { return behind_; }
  // The job has ended, and all that has an outcome was sent.
  bool finished() const { return ended_ && !sweeping_ && !behind_ && (sent_.size() >= count_ || swept_after_end_); }
  // Once finished: the first task that was cancelled before it was ever handed out, and the end of that range.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> next_unsent(std::uint32_t most) const {
    const std::uint32_t first = next_gap(0);
    if (first >= count_) return std::nullopt;
    const auto it = sent_.ranges().lower_bound(first);
    const std::uint32_t end = it == sent_.ranges().end() ? count_ : it->first;
    return std::pair(first, std::min({end, count_, first + std::min(most, count_ - first)}));
  }
  std::uint32_t count() const { return count_; }
  std::uint64_t sent() const { return sent_.size(); }

 private:
  std::uint32_t next_gap(std::uint32_t from) const {
    const auto& ranges = sent_.ranges();
    auto it = ranges.upper_bound(from);
    if (it != ranges.begin() && std::prev(it)->second > from) return std::prev(it)->second;
    return from;
  }
  RangeSet sent_;
  std::uint32_t count_;
  bool behind_;
  bool sweeping_ = false;
  bool ended_ = false;
  bool ended_at_start_ = false;
  bool swept_after_end_ = false;
};

}  // namespace grange::server
