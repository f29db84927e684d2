// The farm's live state, private to the core: farm.cpp steps it, plan.cpp reads it, invariants.cpp checks it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include "base/range_set.hpp"
#include "core/farm.hpp"
#include "core/policy/policy.hpp"

namespace grange::core {

// Where a live task is. Each state carries what only it has.
struct Ready {};  // in its job's `again`
struct Delayed {
  Instant ready_at;
  WallMs wall;
};
struct HeldBy {
  WorkerNo worker;
  std::uint32_t position = 0;
  LeaseEpoch epoch = 0;
  AttemptState state = AttemptState::assigned;
  bool asked_back = false;
};
struct Recovering {};  // handed out before the restart; its worker may come back with it

struct Task {
  TaskId id;
  std::variant<Ready, Delayed, HeldBy, Recovering> where;
  Attempt attempt = 1;  // the one it has now, or will have next
  std::uint16_t failures = 0;
  std::uint16_t crashes = 0;
  std::uint32_t job_position = 0;  // in Job::live

  HeldBy* held() { return std::get_if<HeldBy>(&where); }
  const HeldBy* held() const { return std::get_if<HeldBy>(&where); }
};
static_assert(sizeof(Task) <= limits::kTaskBytes);

struct Job {
  JobNo no;
  JobHeader header;
  RequestId request;
  std::uint32_t next_index = 0;
  JobCounts counts;
  std::uint32_t assigned = 0, running = 0, delayed = 0, recovering = 0;
  std::deque<std::uint32_t> again;  // materialized and ready
  std::vector<Task*> live;
  RangeSet skipped;                 // not handed out with the range: cancelled one by one
  std::uint32_t skipped_ahead = 0;  // of these, from next_index on
  WallMs started{}, ended{};
  bool cancelled = false;
  bool dirty = false;
  JobProgressed kept;  // what is in the journal of it

  // Never handed out and still to run.
  std::uint32_t fresh() const { return cancelled ? 0 : header.count - next_index - skipped_ahead; }
  void skip(std::uint32_t index) {
    GRANGE_ASSERT(index >= next_index && !skipped.contains(index));
    skipped.add(index);
    skipped_ahead += 1;
  }
  void unskip(std::uint32_t index) {
    skipped.remove(index);
    skipped_ahead -= 1;
  }
  std::uint32_t take_fresh() {
    GRANGE_ASSERT(fresh() > 0);
    while (skipped_ahead > 0 && skipped.contains(next_index)) {
      next_index += 1;
      skipped_ahead -= 1;
    }
    return next_index++;
  }
  std::uint32_t ready() const { return fresh() + static_cast<std::uint32_t>(again.size()); }
  JobState state() const {
    if (counts.ended() == header.count) {
      if (counts.failed > 0) return JobState::failed;
      return counts.cancelled > 0 ? JobState::cancelled : JobState::completed;
    }
    return started.ms != 0 ? JobState::running : JobState::pending;
  }
};

struct Load {
  std::uint64_t cpus_milli = 0, gpus_milli = 0, memory = 0, disk = 0, tasks = 0;
  void add(const Request& r, std::uint64_t n = 1) {
    cpus_milli += r.cpus_milli * n;
    gpus_milli += r.gpus_milli * n;
    memory += r.memory * n;
    disk += r.disk * n;
    tasks += n;
  }
  void remove(const Request& r) {
    cpus_milli -= r.cpus_milli;
    gpus_milli -= r.gpus_milli;
    memory -= r.memory;
    disk -= r.disk;
    tasks -= 1;
  }
  bool fits(const Request& r, const Capacity& c) const {
    return tasks + 1 <= c.slots && cpus_milli + r.cpus_milli <= c.cpus_milli &&
           gpus_milli + r.gpus_milli <= c.gpus_milli && memory + r.memory <= c.memory && disk + r.disk <= c.disk;
  }
  friend bool operator==(const Load&, const Load&) = default;
};

struct Worker {
  WorkerNo no;
  Capacity capacity;
  std::uint32_t window = 1;
  bool connected = false, draining = false;
  Instant lease_until{};
  std::vector<Task*> held;  // assigned and running
  std::uint32_t running = 0;
  Load load;                      // of all it holds
  std::uint32_t taking_back = 0;  // of these, asked back and not answered yet
  std::uint64_t last_used = 0;
  double success = 1, mean_run_us = 0;        // decayed by 1/16 an attempt
  mutable std::vector<std::int8_t> eligible;  // a cache by RequestId: 0 unknown, 1 yes, -1 no
};

struct Farm::State {
  FarmOptions options;
  Prng prng{1};
  std::unique_ptr<policy::Policy> policy;
  LeaseEpoch next_epoch = 1;
  std::uint64_t use_counter = 0;

