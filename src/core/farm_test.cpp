#include "core/farm.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace grange::core {
namespace {

// The store as a fold of the records, as simple as can be: what the core must be rebuilt from.
struct Disk {
  struct Job {
    JobHeader header;
    JobProgressed progress;
  };
  std::map<JobNo, Job> jobs;
  std::map<TaskId, TaskEnded> outcomes;
  std::map<TaskId, TaskKept> kept;
  std::set<WorkerNo> connected;

  void fold(const Effects& effects) {
    for (const Record& record : effects.records) std::visit([&](const auto& r) { add(r); }, record);
  }
  void add(const JobAdded& r) { jobs[r.job] = {r.header, {r.job, JobState::pending, 0, {}, {}, {}}}; }
  void add(const JobProgressed& r) { jobs.at(r.job).progress = r; }
  void add(const TaskKept& r) { kept[r.task] = r; }
  void add(const TaskEnded& r) {
    ASSERT_FALSE(outcomes.contains(r.task)) << "a task has one accepted outcome";
    outcomes[r.task] = r;
    kept.erase(r.task);
  }
  void add(const TaskReopened& r) { ASSERT_EQ(outcomes.erase(r.task), 1u); }
  void add(const AttemptFailed&) {}
  void add(const CheckpointKept&) {}
  void add(const WorkerSeen& r) {
    if (r.connected) {
      connected.insert(r.worker);
    } else {
      connected.erase(r.worker);
    }
  }

  std::unique_ptr<Farm> load(std::uint64_t incarnation, Now now, std::string policy) const {
    auto farm = std::make_unique<Farm>(
        FarmOptions{.incarnation = incarnation, .seed = incarnation, .policy = std::move(policy)});
    for (const auto& [no, job] : jobs) {
      if (ended(job.progress.state)) continue;
      std::vector<std::uint32_t> open, skipped;
      for (std::uint32_t i = 0; i < job.header.count; ++i) {
        const bool done = outcomes.contains(TaskId::of(no, i));
        if (i < job.progress.next_index && !done) open.push_back(i);
        if (i >= job.progress.next_index && done) skipped.push_back(i);
      }
      farm->load_job(no, job.header, job.progress, open, skipped);
    }
    for (const auto& [id, row] : kept) farm->load_task(row, now);
    for (const auto no : connected) farm->load_expected(no);
    farm->loaded(now);
    return farm;
  }
};

struct World {
  explicit World(std::uint64_t seed) : prng(seed) {
    const auto names = policy_names();
    policy = std::string(names[prng.below(names.size())]);
    farm = disk.load(incarnation, now(), policy);
  }

  struct Machine {
    Capacity capacity;
    std::uint32_t window = 1;
    std::map<TaskId, std::pair<Fence, bool>> holds;  // bool: started
    bool online = false;
  };

  Now now() const { return {{time_us}, {1'700'000'000'000 + time_us / 1000}}; }

  StepAnswer step(const Event& event) {
    auto answer = farm->step(event, now(), effects);
    farm->check_invariants();
    return answer;
  }

  // One turn of the engine loop: plan, write, and only then let the sends go.
  void commit() {
    const Plan plan = farm->plan(now(), prng);
    farm->apply(plan, now(), effects);
    farm->finish_batch(now(), effects);
    farm->check_invariants();
    disk.fold(effects);
    for (const auto& c : effects.cancel) drop(machines[c.worker], c.task, c.attempt);
    for (const auto& a : effects.acks) {
      drop(machines[a.worker], a.task, a.attempt);
      if (a.accepted && last_ok.contains(a.task)) accepted[a.task] += 1;
    }
    for (const auto& a : effects.assign) {
      auto& m = machines.at(a.worker);
      ASSERT_TRUE(!m.holds.contains(a.fence.task) || m.holds.at(a.fence.task).first.attempt < a.fence.attempt);
      ASSERT_TRUE(fences.insert({a.fence.task, a.fence.attempt}).second) << "an attempt's number is given out once";
      if (m.online) m.holds[a.fence.task] = {a.fence, false};
    }
    auto back = effects.take_back;
    effects = {};
    for (const auto& t : back) {
      auto& m = machines[t.worker];
      const auto it = m.holds.find(t.task);
      if (it == m.holds.end() || it->second.second) continue;
      const Fence fence = it->second.first;
      m.holds.erase(it);
      step(AttemptReturned{t.worker, fence});
    }
  }

