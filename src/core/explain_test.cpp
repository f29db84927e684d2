// Each reason that can hold work back is named, and what explain says agrees with what plan does.
#include <algorithm>

#include "core/plan_fixture.hpp"

namespace grange::core {
namespace {

using testing::has;
using testing::PlanFarm;

Explanation why(PlanFarm& f, JobNo job, std::uint32_t index = 0) {
  auto e = f.farm.explain(job, index, f.now);
  EXPECT_TRUE(e);
  return e ? *e : Explanation{};
}
const Reason& first(const Explanation& e, std::string_view code) {
  static const Reason none;
  for (const Reason& r : e.waits) {
    if (r.code == code) return r;
  }
  for (const WorkerFit& w : e.workers) {
    for (const Reason& r : w.why) {
      if (r.code == code) return r;
    }
  }
  ADD_FAILURE() << "no reason " << code << "; it says: " << e.summary;
  return none;
}

TEST(Explain, NamesWhatNoWorkerHas) {
  PlanFarm f;
  EXPECT_EQ(why(f, f.submit(1)).waits.front().code, "no_worker");
  f.worker(1, 4);
  f.worker(3, Capacity{.slots = 2, .cpus_milli = 2000, .memory = 16 * GiB, .disk = GiB});
  struct Case {
    const char* code;
    void (*change)(Request&);
    const char* text;
  };
  const Case cases[] = {
      {"memory", [](Request& r) { r.memory = 64 * GiB; },
       "Waits for memory: it needs 64 GiB; the largest worker, 1, has 16 GiB."},
      {"cpus", [](Request& r) { r.cpus_milli = 9000; },
       "Waits for cores: it needs 9 cores; the largest worker, 1, has 4 cores."},
      {"gpus", [](Request& r) { r.gpus_milli = 500; },
       "Waits for GPUs: it needs 0.5 GPUs; the largest worker, 1, has 0 GPUs."},
      {"gpu_memory", [](Request& r) { r.gpu_memory = GiB; }, ""},
      {"disk", [](Request& r) { r.disk = 2 * GiB; },
       "Waits for disk: it needs 2 GiB; the largest worker, 3, has 1 GiB."},
      {"engine", [](Request& r) { r.engine = "python"; }, ""},
      {"model", [](Request& r) { r.model = "m"; }, ""},
      {"pool", [](Request& r) { r.pool = "heavy"; }, ""},
      {"label",
       [](Request& r) {
         r.labels = {{"gpu", "a100", false}};
       },
       ""},
  };
  for (const Case& c : cases) {
    JobHeader h = f.header(1);
    c.change(h.request);
    const Explanation e = why(f, f.submit(h));
    EXPECT_EQ(e.waits.front().code, c.code) << e.summary;
    EXPECT_EQ(e.workers_could, 0u);
    EXPECT_TRUE(*c.text == 0 || e.summary == c.text) << e.summary;
    EXPECT_EQ(f.farm.preview(h, f.now).waits.front().code, c.code);
  }
}

TEST(Explain, SaysWhatWasMeantAndWhatHelps) {
  PlanFarm f;
  f.worker(1, Capacity{.slots = 2,
                       .cpus_milli = 2000,
                       .engines = {"builtin", "llm", "llm-mock", "remote:openai", "remote:replicate"},
                       .models = {"llama3.2:1b", "phi"},
                       .contexts = {8192, 0},
                       .pool = "fast",
                       .labels = {{"gpu", "a100"}, {"grange.worker", "id-1"}}});
  f.worker(2, Capacity{.slots = 2, .cpus_milli = 2000, .engines = {"llm"}, .labels = {{"grange.worker", "id-2"}}});
  const auto says = [&](void (*change)(Request&)) {
    JobHeader h = f.header(1);
    change(h.request);
    return why(f, f.submit(h)).summary;
  };
  const auto has_text = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  };
  const std::string model = says([](Request& r) {
    r.engine = "llm";
    r.model = "llama3.2:lb";
  });
  has_text(model, "this worker has llama3.2:1b, phi. Did you mean 'llama3.2:1b'?");
  has_text(model, "grange models sync llama3.2:lb --workers NAME");
  const std::string pinned = says([](Request& r) {
    r.engine = "llm";
    r.model = "phi";
    r.labels = {{"grange.worker", "id-2", false}};
  });
  has_text(pinned, "The nearest, worker 2: It needs the model 'phi'");
  has_text(pinned, "grange models sync phi --workers id-2");
  has_text(says([](Request& r) {
             r.labels = {{"grange.worker", "id-9", false}};
           }),
           "It is for the worker 'id-9' only, which is not connected.");
  has_text(says([](Request& r) { r.engine = "pythn"; }),
           "this worker offers builtin, llm, remote (openai, replicate).");
  has_text(says([](Request& r) { r.engine = "builtins"; }), "Did you mean 'builtin'?");
  has_text(says([](Request& r) { r.pool = "fats"; }), "Did you mean 'fast'?");
  has_text(says([](Request& r) { r.labels = {{"gpu", "a10", false}}; }), "Did you mean 'gpu=a100'?");
  has_text(says([](Request& r) {
             r.engine = "llm";
             r.model = "llama3.2:1b";
             r.context = 9000;
           }),
           "num_ctx = 8192");
}

TEST(Explain, NamesWhyWorkersCannotNow) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 2, 3);
  f.worker(2, 1);
  f.worker(3, Capacity{.slots = 1, .cpus_milli = 1000, .life = Millis{1000}});
  f.farm.step(WorkerDrain{{2}}, f.now, f.effects);
  JobHeader h = f.header(3);
  h.request.min_life = Millis{60'000};
  f.submit(h);
  f.turn();
  const JobNo job = f.submit(h);
  const Explanation e = why(f, job);
  first(e, "draining");
  first(e, "life");
  first(e, "window");
  EXPECT_EQ(first(e, "slots").need, 1);
  f.farm.step(WorkerGone{{1}}, f.now, f.effects);
  first(why(f, job), "disconnected");
}

