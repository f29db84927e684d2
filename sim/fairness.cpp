#include "fairness.hpp"

#include <algorithm>

#include "core/farm.hpp"
#include "world.hpp"

namespace grange::sim {
namespace {

constexpr std::uint32_t kB = 2;

// The core alone, with workers that take what they get: a task runs for 200 ms to 1.8 s.
double median_wait_of_b(std::uint32_t a_tasks, std::uint32_t b_tasks, std::uint32_t workers, std::uint32_t slots) {
  World world(7, false);
  Dice dice(7, 1);
  core::Farm farm({.lease = Millis{1'000'000'000}});
  farm.loaded(world.now());
  Prng prng(1);
  std::vector<double> waits;
  Instant came{};
  std::function<void(core::Effects&)> settle;
  const auto step = [&](const core::Event& event) {
    core::Effects effects;
    farm.step(event, world.now(), effects);
    settle(effects);
  };
  settle = [&](core::Effects& effects) {
    const core::Plan plan = farm.plan(world.now(), prng);
    if (!plan.empty()) farm.apply(plan, world.now(), effects);
    farm.finish_batch(world.now(), effects);
    for (const core::SendAssign& a : effects.assign) {
      if (a.fence.task.job().value == kB) waits.push_back(static_cast<double>((world.mono() - came).count()) / 1e6);
      world.after(dice.span(ms(200), ms(1800)), [&, a] {
        core::Effects done;
        farm.step(core::AttemptStarted{a.worker, a.fence}, world.now(), done);
        farm.step(core::AttemptEnded{.worker = a.worker, .fence = a.fence, .run_us = 1'000'000}, world.now(), done);
        settle(done);
      });
    }
  };
  for (std::uint32_t i = 1; i <= workers; ++i) {
    core::Capacity c;
    c.slots = slots;
    c.cpus_milli = slots * 1000;
    c.engines = {"command"};
    step(core::WorkerHello{.worker = WorkerNo{i}, .capacity = c, .window = slots, .held = {}});
  }
  const auto submit = [&](std::uint32_t no, const char* user, std::uint32_t count) {
    core::SubmitJob job{.job = JobNo{no}, .header = {}};
    job.header.count = count;
    job.header.user = user;
    job.header.request.engine = "command";
    step(job);
  };
  if (a_tasks > 0) submit(1, "a", a_tasks);
  const Instant later = world.mono() + ms(30'000);
  while (world.step(later)) {
  }
  came = world.mono();
  submit(kB, "b", b_tasks);
  while (waits.size() < b_tasks && world.step(Instant::never())) {
  }
  std::sort(waits.begin(), waits.end());
  return waits.size() < b_tasks ? 1e9 : waits[waits.size() / 2];
}

}  // namespace

Fairness measure_fairness(std::uint32_t a_tasks, std::uint32_t b_tasks, std::uint32_t workers, std::uint32_t slots) {
  return {.median_wait_s = median_wait_of_b(a_tasks, b_tasks, workers, slots),
          .median_wait_alone_s = median_wait_of_b(0, b_tasks, workers / 2, slots)};
}

int print_fairness() {
  bool fair = true;
  fmt::print("A has 1,000,000 tasks, B comes later with 100; median wait of B's tasks\n");
  for (const auto& [workers, slots] : {std::pair{2u, 8u}, {4u, 4u}, {16u, 1u}}) {
    const Fairness f = measure_fairness(1'000'000, 100, workers, slots);
    fmt::print("{:>3} workers x {} slots: {:.2f} s; alone on half of the farm {:.2f} s; ratio {:.2f}\n", workers, slots,
               f.median_wait_s, f.median_wait_alone_s, f.ratio());
    fair = fair && f.ratio() <= 2.0;
  }
  return fair ? 0 : 1;
}

}  // namespace grange::sim