  static void drop(Machine& m, TaskId task, Attempt attempt) {
    const auto it = m.holds.find(task);
    if (it != m.holds.end() && it->second.first.attempt == attempt) m.holds.erase(it);
  }

  void hello(WorkerNo no) {
    auto& m = machines[no];
    std::vector<std::pair<Fence, bool>> held;
    for (const auto& [id, h] : m.holds) held.push_back(h);
    m.online = true;
    const auto answer = step(WorkerHello{no, m.capacity, m.window, held, kNoBody});
    for (const auto& fence : answer.refused) drop(m, fence.task, fence.attempt);
  }

  void crash_server() {
    effects = {};  // stepped, not written, not sent
    incarnation += 1;
    farm = disk.load(incarnation, now(), policy);
    farm->check_invariants();
    for (auto& [no, m] : machines) m.online = false;
  }

  void random_step() {
    time_us += static_cast<std::int64_t>(prng.below(400'000));
    const WorkerNo w{1 + static_cast<std::uint32_t>(prng.below(4))};
    auto& m = machines[w];
    switch (prng.below(16)) {
      case 0: {
        JobHeader header{.count = 1 + static_cast<std::uint32_t>(prng.below(20))};
        header.request.engine = prng.below(8) == 0 ? "python" : "builtin";
        header.request.cpus_milli = 500u * (1 + static_cast<std::uint32_t>(prng.below(3)));
        header.priority = static_cast<int>(prng.below(3));
        header.retry.max_attempts = 1 + static_cast<std::uint32_t>(prng.below(3));
        header.retry.crash_limit = 1 + static_cast<std::uint32_t>(prng.below(3));
        header.fail_fast = prng.below(6) == 0;
        step(SubmitJob{{++last_job}, header, kNoBody});
        break;
      }
      case 1:
        if (!m.online) {
          if (prng.below(3) == 0) m.holds.clear();  // it was restarted
          m.capacity = {.slots = 1 + w.value % 3, .cpus_milli = 2000, .engines = {"builtin"}};
          if (w.value == 2) m.capacity.engines = {"builtin", "python"};
          m.window = m.capacity.slots + static_cast<std::uint32_t>(prng.below(5));
          hello(w);
        }
        break;
      case 2:
        step(WorkerAlive{w});
        if (prng.below(4) == 0) step(Overslept{});
        break;
      case 3:
        if (m.online && prng.below(2) == 0) {
          const bool for_good = prng.below(2) == 0;
          m.online = false;
          step(WorkerGone{w, for_good, prng.below(2) == 0});
        }
        break;
      case 4:
      case 5:
      case 6:
        for (auto& [id, h] : m.holds) {
          if (m.online && prng.below(2) == 0 && !h.second && step(AttemptStarted{w, h.first}).result.ok())
            h.second = true;
        }
        break;
      case 7:
      case 8:
      case 9:
      case 10: {
        std::vector<Fence> ends;
        for (auto& [id, h] : m.holds) {
          if (m.online && prng.below(2) == 0) ends.push_back(h.first);
        }
        for (const auto& fence : ends) {
          const bool ok = prng.below(4) != 0;
          if (ok) last_ok.insert(fence.task);
          step(AttemptEnded{.worker = w,
                            .fence = fence,
                            .ok = ok,
                            .permanent = prng.below(10) == 0,
                            .failure = ok ? FailureClass::none : FailureClass::exception});
          if (prng.below(8) == 0) {  // said twice
            EXPECT_FALSE(step(AttemptEnded{.worker = w, .fence = fence}).result.ok());
          }
        }
        break;
      }
      case 11: {  // a lie: a fence that nobody gave out, or another's
        const TaskId task = TaskId::of({1 + static_cast<std::uint32_t>(prng.below(last_job + 1))},
                                       static_cast<std::uint32_t>(prng.below(5)));
        const Fence fence{task, static_cast<Attempt>(prng.below(3)), prng.below(100)};
        if (m.holds.contains(task)) break;  // the refusal would make an honest worker drop it
        EXPECT_FALSE(step(AttemptEnded{.worker = w, .fence = fence}).result.ok());
        break;
      }
      case 12:
        if (last_job > 0 && prng.below(4) == 0) step(CancelJob{{1 + static_cast<std::uint32_t>(prng.below(last_job))}});
        break;
      case 13:
        if (last_job > 0) {
          step(CancelTask{TaskId::of({1 + static_cast<std::uint32_t>(prng.below(last_job))},
                                     static_cast<std::uint32_t>(prng.below(20)))});
        }
        break;
      case 14:
        if (last_job > 0 && prng.below(4) == 0) {
          commit();
          retry({1 + static_cast<std::uint32_t>(prng.below(last_job))});
        }
        break;
      default:
        if (prng.below(6) == 0) crash_server();
    }
    step(Tick{});
    if (prng.below(3) != 0) commit();
  }

  void retry(JobNo no) {
    const auto it = disk.jobs.find(no);
    if (it == disk.jobs.end() || it->second.progress.state == JobState::completed) return;
    RetryTasks event{no, {}, {}};
    for (const auto& [id, o] : disk.outcomes) {
      if (id.job() == no && o.end != TaskEnd::completed) event.tasks.push_back({id.index(), o.end, o.attempt});
    }
    if (ended(it->second.progress.state)) event.ended = RetryTasks::Reopen{it->second.header, it->second.progress};
    for (const auto& t : event.tasks) accepted.erase(TaskId::of(no, t.index));
    step(event);
  }

  // Faults are over: everything that can run must end.
  void heal() {
    for (std::uint32_t n = 1; n <= 4; ++n) {
      auto& m = machines[{n}];
      m.capacity = {.slots = 2, .cpus_milli = 4000, .engines = {"builtin", "python"}};
      m.window = 4;
      hello({n});
    }
    commit();
    for (int turn = 0; turn < 3000 && farm->view().live_jobs > 0; ++turn) {
      time_us += 5'000'000;
      for (auto& [no, m] : machines) {
        step(WorkerAlive{no});
        const auto holds = m.holds;
        for (const auto& [id, h] : holds) {
          last_ok.insert(id);
          step(AttemptEnded{.worker = no, .fence = h.first});
        }
      }
      step(Tick{});
      commit();
    }
  }

  Prng prng;
  std::string policy;
  Disk disk;
  std::uint64_t incarnation = 1;
  std::int64_t time_us = 1'000'000;
  std::unique_ptr<Farm> farm;
  Effects effects;
  std::map<WorkerNo, Machine> machines;
  std::uint32_t last_job = 0;
  std::set<std::pair<TaskId, Attempt>> fences;
  std::set<TaskId> last_ok;
  std::map<TaskId, int> accepted;
};

TEST(Farm, KeepsItsPromisesUnderAnythingThatHappens) {
  for (std::uint64_t seed = 1; seed <= 1500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    for (int i = 0; i < 150; ++i) {
      world.random_step();
      if (::testing::Test::HasFailure()) return;
    }
    world.heal();
    ASSERT_EQ(world.farm->view().live_jobs, 0u) << "every task that can run ends";
    for (const auto& [no, job] : world.disk.jobs) {
      const auto& p = job.progress;
      ASSERT_TRUE(ended(p.state));
      ASSERT_EQ(p.counts.ended(), job.header.count);
      JobCounts counts;
      for (const auto& [id, o] : world.disk.outcomes) {
        if (id.job() != no) continue;
        (o.end == TaskEnd::completed ? counts.completed
         : o.end == TaskEnd::failed  ? counts.failed
                                     : counts.cancelled) += 1;
      }
      const std::uint32_t never = job.header.count - counts.ended();
      counts.cancelled += never;  // cancelled as a range: no outcome of their own
      ASSERT_EQ(counts, p.counts);
    }
  }
}

TEST(AttemptState, FollowsTheStrictTable) {
  using enum AttemptState;
  const std::set<std::pair<AttemptState, AttemptState>> legal = {
      {pending, assigned},  {assigned, running}, {assigned, failed}, {running, paused},
      {running, completed}, {running, failed},   {paused, running},  {paused, failed}};
  for (const auto from : {pending, assigned, running, paused, completed, failed}) {
    for (const auto to : {pending, assigned, running, paused, completed, failed}) {
      auto state = from;
      const auto moved = transition(state, to);
      EXPECT_EQ(moved.ok(), legal.contains({from, to}));
      if (!moved.ok()) {
        EXPECT_EQ(moved.error().message,
                  "Cannot transition from " + std::string(name(from)) + " to " + std::string(name(to)));
        EXPECT_EQ(state, from);
      }
    }
  }
}

struct Small {
  Farm farm{FarmOptions{}};
  Prng prng{1};
  Effects effects;
  Now now{{1'000'000}, {1'700'000'000'000}};

  void worker(std::uint32_t no, std::uint32_t slots, std::uint32_t window,
              std::vector<std::string> engines = {"builtin"}) {
    farm.step(
        WorkerHello{
            {no}, {.slots = slots, .cpus_milli = 1000 * slots, .engines = std::move(engines)}, window, {}, kNoBody},
        now, effects);
  }
  void job(std::uint32_t no, std::uint32_t count, std::string engine = "builtin", int priority = 0) {
    JobHeader header{.count = count, .priority = priority};
    header.request.engine = std::move(engine);
    ASSERT_TRUE(farm.step(SubmitJob{{no}, header, kNoBody}, now, effects).result.ok());
  }
  std::vector<SendAssign> turn() {
    effects.assign.clear();
    farm.apply(farm.plan(now, prng), now, effects);
    farm.check_invariants();
    for (const auto& a : effects.assign) epochs[a.fence.task] = a.fence.epoch;
    return effects.assign;
  }
  LeaseEpoch epoch_of(TaskId task) const { return epochs.at(task); }
  std::map<TaskId, LeaseEpoch> epochs;
};

TEST(Plan, ABlockedHeadNeverHidesWhatStandsBehindIt) {
  Small s;
  s.worker(1, 2, 2);
  s.job(1, 5, "python", 10);  // nobody can run it
  s.job(2, 3, "builtin", 0);
  const auto sent = s.turn();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].fence.task.job().value, 2u);
}

TEST(Plan, SpreadsOverWorkersBeforeItFillsBacklogs) {
  Small s;
  for (std::uint32_t n = 1; n <= 4; ++n) s.worker(n, 2, 10);
  s.job(1, 8);
  std::map<std::uint32_t, int> per_worker;
  for (const auto& a : s.turn()) per_worker[a.worker.value] += 1;
  for (std::uint32_t n = 1; n <= 4; ++n) EXPECT_EQ(per_worker[n], 2) << "worker " << n;
}

TEST(Plan, HigherPriorityGoesFirstAndFifoIgnoresIt) {
  for (const auto* policy : {"priority", "fifo"}) {
    Small s;
    ASSERT_TRUE(s.farm.set_policy(policy).ok());
    s.job(1, 1, "builtin", 0);
    s.job(2, 1, "builtin", 5);
    s.worker(1, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].fence.task.job().value, std::string_view(policy) == "fifo" ? 1u : 2u);
  }
  Small s;
  EXPECT_FALSE(s.farm.set_policy("magic").ok());
}

