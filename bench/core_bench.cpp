// What a task costs in the core: submit, plan, assign, result, end of batch; no disk, no wire.
#include <benchmark/benchmark.h>

#include "core/farm.hpp"

namespace {

using namespace grange;
using namespace grange::core;

// One item is one task from waiting to its outcome, with `workers` that hold up to `window` each.
void tasks_through_the_core(benchmark::State& state) {
  const auto workers = static_cast<std::uint32_t>(state.range(0));
  constexpr std::uint32_t kWindow = 512;
  Farm farm(FarmOptions{});
  Prng prng(1);
  Now now{{1'000'000}, {1'700'000'000'000}};
  Effects effects;
  for (std::uint32_t w = 1; w <= workers; ++w) {
    farm.step(WorkerHello{{w}, {.slots = 1, .cpus_milli = 1000, .engines = {"builtin"}}, kWindow, {}, kNoBody}, now,
              effects);
  }
  std::uint32_t job = 0;
  std::int64_t done = 0;
  std::vector<SendAssign> held;
  for (auto _ : state) {
    if (farm.view().queued_tasks < std::uint64_t{workers} * kWindow) {
      JobHeader header{.count = limits::kTasksPerJob};
      header.request.engine = "builtin";
      farm.step(SubmitJob{{++job}, header, kNoBody}, now, effects);
    }
    now.mono.us += 1000;
    farm.apply(farm.plan(now, prng), now, effects);
    held.swap(effects.assign);
    effects = {};
    for (const auto& a : held) {
      farm.step(AttemptEnded{.worker = a.worker, .fence = a.fence, .run_us = 1}, now, effects);
    }
    for (std::uint32_t w = 1; w <= workers; ++w) farm.step(WorkerAlive{{w}}, now, effects);
    farm.finish_batch(now, effects);
    done += static_cast<std::int64_t>(held.size());
    benchmark::DoNotOptimize(effects.records.data());
    effects = {};
  }
  state.SetItemsProcessed(done);
}
BENCHMARK(tasks_through_the_core)->Arg(1)->Arg(2)->Arg(100)->Arg(2000);

// A plan when all windows are full and a million tasks wait in many jobs: what every turn of the loop pays.
void plan_when_all_are_busy(benchmark::State& state) {
  Farm farm(FarmOptions{});
  Prng prng(1);
  const Now now{{1'000'000}, {1'700'000'000'000}};
  Effects effects;
  for (std::uint32_t w = 1; w <= 2000; ++w) {
    farm.step(WorkerHello{{w}, {.slots = 2, .cpus_milli = 2000, .engines = {"builtin"}}, 2, {}, kNoBody}, now, effects);
  }
  for (std::uint32_t j = 1; j <= static_cast<std::uint32_t>(state.range(0)); ++j) {
    JobHeader header{.count = 1000, .priority = static_cast<int>(j % 5)};
    header.request.engine = "builtin";
    farm.step(SubmitJob{{j}, header, kNoBody}, now, effects);
  }
  farm.apply(farm.plan(now, prng), now, effects);
  for (auto _ : state) benchmark::DoNotOptimize(farm.plan(now, prng));
}
BENCHMARK(plan_when_all_are_busy)->Arg(10)->Arg(1000);

}  // namespace

BENCHMARK_MAIN();