TEST(Explain, NamesPausesTimesAndDependencies) {
  PlanFarm f;
  f.worker(1, 1);
  const JobNo parent = f.submit(2);
  JobHeader h = f.header(1);
  h.after = {{.job = parent}};
  const JobNo child{++f.jobs};
  ASSERT_TRUE(f.farm.step(SubmitJob{.job = child, .header = h, .parents = {{}}}, f.now, f.effects).result.ok());
  const Explanation e = why(f, child);
  EXPECT_EQ(e.waits.front().code, "dependency");
  EXPECT_EQ(e.waits.front().need, 2);
  h.after = {};
  h.not_before = {f.now.wall.ms + 5000};
  const JobNo later = f.submit(h);
  EXPECT_EQ(why(f, later).waits.front().code, "not_before");
  EXPECT_EQ(why(f, later).next_change.ms, f.now.wall.ms + 5000);
  f.farm.step(PauseJob{.job = parent}, f.now, f.effects);
  EXPECT_EQ(why(f, parent).waits.front().code, "paused_job");
  f.farm.step(PauseJob{.job = parent, .pause = false}, f.now, f.effects);
  f.farm.step(PauseTask{.task = TaskId::of(parent, 1)}, f.now, f.effects);
  EXPECT_EQ(why(f, parent, 1).waits.front().code, "paused_task");
  f.farm.step(PauseFarm{}, f.now, f.effects);
  EXPECT_EQ(why(f, parent).waits.front().code, "paused_farm");
  f.farm.step(PauseFarm{false}, f.now, f.effects);
  const auto sent = f.turn();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(why(f, parent).state, "assigned");
  f.start(sent[0]);
  EXPECT_EQ(why(f, parent).summary, "It runs on worker 1.");
  f.end(sent[0], Millis{1}, false);
  const Explanation back = why(f, parent);
  EXPECT_EQ(back.waits.front().code, "backoff");
  EXPECT_GT(back.next_change.ms, f.now.wall.ms);
}

