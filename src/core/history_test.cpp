// Random histories of everything that can happen, against the core's promises.
#include <cstdlib>

#include "core/test_disk.hpp"

namespace grange::core {
namespace {

struct World {
  explicit World(std::uint64_t seed) : prng(seed) {
    const auto names = policy_names();
    options.policy = std::string(names[draw(names.size())]);
    if (draw(4) == 0) options.aging = Millis{1000};
    if (draw(2) == 0) options.each_at_once = 1 + draw(3);
    if (draw(2) == 0) options.failed_range = draw(4);
    farm = disk.load(options, now());
  }

  struct Hold {
    Fence fence;
    bool started = false, frozen = false;
  };
  struct Machine {
    Capacity capacity;
    std::uint32_t window = 1;
    std::map<TaskId, Hold> holds;
    bool online = false;
  };

  std::uint32_t draw(std::uint64_t below) { return static_cast<std::uint32_t>(prng.below(below)); }
  bool one_in(std::uint64_t n) { return prng.below(n) == 0; }
  Now now() const { return {{time_us}, {1'700'000'000'000 + time_us / 1000 + wall_jump}}; }

  StepAnswer step(const Event& event) {
    auto answer = farm->step(event, now(), effects);
    farm->check_invariants();
    return answer;
  }

  // One turn of the engine loop: plan, write, and only then let the sends go.
  void commit() {
    const Plan plan = farm->plan(now(), prng);
    farm->apply(plan, now(), effects);
    farm->check_invariants();
    farm->finish_batch(now(), effects);
    farm->check_invariants();
    disk.fold(effects);
    Effects out;
    std::swap(out, effects);
    for (const auto& c : out.cancel) drop(machines[c.worker], c.task, c.attempt);
    for (const auto& a : out.acks) drop(machines[a.worker], a.task, a.attempt);
    for (const auto& a : out.assign) {
      auto& m = machines.at(a.worker);
      ASSERT_TRUE(!m.holds.contains(a.fence.task) || m.holds.at(a.fence.task).fence.attempt < a.fence.attempt);
      ASSERT_TRUE(fences.insert({a.fence.task, a.fence.attempt, a.rank}).second)
          << "an attempt is given out once: " << a.fence.task.job().value << "/" << a.fence.task.index() << "#"
          << a.fence.attempt << " rank " << a.rank;
      ASSERT_FALSE(disk.farm_set.paused) << "a paused farm hands out nothing";
      check_dependencies(a.fence.task);
      if (m.online) m.holds[a.fence.task] = {a.fence};
    }
    for (const auto& p : out.pause) obey(p);
    for (const auto& t : out.take_back) {
      auto& m = machines[t.worker];
      const auto it = m.holds.find(t.task);
      if (!m.online || it == m.holds.end() || it->second.started) continue;
      const Fence fence = it->second.fence;
      m.holds.erase(it);
      step(AttemptReturned{t.worker, fence});
    }
  }

  void obey(const SendPause& p) {
    auto& m = machines[p.worker];
    const auto it = m.holds.find(p.task);
    if (!m.online || it == m.holds.end() || it->second.fence.attempt != p.attempt || !it->second.started) return;
    Hold& h = it->second;
    const Fence fence = h.fence;
    if (p.how == PauseHow::requeue) {
      m.holds.erase(it);
      step(AttemptPreempted{p.worker, fence});
    } else if (h.frozen != (p.how == PauseHow::freeze)) {
      h.frozen = !h.frozen;
      step(AttemptPaused{p.worker, fence, h.frozen});
    }
  }

  // As long as nothing was retried, what a task waited for stands in the journal.
  void check_dependencies(TaskId task) {
    const auto& header = disk.jobs.at(task.job()).header;
    if (retried || header.when == When::any_succeeded) return;
    for (const Dependency& d : header.after) {
      const auto& parent = disk.jobs.at(d.job);
      if (!d.each && d.index == Dependency::kAll) {
        ASSERT_TRUE(ended(parent.progress.state));
        ASSERT_TRUE(header.when == When::all_finished || parent.progress.state == JobState::completed);
        continue;
      }
      const auto o = disk.outcomes.find(TaskId::of(d.job, d.each ? task.index() : d.index));
      ASSERT_TRUE(o != disk.outcomes.end() || ended(parent.progress.state));
      if (header.when == When::all_finished) continue;
      ASSERT_TRUE(o != disk.outcomes.end() && o->second.end == TaskEnd::completed)
          << "task " << task.job().value << "/" << task.index() << " after " << d.job.value << (d.each ? " each" : "/")
          << d.index << ", of " << parent.progress.count << (parent.progress.open ? ", open" : "");
    }
  }

