// What is handed out has room, in each thing that a worker has; and no room stays empty that waiting work fits.
#include <algorithm>
#include <array>
#include <functional>

#include "core/plan_fixture.hpp"

namespace grange::core {
namespace {

using testing::PlanFarm;

// A worker as simple as can be. Parts of GPUs are a half or a quarter, so largest first packs them as well as can be.
struct Shelf {
  Capacity capacity;
  std::uint32_t window = 0;
  std::map<TaskId, Request> held = {};

  bool fits(const Request& r) const {
    std::uint64_t cpus = r.cpus_milli, memory = r.memory, disk = r.disk;
    std::vector<std::uint32_t> gpus = {r.gpus_milli};
    for (const auto& [id, other] : held) {
      cpus += other.cpus_milli;
      memory += other.memory;
      disk += other.disk;
      gpus.push_back(other.gpus_milli);
    }
    // What it does not need may be overbooked by what was held before the worker shrank.
    return held.size() < std::min(window, capacity.slots) && cpus <= capacity.cpus_milli &&
           (r.memory == 0 || memory <= capacity.memory) && (r.disk == 0 || disk <= capacity.disk) &&
           (r.gpus_milli == 0 || packs(gpus)) && r.gpu_memory <= capacity.gpu_memory;
  }
  bool packs(std::vector<std::uint32_t> wants) const {
    std::sort(wants.begin(), wants.end(), std::greater<>());
    std::uint64_t whole = 0, parts = 0;
    for (const auto w : wants) (w >= 1000 ? whole : parts) += w;
    return whole + (parts + 999) / 1000 * 1000 <= capacity.gpus_milli;
  }
  // May wait here while what is before it runs: at most twice one slot's share.
  bool small(const Request& r) const {
    const auto share = [&](std::uint64_t need, std::uint64_t all) { return need * capacity.slots <= 2 * all; };
    return held.size() < window && share(r.cpus_milli, capacity.cpus_milli) && share(r.memory, capacity.memory) &&
           share(r.disk, capacity.disk) && share(r.gpus_milli, capacity.gpus_milli) &&
           r.gpu_memory <= capacity.gpu_memory;
  }
};

struct Room {
  explicit Room(std::uint64_t seed) : dice(seed) {}

