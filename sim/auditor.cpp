#include "auditor.hpp"

#include <algorithm>

namespace grange::sim {
namespace {
constexpr std::int64_t kResent = 15'000'000;  // us: frames of an outbox may come again so much later
}

std::string label(TaskId task) {
  return fmt::format("{}/{}", task.job().value, task.index());
}

Auditor::Job& Auditor::job(const std::string& key) {
  const auto it = jobs_.find(key);
  if (it == jobs_.end()) violated("S2", fmt::format("a job with the key \"{}\" was never submitted", key));
  return it->second;
}

Auditor::Job* Auditor::job(JobNo no) {
  const auto it = names_.find(no);
  return it == names_.end() ? nullptr : &jobs_.at(it->second);
}

const Wanted* Auditor::wanted(const std::string& key) const {
  const auto it = jobs_.find(key);
  return it == jobs_.end() ? nullptr : &it->second.wanted;
}

JobNo Auditor::number(const std::string& key) const {
  const auto it = jobs_.find(key);
  return it == jobs_.end() ? JobNo{} : it->second.no;
}

// One key, one job: whoever says its number says the same.
void Auditor::number(Job& job, JobNo no, const char* who) {
  if (job.no == no) return;
  if (job.no.value != 0)
    violated("S2", fmt::format("{}: \"{}\" is job {} and job {}: one submit made two jobs", who, job.wanted.key,
                               job.no.value, no.value));
  if (const auto it = names_.find(no); it != names_.end())
    violated("S2", fmt::format("{}: job {} is \"{}\" and \"{}\"", who, no.value, it->second, job.wanted.key));
  job.no = no;
  names_[no] = job.wanted.key;
}

// ---------------------------------------------------------------------------------------------------- clients

void Auditor::wants(const Wanted& wanted) {
  Job& job = jobs_[wanted.key];
  job.wanted = wanted;
  job.most = std::max(job.most, wanted.spec.count());
}

void Auditor::submitted(const std::string& key, JobNo no) {
  number(job(key), no, "a client");
}

void Auditor::wants_more(const std::string& key, std::uint32_t count) {
  job(key).most += count;
}

void Auditor::wants_cancel(const std::string& key, std::optional<std::uint32_t> index) {
  Job& j = job(key);
  (index ? j.tasks[*index].cancel_wanted : j.cancel_wanted) = world_.mono();
}

void Auditor::cancelled(const std::string& key, std::optional<std::uint32_t> index) {
  Job& j = job(key);
  (index ? j.tasks[*index].cancel_acked : j.cancel_acked) = world_.mono();
}

void Auditor::wants_retry(const std::string& key) {
  Job& j = job(key);
  j.retry_wanted = world_.mono();
  j.ended.reset();
  j.cancel_acked = {};
  for (auto& [index, task] : j.tasks) {
    task.failures = 0;
    task.cancel_acked = {};
  }
  // What waits for it may see a second end of it.
}

void Auditor::wants_pause(const std::string& key, bool pause) {
  Job& j = job(key);
  j.pause_wanted = pause;
  if (!pause) {
    j.resume_wanted = world_.mono();
    j.pause_acked = {};
  }
}

void Auditor::paused(const std::string& key) {
  Job& j = job(key);
  if (j.pause_wanted && j.resume_wanted < world_.mono()) j.pause_acked = world_.mono();
}

void Auditor::outcome(JobNo no, const pb::Outcome& o) {
  Job* j = job(no);
  if (j == nullptr) violated("S2", fmt::format("an outcome of job {}, which nobody submitted", no.value));
  const TaskId id = TaskId::of(no, o.index());
  if (o.index() >= j->most) violated("S2", fmt::format("an outcome of task {}, which is not there", label(id)));
  Task& task = j->tasks[o.index()];
  if (task.outcome) {
    const Outcome& old = *task.outcome;
    const bool same = old.end == o.end() && old.attempt == o.attempt() && old.failure == o.failure();
    if (!same && j->retry_wanted.us == 0)
      violated("S3", fmt::format("task {} ended twice: {} of attempt {}, then {} of attempt {}", label(id),
                                 pb::TaskEnd_Name(old.end), old.attempt, pb::TaskEnd_Name(o.end()), o.attempt()));
    if (old.end == pb::TASK_COMPLETED && !same)
      violated("S6", fmt::format("task {} had completed, and now is {}", label(id), pb::TaskEnd_Name(o.end())));
  }
  if (o.end() == pb::TASK_COMPLETED) {
    const auto by = std::find_if(task.tries.begin(), task.tries.end(), [&](const Try& t) {
      return t.attempt == o.attempt() && t.said_ok && t.values.contains(o.value());
    });
    if (by == task.tries.end())
      violated("S4", fmt::format("task {} completed with \"{}\" of attempt {}, which no holder of that attempt said",
                                 label(id), o.value(), o.attempt()));
    if (last_cancel(*j, task).us != 0 && by->said_at > last_cancel(*j, task) && j->retry_wanted < by->said_at)
      violated("S11", fmt::format("task {} completed with a result that was said after its cancel was acknowledged",
                                  label(id)));
    if (task.accepted &&
        (task.accepted->first != o.attempt() || task.accepted->second.value_or(o.value()) != o.value()) &&
        j->retry_wanted.us == 0)
      violated("S3",
               fmt::format("task {}: the worker's accepted result is not the one that the client got", label(id)));
    check_parents(*j, o.index());
  } else if (o.end() == pb::TASK_CANCELLED) {
    if (j->cancel_wanted.us == 0 && task.cancel_wanted.us == 0 && !j->wanted.spec.fail_fast())
      violated("S2", fmt::format("task {} is cancelled, and nobody asked for it", label(id)));
    if (task.accepted && j->retry_wanted.us == 0)
      violated("S11", fmt::format("task {} is cancelled, though its result had been accepted", label(id)));
  } else if (o.failure() == pb::FAILURE_DEPENDENCY) {
    GRANGE_MARK("outcome_dependency_failed");
    if (j->wanted.after.empty())
      violated("S10", fmt::format("task {} failed for what it waited for, and it waits for nothing", label(id)));
  } else if (o.failure() == pb::FAILURE_DEADLINE) {
    GRANGE_MARK("outcome_deadline");
    if (j->wanted.spec.deadline_ms() == 0)
      violated("S16", fmt::format("task {} failed for a deadline that it does not have", label(id)));
  }
  task.outcome = Outcome{o.end(), o.failure(), o.attempt(), world_.mono()};
}

void Auditor::job_ended(JobNo no, const pb::JobStatus& status) {
  Job* j = job(no);
  if (j == nullptr) violated("S2", fmt::format("the end of job {}, which nobody submitted", no.value));
  if (j->ended && j->ended->state() != status.state() && j->retry_wanted.us == 0)
    violated("S6", fmt::format("job {} ended as {}, then as {}", no.value, j->ended->state(), status.state()));
  if (status.completed() + status.failed() + status.cancelled() != status.count())
    violated("S6", fmt::format("job {} ended with {} + {} + {} of {} tasks", no.value, status.completed(),
                               status.failed(), status.cancelled(), status.count()));
  j->ended = status;
}

// ---------------------------------------------------------------------------------------------------- workers

bool Auditor::quiet_since(std::uint32_t worker, Instant t) const {
  const auto it = disturbed_.find(worker);
  return all_disturbed_ < t && (it == disturbed_.end() || it->second < t);
}

Auditor::Try* Auditor::find(Task& task, std::uint32_t worker, Attempt attempt, LeaseEpoch epoch) {
  for (Try& t : task.tries) {
    if (t.worker == worker && t.attempt == attempt && (epoch == 0 || t.epoch == epoch)) return &t;
  }
  return nullptr;
}

void Auditor::spec(std::uint32_t, const pb::SpecOrder& order) {
  number(job(order.spec().key()), JobNo{order.job()}, "a worker");
}

void Auditor::check_parents(const Job& child, std::uint32_t index) {
  const auto ok = [](const Job& parent, std::uint32_t i) {
    const auto it = parent.tasks.find(i);
    return it != parent.tasks.end() && it->second.any_ok;
  };
  if (child.wanted.after.empty() || child.wanted.spec.when() == pb::DEPENDS_ALL_FINISHED) return;
  bool all = true, any = false;
  std::string missing;
  for (const Parent& p : child.wanted.after) {
    const Job& parent = jobs_.at(p.key);
    bool good = true;
    if (p.each || p.one) {
      good = ok(parent, p.each ? index : p.index);
    } else {
      std::uint32_t done = 0;
      for (const auto& [i, t] : parent.tasks) done += t.any_ok ? 1 : 0;
      good = done >= parent.wanted.spec.count();
    }
    all = all && good;
    any = any || good;
    if (!good) missing += " " + p.key;
  }
  if (child.retry_wanted.us != 0) return;  // run again by hand: whoever does that wants it to run
  const bool fine = child.wanted.spec.when() == pb::DEPENDS_ANY_SUCCEEDED ? any : all;
  if (!fine)
    violated("S10", fmt::format("task {} of \"{}\" runs, but no worker completed what it waits for:{}", index,
                                child.wanted.key, missing));
}

void Auditor::assigned(std::uint32_t worker, const Fence& fence, Instant sent) {
  Job* j = job(fence.task.job());
  if (j == nullptr) return;  // its spec is not here: the worker returns it
  if (fence.task.index() >= j->most)
    violated("S2", fmt::format("task {} was handed out, and it is not there", label(fence.task)));
  Task& task = j->tasks[fence.task.index()];
  const auto [it, fresh] = epochs_.try_emplace(fence.epoch, worker, fence.task);
  if (!fresh && (it->second.first != worker || it->second.second != fence.task))
    violated("S4", fmt::format("lease epoch {} was given out twice", fence.epoch));
  if (!fresh) return;
  for (const Try& t : task.tries) {
    if ((t.epoch < fence.epoch && t.attempt > fence.attempt && !j->odd()) ||
        (t.epoch > fence.epoch && t.attempt < fence.attempt && !j->odd()))
      violated("S4",
               fmt::format("attempts of task {} went back: {} and {}", label(fence.task), t.attempt, fence.attempt));
    if (t.attempt == fence.attempt && t.started && !t.over && t.epoch < fence.epoch && t.worker != worker &&
        j->wanted.spec.nodes() <= 1)
      violated("S4", fmt::format("attempt {} of task {} had started on worker {} and was given to worker {}", t.attempt,
                                 label(fence.task), t.worker, worker));
    const bool holder = !t.over && t.worker != worker && t.epoch < fence.epoch && !t.said_ok && !t.said_failed;
    const bool excused = j->odd() || j->cancel_wanted.us != 0 || task.cancel_wanted.us != 0 || j->retry_wanted.us != 0;
    // What comes again after a resume is older than it looks.
    if (holder && !excused && quiet_since(t.worker, {t.at.us - kResent}))
      violated("S5", fmt::format("task {} was given to worker {} while worker {} held it undisturbed since {:.3f}",
                                 label(fence.task), worker, t.worker, static_cast<double>(t.at.us) / 1e6));
  }
  const Instant cancel = last_cancel(*j, task);
  const bool first_sent = quiet_since(worker, {sent.us - kResent});
  if (cancel.us != 0 && sent > cancel && j->retry_wanted < cancel && first_sent)
    violated("S11", fmt::format("task {} was handed out after its cancel was acknowledged", label(fence.task)));
  if (j->pause_acked.us != 0 && sent > j->pause_acked && first_sent)
    violated("S6", fmt::format("task {} was handed out while its job is paused", label(fence.task)));
  check_parents(*j, fence.task.index());
  Try one;
  one.worker = worker;
  one.attempt = fence.attempt;
  one.epoch = fence.epoch;
  one.at = world_.mono();
  task.tries.push_back(std::move(one));
}

void Auditor::started(std::uint32_t worker, const Fence& fence) {
  Job* j = job(fence.task.job());
  if (j == nullptr) return;
  if (Try* t = find(j->tasks[fence.task.index()], worker, fence.attempt, 0)) t->started = true;
}

void Auditor::given_up(std::uint32_t worker, const Fence& fence) {
  Job* j = job(fence.task.job());
  if (j == nullptr) return;
  if (Try* t = find(j->tasks[fence.task.index()], worker, fence.attempt, 0)) t->over = true;
}

void Auditor::result(std::uint32_t worker, const pb::TaskResult& r) {
  const TaskId id{r.task()};
  Job* j = job(id.job());
  if (j == nullptr) return;
  Task& task = j->tasks[id.index()];
  Try* t = find(task, worker, r.attempt(), r.epoch());
  if (t == nullptr) return;  // a lie: not its fence
  t->over = true;
  (r.ok() ? t->said_ok : t->said_failed) = true;
  if (r.ok()) t->values.insert(r.value());
  if (t->said_at.us == 0) t->said_at = world_.mono();
  if (r.ok()) task.any_ok = true;
}

void Auditor::acknowledged(std::uint32_t worker, const pb::ResultAck& ack) {
  const TaskId id{ack.task()};
  Job* j = job(id.job());
  if (j == nullptr || ack.verdict() != pb::VERDICT_ACCEPTED) {
    if (j != nullptr) GRANGE_MARK("result_refused_as_stale");
    return;
  }
  Task& task = j->tasks[id.index()];
  Try* t = find(task, worker, ack.attempt(), 0);
  if (t == nullptr)
    violated("S4", fmt::format("worker {} had a result of attempt {} of task {} accepted, which was never given to it",
                               worker, ack.attempt(), label(id)));
  if (t->acked) return;
  t->acked = true;
  accepted_ += 1;
  if (t->said_ok && t->said_failed) return;  // a liar: which of the two it was, only the server knows
  if (t->said_ok) {
    if (task.accepted && task.accepted->first != ack.attempt() && j->wanted.spec.nodes() <= 1 &&
        j->retry_wanted.us == 0)
      violated("S3", fmt::format("results of attempts {} and {} of task {} were both accepted", task.accepted->first,
                                 ack.attempt(), label(id)));
    if (j->wanted.spec.nodes() <= 1)
      task.accepted = {ack.attempt(),
                       t->values.size() == 1 && !t->said_failed ? std::optional(*t->values.begin()) : std::nullopt};
    const Instant cancel = last_cancel(*j, task);
    if (cancel.us != 0 && t->said_at > cancel && j->retry_wanted < cancel && task.outcome &&
        task.outcome->end != pb::TASK_COMPLETED)
      violated("S11", fmt::format("a result of task {} was accepted after its cancel was acknowledged", label(id)));
  } else if (t->said_failed) {
    task.failures += 1;
    const std::uint32_t most =
        std::max<std::uint32_t>(1, j->wanted.spec.retry().max_attempts() == 0 ? limits::kDefaultAttempts
                                                                              : j->wanted.spec.retry().max_attempts()) +
        (j->wanted.spec.speculation().on() ? 1 : 0);  // the other of a pair has its chance
    if (task.failures > most && j->wanted.spec.retry().rules_size() == 0 && j->cancel_wanted.us == 0 &&
        task.cancel_wanted.us == 0)
      violated("S15", fmt::format("task {} failed {} times, {} are allowed", label(id), task.failures, most));
  }
}

void Auditor::lease_lost(std::uint32_t worker) {
  const Instant window{world_.mono().us - 40'000'000};
  if (quiet_since(worker, window))
    violated("S16", fmt::format("worker {} lost its lease, though nothing happened to it for 40 s", worker));
}

// ---------------------------------------------------------------------------------------------------- the store

namespace {
template <class T>
T must(Result<T> r) {
  if (!r) violated("S1", "the store cannot be read: " + r.error().message);
  return std::move(r).value();
}
}  // namespace

void Auditor::check_store(store::Reader& reader) {
  for (auto& [key, j] : jobs_) {
    const auto found = must(reader.find_key(key));
    if (j.no.value == 0) {
      if (found) number(j, found->first, "the store");
      continue;
    }
    if (!found || found->first != j.no)
      violated("S1", fmt::format("job {} (\"{}\") was acknowledged, and the store does not have it", j.no.value, key));
    const auto row = must(reader.job(j.no));
    if (!row) violated("S1", fmt::format("job {} has a key but no row", j.no.value));
    if (j.cancel_acked.us != 0 && j.retry_wanted < j.cancel_acked && !core::ended(row->state))
      violated("S7", fmt::format("the cancel of job {} was acknowledged, and it has not ended", j.no.value));
    if (j.ended && j.retry_wanted.us == 0 && !core::ended(row->state))
      violated("S7", fmt::format("a client was told that job {} ended, and the store does not know", j.no.value));
    std::map<std::uint32_t, store::OutcomeRow> rows;
    for (auto& o : must(reader.outcomes(j.no, 0, limits::kPage, true))) rows.emplace(o.task.index(), std::move(o));
    for (const auto& [index, task] : j.tasks) {
      const auto it = rows.find(index);
      const bool reopened = j.retry_wanted.us != 0;
      if (task.outcome && !reopened) {
        // What its job's end cancelled before it was ever handed out has no row of its own.
        const bool implied =
            task.outcome->end == pb::TASK_CANCELLED && task.outcome->attempt == 0 && core::ended(row->state);
        if (it == rows.end()) {
          if (implied) continue;
          violated("S7",
                   fmt::format("a client has the outcome of task {}/{}, and the store does not", j.no.value, index));
        }
        if (static_cast<int>(it->second.end) != static_cast<int>(task.outcome->end) ||
            it->second.attempt != task.outcome->attempt)
          violated("S6", fmt::format("the outcome of task {}/{} is not the one that a client got", j.no.value, index));
      }
      if (task.accepted) {
        if (it == rows.end())
          violated("S7", fmt::format("a result of task {}/{} was acknowledged to its worker, and is lost", j.no.value,
                                     index));
        if (!reopened && (it->second.attempt != task.accepted->first ||
                          it->second.body.value != task.accepted->second.value_or(it->second.body.value)))
          violated("S3",
                   fmt::format("task {}/{} has another result than the one that was accepted", j.no.value, index));
      }
      if (task.cancel_acked.us != 0 && !reopened && it == rows.end() && !core::ended(row->state))
        violated("S7",
                 fmt::format("the cancel of task {}/{} was acknowledged, and it has not ended", j.no.value, index));
    }
  }
}

std::string Auditor::unfinished(store::Reader& reader) {
  for (auto& [key, j] : jobs_) {
    if (j.no.value == 0 || !j.wanted.satisfiable) continue;
    const auto row = must(reader.job(j.no));
    if (!row) violated("S1", fmt::format("job {} is gone", j.no.value));
    if (!core::ended(row->state))
      return fmt::format("job {} (\"{}\") is {} with {} + {} + {} of {}{}{}", j.no.value, key, core::name(row->state),
                         row->counts.completed, row->counts.failed, row->counts.cancelled, row->count,
                         row->paused ? ", paused" : "", row->open ? ", open" : "");
    if (j.ended && row->counts.ended() == row->count) {
      for (std::uint32_t i = 0; i < row->count; ++i) {
        const auto it = j.tasks.find(i);
        if (it == j.tasks.end() || !it->second.outcome)
          return fmt::format("a client waits for the outcome of task {}/{}", j.no.value, i);
      }
    } else {
      return fmt::format("a client waits for the end of job {}", j.no.value);
    }
  }
  return {};
}

}  // namespace grange::sim
