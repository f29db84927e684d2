// Who is next: levels, users and jobs in fair order, in chunks, so that one contender alone costs one step.
#include <algorithm>
#include <cmath>

#include "core/fair.hpp"
#include "core/planner.hpp"

namespace grange::core {

Planner::Planner(Farm::State& state, Now now, Prng& prng)
    : s_(state), now_(now), prng_(prng), uses_(state.use_counter) {
  s_.plan_no += 1;
  s_.plan_wake = Instant::never();
  spares_.reserve(s_.open.size());
  for (Worker* w : s_.open) {
    if (w->connected && !w->draining && w->quarantined_until > now.mono) wake_at(w->quarantined_until);
    if (takes_work(*w, now)) spares_.push_back(Spare::of(*w));
  }
  // Equal scores fall to a random order, not to the lowest number.
  for (std::size_t i = spares_.size(); i > 1; --i) std::swap(spares_[i - 1], spares_[prng.below(i)]);
}

Plan Planner::run() {
  if (s_.paused) return {};
  if (s_.options.aging.count() > 0 && s_.policy->by_priority() && !s_.ready.empty()) wake_at(s_.aged_at);
  check_reservations();
  if (!s_.ready.empty()) {
    run_tier(Tier::free);
    run_tier(Tier::backlog);
  }
  second_attempts();
  take_back_for_waiting();
  take_back_for_idle();
  return std::move(plan_);
}

void Planner::run_tier(Tier tier) {
  tier_ = tier;
  for (auto& [at, level] : s_.ready) {
    if (level.users.empty()) continue;
    at_ = at;
    if (tier == Tier::free) serve_reserved(at);
    run_level(level, tier);
  }
}

std::uint64_t Planner::room() const {
  std::uint64_t room = 0;
  for (const Spare& s : spares_) {
    const std::uint64_t most = tier_ == Tier::free ? s.worker->capacity.slots : s.worker->window;
    if (s.held < most) room += most - s.held;
  }
  return room;
}

void Planner::run_level(Level& level, Tier tier) {
  pairs_.clear();
  heap_.clear();
  cursors_.clear();
  room_ = room();
  std::size_t contenders = 0;
  for (const auto& [shape, users] : level.users) {
    if (!open(s_.shapes[shape.value]) || hopeless(s_.shapes[shape.value])) continue;
    if (tier == Tier::backlog && s_.shapes[shape.value].nodes > 1) continue;
    cursors_[shape] = {users.begin(), users.end()};
    contenders += users.size();
    next_user(level, shape);
  }
  // Large chunks while there is much room, single tasks when it gets scarce: a share is off by a sixteenth at most.
  const auto rounds = static_cast<std::uint32_t>(std::min<std::size_t>(contenders, 1u << 20) * 16);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Entry entry = heap_.back();
    heap_.pop_back();
    Pair& pair = pairs_[entry.pair];
    if (!open(s_.shapes[pair.shape.value])) continue;
    if (pair.fresh) {
      pair.fresh = false;
      next_user(level, pair.shape);
    }
    serve(entry, rounds);
  }
}

// Only a hello changes what a worker could ever run, so the answer holds until the next one.
bool Planner::hopeless(const Shape& shape) const {
  if (shape.hopeless_fleet != s_.fleet) {
    shape.hopeless_fleet = s_.fleet;
    shape.hopeless = std::none_of(s_.workers.begin(), s_.workers.end(), [&](const auto& entry) {
      return std::any_of(shape.requests.begin(), shape.requests.end(),
                         [&](RequestId r) { return s_.eligible(*entry.second, r); });
    });
  }
  return shape.hopeless;
}

void Planner::next_user(Level& level, ShapeId shape) {
  Cursor& cursor = cursors_.at(shape);
  if (cursor.next == cursor.end) return;
  Flow& flow = level.flows.at((cursor.next++)->second);
  const auto& jobs = flow.queues.at(shape).jobs;
  pairs_.push_back(
      {.flow = &flow, .shape = shape, .next = jobs.begin(), .end = jobs.end(), .again = {}, .fresh = true});
  push(static_cast<std::uint32_t>(pairs_.size() - 1));
}

std::optional<std::pair<double, JobNo>> Planner::head(const Pair& pair) const {
  std::optional<std::pair<double, JobNo>> best;
  if (pair.next != pair.end) best = *pair.next;
  if (!pair.again.empty() && (!best || pair.again.front() < *best)) best = pair.again.front();
  return best;
}

void Planner::pop_job(Pair& pair) {
  if (!pair.again.empty() && (pair.next == pair.end || pair.again.front() < *pair.next)) {
    std::pop_heap(pair.again.begin(), pair.again.end(), std::greater<>());
    pair.again.pop_back();
  } else {
    ++pair.next;
  }
}