  PlanFarm f{FarmOptions{.lease = Millis{1'000'000'000}}};
  Prng dice;
  std::map<std::uint32_t, Shelf> shelves;
  std::map<TaskId, SendAssign> out;  // of what is no gang
  std::map<std::uint32_t, JobHeader> jobs;
  std::uint64_t first_tier = 0, backlog = 0, gangs = 0;

  std::uint32_t some(std::uint64_t n) { return static_cast<std::uint32_t>(dice.below(n)); }

  void hello(std::uint32_t no) {
    Shelf& shelf = shelves[no];
    shelf.capacity = {.slots = 1 + some(6),
                      .cpus_milli = 1000 * (1 + some(6)),
                      .gpus_milli = 1000 * some(4),
                      .memory = (1 + dice.below(16)) * GiB,
                      .disk = dice.below(9) * GiB,
                      .gpu_memory = dice.below(3) * GiB,
                      .engines = {"builtin"}};
    shelf.window = shelf.capacity.slots + some(4);
    WorkerHello e{.worker = {no}, .capacity = shelf.capacity, .window = shelf.window, .held = {}};
    for (const auto& [id, a] : out) {
      if (a.worker.value == no) e.held.push_back({a.fence, false});
    }
    f.farm.step(e, f.now, f.effects);
  }
  void submit() {
    JobHeader h = f.header(1 + some(8), std::string(1, static_cast<char>('a' + some(3))));
    h.priority = static_cast<int>(some(2));
    h.request.cpus_milli = 500 * (1 + some(8));
    h.request.memory = dice.below(8) * GiB;
    h.request.disk = dice.below(4) * GiB;
    if (some(2) == 0) h.request.gpus_milli = std::array{250u, 500u, 1000u, 2000u}[some(4)];
    if (h.request.gpus_milli > 0) h.request.gpu_memory = dice.below(2) * GiB;
    h.nodes = some(5) == 0 ? 2 : 1;
    if (some(5) == 0) {
      h.alternatives = {f.header(1).request};
      h.alternatives[0].cpus_milli = 3000;
    }
    jobs[f.submit(h).value] = h;
  }
  const Request& request(JobNo job, std::uint8_t alternative) {
    const JobHeader& h = jobs.at(job.value);
    return alternative == 0 ? h.request : h.alternatives[alternative - 1u];
  }
  // Where a grant goes: room for it, or it is small; and what goes into room goes first.
  void put(WorkerNo no, TaskId id, const Request& r, bool gang) {
    Shelf& shelf = shelves.at(no.value);
    if (shelf.fits(r)) {
      (gang ? gangs : first_tier) += 1;
    } else {
      EXPECT_FALSE(gang);
      EXPECT_TRUE(shelf.small(r)) << "worker " << no.value;
      backlog += 1;
    }
    shelf.held[id] = r;
  }
  void turn() {
    const Plan plan = f.farm.plan(f.now, f.prng);
    std::uint32_t made_up = UINT32_MAX;  // gangs and counts name no task
    auto before = shelves;
    for (const auto& g : plan.gangs) {
      for (const auto no : g.workers) put(no, TaskId::of({9999}, --made_up), request(g.job, g.alternative), true);
    }
    for (const auto& g : plan.grants) {
      for (std::uint32_t i = 0; i < g.count; ++i) {
        put(g.worker, TaskId::of({9999}, --made_up), request(g.job, g.alternative), false);
      }
    }
    // No room is left that something fits which still waits.
    std::map<std::uint32_t, std::uint32_t> taken;
    for (const auto& g : plan.grants) taken[g.job.value] += g.count;
    for (const auto& g : plan.gangs) taken[g.job.value] += 1;
    for (const auto& j : f.farm.jobs()) {
      if (j.waiting == taken[j.job.value]) continue;
      const JobHeader& h = jobs.at(j.job.value);
      for (std::uint8_t alternative = 0; alternative <= h.alternatives.size(); ++alternative) {
        std::uint32_t could = 0;
        for (const auto& [no, shelf] : shelves) could += shelf.fits(request(j.job, alternative)) ? 1 : 0;
        EXPECT_LT(could, h.nodes) << "job " << j.job.value;
      }
    }
    shelves = before;
    f.effects.assign.clear();
    f.farm.apply(plan, f.now, f.effects);
    f.farm.check_invariants();
    for (const auto& a : f.effects.assign) out[a.fence.task] = a;
    // Gangs end at once, so that a hello has whole tasks to speak of.
    for (const auto& a : f.effects.assign) {
      if (a.gang != UINT32_MAX && a.rank == 0) f.end(a, Millis{1});
      if (a.gang != UINT32_MAX) out.erase(a.fence.task);
    }
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::uint8_t>> alternatives;
    for (const auto& g : plan.grants) {
      auto& list = alternatives[{g.job.value, g.worker.value}];
      list.insert(list.end(), g.count, g.alternative);
    }
    for (const auto& a : f.effects.assign) {
      if (a.gang != UINT32_MAX) continue;
      auto& list = alternatives.at({a.fence.task.job().value, a.worker.value});
      shelves.at(a.worker.value).held[a.fence.task] = request(a.fence.task.job(), list.front());
      list.erase(list.begin());
    }
  }
  void end_some() {
    const auto all = out;
    for (const auto& [id, a] : all) {
      if (some(3) != 0) continue;
      f.end(a, Millis{5});
      shelves.at(a.worker.value).held.erase(id);
      out.erase(id);
    }
    f.close_batch();
  }
};

TEST(Room, IsThereForAllThatIsHandedOutAndNoneIsWasted) {
  std::uint64_t first_tier = 0, backlog = 0, gangs = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Room room(seed);
    ASSERT_TRUE(room.f.farm.set_policy(policy_names()[room.dice.below(5)], room.f.now).ok());
    for (std::uint32_t w = 1; w <= 4; ++w) room.hello(w);
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) room.submit();
      room.turn();
      room.end_some();
      room.hello(1 + room.some(4));  // a new capacity, more or less than it holds
      room.turn();
    }
    first_tier += room.first_tier;
    backlog += room.backlog;
    gangs += room.gangs;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(first_tier, 1000u);
  EXPECT_GT(backlog, 500u);
  EXPECT_GT(gangs, 100u);
}

// Numbers for requirements come back when nobody has them any more, and what was known of the old ones is forgotten.
TEST(Requests, AreKeptApartForEverAndNotOnlyForTheFirstFourThousand) {
  PlanFarm f(FarmOptions{.lease = Millis{1'000'000'000}});
  f.worker(1, 8);
  f.worker(2, Capacity{.slots = 8, .cpus_milli = 100'000});
  for (std::uint32_t i = 1; i <= 3 * limits::kRequests; ++i) {
    JobHeader h = f.header(1);
    h.request.cpus_milli = i;
    if (i % 3 == 0) {
      h.alternatives = {h.request};
      h.alternatives[0].disk = i;
    }
    const JobNo job = f.submit(h);
    const Plan plan = f.farm.plan(f.now, f.prng);
    ASSERT_EQ(plan.grants.size(), 1u) << i;
    if (i > 8000) {
      EXPECT_EQ(plan.grants[0].worker.value, 2u) << "the other has 8 cores";
    }
    f.farm.apply(plan, f.now, f.effects);
    f.farm.step(CancelJob{job}, f.now, f.effects);
    f.close_batch();
    if (i % 512 == 0) f.farm.check_invariants();
  }
  // All of them at once are still too many.
  std::vector<JobNo> jobs;
  for (std::uint32_t i = 1; i <= limits::kRequests; ++i) {
    JobHeader h = f.header(1);
    h.request.cpus_milli = 200'000 + i;
    jobs.push_back(f.submit(h));
  }
  f.farm.check_invariants();
  JobHeader h = f.header(1);
  h.request.cpus_milli = 200'001;
  const auto ask = [&] { return f.farm.step(SubmitJob{.job = {++f.jobs}, .header = h}, f.now, f.effects).result; };
  EXPECT_TRUE(ask().ok()) << "that one is known";
  h.request.cpus_milli = 1;
  auto refused = ask();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().cls, ErrorClass::rate_limited);
  f.farm.step(CancelJob{jobs[7]}, f.now, f.effects);
  f.close_batch();
  EXPECT_TRUE(ask().ok());
  f.close_batch();
  f.farm.check_invariants();
}

}  // namespace
}  // namespace grange::core
