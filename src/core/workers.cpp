// Workers come, stay and go: leases, what they hold, and quarantine.
#include "base/mark.hpp"
#include "base/mutant.hpp"
#include "core/state.hpp"

namespace grange::core {

StepAnswer Farm::State::on(const WorkerHello& e, Now now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) {
    std::unique_ptr<Worker> owned;
    if (const auto it = former.find(e.worker); it != former.end()) {
      owned = std::move(it->second);
      former.erase(it);
    } else {
      owned = std::make_unique<Worker>();
    }
    w = owned.get();
    w->no = e.worker;
    workers.emplace(e.worker, std::move(owned));
  }
  w->capacity = e.capacity;
  w->window = std::clamp(e.window, 1u, limits::kWindow);
  w->connected = true;
  w->draining = false;
  w->paused = paused_workers.contains(e.worker);
  w->leaves_at = e.capacity.life.count() > 0 ? now.mono + e.capacity.life : Instant::never();
  for (Task* t : w->held) no_longer_asked(*w, *t->held());
  w->eligible.clear();
  fleet += 1;
  watch_room(*w);
  renew(*w, now);

  StepAnswer answer;
  std::unordered_set<TaskId> kept;
  for (const auto& [fence, runs, alternative] : e.held) {
    Task* t = task(fence.task);
    Task* mine = kept.contains(fence.task) ? nullptr : fenced(e.worker, fence);
    const auto* delayed = t != nullptr ? std::get_if<Delayed>(&t->where) : nullptr;
    const auto* parked = t != nullptr ? std::get_if<Parked>(&t->where) : nullptr;
    // Only what a server before this one gave out can be recovering: a later epoch is an invention. The other ranks of
    // a gang are not known any more, so it is not adopted.
    if (mine == nullptr && t != nullptr && t->attempt == fence.attempt &&
        (fence.epoch < options.incarnation << 40 || GRANGE_MUTANT("adopts_unknown_epoch")) &&
        (std::holds_alternative<Recovering>(t->where) || (delayed != nullptr && delayed->maybe_out) ||
         (parked != nullptr && parked->maybe_out)) &&
        !gang(*job(t->id.job()))) {
      Job& j = *job(t->id.job());
      GRANGE_MARK("adopted_after_restart");
      const bool paused_by_hand = parked != nullptr;
      const bool requeue = paused_by_hand && parked->requeue;
      leave(j, *t);
      hold(j, *t, *w, fence.epoch, AttemptState::assigned,
           alternative < j.requests.size() ? static_cast<std::uint8_t>(alternative) : std::uint8_t{0});
      if (paused_by_hand) {
        GRANGE_MARK("parked_task_adopted");
        t->by_hand = requeue ? HandPause::requeue : HandPause::freeze;
        t->held()->preempting = true;
        t->held()->freezing = !requeue;
      }
      touch(j);
      answer.count += 1;
      mine = t;
    }
    if (mine == nullptr) {
      answer.refused.push_back(fence);
      continue;
    }
    kept.insert(fence.task);
    if (runs && mine->held()->state == AttemptState::assigned) {
      on(AttemptStarted{e.worker, fence}, now, effects);
    } else {
      repeat_orders(*w, *mine, effects);
    }
  }
  // What we thought it holds and it does not: it was restarted, or never heard of it.
  std::vector<TaskId> lost;
  for (const Task* t : w->held) {
    if (!kept.contains(t->id)) lost.push_back(t->id);
  }
  std::sort(lost.begin(), lost.end());
  for (const TaskId id : lost) {
    const auto it = std::find_if(w->held.begin(), w->held.end(), [&](const Task* t) { return t->id == id; });
    GRANGE_MARK("hello_lacks_a_hold");
    if (it == w->held.end()) continue;
    lose_hold(**it, !(*it)->held()->told, now, effects);  // told to give it back, it may have done so unheard
  }
  effects.records.push_back(WorkerSeen{e.worker, true, e.body, now.wall});
  effects.workers.push_back({e.worker, WorkerNews::connected, static_cast<std::uint32_t>(lost.size())});
  if (expected.erase(e.worker) > 0 && expected.empty()) release_recovering(now, effects);
  return answer;
}

StepAnswer Farm::State::on(const WorkerChanged& e, Now now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) return {Error{ErrorClass::not_found, "No such worker is connected.", {}}, 0, {}};
  if (e.capacity.life != w->capacity.life) {
    w->leaves_at = e.capacity.life.count() > 0 ? now.mono + e.capacity.life : Instant::never();
  }
  w->capacity = e.capacity;
  w->eligible.clear();
  fleet += 1;
  watch_room(*w);
  effects.records.push_back(WorkerSeen{e.worker, true, e.body, now.wall});
  return {};
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

StepAnswer Farm::State::on(const WorkerPause& e, Now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (e.pause == paused_workers.contains(e.worker)) return {};
  if (!e.pause) {
    paused_workers.erase(e.worker);
  } else if (paused_workers.size() >= limits::kWorkers) {
    return {Error{ErrorClass::rate_limited, "Too many workers are paused; resume some first.", {}}, 0, {}};
  } else {
    paused_workers.insert(e.worker);
  }
  effects.records.push_back(WorkerMarked{e.worker, e.pause, false});
  effects.workers.push_back({e.worker, e.pause ? WorkerNews::paused : WorkerNews::resumed, 0});
  if (w == nullptr) return {};
  w->paused = e.pause;
  if (!e.pause) return {};
  GRANGE_MARK("worker_paused");
  for (Task* hold : w->held) {
    if (hold->held()->state == AttemptState::assigned) ask_back(*w, *hold, effects);
  }
  return {};
}