  static void drop(Machine& m, TaskId task, Attempt attempt) {
    const auto it = m.holds.find(task);
    if (it != m.holds.end() && it->second.fence.attempt == attempt) m.holds.erase(it);
  }

  void hello(WorkerNo no) {
    auto& m = machines[no];
    std::vector<SaidHeld> held;
    for (const auto& [id, h] : m.holds) held.push_back({h.fence, h.started});
    m.online = true;
    const auto answer = step(WorkerHello{no, m.capacity, m.window, held, kNoBody});
    for (const auto& fence : answer.refused) drop(m, fence.task, fence.attempt);
    for (auto& [id, h] : m.holds) {
      if (h.frozen) step(AttemptPaused{no, h.fence, true});
    }
  }

  // What a person sees of a live job and its tasks, but for where an attempt is: after a restart that is not known.
  std::string digest() const {
    std::string out = farm->view().paused ? "paused" : "";
    for (const JobView& j : farm->jobs()) {
      out += "\njob " + std::to_string(j.job.value) + " " + std::string(name(j.state)) + " " + std::to_string(j.count) +
             " " + std::to_string(j.next_index) + " " + std::to_string(j.counts.completed) + "/" +
             std::to_string(j.counts.failed) + "/" + std::to_string(j.counts.cancelled) + " blocked " +
             std::to_string(j.blocked) + (j.open ? " open" : "") + (j.is_paused ? " paused" : "") + ":";
      for (std::uint32_t i = 0; i < j.count; ++i) {
        const auto t = farm->task(TaskId::of(j.job, i));
        if (!t) {
          out += " -";
        } else if (t->by_hand) {
          out += " parked";
        } else {
          out += " " + std::to_string(t->failures) + "," + std::to_string(t->crashes);
        }
      }
    }
    for (const UserView& u : farm->users()) {
      out += "\nuser " + u.user + " " + std::to_string(u.queued) + " " + std::to_string(u.jobs);
    }
    return out;
  }

  void crash_server() {
    const bool written = effects.empty() && !farm->dirty();
    const std::string before = written ? digest() : "";
    effects = {};  // stepped, not written, not sent
    options.incarnation += 1;
    options.seed = options.incarnation;
    farm = disk.load(options, now());
    farm->check_invariants();
    if (written) {
      ASSERT_EQ(before, digest()) << "memory after a restart is what it was";
    }
    for (auto& [no, m] : machines) m.online = false;
  }

  JobNo some_job() { return {1 + draw(last_job + 1)}; }
  TaskId some_task() { return TaskId::of(some_job(), draw(12)); }