TEST(Explain, NamesQuotasAndWhoGoesFirst) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 4);
  const auto limited = [&](UserLimits l) { f.farm.step(SetUser{.user = "u", .limits = l}, f.now, f.effects); };
  limited({.max_running = 1});
  const JobNo mine = f.submit(5, "u");
  ASSERT_EQ(f.turn().size(), 1u);
  EXPECT_EQ(why(f, mine, 4).waits.front().code, "quota_running");
  limited({.max_cpus_milli = 1500});
  EXPECT_EQ(why(f, mine, 4).waits.front().code, "quota_cpus");
  limited({.starts_per_minute = 1});
  ASSERT_EQ(f.turn().size(), 1u);
  EXPECT_EQ(why(f, mine, 4).waits.front().code, "rate");
  EXPECT_GT(why(f, mine, 4).next_change.ms, f.now.wall.ms);
  limited({});
  JobHeader h = f.header(3, "v");
  h.max_running = 1;
  const JobNo other = f.submit(h);
  f.turn();
  EXPECT_TRUE(has(why(f, other, 2).waits, "max_running"));
  // The farm is full now.
  f.submit(10, "w", 5);
  f.submit(10, "newcomer");
  const Explanation e = why(f, mine, 4);
  EXPECT_TRUE(has(e.waits, "priority"));
  EXPECT_TRUE(has(e.waits, "fair_share"));
  EXPECT_GE(e.tasks_before, 20u);
  ASSERT_TRUE(f.farm.set_policy("fifo", f.now).ok());
  const JobNo last = f.submit(1, "z");
  EXPECT_TRUE(has(why(f, last).waits, "policy"));
  h = f.header(1);
  h.nodes = 3;
  EXPECT_TRUE(has(why(f, f.submit(h)).waits, "gang"));
}

TEST(Explain, NamesTheStartsThatAGangWaitsFor) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  for (std::uint32_t w = 1; w <= 3; ++w) f.worker(w, 2);
  f.farm.step(SetUser{.user = "u", .limits = {.starts_per_minute = 1}}, f.now, f.effects);
  JobHeader h = f.header(2, "u");
  h.nodes = 3;
  const JobNo job = f.submit(h);
  EXPECT_TRUE(why(f, job).waits.empty()) << why(f, job).summary;
  ASSERT_EQ(f.turn().size(), 3u);
  const Explanation e = why(f, job, 1);
  EXPECT_EQ(e.waits.front().code, "rate") << e.summary;
  EXPECT_EQ(e.next_change.ms, f.now.wall.ms + 60'000);
}

