#include "core/farm.hpp"

#include <algorithm>

#include "core/state.hpp"

namespace grange::core {

namespace {

StepAnswer stale(const Fence& fence) {
  return {Error{ErrorClass::stale,
                "Attempt " + std::to_string(fence.attempt) +
                    " of this task is not the current one; its report was not taken.",
                {}},
          0,
          {}};
}

Millis backoff(const RetryPolicy& retry, std::uint32_t failures, Prng& prng) {
  Millis wait = retry.base;
  for (std::uint32_t n = 1; n < failures && wait < retry.cap; ++n) wait *= 2;
  wait = std::min(wait, retry.cap);
  // Up to a tenth later, so that tasks that failed together do not come back together.
  return wait + Millis{static_cast<std::int64_t>(static_cast<double>(wait.count()) * 0.1 * prng.unit())};
}

}  // namespace

Farm::Farm(FarmOptions options) : s_(std::make_unique<State>()) {
  s_->options = std::move(options);
  s_->prng = Prng(s_->options.seed);
  s_->policy = policy::make(s_->options.policy);
  GRANGE_ASSERT(s_->policy != nullptr);
  s_->next_epoch = (s_->options.incarnation << 40) | 1;
}
Farm::~Farm() = default;

void Farm::load_job(JobNo no, const JobHeader& header, const JobProgressed& progress,
                    const std::vector<std::uint32_t>& open, const std::vector<std::uint32_t>& skipped) {
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  s_->jobs.emplace(no, std::move(owned));
  job.no = no;
  job.header = header;
  job.request = s_->intern(header.request);
  job.next_index = progress.next_index;
  job.counts = progress.counts;
  job.started = progress.started;
  job.kept = progress;
  for (const auto index : skipped) job.skip(index);
  s_->queued += job.fresh() + open.size();
  for (const auto index : open) {
    Task& task = s_->add_task(job, index);
    task.where = Recovering{};
    job.recovering += 1;
    s_->recovering += 1;
  }
  s_->index(job, 0);
}

void Farm::load_task(const TaskKept& kept, Now now) {
  Task* task = s_->task(kept.task);
  if (task == nullptr) return;  // its job ended: a leftover row harms nothing
  task->attempt = kept.attempt;
  task->failures = kept.failures;
  task->crashes = kept.crashes;
  if (kept.ready_at > now.wall) {
    Job& job = *s_->job(task->id.job());
    s_->leave(job, *task);
    s_->delay(job, *task, std::min(Millis{kept.ready_at.ms - now.wall.ms}, job.header.retry.cap * 2), now);
  }
}

void Farm::load_expected(WorkerNo worker) {
  s_->expected.insert(worker);
}

void Farm::loaded(Now now) {
  // Without a worker that could hold them there is nobody to wait for.
  s_->recover_until = s_->expected.empty() ? now.mono : now.mono + s_->options.lease;
}

StepAnswer Farm::step(const Event& event, Now now, Effects& effects) {
  return std::visit([&](const auto& e) { return s_->on(e, now, effects); }, event);
}

StepAnswer Farm::State::on(const SubmitJob& e, Now now, Effects& effects) {
  GRANGE_ASSERT(!jobs.contains(e.job));
  if (queued + active + e.header.count > limits::kQueuedTasks || jobs.size() >= limits::kLiveJobs) {
    return {Error{ErrorClass::rate_limited,
                  "The queue is full (" + std::to_string(queued + active) + " tasks in " + std::to_string(jobs.size()) +
                      " jobs). Wait for some of them to end, or cancel some.",
                  {}},
            0,
            {}};
  }
  if (requests.size() >= limits::kRequests && !request_ids.contains(e.header.request)) {
    return {Error{ErrorClass::rate_limited,
                  "Too many different requirements are in use. Round them, so that jobs share them.",
                  {}},
            0,
            {}};
  }
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  jobs.emplace(e.job, std::move(owned));
  job.no = e.job;
  job.header = e.header;
  job.request = intern(e.header.request);
  queued += e.header.count;
  index(job, 0);
  effects.records.push_back(JobAdded{e.job, e.body, e.header, now.wall});
  touch(job);
  return {};
}

StepAnswer Farm::State::on(const WorkerHello& e, Now now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) {
    auto owned = std::make_unique<Worker>();
    w = owned.get();
    w->no = e.worker;
    workers.emplace(e.worker, std::move(owned));
  }
  w->capacity = e.capacity;
  w->window = std::clamp(e.window, 1u, limits::kWindow);
  w->connected = true;
  w->draining = false;
  for (Task* t : w->held) no_longer_asked(*w, *t->held());
  w->eligible.clear();
  renew(*w, now);