void Planner::push(std::uint32_t number) {
  const Pair& pair = pairs_[number];
  const auto first = head(pair);
  if (!first) return;
  const bool fair = s_.policy->by_priority();
  heap_.push_back({.user_tag = fair ? user_tag(*pair.flow) : static_cast<double>(first->second.value),
                   .user = pair.flow->user->no,
                   .job_tag = first->first,
                   .job = first->second,
                   .pair = number});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

// Who has nothing out earned nothing by waiting for what could not be had: he starts where the others are.
double Planner::user_tag(const Flow& flow) const {
  const double planned = flow.plan_no == s_.plan_no ? flow.planned : 0;
  if (flow.holds == 0) return std::max(flow.used, s_.ready.at(at_).time) + planned;
  return fair::tag(flow) + planned;
}

double Planner::job_tag(const Job& job, const Flow& flow) const {
  const double planned = job.note.plan_no == s_.plan_no ? job.note.planned : 0;
  if (job.holds == 0) return std::max(job.used, flow.job_time) + planned;
  return fair::tag(job) + planned;
}

UserNote& Planner::note(const User& user) const {
  if (user.note.plan_no != s_.plan_no) user.note = {.plan_no = s_.plan_no};
  return user.note;
}
std::uint32_t Planner::quota(const Job& job, const Request& request) const {
  return quota_room(*job.user, request, job.header.nodes, note(*job.user), now_);
}

// Of all quotas only the starts a minute come back by time alone.
void Planner::wake_for_start(const User& user) {
  const std::uint32_t rate = user.limits.starts_per_minute;
  if (rate == 0) return;
  const Instant next = next_token(user.starts, rate, now_, note(user).starts);
  if (next > now_.mono) wake_at(std::max(next, now_.mono + Millis{1}));
}

PlanNote& Planner::note(const Job& job) const {
  if (job.note.plan_no != s_.plan_no) job.note = {.plan_no = s_.plan_no};
  return job.note;
}

// How many tasks may go to this job before another has more right to them.
std::uint32_t Planner::chunk(const Pair& pair, const Job& job, double user, double mine, std::uint32_t rounds) const {
  constexpr double kMany = 1e9;
  const auto until = [kMany](double now, double other, double each) {
    return other <= now ? 0 : std::min(kMany, std::floor((other - now) / each));
  };
  const double each =
      fair::weight_of(s_.request(job)) * (job.mean_run_s < 0 ? 1 : std::max(job.mean_run_s, 1e-6)) * 1000;
  double most = kMany;
  if (!heap_.empty()) {
    const Entry& other = heap_.front();
    const double quantum = std::max(1.0, static_cast<double>(room_ / std::max(1u, rounds)));
    const bool same_user = other.user == pair.flow->user->no;
    const double his = same_user ? 0 : until(user, other.user_tag, each / pair.flow->user->limits.weight_milli);
    most = std::max(quantum, std::min(his, kMany));
  }
  if (const auto second = head(pair)) {
    const auto jobs =
        static_cast<std::uint32_t>(std::min<std::size_t>(pair.flow->queues.at(pair.shape).jobs.size() * 16, 1u << 24));
    const double quantum = std::max(1.0, static_cast<double>(room_ / std::max(jobs, rounds)));
    most = std::min(most, std::max(quantum, until(mine, second->first, each / job.header.weight_milli)));
  }
  return static_cast<std::uint32_t>(most);
}

void Planner::serve(const Entry& entry, std::uint32_t rounds) {
  Pair& pair = pairs_[entry.pair];
  Flow& flow = *pair.flow;
  const auto first = head(pair);
  if (!first) return;
  const Job& job = *s_.job(first->second);
  const bool fair = s_.policy->by_priority();
  const double mine = fair ? job_tag(job, flow) : 0;
  const double user = fair ? user_tag(flow) : static_cast<double>(job.no.value);
  pop_job(pair);
  if (mine > first->first) {  // lifted, or served in another tier: its turn comes
    pair.again.emplace_back(mine, job.no);
    std::push_heap(pair.again.begin(), pair.again.end(), std::greater<>());
    return push(entry.pair);
  }
  if (user > entry.user_tag) {
    pair.again.emplace_back(mine, job.no);
    std::push_heap(pair.again.begin(), pair.again.end(), std::greater<>());
    return push(entry.pair);
  }
  // What his quotas still allow; without any of it all his work of this shape rests.
  std::uint32_t allowed = 0;
  for (const RequestId r : job.requests) allowed = std::max(allowed, quota(job, s_.requests[r.value]));
  if (allowed == 0) return wake_for_start(*flow.user);
  PlanNote& mark = note(job);
  std::uint32_t left = job.ready() - std::min(job.ready(), mark.taken);
  if (job.header.max_running > 0) {
    const std::uint32_t out = job.assigned + job.running + mark.taken;
    left = out >= job.header.max_running ? 0 : std::min(left, job.header.max_running - out);
  }
  const std::uint32_t n = std::min({left, allowed, chunk(pair, job, user, mine, rounds)});
  if (n == 0) return push(entry.pair);
  const std::uint32_t placed = place(job, n, nullptr);
  if (placed < n && open(s_.shapes[pair.shape.value])) return push(entry.pair);  // only what avoids workers is left
  if (placed < left) {
    pair.again.emplace_back(fair ? job_tag(job, flow) : 0, job.no);
    std::push_heap(pair.again.begin(), pair.again.end(), std::greater<>());
  }
  push(entry.pair);
}

Plan Farm::plan(Now now, Prng& prng) const {
  s_->clock = now.mono;
  s_->settle();
  s_->age(now);
  return Planner(*s_, now, prng).run();
}

}  // namespace grange::core
