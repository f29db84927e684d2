// What one follower of one job has been sent, and what it still lacks. Pure: each outcome goes out exactly once,
// whichever way it comes (live, or read from the store), and a slow follower falls behind instead of filling the
// memory. A task that failed and was taken up again has a second outcome, of a higher attempt.
#pragma once

#include <algorithm>
#include <optional>

#include "base/ids.hpp"
#include "base/range_set.hpp"

namespace grange::server {

class Follow {
 public:
  Follow(std::uint32_t count, bool complete_so_far) : count_(count), behind_(!complete_so_far) {}

  // The follower says that it has these, from an earlier session or from where nothing comes of it any more.
  void has(std::uint32_t first, std::uint32_t end) {
    sent_.add(first, std::min(end, count_));
    claimed_.add(first, std::min(end, count_));
  }
  // Tasks were added to the job; told before any of them ended.
  void grow(std::uint32_t count) {
    if (count <= count_) return;
    count_ = count;
    if (sweeping_) behind_ = true;  // what it reads may be cut off at the old count
  }
  // Tasks were added before the following began.
  void grew_before(std::uint32_t count) {
    count_ = std::max(count_, count);
    behind_ = true;
  }
  // An outcome came by: live, just committed, or read from the store. True: it is news, send it now.
  bool take(std::uint32_t index, Attempt attempt, bool completed, bool live, bool can_send) {
    if (index >= count_) return false;
    if (const auto owed = owed_.find(index); owed != owed_.end() && attempt < owed->second)
      return false;  // read before the task was taken up again
    if (sent_.contains(index)) {
      const auto before = unhappy_attempt(index);
      if (before ? *before >= attempt : !live || !claimed_.contains(index)) return false;
      if (before) forget_unhappy(index, *before);
      claimed_.remove(index);
      if (!can_send) sent_.remove(index);
    }
    if (!can_send) {
      behind_ = true;
      if (live && sweeping_) owed_[index] = attempt;
      return false;
    }
    if (!sent_.contains(index)) sent_.add(index);
    owed_.erase(index);
    if (!completed) unhappy_[attempt].add(index);
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
    owed_.clear();  // what is read from now on is newer
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
  std::optional<Attempt> unhappy_attempt(std::uint32_t index) const {
    for (const auto& [attempt, tasks] : unhappy_) {
      if (tasks.contains(index)) return attempt;
    }
    return std::nullopt;
  }
  void forget_unhappy(std::uint32_t index, Attempt attempt) {
    RangeSet& tasks = unhappy_[attempt];
    tasks.remove(index);
    if (tasks.empty()) unhappy_.erase(attempt);
  }
  RangeSet sent_;
  RangeSet claimed_;  // of these, what it said it has
  // Only what failed or was cancelled can be taken up again. By attempt, as most fail with the same one.
  std::map<Attempt, RangeSet> unhappy_;
  std::map<std::uint32_t, Attempt> owed_;  // came live when there was no room for it, while an older page was read
  std::uint32_t count_;
  bool behind_;
  bool sweeping_ = false;
  bool ended_ = false;
  bool ended_at_start_ = false;
  bool swept_after_end_ = false;
};

}  // namespace grange::server
