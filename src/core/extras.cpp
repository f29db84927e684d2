// Further holds of a task: the other ranks of its gang, or a speculative second attempt.
#include "base/mark.hpp"
#include "core/fair.hpp"
#include "core/state.hpp"

namespace grange::core {

Task& Farm::State::add_extra(Job& job, Task& task, Worker& w, LeaseEpoch epoch, Attempt attempt, std::uint32_t rank,
                             std::uint8_t alternative) {
  GRANGE_ASSERT(task.held() != nullptr && !task.extra && (gang(job) ? rank > 0 : !task.has_extras));
  auto owned = std::make_unique<Task>();
  Task& extra = *owned;
  extra.id = task.id;
  extra.attempt = attempt;
  extra.newest = attempt;
  extra.job_position = rank;
  extra.extra = true;
  task.has_extras = true;
  watch_run(job, task);
  extras[task.id].push_back(std::move(owned));
  hold(job, extra, w, epoch, AttemptState::assigned, alternative);
  return extra;
}

void Farm::State::start_second(Task& task, Worker& w, std::uint8_t alternative, Effects& effects) {
  GRANGE_MARK("second_started");
  Job& job = *this->job(task.id.job());
  task.newest += 1;
  const LeaseEpoch epoch = next_epoch++;
  add_extra(job, task, w, epoch, task.newest, 0, alternative);
  // After a restart of the server this is the attempt that its worker may come back with.
  effects.records.push_back(TaskKept{.task = task.id, .attempt = task.newest, .failures = task.failures});
  effects.assign.push_back(
      {.worker = w.no, .fence = {task.id, task.newest, epoch}, .checkpoint = true, .alternative = alternative});
  w.last_used = ++use_counter;
  touch(job);
}

void Farm::State::drop_extra(Job& job, Task& extra) {
  const TaskId id = extra.id;
  detach(job, extra);
  auto& all = extras.at(id);
  std::erase_if(all, [&](const auto& owned) { return owned.get() == &extra; });
  if (!all.empty()) return;
  extras.erase(id);
  task(id)->has_extras = false;
  watch_run(job, *task(id));
}

void Farm::State::drop_extras(Job& job, Task& task, WorkerNo but, BodyRef reason, Now now, Effects& effects) {
  while (task.has_extras) {
    GRANGE_MARK("extras_dropped");
    Task& extra = *extras.at(task.id).back();
    const WorkerNo by = extra.held()->worker;
    if (by != but) effects.cancel.push_back({by, extra.id, extra.attempt, reason});
    fair::charge_lost(*this, job, extra, now);
    drop_extra(job, extra);
  }
}

void Farm::State::promote(Job& job, Task& task) {
  GRANGE_ASSERT(!gang(job) && task.has_extras);
  const auto count = [&](const Task& t, std::uint32_t by) {
    const AttemptState state = t.held()->state;
    if (state == AttemptState::paused) job.frozen += by;
    (state == AttemptState::assigned ? job.assigned : job.running) += by;
  };
  count(task, static_cast<std::uint32_t>(-1));
  detach(job, task);
  const auto second = std::move(extras.at(task.id).front());
  extras.erase(task.id);
  task.has_extras = false;
  task.attempt = second->attempt;
  task.where = second->where;
  worker(task.held()->worker)->held[task.held()->position] = &task;
  count(task, 1);
  watch_run(job, task);
}

}  // namespace grange::core