TEST(Explain, CountsTheTasksBeforeOneOnlySoFar) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, Capacity{.slots = 1, .cpus_milli = 1000, .engines = {"builtin"}});
  const JobNo job = f.submit(60'000);
  ASSERT_EQ(f.turn().size(), 1u);
  for (std::uint32_t i = 2; i < 40'000; i += 2) f.farm.step(CancelTask{TaskId::of(job, i)}, f.now, f.effects);
  const Explanation near = why(f, job, 9'001);
  EXPECT_EQ(first(near, "siblings").need, 4'500) << "1, 3, 5 and so on";
  EXPECT_EQ(first(near, "siblings").text, "4500 tasks of the same job go first.");
  const Explanation far = why(f, job, 59'999);
  EXPECT_EQ(first(far, "siblings").text.rfind("At least 1000", 0), 0u) << first(far, "siblings").text;
  EXPECT_LE(first(far, "siblings").need, 40'000);
}

TEST(Explain, SaysWhoseRoomIsKept) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}, .starving = Millis{1000}});
  f.worker(1, 2);
  f.submit(100, "a");
  const auto sent = f.turn();
  JobHeader big = f.header(1, "b");
  big.request.cpus_milli = 2000;
  f.submit(big);
  f.pass(Millis{2000});
  f.turn();
  f.end(sent[0], Millis{2000});
  EXPECT_TRUE(f.turn().empty()) << "the room is kept";
  first(why(f, {1}, 50), "reserved");
  f.end(sent[1], Millis{2000});
  const auto served = f.turn();
  ASSERT_FALSE(served.empty());
  EXPECT_EQ(served[0].fence.task.job().value, 2u);
}

// A ready task that stands alone is granted exactly when explain says that nothing holds it back, and only to a worker
// that explain says could run it.
TEST(Explain, AgreesWithThePlan) {
  int granted = 0, held_back = 0;
  for (std::uint64_t seed = 1; seed <= 800; ++seed) {
    SCOPED_TRACE(seed);
    PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
    Prng dice(seed);
    const auto request = [&] {
      Request r{.cpus_milli = 500u * (1 + static_cast<std::uint32_t>(dice.below(6))),
                .memory = dice.below(6) * GiB,
                .engine = "builtin"};
      r.gpus_milli = dice.below(3) == 0 ? 500u * (1 + static_cast<std::uint32_t>(dice.below(2))) : 0;
      if (dice.below(6) == 0) r.labels = {{"os", dice.below(2) == 0 ? "*" : "linux", dice.below(2) == 0}};
      if (dice.below(8) == 0) r.engine = "python";
      if (dice.below(8) == 0) r.min_life = Millis{20'000};
      return r;
    };
    for (std::uint32_t w = 1; w <= 3; ++w) {
      Capacity c{.slots = 1 + static_cast<std::uint32_t>(dice.below(3)),
                 .cpus_milli = 1000 * (1 + static_cast<std::uint32_t>(dice.below(4))),
                 .gpus_milli = 1000 * static_cast<std::uint32_t>(dice.below(2)),
                 .memory = 8 * GiB,
                 .engines = {"builtin"}};
      if (dice.below(3) == 0) c.engines.push_back("python");
      if (dice.below(2) == 0) c.labels = {{"os", "linux"}};
      if (dice.below(3) == 0) c.life = Millis{10'000};
      f.worker(w, c, c.slots + static_cast<std::uint32_t>(dice.below(2)));
      if (dice.below(6) == 0) f.farm.step(WorkerDrain{{w}}, f.now, f.effects);
    }
    const UserLimits limits{.max_running = 1 + static_cast<std::uint32_t>(dice.below(5)), .max_cpus_milli = 4000};
    const auto limit = [&](const UserLimits& l) { f.farm.step(SetUser{.user = "u", .limits = l}, f.now, f.effects); };
    limit(limits);
    for (int i = 0; i < 4; ++i) {
      JobHeader h = f.header(1, dice.below(2) == 0 ? "u" : "v");
      h.request = request();
      f.submit(h);
      f.turn();
      f.farm.step(CancelTask{TaskId::of({f.jobs}, 0)}, f.now, f.effects);  // what found no place, or some of what did
      if (dice.below(2) == 0) {
        f.submit(h);
        f.turn();
        if (f.out.contains(TaskId::of({f.jobs}, 0))) continue;
        f.farm.step(CancelTask{TaskId::of({f.jobs}, 0)}, f.now, f.effects);
      }
    }
    JobHeader h = f.header(1, dice.below(2) == 0 ? "u" : "v");
    h.request = request();
    if (dice.below(3) == 0) h.alternatives = {request()};
    h.nodes = dice.below(5) == 0 ? 2 : 1;
    limit({});  // a gang beyond it would be refused
    const JobNo job = f.submit(h);
    limit(limits);
    const Explanation e = why(f, job);
    const Explanation guess = f.farm.preview(h, f.now);
    EXPECT_EQ(guess.workers_now, e.workers_now);
    const bool could_now = e.waits.empty() && e.workers_now >= h.nodes;
    const Plan plan = f.farm.plan(f.now, f.prng);
    std::vector<WorkerNo> where;
    for (const auto& g : plan.grants) where.push_back(g.worker);
    for (const auto& g : plan.gangs) where.insert(where.end(), g.workers.begin(), g.workers.end());
    const auto says = [&](WorkerNo no, auto what) {
      return std::any_of(e.workers.begin(), e.workers.end(),
                         [&](const WorkerFit& w) { return w.worker == no && what(w); });
    };
    if (could_now) {
      ASSERT_EQ(where.size(), h.nodes) << e.summary;
      for (const auto no : where) EXPECT_TRUE(says(no, [](const WorkerFit& w) { return w.now; }));
      granted += 1;
    } else {
      // At most it waits in the backlog of one that could run it.
      for (const auto no : where) {
        EXPECT_TRUE(says(no, [](const WorkerFit& w) { return w.could && !w.now; })) << e.summary;
        EXPECT_EQ(h.nodes, 1u);
        EXPECT_EQ(e.workers_now, 0u);
      }
      held_back += 1;
    }
  }
  EXPECT_GT(granted, 50);
  EXPECT_GT(held_back, 50);
}

}  // namespace
}  // namespace grange::core
