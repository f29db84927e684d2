// The live state out of what the store had. A child that was not let go is undecided, for what decides is written in
// the same transaction; so it waits for those of its parents that live.
#include "base/mark.hpp"
#include "base/mutant.hpp"
#include "core/state.hpp"

namespace grange::core {

void Farm::load_job(JobNo no, const JobHeader& header, const JobProgressed& progress,
                    const std::vector<std::uint32_t>& open, const std::vector<std::uint32_t>& skipped) {
  JobHeader now_header = header;
  if (progress.count != 0) {
    now_header.count = progress.count;
    now_header.open = progress.open;
  }
  Job& job = s_->add_job(no, now_header, {});
  job.next_index = progress.next_index;
  job.counts = progress.counts;
  job.started = progress.started;
  job.opened = job.opened || progress.opened;
  job.paused = progress.paused;
  job.kept = progress;
  for (const auto index : skipped) job.skip(index);
  s_->count_in(job, job.fresh() + open.size());
  for (const auto index : open) {
    s_->add_task(job, index).where = Recovering{};
    job.recovering += 1;
    s_->recovering += 1;
  }
}

void Farm::load_task(const TaskKept& kept, Now now) {
  Job* job = s_->job(kept.task.job());
  if (job == nullptr) return;  // it ended: a leftover row harms nothing
  Task* task = s_->task(kept.task);
  if (task == nullptr) {
    const auto at = kept.task.index();
    if (at < job->next_index || at >= job->header.count || job->skipped.contains(at)) return;
    job->skip(at);
    task = &s_->add_task(*job, at);
    task->where = Recovering{};
    job->recovering += 1;
    s_->recovering += 1;
  }
  task->attempt = task->newest = kept.attempt;
  task->failures = kept.failures;
  if (kept.parked && !GRANGE_MUTANT("parked_forgotten_on_restart")) {
    GRANGE_MARK("parked_task_loaded");
    s_->leave(*job, *task);
    s_->park(*job, *task);
    auto& parked = std::get<Parked>(task->where);
    parked.maybe_out = true;
    parked.requeue = kept.requeue;
  } else if (kept.ready_at > now.wall) {
    // The wall clock may have gone back meanwhile: no wait is longer than the longest back-off of the job.
    Millis longest = std::max(job->header.retry.cap, limits::kReturnWait);
    for (const RetryRule& rule : job->header.retry.rules) longest = std::max(longest, rule.cap);
    s_->leave(*job, *task);
    s_->delay(*job, *task, std::min(Millis{kept.ready_at.ms - now.wall.ms}, longest), now);
    std::get<Delayed>(task->where).maybe_out = true;
    GRANGE_MARK("delayed_task_loaded");
  }
}

void Farm::load_user(const UserSet& user) {
  User& u = s_->user_of(user.user);
  u.limits = user.limits;
  u.limits.weight_milli = std::max(1u, u.limits.weight_milli);
  u.limited = !(u.limits == UserLimits{});
  s_->rest(u);
}

void Farm::load_farm(const FarmSet& farm) {
  s_->paused = s_->farm_kept.paused = farm.paused;
  if (farm.policy_over != s_->options.policy) return;  // who starts it with another means that one
  auto made = policy::make(farm.policy);
  if (made == nullptr) return;
  s_->farm_kept = farm;
  s_->policy = std::move(made);
  s_->book = &s_->policy_books[farm.policy];
}

void Farm::load_quarantine(const WorkerQuarantined& worker, Now now) {
  if (worker.until.ms == 0) return;
  auto owned = std::make_unique<Worker>();
  owned->no = worker.worker;
  owned->on_trial = true;
  owned->quarantines = worker.times;
  // The wall clock may have gone back meanwhile.
  const Millis left{std::clamp<std::int64_t>(worker.until.ms - now.wall.ms, 0, limits::kQuarantineLast.count())};
  owned->quarantined_until = now.mono + left;
  s_->timers.push({.at = owned->quarantined_until, .what = State::Timer::What::plan});
  s_->former[worker.worker] = std::move(owned);
}

void Farm::load_paused(WorkerNo worker) {
  s_->paused_workers.insert(worker);
}

void Farm::load_expected(WorkerNo worker) {
  s_->expected.insert(worker);
}

void Farm::loaded(Now now) {
  s_->policy_since = now.mono;
  s_->clock = now.mono;
  std::vector<Job*> all;
  for (const auto& [no, job] : s_->jobs) all.push_back(job.get());
  std::sort(all.begin(), all.end(), [](const Job* a, const Job* b) { return a->no < b->no; });
  for (Job* job : all) {
    job->submitted = job->ready_from = now.mono;
    job->waits_from = now.mono;
    s_->arm(*job, now);
    // The rest of an `each` job was given up while others of its tasks ran: of those there is a count, and no outcome.
    if (job->counts.ended() + job->live.size() == job->header.count && job->fresh() > 0) {
      s_->count_out(*job, job->fresh());
      job->cancelled = true;
    }
    s_->regate(*job);
    s_->index(*job);
    if (job->one_by_one) s_->letting_go.insert(job->no);
  }
  // Without a worker that could hold them there is nobody to wait for.
  s_->recover_until = s_->expected.empty() ? now.mono : now.mono + s_->options.lease;
}

}  // namespace grange::core
