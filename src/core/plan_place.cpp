// Where it goes: into free resources by the policy's score, or behind what a worker already has.
#include <algorithm>

#include "core/fair.hpp"
#include "core/planner.hpp"

namespace grange::core {
namespace {

constexpr std::size_t kPickyTried = 32;  // of a job's tasks that avoid workers, in one plan

template <class Heap>
void heap_push(Heap& heap, typename Heap::value_type entry) {
  heap.push_back(entry);
  std::push_heap(heap.begin(), heap.end(), std::greater<>());
}
template <class Heap>
typename Heap::value_type heap_pop(Heap& heap) {
  std::pop_heap(heap.begin(), heap.end(), std::greater<>());
  const auto entry = heap.back();
  heap.pop_back();
  return entry;
}

double fullest(const Load& load, const Capacity& c) {
  const auto part = [](double used, double all) { return all > 0 ? used / all : 0.0; };
  return std::max({part(static_cast<double>(load.cpus_milli), c.cpus_milli),
                   part(static_cast<double>(load.memory), static_cast<double>(c.memory)),
                   part(static_cast<double>(load.gpus_milli), c.gpus_milli)});
}

policy::Score backlog_score(const Spare& s) {
  return {static_cast<double>(s.held) / std::max(1u, s.worker->capacity.slots), 0, s.last_used};
}

}  // namespace

policy::Score Planner::score(const Spare& s, std::uint32_t kind) const {
  policy::Candidate c{.held = s.held,
                      .slots = s.worker->capacity.slots,
                      .utilisation = fullest(s.load, s.worker->capacity),
                      .last_used = s.last_used};
  if (s_.policy->by_kind()) {
    const auto known = s.worker->kinds.find(kind);
    if (known != s.worker->kinds.end()) {
      c.success = known->second.success;
      c.mean_run_us = known->second.mean_run_us;
    }
  }
  return s_.policy->score(c);
}

Planner::Bench::Entry Planner::entry(std::uint32_t spare, const Bench& b) const {
  const Spare& s = spares_[spare];
  return {score(s, b.kind), spare, s.version, s.kept};
}

Planner::Bench& Planner::bench(RequestId request, const Job& job) {
  const std::uint32_t kind = s_.policy->by_kind() ? job.kind : 0;
  const auto [it, fresh] = benches_.try_emplace({request.value, kind});
  Bench& b = it->second;
  if (!fresh) return b;
  b.request = request;
  b.kind = kind;
  const Request& r = s_.requests[request.value];
  for (std::uint32_t i = 0; i < spares_.size(); ++i) {
    Spare& s = spares_[i];
    if (!s_.eligible(*s.worker, request) || !lives(*s.worker, r, now_) || !fits_now(s_, s, r)) continue;
    b.heap.push_back(entry(i, b));
  }
  std::make_heap(b.heap.begin(), b.heap.end(), std::greater<>());
  return b;
}

Planner::Bench& Planner::backlog_bench(RequestId request) {
  const auto [it, fresh] = backlog_benches_.try_emplace(request.value);
  Bench& b = it->second;
  if (!fresh) return b;
  b.request = request;
  const Request& r = s_.requests[request.value];
  for (std::uint32_t i = 0; i < spares_.size(); ++i) {
    const Spare& s = spares_[i];
    if (!s.has_window() || s.worker->on_trial || s.kept || !s_.eligible(*s.worker, request)) continue;
    if (!lives(*s.worker, r, now_) || !small(*s.worker, r)) continue;
    b.heap.push_back({backlog_score(s), i, s.version, false});
  }
  std::make_heap(b.heap.begin(), b.heap.end(), std::greater<>());
  return b;
}

// Only what takes at most two slots' share waits at a worker: it starts when one or two tasks end. Bigger work waits
// here, where room can be kept for it.
bool Planner::small(const Worker& w, const Request& r) const {
  const Capacity& c = w.capacity;
  const std::uint64_t slots = c.slots;
  return r.cpus_milli * slots <= 2ull * c.cpus_milli && r.memory * slots <= 2 * c.memory &&
         r.gpus_milli * slots <= 2ull * c.gpus_milli && r.disk * slots <= 2 * c.disk;
}

std::uint32_t Planner::place(const Job& job, std::uint32_t n, const Task* task) {
  if (job.header.nodes > 1) return tier_ == Tier::free ? place_gangs(job, n) : 0;
  std::uint32_t placed = 0;
  if (task == nullptr && !job.picky.empty()) placed = place_picky(job);
  const std::uint32_t picky_left = static_cast<std::uint32_t>(job.picky.size()) - note(job).picky;
  const std::uint32_t ready = job.ready() - std::min(job.ready(), note(job).taken);
  std::uint32_t ordinary = std::min(n - std::min(n, placed), ready - std::min(ready, picky_left));
  if (task != nullptr) ordinary = n;
  std::uint32_t left = ordinary;
  for (std::size_t i = 0; i < job.requests.size() && left > 0; ++i) {
    const auto alternative = static_cast<std::uint8_t>(i);
    const auto allowed = std::min(left, quota(job, s_.request(job, i)));
    const auto done = tier_ == Tier::free ? place_free(job, alternative, allowed, task)
                                          : place_backlog(job, alternative, allowed, task);
    left -= done;
    placed += done;
  }
  if (left > 0 && task == nullptr) {
    const bool by_quota = std::all_of(job.requests.begin(), job.requests.end(),
                                      [&](RequestId r) { return quota(job, s_.requests[r.value]) == 0; });
    if (!by_quota) {
      s_.shapes[job.shape.value].closed = stamp();
      if (tier_ == Tier::free) starved(job);
      if (tier_ == Tier::backlog && unplaced_ == nullptr) {
        unplaced_ = &job;
        unplaced_count_ = left;
        unplaced_at_ = at_;
      }
    }
  }
  return placed;
}

std::uint32_t Planner::place_free(const Job& job, std::uint8_t alternative, std::uint32_t n, const Task* task) {
  if (n == 0) return 0;
  Bench& b = bench(job.requests[alternative], job);
  const Request& r = s_.request(job, alternative);
  std::vector<Bench::Entry> aside;
  std::uint32_t left = n;
  while (left > 0 && !b.heap.empty()) {
    const Bench::Entry best = heap_pop(b.heap);
    Spare& s = spares_[best.spare];
    if (barred(s, job)) {
      if (s.kept_level < at_) aside.push_back(best);  // lower levels may have it
      continue;
    }
    if (best.version != s.version && !fits_now(s_, s, r)) continue;  // nor will it fit later in this plan
    if (outdated(best, s)) {
      heap_push(b.heap, entry(best.spare, b));
      continue;
    }
    if (avoids(task, s)) {
      aside.push_back(best);
      continue;
    }
    grant(job, alternative, s, 1, task);
    left -= 1;
    if (fits_now(s_, s, r)) heap_push(b.heap, entry(best.spare, b));
  }
  for (const auto& other : aside) heap_push(b.heap, other);
  return n - left;
}

std::uint32_t Planner::place_backlog(const Job& job, std::uint8_t alternative, std::uint32_t n, const Task* task) {
  if (n == 0) return 0;
  Bench& b = backlog_bench(job.requests[alternative]);
  std::vector<Bench::Entry> aside;
  std::uint32_t left = n;
  while (left > 0 && !b.heap.empty()) {
    const Bench::Entry best = heap_pop(b.heap);
    Spare& s = spares_[best.spare];
    if (barred(s, job) || !s.has_window()) continue;
    if (best.version != s.version) {
      heap_push(b.heap, {backlog_score(s), best.spare, s.version, false});
      continue;
    }
    if (avoids(task, s)) {
      aside.push_back(best);
      continue;
    }
    const auto even = static_cast<std::uint32_t>(left / (b.heap.size() + 1));
    const std::uint32_t share = std::min({left, s.worker->window - s.held, std::max(1u, even)});
    grant(job, alternative, s, share, task);
    left -= share;
    if (s.has_window()) heap_push(b.heap, {backlog_score(s), best.spare, s.version, false});
  }
  for (const auto& other : aside) heap_push(b.heap, other);
  return n - left;
}

// Some other worker could run it, now or later.
bool Planner::another_could(const Job& job, const Task& task) const {
  return std::any_of(s_.workers.begin(), s_.workers.end(), [&](const auto& entry) {
    const Worker& w = *entry.second;
    if (!takes_work(w, now_) || task.avoids(w.no)) return false;
    return std::any_of(job.requests.begin(), job.requests.end(),
                       [&](RequestId r) { return s_.eligible(w, r) && lives(w, s_.requests[r.value], now_); });
  });
}

// One by one, each away from where it failed; from a random place in their queue, so that none hides the others.
std::uint32_t Planner::place_picky(const Job& job) {
  PlanNote& mark = note(job);
  if (mark.picky_at == tier_mark()) return 0;
  mark.picky_at = tier_mark();
  const std::size_t size = job.picky.size(), tried = std::min(size, kPickyTried);
  const std::size_t from = size > tried ? prng_.below(size) : 0;
  std::uint32_t placed = 0;
  for (std::size_t i = 0; i < tried; ++i) {
    const std::uint32_t index = job.picky[(from + i) % size];
    if (std::find(picked_.begin(), picked_.end(), TaskId::of(job.no, index)) != picked_.end()) continue;
    if (quota(job, s_.request(job)) == 0) break;
    if (job.header.max_running > 0 && job.assigned + job.running + mark.taken >= job.header.max_running) break;
    const Task& task = *s_.task(TaskId::of(job.no, index));
    any_worker_ = !another_could(job, task);
    if (place(job, 1, &task) == 0) continue;
    picked_.push_back(task.id);
    mark.picky += 1;
    placed += 1;
  }
  any_worker_ = false;
  return placed;
}

void Planner::book(const Job& job, const Request& request, std::uint32_t n) {
  PlanNote& mine = note(job);
  Flow& flow = *job.flow;
  if (flow.plan_no != s_.plan_no) {
    flow.plan_no = s_.plan_no;
    flow.planned = 0;
  }
  const double cost = n * fair::weight_of(request) * (job.mean_run_s < 0 ? 1 : job.mean_run_s) * 1000;
  mine.planned += cost / job.header.weight_milli;
  flow.planned += cost / flow.user->limits.weight_milli;
  UserNote& user = note(*flow.user);
  user.tasks += n;
  user.cpus_milli += std::uint64_t{request.cpus_milli} * n;
  user.gpus_milli += std::uint64_t{request.gpus_milli} * n;
  room_ -= std::min<std::uint64_t>(room_, n);
}

void Planner::grant(const Job& job, std::uint8_t alternative, Spare& s, std::uint32_t n, const Task* task) {
  const Request& r = s_.request(job, alternative);
  take(s, r, n);
  s.last_used = ++uses_;
  book(job, r, n);
  note(job).taken += n;
  note(*job.user).starts += n;
  auto& grants = plan_.grants;
  if (task == nullptr && !grants.empty() && grants.back().job == job.no && grants.back().worker == s.worker->no &&
      grants.back().alternative == alternative && grants.back().task.packed == 0) {
    grants.back().count += n;
  } else {
    grants.push_back({.job = job.no,
                      .worker = s.worker->no,
                      .count = n,
                      .alternative = alternative,
                      .task = task != nullptr ? task->id : TaskId{}});
  }
}

}  // namespace grange::core