TEST(Plan, AnIdleWorkerGetsAShareOfAnothersBacklog) {
  Small s;
  s.worker(1, 1, 9);
  s.job(1, 9);
  ASSERT_EQ(s.turn().size(), 9u);
  s.worker(2, 1, 9);
  const Plan plan = s.farm.plan(s.now, s.prng);
  ASSERT_EQ(plan.take_backs.size(), 1u);
  EXPECT_EQ(plan.take_backs[0].worker.value, 1u);
  EXPECT_EQ(plan.take_backs[0].count, 4u);
}

TEST(Farm, AMillionTaskArrayCostsNoMemoryUntilItRuns) {
  Small s;
  s.job(1, 1'000'000);
  const auto view = s.farm.job({1});
  ASSERT_TRUE(view);
  EXPECT_EQ(view->waiting, 1'000'000u);
  EXPECT_EQ(s.farm.view().queued_tasks, 1'000'000u);
  s.farm.check_invariants();
}

TEST(Farm, RetriesBackOffExponentiallyThenFail) {
  Small s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  std::vector<std::int64_t> waits;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].fence.attempt, static_cast<Attempt>(attempt));
    s.effects.failed.clear();
    s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence, .ok = false, .failure = FailureClass::exit_code},
                s.now, s.effects);
    ASSERT_EQ(s.effects.failed.size(), 1u);
    if (s.effects.failed[0].retry) waits.push_back(s.effects.failed[0].retry_in.count());
    s.farm.finish_batch(s.now, s.effects);
    const Instant wake = s.farm.next_wake();
    if (attempt < 3) {
      s.now.mono = wake;
      s.farm.step(WorkerAlive{{1}}, s.now, s.effects);
      s.farm.step(Tick{}, s.now, s.effects);
    }
  }
  ASSERT_EQ(waits.size(), 2u);
  EXPECT_GE(waits[0], 1000);
  EXPECT_LE(waits[0], 1100);
  EXPECT_GE(waits[1], 2000);
  EXPECT_LE(waits[1], 2200);
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
}

