#include "core/state.hpp"

namespace grange::core {

// Walks the whole state and recomputes every number that is kept beside the truth.
void Farm::check_invariants() const {
  const State& s = *s_;
  std::uint64_t queued = 0, active = 0, recovering = 0, live = 0;
  for (const auto& [no, owned] : s.jobs) {
    const Job& job = *owned;
    GRANGE_ASSERT(job.no == no && job.no.value > 0);
    GRANGE_ASSERT(job.next_index <= job.header.count);
    GRANGE_ASSERT(s.requests[job.request.value] == job.header.request);
    std::uint32_t assigned = 0, running = 0, delayed = 0, recovering_here = 0, ready = 0;
    for (std::size_t i = 0; i < job.live.size(); ++i) {
      const Task& task = *job.live[i];
      GRANGE_ASSERT(task.job_position == i && task.id.job() == no && task.attempt >= 1);
      GRANGE_ASSERT(s.tasks.at(task.id).id == task.id);
      GRANGE_ASSERT(task.id.index() < job.next_index || job.skipped.contains(task.id.index()));
      GRANGE_ASSERT(task.failures <= job.header.retry.max_attempts && task.crashes < job.header.retry.crash_limit);
      if (const HeldBy* held = task.held()) {
        (held->state == AttemptState::running ? running : assigned) += 1;
        GRANGE_ASSERT(held->state == AttemptState::running || held->state == AttemptState::assigned);
        const Worker& w = *s.workers.at(held->worker);
        GRANGE_ASSERT(w.held[held->position] == &task);
      } else if (std::holds_alternative<Delayed>(task.where)) {
        delayed += 1;
      } else if (std::holds_alternative<Recovering>(task.where)) {
        recovering_here += 1;
      } else {
        ready += 1;
      }
    }
    GRANGE_ASSERT(assigned == job.assigned && running == job.running && delayed == job.delayed);
    GRANGE_ASSERT(recovering_here == job.recovering && ready == job.again.size());
    // Every task of the job is in exactly one place: ended, live, or not handed out yet.
    GRANGE_ASSERT(job.counts.ended() + job.live.size() + job.fresh() == job.header.count);
    GRANGE_ASSERT(!job.cancelled || job.live.empty());
    bool indexed = false;
    if (const auto level = s.ready.find(s.level(job)); level != s.ready.end()) {
      const auto group = level->second.find(job.request);
      indexed = group != level->second.end() && group->second.contains(no);
    }
    GRANGE_ASSERT(indexed == (job.ready() > 0));
    queued += job.fresh() + ready + delayed + recovering_here;
    active += assigned + running;
    recovering += recovering_here;
    live += job.live.size();
  }
  GRANGE_ASSERT(queued == s.queued && active == s.active && recovering == s.recovering && live == s.tasks.size());

  std::uint64_t held = 0;
  for (const auto& [no, owned] : s.workers) {
    const Worker& w = *owned;
    Load load;
    std::uint32_t running = 0, asked = 0;
    for (const Task* task : w.held) {
      asked += task->held()->asked_back ? 1 : 0;
      GRANGE_ASSERT(task->held() != nullptr && task->held()->worker == no && task->held()->epoch < s.next_epoch);
      const Job& job = *s.jobs.at(task->id.job());
      load.add(s.request(job));
      if (task->held()->state == AttemptState::running) running += 1;
    }
    GRANGE_ASSERT(load == w.load && running == w.running && asked == w.taking_back);
    GRANGE_ASSERT(w.lease_until >= s.leases_checked_at);
    held += w.held.size();
  }
  GRANGE_ASSERT(held == active);
}

}  // namespace grange::core