  std::vector<Request> requests;  // by RequestId
  std::map<Request, RequestId> request_ids;
  std::unordered_map<JobNo, std::unique_ptr<Job>> jobs;
  std::unordered_map<TaskId, Task> tasks;
  std::map<WorkerNo, std::unique_ptr<Worker>> workers;
  // Jobs with ready tasks: priority (highest first), then request, then arrival.
  std::map<int, std::map<RequestId, std::set<JobNo>>, std::greater<>> ready;
  std::vector<JobNo> dirty;

  struct Timer {
    Instant at;
    TaskId task;
    Attempt attempt;
    friend bool operator>(const Timer& a, const Timer& b) { return a.at > b.at; }
  };
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers;
  Instant leases_checked_at = Instant::never();  // no lease ends before
  std::unordered_set<WorkerNo> expected;         // connected when the last server ended, not back yet
  Instant recover_until = Instant::never();
  std::uint64_t recovering = 0;
  std::uint64_t queued = 0, active = 0;  // tasks not held, held

  Job* job(JobNo no) {
    const auto it = jobs.find(no);
    return it == jobs.end() ? nullptr : it->second.get();
  }
  Task* task(TaskId id) {
    const auto it = tasks.find(id);
    return it == tasks.end() ? nullptr : &it->second;
  }
  Worker* worker(WorkerNo no) {
    const auto it = workers.find(no);
    return it == workers.end() ? nullptr : it->second.get();
  }
  const Request& request(const Job& job) const { return requests[job.request.value]; }
  int level(const Job& job) const { return policy->by_priority() ? job.header.priority : 0; }

  static bool can_ever_run(const Request& r, const Capacity& c);
  bool eligible(const Worker& w, RequestId r) const;

  RequestId intern(const Request& request);
  void touch(Job& job);
  void index(Job& job, std::uint32_t ready_before);  // keeps `ready` true after the count changed
  void reindex();

  Task& add_task(Job& job, std::uint32_t index);
  void drop_task(Job& job, Task& task);
  void leave(Job& job, Task& task);  // out of where it is now; the caller puts it somewhere
  void hold(Job& job, Task& task, Worker& w, LeaseEpoch epoch, AttemptState state);
  void make_ready(Job& job, Task& task);
  void delay(Job& job, Task& task, Millis wait, Now now);

  // The attempt that holds this fence on this worker, or null: the fence is stale.
  Task* fenced(WorkerNo worker, const Fence& fence);
  void next_attempt(Task& task, Effects& effects, WallMs ready_at);
  void end_task(Job& job, Task& task, TaskEnd end, FailureClass failure, WorkerNo worker, BodyRef body,
                std::uint64_t run_us, Now now, Effects& effects);
  void lose_attempt(Task& task, bool charge, Now now, Effects& effects);
  std::uint32_t lose_worker(Worker& w, bool charge, Now now, Effects& effects, WorkerNews news);
  std::uint32_t cancel_rest(Job& job, Now now, Effects& effects);
  void release_recovering(Now now, Effects& effects);
  void tick(Now now, Effects& effects);

  StepAnswer on(const SubmitJob&, Now, Effects&);
  StepAnswer on(const WorkerHello&, Now, Effects&);
  StepAnswer on(const WorkerAlive&, Now, Effects&);
  StepAnswer on(const WorkerGone&, Now, Effects&);
  StepAnswer on(const WorkerDrain&, Now, Effects&);
  StepAnswer on(const WorkerWindow&, Now, Effects&);
  StepAnswer on(const AttemptStarted&, Now, Effects&);
  StepAnswer on(const AttemptReturned&, Now, Effects&);
  StepAnswer on(const AttemptEnded&, Now, Effects&);
  StepAnswer on(const CheckpointTaken&, Now, Effects&);
  StepAnswer on(const CancelJob&, Now, Effects&);
  StepAnswer on(const CancelTask&, Now, Effects&);
  StepAnswer on(const RetryTasks&, Now, Effects&);
  StepAnswer on(const Tick&, Now, Effects&);
  StepAnswer on(const Overslept&, Now, Effects&);
  void no_longer_asked(Worker& w, HeldBy& held) {
    if (held.asked_back) w.taking_back -= 1;
    held.asked_back = false;
  }

  void renew(Worker& w, Now now) {
    w.lease_until = now.mono + options.lease;
    if (w.lease_until < leases_checked_at) leases_checked_at = w.lease_until;
  }
};

}  // namespace grange::core