  StepAnswer answer;
  std::unordered_set<TaskId> kept;
  for (const auto& [fence, runs] : e.held) {
    Task* t = task(fence.task);
    const bool current = t != nullptr && t->attempt == fence.attempt && !kept.contains(fence.task);
    // Only what a server before this one gave out can be recovering: a later epoch is an invention.
    if (current && std::holds_alternative<Recovering>(t->where) && fence.epoch < options.incarnation << 40) {
      Job& j = *job(t->id.job());
      leave(j, *t);
      hold(j, *t, *w, fence.epoch, AttemptState::assigned);
      answer.count += 1;
    } else if (!current || fenced(e.worker, fence) == nullptr) {
      answer.refused.push_back(fence);
      continue;
    }
    kept.insert(fence.task);
    if (runs && t->held()->state == AttemptState::assigned) {
      on(AttemptStarted{e.worker, fence}, now, effects);
    }
  }
  // What we thought it holds and it does not: it was restarted, or never heard of it.
  std::vector<TaskId> lost;
  for (const Task* t : w->held) {
    if (!kept.contains(t->id)) lost.push_back(t->id);
  }
  std::sort(lost.begin(), lost.end());
  for (const TaskId id : lost) {
    if (Task* t = task(id); t != nullptr && t->held() != nullptr) {
      lose_attempt(*t, t->held()->state == AttemptState::running, now, effects);
    }
  }
  effects.records.push_back(WorkerSeen{e.worker, true, e.body, now.wall});
  effects.workers.push_back({e.worker, WorkerNews::connected, static_cast<std::uint32_t>(lost.size())});
  if (expected.erase(e.worker) > 0 && expected.empty()) release_recovering(now, effects);
  return answer;
}

StepAnswer Farm::State::on(const WorkerAlive& e, Now now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) {
    return {Error{ErrorClass::not_found, "This worker's lease ended; it must say hello again.", {}}, 0, {}};
  }
  renew(*w, now);
  if (!w->connected) {
    w->connected = true;
    effects.workers.push_back({e.worker, WorkerNews::connected, 0});
  }
  return {};
}

StepAnswer Farm::State::on(const WorkerGone& e, Now now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) return {};
  if (e.for_good) {
    const auto requeued = lose_worker(*w, e.charge, now, effects, WorkerNews::left);
    return {Result<>{}, requeued, {}};
  }
  if (w->connected) {
    w->connected = false;
    effects.workers.push_back({e.worker, WorkerNews::disconnected, 0});
  }
  return {};
}

StepAnswer Farm::State::on(const WorkerDrain& e, Now, Effects&) {
  Worker* w = worker(e.worker);
  if (w == nullptr) return {Error{ErrorClass::not_found, "No such worker is connected.", {}}, 0, {}};
  w->draining = true;
  return {};
}

StepAnswer Farm::State::on(const WorkerWindow& e, Now, Effects&) {
  if (Worker* w = worker(e.worker)) w->window = std::clamp(e.window, 1u, limits::kWindow);
  return {};
}

StepAnswer Farm::State::on(const AttemptStarted& e, Now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) {
    effects.cancel.push_back({e.worker, e.fence.task, e.fence.attempt});
    return stale(e.fence);
  }
  auto moved = transition(t->held()->state, AttemptState::running);
  if (!moved.ok()) return {std::move(moved), 0, {}};
  Job& j = *job(t->id.job());
  j.assigned -= 1;
  j.running += 1;
  Worker& w = *worker(e.worker);
  w.running += 1;
  no_longer_asked(w, *t->held());
  touch(j);
  return {};
}

