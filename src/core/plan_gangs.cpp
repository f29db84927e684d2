// Room for work that needs much of it: gangs, all or none, and reservations against starvation.
//
// A gang takes free resources only, all of its workers in one step, so two gangs never hold half of what the other
// needs. Work that some workers could run and that waited too long gets workers kept for it: these take nothing of its
// level or lower until it fits. What runs there ends some day, so it fits some day.
#include <algorithm>

#include "core/fair.hpp"
#include "core/planner.hpp"

namespace grange::core {
namespace {

constexpr Millis kTryAgain{100};  // after no workers could be kept

// How much of the scarcest resource is missing there: 0 and less, it fits.
double missing(const Worker& w, const Request& r) {
  const Capacity& c = w.capacity;
  const auto over = [](double used, double need, double all) { return all > 0 ? (used + need) / all - 1 : 0.0; };
  return std::max(
      {over(static_cast<double>(w.load.cpus_milli), r.cpus_milli, c.cpus_milli),
       over(static_cast<double>(w.load.memory), static_cast<double>(r.memory), static_cast<double>(c.memory)),
       over(static_cast<double>(w.load.disk), static_cast<double>(r.disk), static_cast<double>(c.disk)),
       over(static_cast<double>(w.load.gpus_milli), r.gpus_milli, c.gpus_milli),
       over(static_cast<double>(w.load.tasks), 1, c.slots)});
}

}  // namespace

std::uint32_t Planner::place_gangs(const Job& job, std::uint32_t n) {
  std::uint32_t placed = 0;
  while (placed < n) {
    PlanNote& mark = note(job);
    const Task* task = mark.picky < job.picky.size() ? s_.task(TaskId::of(job.no, job.picky[mark.picky])) : nullptr;
    bool found = false;
    for (std::size_t i = 0; i < job.requests.size() && !found; ++i) {
      if (quota(job, s_.request(job, i)) == 0) continue;
      found = place_gang(job, static_cast<std::uint8_t>(i), task);
      // With too few others it goes where it failed, too.
      if (!found && task != nullptr) {
        any_worker_ = true;
        found = place_gang(job, static_cast<std::uint8_t>(i), task);
        any_worker_ = false;
      }
    }
    if (!found) break;
    placed += 1;
    mark.taken += 1;
    if (task != nullptr) mark.picky += 1;
    note(*job.user).starts += 1;
  }
  if (placed < n && quota(job, s_.request(job)) > 0) {
    s_.shapes[job.shape.value].closed = stamp();
    starved(job);
  }
  return placed;
}

bool Planner::place_gang(const Job& job, std::uint8_t alternative, const Task* task) {
  Bench& b = bench(job.requests[alternative], job);
  const Request& r = s_.request(job, alternative);
  std::vector<Bench::Entry> aside, mine;
  while (mine.size() < job.header.nodes && !b.heap.empty()) {
    std::pop_heap(b.heap.begin(), b.heap.end(), std::greater<>());
    const Bench::Entry best = b.heap.back();
    b.heap.pop_back();
    Spare& s = spares_[best.spare];
    if (barred(s, job)) {
      if (s.kept_level < at_) aside.push_back(best);
      continue;
    }
    if (!fits_now(s_, s, r)) continue;
    if (outdated(best, s)) {
      b.heap.push_back(entry(best.spare, b));
      std::push_heap(b.heap.begin(), b.heap.end(), std::greater<>());
    } else {
      (avoids(task, s) ? aside : mine).push_back(best);
    }
  }
  const bool all = mine.size() == job.header.nodes;
  Plan::GangGrant gang{
      .job = job.no, .task = task != nullptr ? task->id : TaskId{}, .workers = {}, .alternative = alternative};
  for (const auto& member : mine) {
    if (!all) break;
    Spare& s = spares_[member.spare];
    take(s, r, 1);
    s.last_used = ++uses_;
    gang.workers.push_back(s.worker->no);
  }
  if (all) {
    book(job, r, job.header.nodes);
    plan_.gangs.push_back(std::move(gang));
  }
  aside.insert(aside.end(), mine.begin(), mine.end());
  for (const auto& other : aside) {
    b.heap.push_back(other);
    std::push_heap(b.heap.begin(), b.heap.end(), std::greater<>());
  }
  return all;
}

void Planner::keep(const Reservation& r, int at, bool on) {
  auto numbers = r.workers;
  std::sort(numbers.begin(), numbers.end());
  for (Spare& s : spares_) {
    if (!std::binary_search(numbers.begin(), numbers.end(), s.worker->no)) continue;
    if (on) {
      if (!s.kept || at > s.kept_level) {
        s.kept_for = r.job;
        s.kept_firmly = s_.job(r.job)->waits_from + s_.options.starving * 2 <= now_.mono;
      }
      s.kept_level = s.kept ? std::max(s.kept_level, at) : at;
      s.kept = true;
    } else if (s.kept && s.kept_level == at) {
      s.kept = false;
    }
  }
}

// Under fifo only what came later is kept out. Higher levels are not; but a trickle of them would hold on to the worker
// that is kept, for that is where room is. So after as long again they wait for the next end elsewhere.
bool Planner::barred(const Spare& s, const Job& job) const {
  if (!s.kept) return false;
  if (s.kept_level >= at_) return s_.policy->by_priority() || job.no > s.kept_for;
  return s.kept_firmly && displaces(job, s.kept_level);
}

// Somewhere that nothing is kept there is work of this level or lower, whose room this job gets when it ends.
bool Planner::displaces(const Job& job, int level) const {
  const auto [it, fresh] = displaces_.try_emplace({job.shape, level}, false);
  if (!fresh) return it->second;
  std::uint32_t found = 0;
  for (const auto& [no, w] : s_.workers) {
    if (found >= job.header.nodes) break;
    if (!takes_work(*w, now_) || kept_for_any(no)) continue;
    const bool could = std::any_of(job.requests.begin(), job.requests.end(), [&](RequestId r) {
      return s_.eligible(*w, r) && lives(*w, s_.requests[r.value], now_);
    });
    if (!could) continue;
    const bool lower = std::any_of(w->held.begin(), w->held.end(), [&](const Task* t) {
      return t->held()->state != AttemptState::paused && s_.level(*s_.job(t->id.job())) <= level;
    });
    found += lower ? 1 : 0;
  }
  return it->second = found >= job.header.nodes;
}

bool Planner::kept_for_any(WorkerNo no) const {
  return std::any_of(s_.reservations.begin(), s_.reservations.end(), [&](const auto& entry) {
    const auto& workers = entry.second.workers;
    return std::find(workers.begin(), workers.end(), no) != workers.end();
  });
}

void Planner::check_reservations() {
  std::erase_if(s_.reservations, [&](const auto& entry) {
    const auto& [at, r] = entry;
    const Job* job = s_.job(r.job);
    if (job == nullptr || !job->queued || job->at_level != at) return true;
    if (job->waits_from + s_.options.starving > now_.mono) return true;
    return !std::all_of(r.workers.begin(), r.workers.end(), [&](WorkerNo no) {
      const Worker* w = s_.worker(no);
      return w != nullptr && takes_work(*w, now_) && s_.eligible(*w, job->requests[r.alternative]) &&
             lives(*w, s_.request(*job, r.alternative), now_);
    });
  });
  for (const auto& [at, r] : s_.reservations) keep(r, at, true);
}

// The work that room is kept for goes first at its level.
void Planner::serve_reserved(int at) {
  const auto it = s_.reservations.find(at);
  if (it == s_.reservations.end()) return;
  const Reservation r = it->second;
  const Job& job = *s_.job(r.job);
  keep(r, at, false);
  if (quota(job, s_.request(job, r.alternative)) == 0) {  // it waits for something else: no room is held for that
    s_.reservations.erase(it);
    return;
  }
  serving_reserved_ = true;
  const std::uint32_t placed = place(job, 1, nullptr);
  serving_reserved_ = false;
  if (placed > 0) return;  // once that is applied, the next plan drops the reservation
  keep(r, at, true);
  // What waits there behind what runs only delays it.
  for (const WorkerNo no : r.workers) {
    const Worker& w = *s_.worker(no);
    if (w.taking_back > 0) continue;
    for (const Task* t : waiting_there(w)) {
      const Job& other = *s_.job(t->id.job());
      const bool lesser = s_.policy->by_priority() ? s_.level(other) <= at : other.no > job.no;
      if (&other != &job && lesser && may_take_back(*t))
        plan_.take_backs.push_back({.worker = no, .count = 1, .task = t->id});
    }
  }
}

// Its backlog: what does not fit beside what runs and what came before. All else there is about to start; to ask for
// that would let two that wait take a worker from each other for ever.
std::vector<const Task*> Planner::waiting_there(const Worker& w) const {
  std::vector<const Task*> order(w.held.begin(), w.held.end());
  std::sort(order.begin(), order.end(), [](const Task* a, const Task* b) {
    return std::tuple(a->held()->state == AttemptState::assigned, a->held()->epoch) <
           std::tuple(b->held()->state == AttemptState::assigned, b->held()->epoch);
  });
  Load load;
  std::vector<const Task*> behind;
  for (const Task* t : order) {
    const Request& r = s_.request(*s_.job(t->id.job()), t->held()->alternative);
    if (t->held()->state != AttemptState::assigned || load.fits(r, w.capacity)) {
      load.add(r);
    } else {
      behind.push_back(t);
    }
  }
  return behind;
}

bool Planner::may_take_back(const Task& t) const {
  return t.held()->state == AttemptState::assigned && !t.held()->asked_back && !t.extra && !t.has_extras;
}

// The head of a shape found no room. When it waited long enough and could run somewhere, room is kept from now on.
void Planner::starved(const Job& job) {
  if (serving_reserved_ || s_.reservations.contains(at_)) return;
  const Shape& shape = s_.shapes[job.shape.value];
  if (shape.could_fleet != s_.fleet || now_.mono >= shape.could_until) {
    Reservation unused;
    shape.could = reserve(job, unused);
    shape.could_fleet = s_.fleet;
    shape.could_until = now_.mono + Millis{1000};
  }
  if (!shape.could) return;
  const Instant due = job.waits_from + s_.options.starving;
  if (due > now_.mono) return wake_at(due);
  Reservation r{.job = job.no, .alternative = 0, .workers = {}};
  if (!reserve(job, r)) return wake_at(now_.mono + kTryAgain);
  // It runs on each worker that could have it: when that ends there is room of its size again. To keep it now would
  // only take its own backlog from it.
  if (r.needless) return;
  keep(r, at_, true);
  s_.reservations.emplace(at_, std::move(r));
}

bool Planner::reserve(const Job& job, Reservation& out) const {
  for (std::size_t i = 0; i < job.requests.size(); ++i) {
    const Request& r = s_.request(job, i);
    std::vector<std::tuple<bool, bool, double, double, WorkerNo>> could;
    for (const auto& [no, w] : s_.workers) {
      if (!takes_work(*w, now_) || !s_.eligible(*w, job.requests[i]) || !lives(*w, r, now_)) continue;
      const bool own =
          std::any_of(w->held.begin(), w->held.end(), [&](const Task* t) { return t->id.job() == job.no; });
      could.emplace_back(own, kept_for_any(no), missing(*w, r), w->mean_run_us, no);
    }
    if (could.size() < job.header.nodes) continue;
    const auto nodes = static_cast<std::ptrdiff_t>(job.header.nodes);
    std::partial_sort(could.begin(), could.begin() + nodes, could.end());
    out.needless = std::get<0>(could.front());
    out.alternative = static_cast<std::uint8_t>(i);
    for (std::ptrdiff_t k = 0; k < nodes; ++k) out.workers.push_back(std::get<4>(could[static_cast<std::size_t>(k)]));
    return true;
  }
  return false;
}

}  // namespace grange::core
