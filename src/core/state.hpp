// The farm's live state, private to the core: farm.cpp steps it, plan.cpp reads it, invariants.cpp checks it.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include "base/mutant.hpp"
#include "base/range_set.hpp"
#include "core/farm.hpp"
#include "core/policy/policy.hpp"
#include "core/ready.hpp"

namespace grange::core {

// Where a live task is. Each state carries what only it has.
struct Ready {};  // in its job's `again`
// Paused by hand, and no worker has it.
struct Parked {
  bool maybe_out = false;  // loaded: the journal does not tell whether this attempt was out, and may come back
  bool requeue = false;    // if it comes back it is given back again, not frozen
};
struct Delayed {
  Instant ready_at;
  WallMs wall;
  bool maybe_out = false;  // loaded: the journal does not tell whether this attempt was handed out after its wait
};
struct HeldBy {
  WorkerNo worker;
  std::uint32_t position = 0;  // in Worker::held
  LeaseEpoch epoch = 0;
  Instant started{};  // once it runs
  AttemptState state = AttemptState::assigned;
  std::uint8_t alternative = 0;  // of the job's requests
  bool asked_back = false;
  bool preempting = false;  // to be given back and parked: told so once it runs
  bool freezing = false;    // to be frozen: told so once it runs
  bool told = false;        // to give it back
};
// A person's word on a task that a worker has; without a worker it is parked.
enum class HandPause : std::uint8_t { none, freeze, requeue };
struct Recovering {};  // handed out before the restart; its worker may come back with it

struct Task {
  TaskId id;
  std::variant<Ready, Parked, Delayed, HeldBy, Recovering> where;
  Attempt attempt = 1;  // the one it has now, or will have next
  Attempt newest = 1;   // the highest number so far: a speculative second has its own
  FailureCounts failures{};
  std::array<WorkerNo, limits::kAvoided> avoid{};  // failed there; newest first
  std::uint32_t job_position = 0;                  // in Job::live; of an extra: its rank
  bool extra = false;        // a further hold of a task: a gang's rank > 0, or a speculative second (rank 0)
  bool has_extras = false;   // of the task itself
  HandPause by_hand{};       // held: wherever it goes from here, it waits there until it is resumed
  bool last_try = false;     // its failures are used up, and one of a pair lives on: another ends it
  bool no_second = false;    // one was given back
  std::uint8_t unasked = 0;  // times in a row that a worker stopped it and gave it back, and nobody had asked

  HeldBy* held() { return std::get_if<HeldBy>(&where); }
  const HeldBy* held() const { return std::get_if<HeldBy>(&where); }
  bool picky() const { return avoid[0].value != 0; }
  bool stays_alone() const { return by_hand != HandPause::none || last_try || no_second; }
  bool avoids(WorkerNo w) const { return std::find(avoid.begin(), avoid.end(), w) != avoid.end(); }
};
static_assert(sizeof(Task) <= limits::kTaskBytes);

struct User;
inline std::uint32_t crashes(const FailureCounts& f) {
  return f[static_cast<std::size_t>(FailureClass::worker_lost)];
}

struct Job {
  JobNo no;
  JobHeader header;
  std::vector<RequestId> requests;  // the first, then the alternatives
  User* user = nullptr;
  std::uint32_t kind = 0;  // interned
  std::uint32_t next_index = 0;
  JobCounts counts;
  std::uint32_t assigned = 0, running = 0, delayed = 0, recovering = 0, parked = 0, frozen = 0;  // frozen: of running
  std::deque<std::uint32_t> again;  // materialized and ready
  std::deque<std::uint32_t> picky;  // of these the ones that avoid a worker: placed one by one
  std::vector<Task*> live;
  RangeSet skipped;                 // not handed out with the range: ended or materialized one by one
  std::uint32_t skipped_ahead = 0;  // of these, from next_index on
  WallMs started{}, ended{};
  Instant submitted{};     // or loaded
  Instant ready_from{};    // since then it waits for nothing but room: submitted, opened, resumed, more tasks
  bool cancelled = false;  // what was never handed out; of an `each` job, others may still run
  bool dirty = false;
  JobProgressed kept;  // what is in the journal of it

