// Matching waiting work with workers: jobs in the policy's order, workers in the policy's order, work as counts.
//
// Two tiers. First what fits into free resources; then a backlog, up to each worker's window, so that no worker waits a
// round trip. A request that fits nowhere closes its group only: it never hides what stands behind it.
#include <algorithm>
#include <queue>

#include "core/state.hpp"

namespace grange::core {
namespace {

struct Spare {
  const Worker* worker;
  Load load;
  std::uint32_t held;
  std::uint64_t last_used;
};

policy::Candidate candidate(const Spare& s) {
  const Capacity& c = s.worker->capacity;
  return {.held = s.held,
          .slots = c.slots,
          .utilisation = c.cpus_milli == 0 ? 0 : static_cast<double>(s.load.cpus_milli) / c.cpus_milli,
          .success = s.worker->success,
          .mean_run_us = s.worker->mean_run_us,
          .last_used = s.last_used};
}

class Planner {
 public:
  Planner(Farm::State& state, Prng& prng) : s_(state), uses_(state.use_counter) {
    for (const auto& [no, w] : s_.workers) {
      const auto held = static_cast<std::uint32_t>(w->held.size());
      if (w->connected && !w->draining && held < w->window) spares_.push_back({w.get(), w->load, held, w->last_used});
    }
    // Equal scores fall to a random order, not to the lowest number.
    for (std::size_t i = spares_.size(); i > 1; --i) std::swap(spares_[i - 1], spares_[prng.below(i)]);
  }

  Plan run() {
    for (const auto& [level, groups] : s_.ready) {
      if (spares_.empty()) break;
      run_level(groups);
    }
    take_back();
    return std::move(plan_);
  }

 private:
  using Groups = std::map<RequestId, std::set<JobNo>>;

  // Jobs of one level in order of arrival over all its requests: a merge of the groups.
  void run_level(const Groups& groups) {
    using Head = std::pair<JobNo, const std::set<JobNo>*>;
    const auto later = [](const Head& a, const Head& b) { return a.first > b.first; };
    std::priority_queue<Head, std::vector<Head>, decltype(later)> heads(later);
    for (const auto& [request, jobs] : groups) heads.emplace(*jobs.begin(), &jobs);
    while (!heads.empty() && !spares_.empty()) {
      const auto [no, jobs] = heads.top();
      heads.pop();
      if (!place(*s_.job(no))) continue;  // this request is served no further
      const auto next = jobs->upper_bound(no);
      if (next != jobs->end()) heads.emplace(*next, jobs);
    }
  }

  // True: all that the job has ready was placed.
  bool place(const Job& job) {
    std::uint32_t left = job.ready();
    const Request& request = s_.request(job);
    left = fill_free(job, request, left);
    if (left > 0) left = fill_backlog(job, request, left);
    std::erase_if(spares_, [](const Spare& s) { return s.held >= s.worker->window; });
    return left == 0;
  }

  std::uint32_t fill_free(const Job& job, const Request& request, std::uint32_t left) {
    const auto worse = [&](Spare* a, Spare* b) { return s_.policy->before(candidate(*b), candidate(*a)); };
    std::priority_queue<Spare*, std::vector<Spare*>, decltype(worse)> best(worse);
    for (Spare& s : spares_) {
      if (s_.eligible(*s.worker, job.request) && s.load.fits(request, s.worker->capacity)) best.push(&s);
    }
    while (left > 0 && !best.empty()) {
      Spare* s = best.top();
      best.pop();
      grant(job, request, *s, 1);
      left -= 1;
      if (s->held < s->worker->window && s->load.fits(request, s->worker->capacity)) best.push(s);
    }
    return left;
  }

  std::uint32_t fill_backlog(const Job& job, const Request& request, std::uint32_t left) {
    std::vector<Spare*> open;
    for (Spare& s : spares_) {
      if (s.held < s.worker->window && s_.eligible(*s.worker, job.request)) open.push_back(&s);
    }
    std::sort(open.begin(), open.end(), [](const Spare* a, const Spare* b) { return a->held < b->held; });
    for (std::size_t i = 0; i < open.size() && left > 0; ++i) {
      const auto share =
          (left + static_cast<std::uint32_t>(open.size() - i) - 1) / static_cast<std::uint32_t>(open.size() - i);
      const auto n = std::min({share, open[i]->worker->window - open[i]->held, left});
      grant(job, request, *open[i], n);
      left -= n;
    }
    // What an uneven share left over goes wherever a window is still open.
    for (Spare* s : open) {
      const auto n = std::min(left, s->worker->window - s->held);
      if (n == 0) continue;
      grant(job, request, *s, n);
      left -= n;
    }
    return left;
  }