  SubmitJob random_job(bool sibling) {
    SubmitJob e{{++last_job}, {.count = 1 + draw(12)}, kNoBody, {}};
    JobHeader& h = e.header;
    h.request.engine = one_in(8) ? "python" : "builtin";
    h.request.cpus_milli = 500u * (1 + draw(3));
    if (one_in(6)) h.alternatives.push_back({.cpus_milli = 500, .engine = "python"});
    h.priority = static_cast<int>(draw(3));
    h.retry.max_attempts = 1 + draw(3);
    h.retry.crash_limit = 1 + draw(3);
    if (one_in(4)) h.retry.rules.push_back({FailureClass::exception, one_in(2) ? "ValueError" : "", 1 + draw(3)});
    h.fail_fast = one_in(6);
    h.user = one_in(2) ? "" : one_in(2) ? "ann" : "bob";
    h.kind = one_in(2) ? "f" : "g";
    h.weight_milli = 500 + 500 * draw(3);
    h.max_running = one_in(4) ? 1 + draw(3) : 0;
    h.open = one_in(6);
    if (one_in(8)) h.nodes = 2;
    if (h.nodes == 1 && one_in(4)) h.speculation = {true, 1500, 1};
    if (one_in(8)) h.not_before = {now().wall.ms + 1 + draw(20'000)};
    if (one_in(8)) h.deadline = {now().wall.ms + 1 + draw(60'000)};
    h.when = static_cast<When>(draw(3));
    for (std::uint32_t n = draw(3); n > 0 && last_job > 1; --n) {
      Dependency d{.job = {sibling && one_in(2) ? last_job - 1 : 1 + draw(last_job)}};
      if (one_in(3)) {
        d.each = true;
      } else if (one_in(2)) {
        d.index = draw(8);
      }
      h.after.push_back(d);
    }
    e.parents = disk.parents(h);
    return e;
  }

  void submit() {
    commit();  // what is said of parents is read from the store
    if (!one_in(4)) {
      step(random_job(false));
      return;
    }
    SubmitGraph graph;
    for (std::uint32_t n = 1 + draw(4); n > 0; --n) graph.jobs.push_back(random_job(!graph.jobs.empty()));
    const auto before = farm->view().live_jobs;
    const bool ok = step(graph).result.ok();
    EXPECT_EQ(farm->view().live_jobs - before, ok ? graph.jobs.size() : 0u) << "all of a graph or none";
  }

  void ends(WorkerNo w) {
    auto& m = machines[w];
    std::vector<Fence> over;
    for (auto& [id, h] : m.holds) {
      if (m.online && one_in(2) && !(h.frozen && one_in(2))) over.push_back(h.fence);
    }
    for (const auto& fence : over) {
      const bool ok = !one_in(4);
      const std::string exception = one_in(2) ? "builtins.ValueError" : "KeyError";
      step(AttemptEnded{.worker = w,
                        .fence = fence,
                        .ok = ok,
                        .permanent = one_in(10),
                        .failure = ok ? FailureClass::none : static_cast<FailureClass>(1 + draw(10)),
                        .run_us = prng.below(3'000'000),
                        .exception = ok ? "" : exception});
      drop(m, fence.task, fence.attempt);
      if (one_in(8)) {  // said twice
        EXPECT_FALSE(step(AttemptEnded{.worker = w, .fence = fence}).result.ok());
      }
    }
  }

  // A word that is not true, or comes too late, from a worker or a person.
  void nonsense(WorkerNo w) {
    const Fence fence{some_task(), draw(3), prng.below(100)};
    if (machines[w].holds.contains(fence.task)) return;  // the refusal would make an honest worker drop it
    switch (draw(6)) {
      case 0:
        EXPECT_FALSE(step(AttemptEnded{.worker = w, .fence = fence}).result.ok());
        break;
      case 1:
        EXPECT_FALSE(step(AttemptPaused{w, fence, one_in(2)}).result.ok());
        break;
      case 2:
        EXPECT_FALSE(step(AttemptPreempted{w, fence}).result.ok());
        break;
      case 3:
        EXPECT_FALSE(step(AttemptReturned{w, fence}).result.ok());
        break;
      case 4:
        EXPECT_FALSE(step(CheckpointTaken{w, fence, kNoBody}).result.ok());
        break;
      default:
        step(WorkerRelease{{w.value + 3}});
        step(WorkerDrain{{w.value + 4}});
        step(WorkerPause{w, prng.below(2) == 0});
        step(WorkerForget{{w.value + 4}});
    }
  }

  void random_step() {
    time_us += static_cast<std::int64_t>(prng.below(400'000));
    const WorkerNo w{1 + draw(4)};
    auto& m = machines[w];
    switch (draw(22)) {
      case 0:
        submit();
        break;
      case 1:
        if (!m.online) {
          if (one_in(3)) m.holds.clear();  // it was restarted
          m.capacity = {.slots = 1 + w.value % 3, .cpus_milli = 2000, .engines = {"builtin"}};
          if (w.value == 2) m.capacity.engines = {"builtin", "python"};
          m.window = m.capacity.slots + draw(5);
          hello(w);
        }
        break;
      case 2:
        step(WorkerAlive{w});
        if (one_in(4)) step(Overslept{});
        if (one_in(8)) step(WorkerWindow{w, 1 + draw(6)});
        break;
      case 3:
        if (m.online && one_in(2)) {
          const bool for_good = one_in(2);
          m.online = false;
          step(WorkerGone{w, for_good, one_in(2)});
        }
        break;
      case 4:
      case 5:
      case 6:
        for (auto& [id, h] : m.holds) {
          if (m.online && one_in(2) && !h.started && step(AttemptStarted{w, h.fence}).result.ok()) h.started = true;
        }
        break;
      case 7:
      case 8:
      case 9:
      case 10:
        ends(w);
        break;
      case 11:
        nonsense(w);
        break;
      case 12:
        if (one_in(4)) step(CancelJob{some_job()});
        break;
      case 13:
        step(CancelTask{some_task()});
        break;
      case 14:
        if (one_in(4)) {
          commit();
          retry(some_job());
        }
        break;
      case 15: {
        const JobNo no = some_job();
        commit();
        const std::uint32_t more = draw(4);
        std::vector<Parent> parents;
        if (const auto it = disk.jobs.find(no); it != disk.jobs.end()) {
          JobHeader header = it->second.header;
          header.count = it->second.progress.count + more;
          parents = disk.parents(header);
        }
        step(ExtendJob{no, more, one_in(2), kNoBody, std::move(parents)});
        break;
      }
      case 16:
        step(PauseTask{some_task(), one_in(2), one_in(2)});
        break;
      case 17:
        step(PauseJob{some_job(), one_in(2), one_in(2)});
        break;
      case 18:
        if (one_in(3)) step(PauseFarm{one_in(3)});
        break;
      case 19:
        step(SetUser{one_in(2) ? "ann" : "bob",
                     {.weight_milli = 500 * draw(3),
                      .max_running = draw(4),
                      .max_queued = 10 * draw(6),
                      .starts_per_minute = 60 * draw(3),
                      .submits_per_minute = 20 * draw(3)}});
        break;
      case 20:  // an attempt that its worker does not want, or not any more
        if (one_in(2)) {
          for (auto it = m.holds.begin(); it != m.holds.end();) {
            const Fence fence = it->second.fence;
            const bool stops = m.online && it->second.started && one_in(4);
            it = stops ? m.holds.erase(it) : std::next(it);
            if (stops) step(AttemptPreempted{w, fence});
          }
          break;
        }
        for (auto it = m.holds.begin(); it != m.holds.end();) {
          const Fence fence = it->second.fence;
          const bool returns = m.online && !it->second.started && one_in(4);
          it = returns ? m.holds.erase(it) : std::next(it);
          if (returns) step(AttemptReturned{w, fence, one_in(3)});
        }
        break;
      default:
        if (one_in(6)) {
          wall_jump += static_cast<std::int64_t>(prng.below(20'000)) - 10'000;
          if (one_in(2)) commit();
          crash_server();
        }
    }
    step(Tick{});
    if (!one_in(3)) commit();
  }

  void retry(JobNo no) {
    const auto it = disk.jobs.find(no);
    if (it == disk.jobs.end() || it->second.progress.state == JobState::completed) return;
    retried = true;
    step(disk.retry(no));
  }

  // Faults are over: everything that can run must end.
  void heal() {
    for (std::uint32_t n = 1; n <= 4; ++n) {
      auto& m = machines[{n}];
      m.capacity = {.slots = 2, .cpus_milli = 4000, .engines = {"builtin", "python"}};
      m.window = 4;
      hello({n});
      step(WorkerRelease{{n}});
      step(WorkerPause{{n}, false});
    }
    step(PauseFarm{false});
    for (const auto* user : {"", "ann", "bob"}) step(SetUser{user, {}});
    for (const JobView& j : farm->jobs()) {
      step(ExtendJob{j.job, 0, true, kNoBody});
      step(PauseJob{j.job, false, false});
      for (std::uint32_t i = 0; i < j.count; ++i) step(PauseTask{TaskId::of(j.job, i), false, false});
    }
    commit();
    for (int turn = 0; turn < 3000 && farm->view().live_jobs > 0; ++turn) {
      time_us += 5'000'000;
      for (auto& [no, m] : machines) {
        step(WorkerAlive{no});
        const auto holds = m.holds;
        for (const auto& [id, h] : holds) step(AttemptEnded{.worker = no, .fence = h.fence});
      }
      step(Tick{});
      commit();
      if (::testing::Test::HasFailure()) return;
    }
  }

  Prng prng;
  FarmOptions options;
  Disk disk;
  std::int64_t time_us = 1'000'000, wall_jump = 0;
  std::unique_ptr<Farm> farm;
  Effects effects;
  std::map<WorkerNo, Machine> machines;
  std::uint32_t last_job = 0;
  bool retried = false;
  std::set<std::tuple<TaskId, Attempt, std::uint32_t>> fences;
};

TEST(Farm, KeepsItsPromisesUnderAnythingThatHappens) {
  const char* more = std::getenv("GRANGE_HISTORIES");
  const std::uint64_t last = more != nullptr ? std::strtoull(more, nullptr, 10) : 1500;
  for (std::uint64_t seed = 1; seed <= last; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    for (int i = 0; i < 150; ++i) {
      world.random_step();
      if (::testing::Test::HasFailure()) return;
    }
    world.heal();
    if (::testing::Test::HasFailure()) return;
    ASSERT_EQ(world.farm->view().live_jobs, 0u) << "every task that can run ends" << world.digest();
    for (const auto& [no, job] : world.disk.jobs) {
      const auto& p = job.progress;
      ASSERT_TRUE(ended(p.state));
      ASSERT_EQ(p.counts.ended(), p.count);
      JobCounts counts;
      for (const auto& [id, o] : world.disk.outcomes) {
        if (id.job() != no) continue;
        (o.end == TaskEnd::completed ? counts.completed
         : o.end == TaskEnd::failed  ? counts.failed
                                     : counts.cancelled) += 1;
      }
      counts.cancelled += p.count - counts.ended();  // cancelled as a range: no outcome of their own
      ASSERT_EQ(counts, p.counts);
    }
    ASSERT_TRUE(world.disk.kept.empty());
  }
}

}  // namespace
}  // namespace grange::core
