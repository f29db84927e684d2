#include "core/fit.hpp"
#include "base/mutant.hpp"

#include <algorithm>
#include <functional>

namespace grange::core {
namespace {

// Whole GPUs go to whole ones, parts share one: first fit, largest first, as a worker's allocator would.
bool pack(std::vector<std::uint32_t> wants, std::uint32_t capacity_milli) {
  std::sort(wants.begin(), wants.end(), std::greater<>());
  std::vector<std::uint32_t> left(capacity_milli / 1000, 1000);
  if (capacity_milli % 1000 != 0) left.push_back(capacity_milli % 1000);
  for (std::uint32_t want : wants) {
    while (want > 0) {
      const std::uint32_t part = std::min(want, 1000u);
      const auto gpu = std::find_if(left.begin(), left.end(), [&](std::uint32_t free) { return free >= part; });
      if (gpu == left.end()) return false;
      *gpu -= want >= 1000 ? *gpu : part;
      want -= part;
    }
  }
  return true;
}

}  // namespace

Spare Spare::of(Worker& w) {
  Spare s;
  s.worker = &w;
  s.load = w.load;
  s.held = static_cast<std::uint32_t>(w.held.size());
  s.last_used = w.last_used;
  return s;
}

bool takes_work(const Worker& w, Now now) {
  return w.connected && !w.draining && !w.paused && w.quarantined_until <= now.mono;
}

bool fits_now(const Farm::State& s, Spare& spare, const Request& r) {
  if (!spare.has_window() || !spare.load.fits(r, spare.worker->capacity)) return false;
  if (r.gpus_milli == 0) return true;
  if (!spare.gpus_known) {
    for (const Task* t : spare.worker->held) {
      const Job& job = *s.jobs.at(t->id.job());
      const auto milli = s.request(job, t->held()->alternative).gpus_milli;
      if (milli > 0) spare.gpus.push_back(milli);
    }
    spare.gpus_known = true;
  }
  auto wants = spare.gpus;
  wants.push_back(r.gpus_milli);
  return pack(std::move(wants), spare.worker->capacity.gpus_milli);
}

void take(Spare& spare, const Request& r, std::uint32_t n) {
  spare.held += n;
  spare.load.add(r, n);
  spare.version += 1;
  if (r.gpus_milli > 0 && spare.gpus_known) spare.gpus.insert(spare.gpus.end(), n, r.gpus_milli);
}

double tokens(const Bucket& bucket, std::uint32_t per_minute, Now now) {
  const double rate = per_minute / 60e6;
  const auto passed = std::max<std::int64_t>(0, (now.mono - bucket.filled).count());
  // An untouched bucket is full.
  if (bucket.filled.us == 0) return per_minute;
  return std::min<double>(per_minute, bucket.tokens + static_cast<double>(passed) * rate);
}

void refill(Bucket& bucket, std::uint32_t per_minute, Now now) {
  bucket.tokens = tokens(bucket, per_minute, now);
  bucket.filled = now.mono;
}

Instant next_token(const Bucket& bucket, std::uint32_t per_minute, Now now, std::uint32_t promised) {
  const double missing = 1 - (tokens(bucket, per_minute, now) - promised);
  if (missing <= 0) return now.mono;
  return now.mono + Micros{static_cast<std::int64_t>(missing * 60e6 / per_minute) + 1};
}

std::uint32_t quota_room(const User& user, const Request& r, std::uint32_t nodes, const UserNote& note, Now now) {
  if (GRANGE_MUTANT("quota_ignored")) return UINT32_MAX;
  const UserLimits& l = user.limits;
  std::uint64_t room = UINT32_MAX;
  const auto bound = [&](std::uint64_t limit, std::uint64_t used, std::uint64_t each) {
    if (limit == 0 || each == 0) return;
    room = std::min(room, used >= limit ? 0 : (limit - used) / each);
  };
  bound(l.max_running, user.load.tasks + note.tasks, nodes);
  bound(l.max_cpus_milli, user.load.cpus_milli + note.cpus_milli, std::uint64_t{r.cpus_milli} * nodes);
  bound(l.max_gpus_milli, user.load.gpus_milli + note.gpus_milli, std::uint64_t{r.gpus_milli} * nodes);
  if (l.starts_per_minute > 0) {
    const auto all = static_cast<std::uint64_t>(tokens(user.starts, l.starts_per_minute, now) + 1e-9);
    room = std::min(room, all > note.starts ? all - note.starts : 0);
  }
  return static_cast<std::uint32_t>(room);
}

}  // namespace grange::core