TEST(Farm, ALostWorkersTasksAreRunElsewhereAndItsLateResultIsRefused) {
  Small s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto first = s.turn().at(0).fence;
  s.now.mono = s.now.mono + limits::kLease + Millis{1};
  s.farm.step(Tick{}, s.now, s.effects);
  s.worker(2, 1, 1);
  const auto second = s.turn().at(0);
  EXPECT_EQ(second.worker.value, 2u);
  EXPECT_EQ(second.fence.attempt, 2u);
  const auto late = s.farm.step(AttemptEnded{.worker = {1}, .fence = first}, s.now, s.effects);
  ASSERT_FALSE(late.result.ok());
  EXPECT_EQ(late.result.error().cls, ErrorClass::stale);
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {2}, .fence = second.fence}, s.now, s.effects).result.ok());
}

TEST(Farm, APoisonTaskStopsAtItsCrashLimit) {
  Small s;
  s.job(1, 1);
  for (std::uint32_t crash = 1; crash <= limits::kDefaultCrashLimit; ++crash) {
    s.worker(crash, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u) << crash;
    s.farm.step(AttemptStarted{{crash}, sent[0].fence}, s.now, s.effects);
    s.farm.step(WorkerGone{.worker = {crash}, .for_good = true, .charge = true}, s.now, s.effects);
  }
  s.farm.finish_batch(s.now, s.effects);
  EXPECT_EQ(s.farm.view().live_jobs, 0u);
  EXPECT_EQ(s.effects.jobs.back().state, JobState::failed);
}