StepAnswer Farm::State::on(const WorkerForget& e, Now, Effects& effects) {
  if (worker(e.worker) != nullptr || expected.contains(e.worker)) {
    return {Error{ErrorClass::conflict,
                  "This worker is connected, or may come back with what it holds: only one that is offline can be "
                  "removed. Stop it first, or drain it.",
                  {}},
            0,
            {}};
  }
  GRANGE_MARK("worker_forgotten");
  former.erase(e.worker);
  paused_workers.erase(e.worker);
  effects.records.push_back(WorkerQuarantined{e.worker, {}, 0});
  effects.records.push_back(WorkerMarked{e.worker, false, true});
  effects.workers.push_back({e.worker, WorkerNews::forgotten, 0});
  return {};
}

StepAnswer Farm::State::on(const WorkerRelease& e, Now, Effects& effects) {
  Worker* w = worker(e.worker);
  if (w == nullptr) return {Error{ErrorClass::not_found, "No such worker is connected.", {}}, 0, {}};
  release(*w, effects);
  return {};
}

StepAnswer Farm::State::on(const WorkerWindow& e, Now, Effects&) {
  if (Worker* w = worker(e.worker)) {
    w->window = std::clamp(e.window, 1u, limits::kWindow);
    watch_room(*w);
  }
  return {};
}

std::uint32_t Farm::State::lose_worker(Worker& w, bool charge, Now now, Effects& effects, WorkerNews news) {
  std::uint32_t requeued = 0;
  // fail_fast may cancel other tasks of this worker while we walk, so take from the end until it is empty.
  while (!w.held.empty()) {
    lose_hold(*w.held.back(), charge, now, effects);
    requeued += 1;
  }
  effects.records.push_back(WorkerSeen{w.no, false, kNoBody, now.wall});
  effects.workers.push_back({w.no, news, requeued});
  close_room(w);
  w.connected = false;
  if (former.size() >= limits::kWorkers) former.erase(former.begin());
  const auto it = workers.find(w.no);
  former[w.no] = std::move(it->second);
  workers.erase(it);
  return requeued;
}

void Farm::State::release_recovering(Now now, Effects& effects) {
  recover_until = Instant::never();
  expected.clear();
  if (recovering == 0) return;
  GRANGE_MARK("recovering_given_up");
  std::vector<TaskId> ids;
  for (const auto& [id, task] : tasks) {
    if (std::holds_alternative<Recovering>(task.where)) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());  // the map's order is not ours to depend on
  for (const TaskId id : ids) lose_attempt(*task(id), false, {}, now, effects);
}

void Farm::State::release(Worker& w, Effects& effects) {
  w.failed_in_a_row = 0;
  w.suspicious = 0;
  w.quarantines = 0;
  if (!w.on_trial) return;
  GRANGE_MARK("out_of_quarantine");
  w.on_trial = false;
  w.quarantined_until = {};
  effects.records.push_back(WorkerQuarantined{w.no, {}, 0});
  effects.workers.push_back({w.no, WorkerNews::released, 0});
}

void Farm::State::did_well(Worker& w, Effects& effects) {
  if (w.failed_in_a_row == 0 && !w.on_trial) return;
  release(w, effects);
}

// A worker that fails everything is known by failing what others can do: for the system's reasons in several jobs, or
// whatever the reason in a job of which others completed tasks meanwhile. A job that fails by its own fault everywhere
// says nothing of the worker, nor ends its trial.
void Farm::State::did_badly(Worker& w, const Job& job, Fault fault, Now now, Effects& effects) {
  if (w.failed_in_a_row == 0) {
    w.row_job = job.no;
    w.row_completed = job.counts.completed;
    w.row_jobs = false;
    w.suspicious = 0;
  }
  w.failed_in_a_row += 1;
  const bool others_did = w.row_job == job.no && job.counts.completed > w.row_completed;
  if (fault == Fault::job && !others_did) return;
  w.suspicious += 1;
  if (w.row_job != job.no) w.row_jobs = true;
  const bool trial_over = w.on_trial && now.mono >= w.quarantined_until;
  const bool enough = w.suspicious >= limits::kQuarantineAfter && (w.row_jobs || others_did);
  if (!trial_over && (w.on_trial || !enough)) return;
  Millis wait = limits::kQuarantine;
  for (std::uint32_t n = 0; n < w.quarantines && wait < limits::kQuarantineLast; ++n) wait *= 2;
  w.quarantines += 1;
  w.on_trial = true;
  w.quarantined_until = now.mono + std::min(wait, limits::kQuarantineLast);
  timers.push({.at = w.quarantined_until, .what = Timer::What::plan});
  effects.records.push_back(
      WorkerQuarantined{w.no, {now.wall.ms + (w.quarantined_until - now.mono).count() / 1000}, w.quarantines});
  effects.workers.push_back({w.no, WorkerNews::quarantined, 0});
  for (Task* hold : w.held) {
    if (hold->held()->state == AttemptState::assigned) ask_back(w, *hold, effects);
  }
}

}  // namespace grange::core