  void grant(const Job& job, const Request& request, Spare& s, std::uint32_t n) {
    s.held += n;
    s.load.add(request, n);
    s.last_used = ++uses_;
    auto& grants = plan_.grants;
    if (!grants.empty() && grants.back().job == job.no && grants.back().worker == s.worker->no) {
      grants.back().count += n;
    } else {
      grants.push_back({job.no, s.worker->no, n});
    }
  }

  // A worker idles while another has a backlog that it could start now: ask for half of it back.
  void take_back() {
    std::uint32_t idle = 0;
    for (const Spare& s : spares_) {
      if (s.held < s.worker->capacity.slots) idle += s.worker->capacity.slots - s.held;
    }
    if (idle == 0) return;
    for (const auto& [no, w] : s_.workers) {
      if (idle == 0) return;
      const auto held = static_cast<std::uint32_t>(w->held.size());
      const std::uint32_t waiting = held - w->running;
      if (!w->connected || held <= w->capacity.slots || w->taking_back > 0 || waiting == 0) continue;
      const auto n = std::min({waiting, held - w->capacity.slots, std::max(idle, (held - w->capacity.slots) / 2)});
      const bool helps = std::any_of(w->held.begin(), w->held.end(), [&](const Task* t) {
        const Job& job = *s_.job(t->id.job());
        return t->held()->state == AttemptState::assigned &&
               std::any_of(spares_.begin(), spares_.end(), [&](const Spare& s) {
                 return s.worker != w.get() && s_.eligible(*s.worker, job.request) &&
                        s.load.fits(s_.request(job), s.worker->capacity);
               });
      });
      if (!helps || n == 0) continue;
      plan_.take_backs.push_back({no, n});
      idle -= std::min(idle, n);
    }
  }

  Farm::State& s_;
  std::vector<Spare> spares_;
  std::uint64_t uses_;
  Plan plan_;
};

}  // namespace

Plan Farm::plan(Now, Prng& prng) const {
  return Planner(*s_, prng).run();
}

void Farm::apply(const Plan& plan, Now now, Effects& effects) {
  for (const auto& grant : plan.grants) {
    Job* job = s_->job(grant.job);
    Worker* w = s_->worker(grant.worker);
    if (job == nullptr || w == nullptr || !w->connected) continue;  // planned on an older state
    const auto before = job->ready();
    const auto n =
        std::min({grant.count, before,
                  w->window - std::min<std::uint32_t>(w->window, static_cast<std::uint32_t>(w->held.size()))});
    for (std::uint32_t i = 0; i < n; ++i) {
      Task* task = nullptr;
      if (!job->again.empty()) {
        task = s_->task(TaskId::of(job->no, job->again.front()));
        job->again.pop_front();
      } else {
        task = &s_->add_task(*job, job->take_fresh());
      }
      const LeaseEpoch epoch = s_->next_epoch++;
      s_->hold(*job, *task, *w, epoch, AttemptState::assigned);
      effects.assign.push_back({w->no, {task->id, task->attempt, epoch}, task->attempt > 1});
    }
    if (n == 0) continue;
    w->last_used = ++s_->use_counter;
    s_->index(*job, before);
    if (job->started.ms == 0) job->started = now.wall;
    s_->touch(*job);
  }
  for (const auto& order : plan.take_backs) {
    Worker* w = s_->worker(order.worker);
    if (w == nullptr) continue;
    std::uint32_t left = order.count;
    for (auto it = w->held.rbegin(); it != w->held.rend() && left > 0; ++it) {
      HeldBy& held = *(*it)->held();
      if (held.state != AttemptState::assigned || held.asked_back) continue;
      held.asked_back = true;
      effects.take_back.push_back({w->no, (*it)->id});
      w->taking_back += 1;
      left -= 1;
    }
  }
}

}  // namespace grange::core
