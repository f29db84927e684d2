#include "core/graph.hpp"

namespace grange::core {
namespace {

struct Held {
  std::uint32_t assigned = 0, running = 0, frozen = 0, holds = 0;
};

void check_hold(const Farm::State& s, const Task& hold) {
  const HeldBy& held = *hold.held();
  GRANGE_ASSERT(held.state == AttemptState::running || held.state == AttemptState::assigned ||
                held.state == AttemptState::paused);
  GRANGE_ASSERT(s.workers.at(held.worker)->held[held.position] == &hold);
  GRANGE_ASSERT(held.alternative < s.jobs.at(hold.id.job())->requests.size());
}

void check_extras(const Farm::State& s, const Job& job, const Task& task, Held& held) {
  const auto it = s.extras.find(task.id);
  GRANGE_ASSERT(task.has_extras == (it != s.extras.end()));
  if (it == s.extras.end()) return;
  GRANGE_ASSERT(task.held() != nullptr && !it->second.empty());
  const bool gang = job.header.nodes > 1;
  GRANGE_ASSERT(gang ? it->second.size() < job.header.nodes : it->second.size() == 1);
  std::set<WorkerNo> at = {task.held()->worker};
  for (const auto& extra : it->second) {
    GRANGE_ASSERT(extra->extra && !extra->has_extras && extra->id == task.id && extra->held() != nullptr);
    GRANGE_ASSERT(gang ? extra->attempt == task.attempt && extra->job_position > 0 : extra->attempt > task.attempt);
    GRANGE_ASSERT(extra->attempt <= task.newest);
    GRANGE_ASSERT(at.insert(extra->held()->worker).second);
    check_hold(s, *extra);
    held.holds += 1;
  }
}

}  // namespace

// Walks the whole state and recomputes every number that is kept beside the truth.
void Farm::check_invariants() const {
  const State& s = *s_;
  struct OfUser {
    std::uint32_t jobs = 0;
    std::uint64_t queued = 0;
    Load load;
  };
  std::map<const User*, OfUser> users;
  std::uint64_t queued = 0, active = 0, recovering = 0, live = 0, holds = 0, extras = 0;
  GRANGE_ASSERT(s.settled.empty() && s.settled_jobs.empty());
  for (const auto& [no, owned] : s.jobs) {
    const Job& job = *owned;
    GRANGE_ASSERT(job.no == no && job.no.value > 0);
    GRANGE_ASSERT(job.next_index <= job.header.count);
    GRANGE_ASSERT(job.requests.size() == 1 + job.header.alternatives.size());
    GRANGE_ASSERT(s.requests[job.requests[0].value] == job.header.request);
    std::size_t runs = 0;
    std::uint32_t delayed = 0, recovering_here = 0, ready = 0, picky = 0, parked = 0, ahead = 0;
    Held held;
    for (std::size_t i = 0; i < job.live.size(); ++i) {
      const Task& task = *job.live[i];
      GRANGE_ASSERT(task.job_position == i && task.id.job() == no && task.attempt >= 1 && !task.extra);
      GRANGE_ASSERT(task.newest >= task.attempt && &s.tasks.at(task.id) == &task);
      GRANGE_ASSERT(task.id.index() < job.next_index || job.skipped.contains(task.id.index()));
      check_extras(s, job, task, held);
      if (const HeldBy* by = task.held()) {
        check_hold(s, task);
        held.holds += 1;
        (by->state == AttemptState::assigned ? held.assigned : held.running) += 1;
        held.frozen += by->state == AttemptState::paused ? 1 : 0;
        const bool watched = by->state == AttemptState::running && !task.has_extras && by->started.us != 0 &&
                             job.header.speculation.on && job.header.nodes == 1;
        GRANGE_ASSERT(job.runs.contains({by->started, task.id.index()}) == watched);
        runs += watched ? 1 : 0;
      } else if (std::holds_alternative<Delayed>(task.where)) {
        delayed += 1;
      } else if (std::holds_alternative<Recovering>(task.where)) {
        recovering_here += 1;
      } else if (std::holds_alternative<Parked>(task.where)) {
        parked += 1;
      } else {
        (task.picky() ? picky : ready) += 1;
      }
    }
    GRANGE_ASSERT(held.assigned == job.assigned && held.running == job.running && held.frozen == job.frozen);
    GRANGE_ASSERT(runs == job.runs.size());
    GRANGE_ASSERT((job.straggler_at != Instant::never()) == s.speculating.contains({job.straggler_at, no}));
    GRANGE_ASSERT(held.holds == job.holds && delayed == job.delayed && parked == job.parked);
    GRANGE_ASSERT(recovering_here == job.recovering && ready == job.again.size() && picky == job.picky.size());
    for (const auto& [first, last] : job.skipped.ranges())
      ahead += last - std::min(last, std::max(first, job.next_index));
    GRANGE_ASSERT(ahead == job.skipped_ahead && job.next_index + ahead <= job.header.count);
    // Every task of the job is in exactly one place: ended, live, or not handed out yet.
    GRANGE_ASSERT(job.counts.ended() + job.live.size() + job.fresh() == job.header.count);
    GRANGE_ASSERT(!job.cancelled || (job.fresh() == 0 && !job.header.open));
    GRANGE_ASSERT(job.queued == job.wanted());
    // Who waits hears of the end: an edge from each parent that lives, and no parent left means nothing to wait for.
    bool gate_lives = job.opened || job.cancelled, each_lives = !job.one_by_one || job.cancelled;
    for (const Dependency& d : job.header.after) {
      const auto parent = s.jobs.find(d.job);
      if (!waits_on(job, d) || parent == s.jobs.end() || parent->second->all_ended()) continue;
      (d.each ? each_lives : gate_lives) = true;
      GRANGE_ASSERT(parent->second->children.contains(Job::Edge::of(d, no)));
    }
    GRANGE_ASSERT(gate_lives && each_lives);
    for (const Job::Edge& edge : job.children) {
      const Job& child = *s.jobs.at(edge.child);
      GRANGE_ASSERT(std::any_of(child.header.after.begin(), child.header.after.end(), [&](const Dependency& d) {
        return d.job == no && Job::Edge::of(d, edge.child) == edge && waits_on(child, d);
      }));
    }
    OfUser& user = users[job.user];
    user.jobs += 1;
    user.queued += job.fresh() + job.live.size();
    queued += job.fresh() + ready + picky + delayed + recovering_here + parked;
    active += held.assigned + held.running;
    recovering += recovering_here;
    live += job.live.size();
    holds += held.holds;
    extras += held.holds - held.assigned - held.running;
  }
  GRANGE_ASSERT(queued == s.queued && active == s.active && recovering == s.recovering && live == s.tasks.size());

  std::uint64_t held = 0, extras_kept = 0;
  for (const auto& [id, all] : s.extras) {
    GRANGE_ASSERT(s.tasks.at(id).has_extras);
    extras_kept += all.size();
  }
  GRANGE_ASSERT(extras_kept == extras && holds == active + extras);
  for (const auto& [no, owned] : s.workers) {
    const Worker& w = *owned;
    GRANGE_ASSERT(w.no == no && !s.former.contains(no));
    Load load;
    std::uint32_t running = 0, asked = 0;
    for (const Task* task : w.held) {
      asked += task->held()->asked_back ? 1 : 0;
      GRANGE_ASSERT(task->held() != nullptr && task->held()->worker == no && task->held()->epoch < s.next_epoch);
      GRANGE_ASSERT(!task->held()->asked_back || task->held()->state == AttemptState::assigned);
      const Job& job = *s.jobs.at(task->id.job());
      const Request& request = s.request(job, task->held()->alternative);
      load.add(request);
      users[job.user].load.add(request);
      if (task->held()->state != AttemptState::assigned) running += 1;
    }
    GRANGE_ASSERT(load == w.load && running == w.running && asked == w.taking_back);
    GRANGE_ASSERT(w.lease_until >= s.leases_checked_at);
    GRANGE_ASSERT(w.kinds.size() <= limits::kKinds);
    GRANGE_ASSERT(w.on_trial == (w.quarantines > 0) && (w.on_trial || w.quarantined_until == Instant{}));
    GRANGE_ASSERT(w.paused == s.paused_workers.contains(w.no));
    held += w.held.size();
  }
  GRANGE_ASSERT(held == holds);
  for (const auto& [name, owned] : s.users) {
    const OfUser& user = users[owned.get()];
    GRANGE_ASSERT(owned->name == name && s.users_by_no[owned->no] == owned.get());
    GRANGE_ASSERT((owned->idle_since != 0) == s.idle_users.contains({owned->idle_since, owned->no}));
    GRANGE_ASSERT((owned->idle_since != 0) == (user.jobs == 0 && !owned->limited));
    GRANGE_ASSERT(owned->jobs == user.jobs && owned->queued == user.queued && owned->load == user.load);
  }
  GRANGE_ASSERT(s.users.size() + s.free_user_nos.size() == s.users_by_no.size());
  std::vector<std::uint32_t> kinds(s.kinds.size());
  for (const auto& [no, job] : s.jobs) {
    if (job->kind < kinds.size()) kinds[job->kind] += 1;
  }
  std::size_t idle_kinds = 0;
  for (std::uint32_t k = 0; k < kinds.size(); ++k) {
    GRANGE_ASSERT(s.kinds[k].jobs == kinds[k] && s.kind_ids.at(s.kinds[k].name) == k);
    idle_kinds += kinds[k] == 0 ? 1 : 0;
    GRANGE_ASSERT((kinds[k] == 0) == s.idle_kinds.contains({s.kinds[k].idle_since, k}));
  }
  GRANGE_ASSERT(idle_kinds == s.idle_kinds.size() && s.kind_ids.size() == s.kinds.size());
  std::vector<std::uint32_t> uses(s.requests.size());
  for (const auto& [no, job] : s.jobs) {
    for (const RequestId r : job->requests) uses[r.value] += 1;
  }
  GRANGE_ASSERT(s.request_ids.size() == s.requests.size() && s.request_uses.size() == s.requests.size());
  std::size_t idle = 0;
  for (std::uint32_t r = 0; r < s.requests.size(); ++r) {
    GRANGE_ASSERT(s.request_uses[r].jobs == uses[r] && s.request_ids.at(s.requests[r]).value == r);
    if (uses[r] > 0) continue;
    idle += 1;
    GRANGE_ASSERT(s.idle_requests.contains({s.request_uses[r].idle_since, RequestId{r}}));
  }
  GRANGE_ASSERT(idle == s.idle_requests.size());
  for (const auto& [no, w] : s.workers) {
    for (std::uint32_t r = 0; r < w->eligible.size(); ++r) {
      GRANGE_ASSERT(w->eligible[r] == 0 || (w->eligible[r] > 0) == State::can_ever_run(s.requests[r], w->capacity));
    }
  }
  for (const JobNo no : s.letting_go) GRANGE_ASSERT(s.jobs.at(no)->one_by_one && !s.jobs.at(no)->cancelled);
  s.check_ready();
}

}  // namespace grange::core
