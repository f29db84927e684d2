// What to do with room that no waiting work wants, and with work that waits while there is none.
#include <algorithm>
#include <utility>

#include "core/fair.hpp"
#include "core/planner.hpp"

namespace grange::core {
namespace {

constexpr std::size_t kStragglerJobs = 64;  // looked at in one plan
constexpr std::size_t kLooked = 65'536;     // tasks and workers, for second attempts, in one plan
constexpr std::size_t kVictims = 64;        // workers whose backlog is looked at in one plan
constexpr std::size_t kTakenBack = 256;     // tasks in one plan, for work that waits
constexpr std::size_t kElsewhere = 16;      // workers that one task to be asked back is tried on
constexpr Millis kLookAgain{10};            // at a job's stragglers, at the soonest

}  // namespace

// A worker other than this that the task could start on now, of those that no waiting work wants. `from`: by request,
// the first that was not found wanting; room only gets less while a plan goes on.
Spare* Planner::elsewhere(const Worker& w, const Task& task, std::map<RequestId, std::size_t>& from) {
  const Job& job = *s_.job(task.id.job());
  const RequestId request = job.requests[task.held()->alternative];
  const Request& r = s_.requests[request.value];
  const auto fits = [&](Spare& s) {
    return s.worker != &w && !s.kept && s_.eligible(*s.worker, request) && lives(*s.worker, r, now_) &&
           fits_now(s_, s, r);
  };
  std::size_t& at = from[request];
  while (at < spares_.size() && !fits(spares_[at])) ++at;
  const std::size_t end = task.picky() ? std::min(spares_.size(), at + kElsewhere) : std::min(spares_.size(), at + 1);
  for (std::size_t i = at; i < end; ++i) {
    if (!task.avoids(spares_[i].worker->no) && fits(spares_[i])) return &spares_[i];
  }
  return nullptr;
}

// One that just got work, and would still have less to do than this one if it got this task as well.
Spare* Planner::behind(const Worker& w, std::size_t left, const Task& task, const std::vector<Spare*>& woken) {
  const Job& job = *s_.job(task.id.job());
  const RequestId request = job.requests[task.held()->alternative];
  const Request& r = s_.requests[request.value];
  for (std::size_t i = woken.size() - std::min(woken.size(), kElsewhere); i < woken.size(); ++i) {
    Spare& s = *woken[i];
    const std::uint64_t slots = std::max(1u, s.worker->capacity.slots);
    if (s.has_window() && (s.held + 1) * std::uint64_t{w.capacity.slots} < left * slots && s.worker != &w &&
        !task.avoids(s.worker->no) && s_.eligible(*s.worker, request) && lives(*s.worker, r, now_) &&
        small(*s.worker, r)) {
      return &s;
    }
  }
  return nullptr;
}

// A worker idles while another has a backlog that it could start now: that is asked back, and then so much that both
// have about as much to do. Only what has a place to go to, or it would come straight back.
void Planner::take_back_for_idle() {
  const auto idles = [](const Spare& s) { return s.held < s.worker->capacity.slots && !s.kept && s.has_window(); };
  if (std::none_of(spares_.begin(), spares_.end(), idles)) return;
  std::map<RequestId, std::size_t> from;
  std::vector<Spare*> woken;
  std::size_t asked = 0;
  for (const auto& [no, w] : s_.workers) {
    if (!w->connected || w->held.size() <= w->capacity.slots || w->taking_back > 0) continue;
    if (asked >= kTakenBack) return wake_at(now_.mono + kLookAgain);
    const auto goes = [&](const Task* t) { return may_take_back(*t) && elsewhere(*w, *t, from) != nullptr; };
    if (std::none_of(w->held.begin(), w->held.end(), goes)) continue;
    const auto backlog = waiting_there(*w);
    std::size_t left = w->held.size();
    for (auto it = backlog.rbegin(); it != backlog.rend() && left > w->capacity.slots && asked < kTakenBack; ++it) {
      const Task& t = **it;
      const Job& job = *s_.job(t.id.job());
      if (!may_take_back(t) || job.gated()) continue;
      Spare* s = elsewhere(*w, t, from);
      if (s != nullptr && (woken.empty() || woken.back() != s)) woken.push_back(s);
      if (s == nullptr) s = behind(*w, left, t, woken);
      if (s == nullptr) continue;
      take(*s, s_.request(job, t.held()->alternative), 1);
      plan_.take_backs.push_back({.worker = no, .count = 1, .task = t.id});
      left -= 1;
      asked += 1;
    }
  }
}

// Work of a higher level, or of a user who has far less than another, found every window full: what stands there before
// it in the backlog of lesser right is asked back. From a random worker on, a few in each plan.
void Planner::take_back_for_waiting() {
  if (unplaced_ == nullptr || s_.workers.empty()) return;
  const Job& job = *unplaced_;
  const Flow& mine = *job.flow;
  const double weight = fair::weight_of(s_.request(job));
  const auto share = [](const Flow& f, double more) { return (f.in_flight + more) / f.user->limits.weight_milli; };
  const bool fair = s_.policy->by_priority();
  const double time = job.mean_run_s < 0 ? 1 : job.mean_run_s;
  const auto lesser = [&](const Task& t) {
    const Job& other = *s_.job(t.id.job());
    if (!may_take_back(t) || !fair) return false;
    const int theirs = s_.level(other);
    if (theirs != unplaced_at_) return theirs < unplaced_at_;
    return other.flow != nullptr && other.flow != &mine && fair::tag(*other.flow) > fair::tag(mine) &&
           share(*other.flow, 0) > 2 * share(mine, (static_cast<double>(asked_) + 1) * weight * time);
  };
  auto it =
      s_.workers.lower_bound(WorkerNo{static_cast<std::uint32_t>(prng_.below(s_.workers.rbegin()->first.value + 1))});
  const std::size_t look = std::min(s_.workers.size(), kVictims);
  for (std::size_t i = 0; i < look && asked_ < kTakenBack && asked_ < unplaced_count_; ++i, ++it) {
    if (it == s_.workers.end()) it = s_.workers.begin();
    Worker& w = *it->second;
    if (w.taking_back > 0 || w.held.size() < w.window || w.on_trial || !takes_work(w, now_)) continue;
    if (kept_for_any(w.no)) continue;  // what is given back would not make room for this job
    const bool suits = std::any_of(job.requests.begin(), job.requests.end(), [&](RequestId r) {
      return s_.eligible(w, r) && lives(w, s_.requests[r.value], now_) && small(w, s_.requests[r.value]);
    });
    if (!suits) continue;
    std::size_t most = std::max<std::size_t>(1, w.window / 2);  // of one worker: it must not run dry meanwhile
    const auto backlog = waiting_there(w);
    for (auto t = backlog.rbegin(); t != backlog.rend() && most > 0 && asked_ < unplaced_count_; ++t) {
      if (!lesser(**t)) continue;
      plan_.take_backs.push_back({.worker = w.no, .count = 1, .task = (*t)->id});
      asked_ += 1;
      most -= 1;
    }
  }
}

// Tasks that run far past their siblings' time get a second attempt elsewhere, on room that nothing else wants.
void Planner::second_attempts() {
  tier_ = Tier::free;
  for (std::size_t jobs = 0; jobs < kStragglerJobs && plan_.looked < kLooked; ++jobs) {
    if (s_.speculating.empty() || s_.speculating.begin()->first > now_.mono) break;
    stragglers(*s_.job(s_.speculating.begin()->second));
  }
  if (!s_.speculating.empty()) wake_at(std::max(s_.speculating.begin()->first, now_.mono + kLookAgain));
}

// The longest running ones first, as far as they are due and there is room.
void Planner::stragglers(Job& job) {
  at_ = s_.level(job);
  const Micros limit = s_.straggles_after(job);
  const Instant rest = now_.mono + std::max(Micros{kLookAgain}, limit / 8);
  const std::uint32_t all = (1u << job.requests.size()) - 1;
  std::uint32_t full = 0;  // by alternative: fits nowhere
  const auto from = std::exchange(job.straggler_from, {});
  auto it = from.first.us == 0 ? job.runs.begin() : job.runs.upper_bound(from);
  bool left = it != job.runs.begin();
  for (; it != job.runs.end() && it->first + limit <= now_.mono; ++it) {
    if (full == all) break;
    if (plan_.looked >= kLooked) break;
    plan_.looked += 1;
    const Task& task = *s_.task(TaskId::of(job.no, it->second));
    if (task.stays_alone()) continue;
    const std::uint32_t alternative = 1u << task.held()->alternative;
    const std::size_t before = plan_.seconds.size();
    if ((full & alternative) == 0 && !second_attempt(job, task)) full |= alternative;
    left = left || plan_.seconds.size() == before;
    if (plan_.looked >= kLooked) job.straggler_from = *it;
  }
  const bool more = it != job.runs.end();
  const Instant next = more ? it->first + limit : Instant::never();
  left = left || next <= now_.mono;
  if (left) job.straggler_rest = rest;
  // When a second one begins this is made anew; it may not, if the plan is stale.
  s_.look_at(job, left ? rest : std::min(next, rest));
}

bool Planner::second_attempt(const Job& job, const Task& task) {
  const HeldBy& held = *task.held();
  const Request& r = s_.request(job, held.alternative);
  if (quota(job, r) == 0) {
    wake_for_start(*job.user);
    return false;
  }
  const std::uint32_t kind = s_.policy->by_kind() ? job.kind : 0;
  Spare* best = nullptr;
  policy::Score best_score;
  bool fits = false;
  for (Spare& s : spares_) {
    plan_.looked += 1;
    if (s.kept || !s_.eligible(*s.worker, job.requests[held.alternative]) || !lives(*s.worker, r, now_) ||
        !fits_now(s_, s, r)) {
      continue;
    }
    fits = true;
    if (s.worker->no == held.worker || task.avoids(s.worker->no)) continue;
    const auto mine = score(s, kind);
    if (best != nullptr && !(mine < best_score)) continue;
    best = &s;
    best_score = mine;
  }
  if (best == nullptr) return fits;
  take(*best, r, 1);
  best->last_used = ++uses_;
  if (job.flow != nullptr) book(job, r, 1);
  note(*job.user).starts += 1;
  plan_.seconds.push_back({.task = task.id, .worker = best->worker->no});
  return true;
}

}  // namespace grange::core