  // What holds all of it back.
  bool opened = true;              // what it waits for as a whole is there; never taken back
  bool too_early = false;          // not_before is still to come
  Instant starts_at{}, ends_at{};  // its timers; another was of an earlier life of it
  bool paused = false;
  // Live jobs that wait for it, or for tasks of it, those for tasks first.
  struct Edge {
    static constexpr std::uint32_t kEach = Dependency::kAll - 1;
    std::uint32_t target = Dependency::kAll;  // a task, kEach, or the whole job
    JobNo child;
    static Edge of(const Dependency& d, JobNo child) { return {d.each ? kEach : d.index, child}; }
    friend auto operator<=>(const Edge&, const Edge&) = default;
  };
  std::set<Edge> children;
  bool tells_of_tasks() const { return !children.empty() && children.begin()->target != Dependency::kAll; }

  // Fairness and measure (fair.hpp).
  double used = 0;          // resource-seconds of its ended attempts, over its weight
  double mean_run_s = -1;   // of its completed tasks, decayed; < 0: none yet
  std::uint32_t holds = 0;  // attempts out, extras too
  double holding = 0;       // resources of these
  double in_flight = 0;     // what they are expected to use, over no weight
  int boost = 0;            // by ageing
  Instant waits_from{};     // since it became ready, or was served last
  ShapeId shape{};
  Flow* flow = nullptr;  // where it is counted, from the first time that it is ready
  int at_level = 0;      // of that flow
  double key = 0;        // its place in the flow
  bool queued = false;   // it is in the flow's queues
  bool stale = false;    // its books changed since its key was made
  // Its running tasks that have no second attempt, by their start; only where they may get one.
  std::set<std::pair<Instant, std::uint32_t>> runs;
  Instant straggler_at = Instant::never();             // its place in State::speculating; never: it is not there
  Instant straggler_rest{};                            // not looked at before: no room was found
  std::pair<Instant, std::uint32_t> straggler_from{};  // the one that was looked at last, when there were too many
  mutable PlanNote note;