TEST(Farm, AGoodbyeIsNotACrash) {
  Small s;
  s.job(1, 1);
  for (std::uint32_t stop = 1; stop <= 2 * limits::kDefaultCrashLimit; ++stop) {
    s.worker(stop, 1, 1);
    const auto sent = s.turn();
    ASSERT_EQ(sent.size(), 1u) << stop;
    s.farm.step(AttemptStarted{{stop}, sent[0].fence}, s.now, s.effects);
    s.farm.step(WorkerGone{.worker = {stop}, .for_good = true}, s.now, s.effects);
  }
  EXPECT_TRUE(s.effects.failed.empty());
  EXPECT_EQ(s.farm.task(TaskId::of({1}, 0))->crashes, 0u);
}

TEST(Farm, LeasesDoNotEndOnWhatWasNotHeard) {
  Small s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto sent = s.turn();
  s.now.mono = s.now.mono + limits::kLease * 10;
  s.farm.step(Overslept{}, s.now, s.effects);
  s.farm.step(Tick{}, s.now, s.effects);
  s.farm.check_invariants();
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence}, s.now, s.effects).result.ok());
}

TEST(Plan, TakesBackAgainAfterATaskStartedInstead) {
  Small s;
  s.worker(1, 1, 9);
  s.job(1, 9);
  ASSERT_EQ(s.turn().size(), 9u);
  s.worker(2, 1, 9);
  s.effects.take_back.clear();
  s.turn();
  ASSERT_EQ(s.effects.take_back.size(), 4u);
  // The worker had started them before it heard: it stays silent about the order, and tells their starts.
  const auto started = s.effects.take_back;
  for (const auto& held : s.farm.held_by({1})) {
    for (const auto& asked : started) {
      if (held.task != asked.task) continue;
      s.farm.step(AttemptStarted{{1}, {held.task, held.attempt, s.epoch_of(held.task)}}, s.now, s.effects);
    }
  }
  s.farm.check_invariants();
  s.effects.take_back.clear();
  s.turn();
  EXPECT_FALSE(s.effects.take_back.empty());
}

TEST(Farm, WallClockJumpsChangeNoDecision) {
  Small s;
  s.worker(1, 1, 1);
  s.job(1, 1);
  const auto sent = s.turn();
  s.now.wall.ms += 86'400'000;
  s.farm.step(Tick{}, s.now, s.effects);
  EXPECT_TRUE(s.farm.step(AttemptEnded{.worker = {1}, .fence = sent[0].fence}, s.now, s.effects).result.ok());
}

}  // namespace
}  // namespace grange::core