StepAnswer Farm::State::on(const AttemptReturned& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  if (t->held()->state != AttemptState::assigned) {
    return {Error{ErrorClass::invalid_state_transition, "Cannot transition from running to pending", {}}, 0, {}};
  }
  lose_attempt(*t, false, now, effects);
  return {};
}

StepAnswer Farm::State::on(const AttemptEnded& e, Now now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  effects.acks.push_back({e.worker, e.fence.task, e.fence.attempt, t != nullptr});
  if (t == nullptr) return stale(e.fence);
  Job& j = *job(t->id.job());
  Worker& w = *worker(e.worker);
  // A short task ends before its start was told: both moves are made here, by the same table.
  if (t->held()->state == AttemptState::assigned) (void)on(AttemptStarted{e.worker, e.fence}, now, effects);
  const auto moved = transition(t->held()->state, e.ok ? AttemptState::completed : AttemptState::failed);
  GRANGE_ASSERT(moved.ok());
  t->held()->state = AttemptState::running;  // leave() counts it where it was
  w.success += ((e.ok ? 1.0 : 0.0) - w.success) / 16;
  w.mean_run_us += (static_cast<double>(e.run_us) - w.mean_run_us) / 16;
  if (e.ok) {
    end_task(j, *t, TaskEnd::completed, FailureClass::none, e.worker, e.body, e.run_us, now, effects);
    return {};
  }
  t->failures = static_cast<std::uint16_t>(t->failures + 1);
  const bool last = e.permanent || t->failures >= j.header.retry.max_attempts;
  const Millis wait = last ? Millis{0} : backoff(j.header.retry, t->failures, prng);
  effects.records.push_back(AttemptFailed{t->id, t->attempt, e.worker, e.failure, e.body, now.wall});
  effects.failed.push_back({t->id, t->attempt, e.worker, e.failure, e.body, !last, wait});
  if (last) {
    end_task(j, *t, TaskEnd::failed, e.failure, e.worker, e.body, e.run_us, now, effects);
    if (j.header.fail_fast) cancel_rest(j, now, effects);
    return {};
  }
  leave(j, *t);
  next_attempt(*t, effects, {now.wall.ms + wait.count()});
  delay(j, *t, wait, now);
  touch(j);
  return {};
}

StepAnswer Farm::State::on(const CheckpointTaken& e, Now, Effects& effects) {
  Task* t = fenced(e.worker, e.fence);
  if (t == nullptr) return stale(e.fence);
  effects.records.push_back(CheckpointKept{t->id, t->attempt, e.body});
  return {};
}

StepAnswer Farm::State::on(const CancelJob& e, Now now, Effects& effects) {
  Job* j = job(e.job);
  if (j == nullptr) return {Error{ErrorClass::not_found, "No such job is waiting or running.", {}}, 0, {}};
  return {Result<>{}, cancel_rest(*j, now, effects), {}};
}

StepAnswer Farm::State::on(const CancelTask& e, Now now, Effects& effects) {
  Job* j = job(e.task.job());
  if (j == nullptr || e.task.index() >= j->header.count) {
    return {Error{ErrorClass::not_found, "No such task is waiting or running.", {}}, 0, {}};
  }
  if (Task* t = task(e.task)) {
    WorkerNo by{};
    if (const HeldBy* held = t->held()) {
      by = held->worker;
      effects.cancel.push_back({by, t->id, t->attempt});
    }
    end_task(*j, *t, TaskEnd::cancelled, FailureClass::cancelled, by, kNoBody, 0, now, effects);
    return {Result<>{}, 1, {}};
  }
  const auto index_of = e.task.index();
  if (j->cancelled || index_of < j->next_index || j->skipped.contains(index_of)) {
    return {Error{ErrorClass::invalid_state_transition, "This task has ended already.", {}}, 0, {}};
  }
  const auto before = j->ready();
  j->skip(index_of);
  j->counts.cancelled += 1;
  queued -= 1;
  index(*j, before);
  effects.records.push_back(
      TaskEnded{e.task, TaskEnd::cancelled, FailureClass::cancelled, 0, {}, kNoBody, now.wall, 0});
  touch(*j);
  return {Result<>{}, 1, {}};
}