  bool one_by_one = false;  // a parent of an `each` dependency lives: its tasks are let go one by one
  bool each() const { return one_by_one; }
  bool gated() const { return !opened || too_early || (paused && !GRANGE_MUTANT("pause_ignored")); }
  // Never handed out and still to run.
  std::uint32_t fresh() const { return cancelled ? 0 : header.count - next_index - skipped_ahead; }
  std::uint32_t blocked() const { return each() || !opened ? fresh() : 0; }
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
  std::uint32_t ready() const {
    if (gated()) return 0;
    return (each() ? 0 : fresh()) + static_cast<std::uint32_t>(again.size() + picky.size());
  }
  // It belongs into the queues of ready work.
  bool wanted() const { return ready() > 0 && (header.max_running == 0 || assigned + running < header.max_running); }
  bool all_ended() const { return !header.open && counts.ended() == header.count; }
  JobState state() const {
    if (all_ended()) {
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
  // What it does not need may be overbooked: a worker can come back with less than it holds.
  bool fits(const Request& r, const Capacity& c) const {
    const auto room = [](std::uint64_t need, std::uint64_t used, std::uint64_t all) {
      return need == 0 || used + need <= all;
    };
    return tasks + 1 <= c.slots && room(r.cpus_milli, cpus_milli, c.cpus_milli) &&
           room(r.gpus_milli, gpus_milli, c.gpus_milli) && room(r.memory, memory, c.memory) &&
           room(r.disk, disk, c.disk);
  }
  friend bool operator==(const Load&, const Load&) = default;
};

// How a worker does with one kind of task; decayed by 1/16 an attempt.
struct KindRecord {
  double success = 1, mean_run_us = 0;
  std::uint32_t attempts = 0;
  std::uint64_t used = 0;  // order of its last use
};

struct Worker {
  WorkerNo no;
  Capacity capacity;
  std::uint32_t window = 1;
  bool connected = false, draining = false;
  bool paused = false;  // as in State::paused_workers
  Instant lease_until{};
  Instant leaves_at = Instant::never();  // by what its hello said of its life
  std::vector<Task*> held;               // assigned, running and paused; extras too
  std::uint32_t running = 0;
  Load load;                      // of all it holds
  std::uint32_t taking_back = 0;  // of these, asked back and not answered yet
  std::uint64_t last_used = 0;
  double success = 1, mean_run_us = 0;  // decayed by 1/16 an attempt
  std::unordered_map<std::uint32_t, KindRecord> kinds;
  std::uint32_t failed_in_a_row = 0;
  std::uint32_t suspicious = 0;               // of these, what others could have done
  std::uint32_t quarantines = 0;              // in a row
  Instant quarantined_until{};                // not before: nothing new goes there
  bool on_trial = false;                      // out of quarantine, one task at a time until one completes
  JobNo row_job{};                            // of the first of the failures in a row,
  std::uint32_t row_completed = 0;            // tasks of it that were completed then
  bool row_jobs = false;                      // they are of more than one job
  mutable std::vector<std::int8_t> eligible;  // a cache by RequestId: 0 unknown, 1 yes, -1 no
  std::uint32_t open_position = kNotOpen;     // in State::open: it holds less than its window
  static constexpr std::uint32_t kNotOpen = UINT32_MAX;
};

// Tokens that fill at a steady rate, at most a minute's worth.
struct Bucket {
  double tokens = 0;
  Instant filled{};
};

struct User {
  std::uint32_t no = 0;  // by arrival
  std::string name;
  UserLimits limits;
  bool limited = false;      // has limits of its own, in the journal
  std::uint32_t jobs = 0;    // live
  std::uint64_t queued = 0;  // tasks not ended
  Load load;                 // of all that workers hold for it, extras too
  double used = 0;           // resource-seconds of ended attempts, over its weight
  Bucket starts, submits;
  mutable UserNote note;
  std::uint64_t idle_since = 0;  // a counter; 0: has jobs or limits of its own
};

// A kind of task, told apart by name.
struct KindUse {
  std::string name;
  std::uint32_t jobs = 0;        // live
  std::uint64_t idle_since = 0;  // a counter
};

StepAnswer stale(const Fence& fence);

// Leases run on the monotonic clock; a simulator's mutant puts them on the wall's.
inline Instant lease_clock(Now now) {
  return GRANGE_MUTANT("lease_on_wall_clock") ? Instant{(now.wall.ms - 1'800'000'000'000) * 1000} : now.mono;
}

struct RequestUse {
  std::uint32_t jobs = 0;        // live jobs that have it, once for each of their alternatives
  std::uint64_t idle_since = 0;  // a counter
};

struct Farm::State {
  FarmOptions options;
  Prng prng{1};
  std::unique_ptr<policy::Policy> policy;
  LeaseEpoch next_epoch = 1;
  std::uint64_t use_counter = 0;
  bool paused = false;
  Instant gives_since{};                        // when the farm was last resumed
  FarmSet farm_kept;                            // as in the journal
  std::unordered_set<WorkerNo> paused_workers;  // connected or not

  std::vector<Request> requests;  // by RequestId
  std::map<Request, RequestId> request_ids;
  // Those that no live job has stay known until another needs the number: the one that is unused longest goes first.
  std::vector<RequestUse> request_uses;  // by RequestId
  std::set<std::pair<std::uint64_t, RequestId>> idle_requests;
  std::map<std::string, std::uint32_t> kind_ids;
  std::vector<KindUse> kinds;  // by number; forgotten as requests are
  std::set<std::pair<std::uint64_t, std::uint32_t>> idle_kinds;
  std::map<std::string, std::unique_ptr<User>, std::less<>> users;
  std::vector<User*> users_by_no;            // null: the number is free
  std::vector<std::uint32_t> free_user_nos;  // the last is given next
  // Without jobs and limits: they keep their place in the fair order so long as they are few.
  std::set<std::pair<std::uint64_t, std::uint32_t>> idle_users;
  std::unordered_map<JobNo, std::unique_ptr<Job>> jobs;
  std::unordered_map<TaskId, Task> tasks;
  // Further holds of a task that is held: the other ranks of its gang, or a speculative second attempt.
  std::unordered_map<TaskId, std::vector<std::unique_ptr<Task>>> extras;
  std::map<WorkerNo, std::unique_ptr<Worker>> workers;
  std::map<WorkerNo, std::unique_ptr<Worker>> former;  // how those that left did: they may come back
  // Jobs with ready tasks, highest level first (ready.hpp).
  std::map<int, Level, std::greater<>> ready;
  std::vector<Shape> shapes;  // by ShapeId
  std::map<std::pair<std::vector<RequestId>, std::uint32_t>, ShapeId> shape_ids;
  std::vector<ShapeId> free_shapes;
  std::vector<JobNo> stale_jobs;                    // their keys are made anew before the next plan
  std::vector<Worker*> open;                        // hold less than their window, connected or not
  std::set<std::pair<Instant, JobNo>> speculating;  // jobs that may want second attempts, by when to look
  std::uint64_t fleet = 1;                          // grows when a worker says hello
  Instant aged_at{};
  Instant clock{};  // of the last step or plan
  WallMs wall{};
  // What the last plans found out: scratch of the planner, no truth.
  mutable std::uint64_t plan_no = 0;
  mutable Instant plan_wake = Instant::never();  // when time alone changes what a plan would do
  mutable std::map<int, Reservation, std::greater<>> reservations;
  std::map<std::string, PolicyBook, std::less<>> policy_books;
  PolicyBook* book = nullptr;  // of the policy in force
  Instant policy_since{};
  std::vector<JobNo> dirty;
  // Tasks and jobs that ended and whose children were not told yet: emptied by spread() before a step ends.
  std::vector<std::pair<TaskId, TaskEnd>> settled;
  std::vector<JobNo> settled_jobs;
  std::set<JobNo> letting_go;  // `each` jobs that may have more tasks whose parents have ended: some each tick
  JobNo let_go_last{};

  struct Timer {
    enum class What : std::uint8_t { task, not_before, deadline, plan };  // plan: only to look again
    Instant at;
    TaskId task{};
    Attempt attempt = 0;
    What what = What::task;
    friend bool operator>(const Timer& a, const Timer& b) { return a.at > b.at; }
  };
  struct Timers : std::priority_queue<Timer, std::vector<Timer>, std::greater<>> {
    std::size_t cleaned = 0;  // how many were left when it was cleaned last
    template <class F>
    void clean(F&& stale) {
      std::erase_if(c, stale);
      std::make_heap(c.begin(), c.end(), comp);
      cleaned = c.size();
    }
  };
  Timers timers;
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
  const Request& request(const Job& job, std::size_t alternative = 0) const {
    return requests[job.requests[alternative].value];
  }
  int level(const Job& job) const { return policy->by_priority() ? job.header.priority + job.boost : 0; }

  static bool can_ever_run(const Request& r, const Capacity& c);
  bool eligible(const Worker& w, RequestId r) const;

  RequestId intern(const Request& request);
  void release(RequestId request);
  // Refuses what would need more different requests than there are numbers for.
  Result<> check_requests(const std::vector<const JobHeader*>& headers) const;
  void touch(Job& job);
  void index(Job& job);  // keeps `ready` true after the count or a gate changed
  void reindex();
  void enrol(Job& job);        // once its header and requests are filled
  void forget(Job& job);       // before it is erased from `jobs`
  void settle();               // keys follow the books
  void touch_books(Job& job);  // they changed
  // Keeps Job::runs: after the task began to run or to rest, after its second came or went, and before it leaves.
  void watch_run(Job& job, const Task& task, bool leaves = false);
  Micros straggles_after(const Job& job) const;
  void look_at(Job& job, Instant at);  // for stragglers
  void served(Job& job);               // it was handed out: it waits anew
  void age(Now now);                   // boosts what waited long
  void watch_room(Worker& w);          // after its window, or what it holds, changed
  void close_room(Worker& w);          // before it is erased
  void check_ready() const;            // asserts

  User& user_of(const std::string& name);
  void rest(User& user);                           // if nothing needs it any more
  std::uint32_t kind_of(const std::string& name);  // counts a job of it
  void release_kind(std::uint32_t kind);
  void add_timer(const Timer& timer);  // drops those that are of no use any more, once they may be the most
  bool useless(const Timer& timer);
  // A new live job: its numbers filled, nothing of it indexed yet.
  Job& add_job(JobNo no, const JobHeader& header, Now now);

  void count_in(Job& job, std::uint64_t n) {
    queued += n;
    job.user->queued += n;
  }
  void count_out(Job& job, std::uint64_t n) {
    queued -= n;
    job.user->queued -= n;
  }
  void arm(Job& job, Now now);  // timers of not_before and deadline

  Task& add_task(Job& job, std::uint32_t index);
  Task& materialize(Job& job, std::uint32_t index);  // out of the range, before its turn; the caller puts it somewhere
  void drop_task(Job& job, Task& task);
  void leave(Job& job, Task& task);   // out of where it is now; the caller puts it somewhere
  void detach(Job& job, Task& hold);  // from its worker
  void hold(Job& job, Task& task, Worker& w, LeaseEpoch epoch, AttemptState state, std::uint8_t alternative = 0);
  void make_ready(Job& job, Task& task);
  void park(Job& job, Task& task);
  void delay(Job& job, Task& task, Millis wait, Now now);

  // A further hold of a held task (extras.cpp): rank > 0 of its gang, or with an attempt of its own a speculative
  // second.
  Task& add_extra(Job& job, Task& task, Worker& w, LeaseEpoch epoch, Attempt attempt, std::uint32_t rank,
                  std::uint8_t alternative = 0);
  // Hands out a speculative second attempt of a running task, with its record and its message.
  void start_second(Task& task, Worker& w, std::uint8_t alternative, Effects& effects);
  void drop_extra(Job& job, Task& extra);
  void drop_extras(Job& job, Task& task, WorkerNo but, BodyRef reason, Now now,
                   Effects& effects);  // but: knows already
  void promote(Job& job, Task& task);  // its second takes its place
  static bool gang(const Job& job) { return job.header.nodes > 1; }
  template <class F>
  void each_hold(Task& task, F&& f) {
    if (task.held() != nullptr) f(task);
    if (!task.has_extras) return;
    for (auto& extra : extras.at(task.id)) f(*extra);
  }

  // The attempt that holds this fence on this worker, or null: the fence is stale.
  Task* fenced(WorkerNo worker, const Fence& fence);
  void next_attempt(Task& task, Effects& effects, WallMs ready_at, bool parked = false);
  void keep(const Task& task, Effects& effects, bool parked);  // what is to be known of it after a restart
  // The attempt that is out is over without a word on how it went, and charged to nothing.
  void give_back(Job& job, Task& task, bool parked, Millis wait, WorkerNo by, Now now, Effects& effects);
  struct Verdict {
    bool last = false;
    Millis wait{};
  };
  // Of a speculative pair this one is over; the other goes on.
  void drop_one(Job& job, Task& hold);
  Verdict count_failure(const Job& job, Task& task, FailureClass failure, std::string_view exception, bool permanent);
  void end_task(Job& job, Task& task, TaskEnd end, FailureClass failure, WorkerNo worker, BodyRef body,
                std::uint64_t run_us, Now now, Effects& effects);
  // What was never handed out ends as cancelled, without outcomes of its own; what is out goes on.
  void end_range(Job& job);
  void end_fresh(Job& job, std::uint32_t index, TaskEnd end, FailureClass failure, BodyRef body, Now now,
                 Effects& effects);
  void fail_fast(Job& job, Now now, Effects& effects) {
    if (job.header.fail_fast) end_rest(job, TaskEnd::cancelled, FailureClass::cancelled, kNoBody, now, effects);
  }
  std::uint32_t end_rest(Job& job, TaskEnd end, FailureClass failure, BodyRef body, Now now, Effects& effects);
  void lose_attempt(Task& task, bool charge, WorkerNo lost_with, Now now, Effects& effects);
  void lose_hold(Task& hold, bool charge, Now now, Effects& effects);
  std::uint32_t lose_worker(Worker& w, bool charge, Now now, Effects& effects, WorkerNews news);
  void release_recovering(Now now, Effects& effects);
  void tick(Now now, Effects& effects);

  // What waits for what (graph.cpp).
  bool lives(JobNo no) {
    const Job* j = job(no);
    return j != nullptr && !j->all_ended();
  }
  bool task_ended(Job& parent, std::uint32_t index);
  bool target_ended(const Dependency& d, std::uint32_t index);
  bool targets_ended(const Job& job, std::uint32_t index);  // of `each`; kAll: of the others
  // At its submit; first: of the jobs that came with it.
  void gate(Job& job, const std::vector<Parent>& parents, JobNo first, Now now, Effects& effects);
  // Of `each`, tasks from `from` on: those whose parents ended already are decided.
  void gate_tasks(Job& job, std::uint32_t from, const std::vector<Parent>& parents, JobNo first, Now now,
                  Effects& effects);
  void regate(Job& job);  // at load and at its return: what is not live any more counts as met
  void link(Job& job);
  void unlink(Job& job);
  void relink_children(JobNo parent, Effects& effects);
  // Tasks that wait for nothing that lives, as many as may be ready at once. False: there are more.
  bool let_go_met(Job& job, std::uint32_t most, Effects& effects);
  void let_go_met(Job& job, Effects& effects);
  void let_go_more(Effects& effects);  // of all such jobs
  bool more_to_let_go() const;
  RangeSet live_targets(const Job& job);  // of `each`: indices with a parent task that lives
  void fail_ranges(Job& job, const RangeSet& which, Now now, Effects& effects);
  void let_go(Job& job, std::uint32_t index, Effects& effects);
  void open_up(Job& job);
  void set_one_by_one(Job& job, bool on);
  void gate_event(Job& job, bool ok, Now now, Effects& effects);
  void decide_task(Job& job, std::uint32_t index, bool ok, Now now, Effects& effects);
  void task_settled(TaskId id, bool ok, bool decisive, Now now, Effects& effects);
  void job_settled(JobNo no, bool decisive, Now now, Effects& effects);
  void range_settled(Job& child, const Job& parent, Now now, Effects& effects);
  void spread(Now now, Effects& effects);
  void settle_if_ended(Job& job) {
    if (!job.children.empty() && job.all_ended()) settled_jobs.push_back(job.no);
  }

  // Orders about attempts that are out (pause.cpp).
  void ask_back(Worker& w, Task& hold, Effects& effects);
  void freeze(Task& hold, Effects& effects);
  bool thaw(Task& hold, Effects& effects);
  void repeat_orders(Worker& w, Task& hold, Effects& effects);  // to a worker that said hello
  StepAnswer pause_task(Job& job, const PauseTask& e, Now now, Effects& effects);
  StepAnswer resume_task(Job& job, const PauseTask& e, Effects& effects);

  // Quarantine (workers.cpp).
  void did_well(Worker& w, Effects& effects);
  void did_badly(Worker& w, const Job& job, Fault fault, Now now, Effects& effects);
  void release(Worker& w, Effects& effects);

  StepAnswer submit(const SubmitJob* first, std::size_t n, Now now, Effects& effects);
  StepAnswer on(const SubmitJob&, Now, Effects&);
  StepAnswer on(const SubmitGraph&, Now, Effects&);
  StepAnswer on(const ExtendJob&, Now, Effects&);
  StepAnswer on(const WorkerRelease&, Now, Effects&);
  StepAnswer on(const AttemptPaused&, Now, Effects&);
  StepAnswer on(const AttemptPreempted&, Now, Effects&);
  StepAnswer on(const PauseJob&, Now, Effects&);
  StepAnswer on(const PauseTask&, Now, Effects&);
  StepAnswer on(const PauseFarm&, Now, Effects&);
  StepAnswer on(const SetUser&, Now, Effects&);
  StepAnswer on(const WorkerHello&, Now, Effects&);
  StepAnswer on(const WorkerChanged&, Now, Effects&);
  StepAnswer on(const WorkerAlive&, Now, Effects&);
  StepAnswer on(const WorkerGone&, Now, Effects&);
  StepAnswer on(const WorkerDrain&, Now, Effects&);
  StepAnswer on(const WorkerPause&, Now, Effects&);
  StepAnswer on(const WorkerForget&, Now, Effects&);
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
    if (GRANGE_MUTANT("lease_never_renewed") && w.lease_until.us != 0) return;
    w.lease_until = lease_clock(now) + options.lease;
    if (w.lease_until < leases_checked_at) leases_checked_at = w.lease_until;
  }
};

}  // namespace grange::core
