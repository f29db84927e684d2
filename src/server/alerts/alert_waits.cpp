#include "server/alerts/alert_waits.hpp"

#include <algorithm>

#include "server/alerts/alerts.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kMostExplained = 50;
constexpr std::size_t kFitsAtOnce = 500;     // workers looked at, in all: about 5 ms
constexpr std::size_t kJobsLikeAFit = 200;   // that are counted in the time of one worker
constexpr std::size_t kJobsWalked = 20'000;  // the core counts no more
constexpr Micros kWaitLooksEvery{5'000'000};
constexpr Micros kLookedAgain{60'000'000};  // then a job that waits on purpose is looked at again

}  // namespace

std::size_t explains_at_once(std::size_t workers, std::size_t jobs) {
  const std::size_t one = 1 + workers + std::min(jobs, kJobsWalked) / kJobsLikeAFit;
  return std::clamp<std::size_t>(kFitsAtOnce / one, 1, kMostExplained);
}

std::vector<JobNo> to_explain(std::vector<WaitingJob> waiting, std::size_t most, Instant now) {
  std::vector<WaitingJob> told, fresh, wanted;
  for (WaitingJob& one : waiting) {
    if (one.open || (one.known && !one.on_purpose)) {
      told.push_back(one);
    } else if (!one.known) {
      fresh.push_back(one);
    } else if (now - one.looked >= kLookedAgain) {
      wanted.push_back(one);
    }
  }
  if (told.size() >= kAlertsOpen) fresh.clear();  // there is no room for more
  const auto in_all = static_cast<std::int64_t>(told.size());
  const auto first = [&](std::vector<WaitingJob>& from, auto before) {
    const auto n = static_cast<std::ptrdiff_t>(std::min(most, from.size()));
    std::partial_sort(from.begin(), from.begin() + n, from.end(), before);
    from.resize(static_cast<std::size_t>(n));
  };
  const auto oldest_look = [](const WaitingJob& a, const WaitingJob& b) {
    return std::pair(a.looked, a.job) < std::pair(b.looked, b.job);
  };
  first(told, oldest_look);
  first(fresh, [](const WaitingJob& a, const WaitingJob& b) {
    return std::pair(b.waited, a.job) < std::pair(a.waited, b.job);
  });
  first(wanted, oldest_look);
  std::vector<JobNo> out;
  // Where there is one at a time, they take turns.
  const bool due = !told.empty() && now - told.front().looked >= kWaitLooksEvery * (2 * in_all);
  const std::size_t half = std::min(told.size(), std::max<std::size_t>(most / 2, due ? 1 : 0));
  const auto take = [&](const std::vector<WaitingJob>& from, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end && out.size() < most; ++i) out.push_back(from[i].job);
  };
  take(told, 0, half);
  take(fresh, 0, fresh.size());
  take(told, half, told.size());
  take(wanted, 0, wanted.size());
  return out;
}

}  // namespace grange::server