StepAnswer Farm::State::on(const RetryTasks& e, Now, Effects& effects) {
  Job* j = job(e.job);
  if (j == nullptr) {
    if (!e.ended) return {Error{ErrorClass::not_found, "No such job.", {}}, 0, {}};
    auto owned = std::make_unique<Job>();
    j = owned.get();
    jobs.emplace(e.job, std::move(owned));
    j->no = e.job;
    j->header = e.ended->header;
    j->request = intern(e.ended->header.request);
    j->next_index = e.ended->progress.next_index;
    j->counts = e.ended->progress.counts;
    j->started = e.ended->progress.started;
    // What was never handed out and has no outcome of its own was cancelled as a range, and is fresh again.
    for (const auto& again : e.tasks) {
      if (again.index >= j->next_index) j->skip(again.index);
    }
    const std::uint32_t range = j->fresh();
    j->counts.cancelled -= range;
    queued += range;
    index(*j, 0);
    touch(*j);
  }
  if (j->cancelled)
    return {Error{ErrorClass::conflict, "This job is being cancelled; retry it when it has ended.", {}}, 0, {}};
  StepAnswer answer;
  answer.count = e.ended ? j->fresh() : 0;  // the range
  for (const auto& again : e.tasks) {
    if (task(TaskId::of(j->no, again.index)) != nullptr) continue;
    GRANGE_ASSERT(again.end != TaskEnd::completed);
    (again.end == TaskEnd::failed ? j->counts.failed : j->counts.cancelled) -= 1;
    effects.records.push_back(TaskReopened{TaskId::of(j->no, again.index)});
    queued += 1;
    answer.count += 1;
    touch(*j);
    if (again.index >= j->next_index) {  // cancelled before it was ever handed out: back into the range
      const auto before = j->ready();
      j->unskip(again.index);
      index(*j, before);
      continue;
    }
    Task& t = add_task(*j, again.index);
    t.attempt = again.attempt;
    next_attempt(t, effects, {});
    make_ready(*j, t);
  }
  return answer;
}

StepAnswer Farm::State::on(const Tick&, Now now, Effects& effects) {
  tick(now, effects);
  return {};
}

StepAnswer Farm::State::on(const Overslept&, Now now, Effects&) {
  for (auto& [no, w] : workers) {
    if (w->connected) renew(*w, now);
  }
  if (recover_until != Instant::never()) recover_until = now.mono + options.lease;
  return {};
}

void Farm::finish_batch(Now now, Effects& effects) {
  for (const JobNo no : s_->dirty) {
    Job* job = s_->job(no);
    if (job == nullptr) continue;
    job->dirty = false;
    const JobState state = job->state();
    if (ended(state)) job->ended = now.wall;
    const JobProgressed progressed{no, state, job->next_index, job->counts, job->started, job->ended};
    if (!(progressed == job->kept)) effects.records.push_back(progressed);  // a mere start is not worth a write
    job->kept = progressed;
    effects.jobs.push_back({no, state, job->header.count, job->counts, job->assigned + job->running,
                            job->cancelled ? job->next_index : job->header.count});
    if (ended(state)) {
      GRANGE_ASSERT(job->live.empty());
      s_->jobs.erase(no);
    }
  }
  s_->dirty.clear();
}

bool Farm::dirty() const {
  return !s_->dirty.empty();
}

Instant Farm::next_wake() const {
  Instant wake = s_->recover_until;
  if (!s_->timers.empty()) wake = std::min(wake, s_->timers.top().at);
  if (!s_->workers.empty()) wake = std::min(wake, s_->leases_checked_at);
  return wake;
}

Result<> Farm::set_policy(std::string_view name) {
  auto made = policy::make(name);
  if (made == nullptr) {
    std::string known;
    for (const auto n : policy::names()) known += (known.empty() ? "" : ", ") + std::string(n);
    return Error{
        ErrorClass::invalid_argument, "There is no policy '" + std::string(name) + "'. Known are: " + known + ".", {}};
  }
  s_->policy = std::move(made);
  s_->reindex();
  return {};
}
std::string_view Farm::policy() const {
  return s_->policy->name();
}
std::vector<std::string_view> policy_names() {
  return policy::names();
}

}  // namespace grange::core
