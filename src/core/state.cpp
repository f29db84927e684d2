#include "core/state.hpp"
#include "base/mark.hpp"
#include "base/mutant.hpp"

#include <algorithm>

#include "core/fair.hpp"

namespace grange::core {
namespace {

constexpr std::size_t kRestingUsers = 1024;
constexpr std::size_t kTimersKept = 1024;  // before those of no use are looked for

}  // namespace

bool Farm::State::can_ever_run(const Request& r, const Capacity& c) {
  if (!Load{}.fits(r, c) || r.gpu_memory > c.gpu_memory) return false;
  if (!std::binary_search(c.engines.begin(), c.engines.end(), r.engine)) return false;
  if (!r.model.empty() && !std::binary_search(c.models.begin(), c.models.end(), r.model)) return false;
  if (!model_fits(r, c)) return false;
  if (!r.pool.empty() && r.pool != c.pool) return false;
  return std::all_of(r.labels.begin(), r.labels.end(), [&](const LabelRule& rule) {
    const bool has = std::any_of(c.labels.begin(), c.labels.end(), [&](const auto& label) {
      return label.first == rule.key && (rule.value == "*" || rule.value == label.second);
    });
    return has != rule.negate;
  });
}

bool Farm::State::eligible(const Worker& w, RequestId r) const {
  if (w.eligible.size() <= r.value) w.eligible.resize(requests.size(), 0);
  auto& known = w.eligible[r.value];
  if (known == 0) known = can_ever_run(requests[r.value], w.capacity) ? 1 : -1;
  return known > 0;
}

RequestId Farm::State::intern(const Request& request) {
  const auto known = request_ids.find(request);
  if (known != request_ids.end()) {
    RequestUse& use = request_uses[known->second.value];
    if (use.jobs++ == 0) idle_requests.erase({use.idle_since, known->second});
    return known->second;
  }
  RequestId id{static_cast<std::uint32_t>(requests.size())};
  if (requests.size() < limits::kRequests || idle_requests.empty()) {
    requests.push_back(request);
    request_uses.emplace_back();
  } else {
    id = idle_requests.begin()->second;
    idle_requests.erase(idle_requests.begin());
    request_ids.erase(requests[id.value]);
    requests[id.value] = request;
    // What was found out for the old one.
    for (auto& [no, w] : workers) {
      if (w->eligible.size() > id.value) w->eligible[id.value] = 0;
    }
  }
  request_ids.emplace(request, id);
  request_uses[id.value].jobs = 1;
  return id;
}

void Farm::State::release(RequestId id) {
  RequestUse& use = request_uses[id.value];
  GRANGE_ASSERT(use.jobs > 0);
  use.jobs -= 1;
  if (use.jobs > 0) return;
  use.idle_since = ++use_counter;
  idle_requests.insert({use.idle_since, id});
}

Result<> Farm::State::check_requests(const std::vector<const JobHeader*>& headers) const {
  const std::size_t in_use = requests.size() - idle_requests.size();
  std::size_t most = 0;
  for (const JobHeader* h : headers) most += 1 + h->alternatives.size();
  if (in_use + most <= limits::kRequests) return {};
  std::set<Request> fresh;
  const auto see = [&](const Request& r) {
    const auto it = request_ids.find(r);
    if (it == request_ids.end() || request_uses[it->second.value].jobs == 0) fresh.insert(r);
  };
  for (const JobHeader* h : headers) {
    see(h->request);
    for (const Request& r : h->alternatives) see(r);
  }
  if (fresh.empty() || in_use + fresh.size() <= limits::kRequests) return {};
  return Error{ErrorClass::rate_limited,
               "The jobs in the queue have as many different requirements as it can keep apart (" +
                   std::to_string(limits::kRequests) +
                   "). Round them, so that jobs share them, or wait for some to end.",
               {}};
}

User& Farm::State::user_of(const std::string& name) {
  auto& owned = users[name];
  if (owned == nullptr) {
    owned = std::make_unique<User>();
    owned->name = name;
    if (free_user_nos.empty()) {
      owned->no = static_cast<std::uint32_t>(users_by_no.size());
      users_by_no.push_back(owned.get());
    } else {
      owned->no = free_user_nos.back();
      free_user_nos.pop_back();
      users_by_no[owned->no] = owned.get();
    }
  } else if (owned->idle_since != 0) {
    idle_users.erase({owned->idle_since, owned->no});
    owned->idle_since = 0;
  }
  return *owned;
}

void Farm::State::rest(User& user) {
  if (user.jobs > 0 || user.limited || user.idle_since != 0) return;
  user.idle_since = ++use_counter;
  idle_users.insert({user.idle_since, user.no});
  if (idle_users.size() <= kRestingUsers) return;
  GRANGE_MARK("user_forgotten");
  const std::uint32_t no = idle_users.begin()->second;
  idle_users.erase(idle_users.begin());
  for (auto& [at, level] : ready) level.flows.erase(no);
  const User* gone = std::exchange(users_by_no[no], nullptr);
  GRANGE_ASSERT(gone->queued == 0 && gone->load == Load{});
  free_user_nos.push_back(no);
  users.erase(users.find(gone->name));
}

std::uint32_t Farm::State::kind_of(const std::string& name) {
  if (const auto it = kind_ids.find(name); it != kind_ids.end()) {
    KindUse& kind = kinds[it->second];
    if (kind.jobs++ == 0) idle_kinds.erase({kind.idle_since, it->second});
    return it->second;
  }
  auto id = static_cast<std::uint32_t>(kinds.size());
  if (id < limits::kKindNames) {
    kinds.emplace_back();
  } else {
    if (idle_kinds.empty()) return id;
    id = idle_kinds.begin()->second;
    idle_kinds.erase(idle_kinds.begin());
    kind_ids.erase(kinds[id].name);
    // What was measured is not of the new one.
    for (auto& [no, w] : workers) w->kinds.erase(id);
    for (auto& [no, w] : former) w->kinds.erase(id);
  }
  kinds[id] = {.name = name, .jobs = 1};
  kind_ids.emplace(name, id);
  return id;
}

void Farm::State::release_kind(std::uint32_t id) {
  if (id >= kinds.size()) return;
  KindUse& kind = kinds[id];
  GRANGE_ASSERT(kind.jobs > 0);
  kind.jobs -= 1;
  if (kind.jobs > 0) return;
  kind.idle_since = ++use_counter;
  idle_kinds.insert({kind.idle_since, id});
}

Job& Farm::State::add_job(JobNo no, const JobHeader& header, Now now) {
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  jobs.emplace(no, std::move(owned));
  job.no = no;
  job.header = header;
  job.requests.push_back(intern(header.request));
  for (const Request& r : header.alternatives) job.requests.push_back(intern(r));
  job.user = &user_of(header.user);
  job.user->jobs += 1;
  job.kind = kind_of(header.kind);
  job.submitted = job.ready_from = now.mono;
  job.opened = std::all_of(header.after.begin(), header.after.end(), [](const Dependency& d) { return d.each; });
  enrol(job);
  return job;
}

// From here on the wall clock decides nothing: its times become waits.
void Farm::State::arm(Job& job, Now now) {
  const TaskId whole = TaskId::of(job.no, Dependency::kAll);
  if (job.header.not_before > now.wall) {
    job.too_early = true;
    job.starts_at = now.mono + Millis{job.header.not_before.ms - now.wall.ms};
    add_timer({job.starts_at, whole, 0, Timer::What::not_before});
  }
  if (job.header.deadline.ms != 0) {
    const auto left = std::max<std::int64_t>(0, job.header.deadline.ms - now.wall.ms);
    job.ends_at = now.mono + Millis{left};
    add_timer({job.ends_at, whole, 0, Timer::What::deadline});
  }
}

bool Farm::State::useless(const Timer& timer) {
  if (timer.what == Timer::What::plan) return timer.at <= clock;
  const Job* j = job(timer.task.job());
  if (j == nullptr) return true;
  if (timer.what == Timer::What::not_before) return timer.at != j->starts_at;
  if (timer.what == Timer::What::deadline) return timer.at != j->ends_at;
  const Task* t = task(timer.task);
  if (t == nullptr || t->attempt != timer.attempt) return true;
  const auto* delayed = std::get_if<Delayed>(&t->where);
  return delayed == nullptr || delayed->ready_at != timer.at;
}

void Farm::State::add_timer(const Timer& timer) {
  if (timers.size() >= kTimersKept + timers.cleaned * 2) {
    timers.clean([&](const Timer& t) { return useless(t); });
  }
  timers.push(timer);
}

void Farm::State::touch(Job& job) {
  if (job.dirty) return;
  job.dirty = true;
  dirty.push_back(job.no);
}

Task& Farm::State::add_task(Job& job, std::uint32_t index) {
  const TaskId id = TaskId::of(job.no, index);
  const auto [it, fresh] = tasks.try_emplace(id);
  GRANGE_ASSERT(fresh);
  Task& task = it->second;
  task.id = id;
  task.job_position = static_cast<std::uint32_t>(job.live.size());
  job.live.push_back(&task);
  return task;
}

Task& Farm::State::materialize(Job& job, std::uint32_t at) {
  job.skip(at);
  Task& task = add_task(job, at);
  index(job);
  return task;
}

void Farm::State::drop_task(Job& job, Task& task) {
  Task* last = job.live.back();
  job.live[task.job_position] = last;
  last->job_position = task.job_position;
  job.live.pop_back();
  tasks.erase(task.id);
}

void Farm::State::detach(Job& job, Task& task) {
  HeldBy* held = task.held();
  Worker* w = worker(held->worker);
  GRANGE_ASSERT(w != nullptr);
  no_longer_asked(*w, *held);
  watch_run(job, task, true);
  fair::unhold(*this, job, *w, task);
  Task* last = w->held.back();
  w->held[held->position] = last;
  last->held()->position = held->position;
  w->held.pop_back();
  if (held->state != AttemptState::assigned) w->running -= 1;
  watch_room(*w);
}

void Farm::State::leave(Job& job, Task& task) {
  if (const HeldBy* held = task.held()) {
    GRANGE_ASSERT(!task.has_extras);
    if (held->state == AttemptState::paused) job.frozen -= 1;
    (held->state == AttemptState::assigned ? job.assigned : job.running) -= 1;
    detach(job, task);
    active -= 1;
    queued += 1;
    if (job.header.max_running > 0) index(job);
  } else if (std::holds_alternative<Delayed>(task.where)) {
    job.delayed -= 1;
  } else if (std::holds_alternative<Recovering>(task.where)) {
    job.recovering -= 1;
    recovering -= 1;
  } else if (std::holds_alternative<Parked>(task.where)) {
    job.parked -= 1;
  } else {
    // From the back: a cancelled job empties its queue from there.
    auto& queue = task.picky() ? job.picky : job.again;
    const auto it = std::find(queue.rbegin(), queue.rend(), task.id.index());
    GRANGE_ASSERT(it != queue.rend());
    queue.erase(std::next(it).base());
    index(job);
  }
}

void Farm::State::hold(Job& job, Task& task, Worker& w, LeaseEpoch epoch, AttemptState state,
                       std::uint8_t alternative) {
  task.where = HeldBy{.worker = w.no,
                      .position = static_cast<std::uint32_t>(w.held.size()),
                      .epoch = epoch,
                      .state = state,
                      .alternative = alternative};
  w.held.push_back(&task);
  fair::hold(*this, job, w, task);
  watch_room(w);
  const bool runs = state != AttemptState::assigned;
  if (runs) w.running += 1;
  if (task.extra) return;
  (runs ? job.running : job.assigned) += 1;
  active += 1;
  queued -= 1;
  if (job.header.max_running > 0) index(job);
}

void Farm::State::make_ready(Job& job, Task& task) {
  task.where = Ready{};
  (task.picky() ? job.picky : job.again).push_back(task.id.index());
  index(job);
}

void Farm::State::park(Job& job, Task& task) {
  task.where = Parked{};
  task.by_hand = HandPause::none;
  job.parked += 1;
}

void Farm::State::delay(Job& job, Task& task, Millis wait, Now now) {
  const Instant at = now.mono + wait;
  task.where = Delayed{at, {now.wall.ms + wait.count()}};
  job.delayed += 1;
  add_timer({at, task.id, task.attempt});
}

Task* Farm::State::fenced(WorkerNo worker_no, const Fence& fence) {
  Task* t = task(fence.task);
  if (t == nullptr) return nullptr;
  const auto holds = [&](const Task& hold) {
    const HeldBy* held = hold.held();
    if (GRANGE_MUTANT("no_fencing")) return held != nullptr && held->worker == worker_no;
    if (GRANGE_MUTANT("fence_without_worker"))
      return held != nullptr && hold.attempt == fence.attempt && held->epoch == fence.epoch;
    return hold.attempt == fence.attempt && held != nullptr && held->worker == worker_no && held->epoch == fence.epoch;
  };
  if (holds(*t)) return t;
  if (!t->has_extras) return nullptr;
  for (const auto& extra : extras.at(t->id)) {
    if (holds(*extra)) return extra.get();
  }
  return nullptr;
}

void Farm::State::next_attempt(Task& task, Effects& effects, WallMs ready_at, bool parked) {
  if (!GRANGE_MUTANT("attempt_not_raised")) task.newest += 1;
  task.attempt = task.newest;
  task.no_second = false;
  effects.records.push_back(TaskKept{task.id, task.attempt, task.failures, parked, ready_at});
}

void Farm::State::keep(const Task& task, Effects& effects, bool parked) {
  const bool requeue = parked && task.by_hand == HandPause::requeue;
  effects.records.push_back(TaskKept{task.id, task.newest, task.failures, parked, {}, requeue});
}

void Farm::State::end_task(Job& job, Task& task, TaskEnd end, FailureClass failure, WorkerNo by, BodyRef body,
                           std::uint64_t run_us, Now now, Effects& effects) {
  leave(job, task);
  // What is run again by hand goes on from the highest number that was given out, a dropped second's too.
  const Attempt attempt = end == TaskEnd::completed ? task.attempt : task.newest;
  effects.records.push_back(TaskEnded{task.id, end, failure, attempt, by, body, now.wall, run_us});
  count_out(job, 1);
  switch (end) {
    case TaskEnd::completed:
      job.counts.completed += 1;
      break;
    case TaskEnd::failed:
      job.counts.failed += 1;
      break;
    case TaskEnd::cancelled:
      job.counts.cancelled += 1;
      break;
  }
  touch(job);
  if (job.tells_of_tasks()) settled.emplace_back(task.id, end);
  drop_task(job, task);
  settle_if_ended(job);
}

void Farm::State::end_fresh(Job& job, std::uint32_t at, TaskEnd end, FailureClass failure, BodyRef body, Now now,
                            Effects& effects) {
  const TaskId id = TaskId::of(job.no, at);
  job.skip(at);
  (end == TaskEnd::failed ? job.counts.failed : job.counts.cancelled) += 1;
  count_out(job, 1);
  index(job);
  effects.records.push_back(TaskEnded{id, end, failure, 0, {}, body, now.wall, 0});
  touch(job);
  if (job.tells_of_tasks()) settled.emplace_back(id, end);
  settle_if_ended(job);
}

// Ends all that has not ended: by hand, by its deadline, or by what it waited for.
std::uint32_t Farm::State::end_rest(Job& job, TaskEnd end, FailureClass failure, BodyRef body, Now now,
                                    Effects& effects) {
  std::uint32_t n = 0;
  while (!job.live.empty()) {
    Task* task = job.live.back();
    if (!job.again.empty()) task = this->task(TaskId::of(job.no, job.again.back()));
    if (!job.picky.empty()) task = this->task(TaskId::of(job.no, job.picky.back()));
    WorkerNo by{};
    if (const HeldBy* held = task->held()) {
      by = held->worker;
      effects.cancel.push_back({by, task->id, task->attempt, body});
      fair::charge_lost(*this, job, *task, now);
      drop_extras(job, *task, {}, body, now, effects);
    }
    end_task(job, *task, end, failure, by, body, 0, now, effects);
    n += 1;
  }
  const std::uint32_t fresh = job.fresh();
  n += fresh;
  if (end == TaskEnd::failed) {
    std::uint32_t rows = fresh <= options.failed_range ? fresh : 1;
    for (const auto& [first, last] : job.skipped.gaps(job.next_index, job.header.count)) {
      for (std::uint32_t i = first; i < last && rows > 0; ++i, --rows) {
        end_fresh(job, i, end, failure, body, now, effects);
      }
    }
  }
  if (end == TaskEnd::cancelled && fresh > 0) effects.records.push_back(JobCancelled{job.no, body});
  if (!job.cancelled) end_range(job);
  return n;
}

void Farm::State::end_range(Job& job) {
  job.header.open = false;
  job.counts.cancelled += job.fresh();
  count_out(job, job.fresh());
  job.cancelled = true;
  unlink(job);
  letting_go.erase(job.no);
  index(job);
  touch(job);
  if (!job.children.empty()) settled_jobs.push_back(job.no);
}

void Farm::State::tick(Now now, Effects& effects) {
  while (!timers.empty() && timers.top().at <= now.mono) {
    const Timer timer = timers.top();
    timers.pop();
    if (timer.what == Timer::What::plan) continue;
    if (useless(timer)) continue;
    Job* j = job(timer.task.job());
    if (timer.what == Timer::What::not_before) {
      j->too_early = false;
      j->ready_from = now.mono;
      index(*j);
      touch(*j);
      continue;
    }
    if (timer.what == Timer::What::deadline) {
      GRANGE_MARK("deadline_passed");
      if (!j->all_ended()) end_rest(*j, TaskEnd::failed, FailureClass::deadline, kNoBody, now, effects);
      continue;
    }
    Task* t = task(timer.task);
    const bool maybe_out = std::get<Delayed>(t->where).maybe_out;
    leave(*j, *t);
    if (maybe_out) next_attempt(*t, effects, {});
    make_ready(*j, *t);
    touch(*j);
  }
  if (now.mono >= leases_checked_at) {
    std::vector<Worker*> lost;
    Instant next = Instant::never();
    for (auto& [no, w] : workers) {
      if (w->lease_until <= lease_clock(now)) {
        lost.push_back(w.get());
      } else {
        next = std::min(next, w->lease_until);
      }
    }
    leases_checked_at = next;
    for (Worker* w : lost) lose_worker(*w, true, now, effects, WorkerNews::lost);
  }
  if (now.mono >= recover_until) release_recovering(now, effects);
  spread(now, effects);  // who failed is heard before more is let go
  let_go_more(effects);
}

}  // namespace grange::core
