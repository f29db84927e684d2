// A small farm that tests of the planner drive by hand.
#pragma once

#include <gtest/gtest.h>

#include <map>

#include "core/farm.hpp"

namespace grange::core::testing {

struct PlanFarm {
  explicit PlanFarm(FarmOptions options = {}) : farm(options) {}

  Farm farm;
  Prng prng{7};
  Effects effects;
  Now now{{1'000'000'000}, {1'700'000'000'000}};
  std::map<TaskId, std::vector<SendAssign>> out;  // what workers hold
  std::uint32_t jobs = 0;

  void pass(Millis time) {
    now.mono = now.mono + time;
    now.wall.ms += time.count();
    farm.step(Tick{}, now, effects);
  }
  void worker(std::uint32_t no, Capacity capacity, std::uint32_t window = 0) {
    if (capacity.engines.empty()) capacity.engines = {"builtin"};
    farm.step(
        WorkerHello{.worker = {no}, .capacity = capacity, .window = window == 0 ? capacity.slots : window, .held = {}},
        now, effects);
  }
  void worker(std::uint32_t no, std::uint32_t slots, std::uint32_t window = 0) {
    worker(no, Capacity{.slots = slots, .cpus_milli = 1000 * slots, .memory = 16 * GiB}, window);
  }
  JobHeader header(std::uint32_t count, std::string user = "") {
    JobHeader h{.count = count};
    h.request.engine = "builtin";
    h.user = std::move(user);
    return h;
  }
  JobNo submit(const JobHeader& h) {
    const JobNo no{++jobs};
    const auto answer = farm.step(SubmitJob{.job = no, .header = h}, now, effects);
    EXPECT_TRUE(answer.result.ok()) << answer.result.error().message;
    return no;
  }
  JobNo submit(std::uint32_t count, std::string user = "", int priority = 0) {
    JobHeader h = header(count, std::move(user));
    h.priority = priority;
    return submit(h);
  }
  std::vector<SendAssign> turn() {
    effects.assign.clear();
    farm.apply(farm.plan(now, prng), now, effects);
    farm.check_invariants();
    for (const auto& a : effects.assign) out[a.fence.task].push_back(a);
    return effects.assign;
  }
  StepAnswer start(const SendAssign& a) { return farm.step(AttemptStarted{a.worker, a.fence}, now, effects); }
  StepAnswer end(const SendAssign& a, Millis ran, bool ok = true, FailureClass failure = FailureClass::exception) {
    out.erase(a.fence.task);
    return farm.step(AttemptEnded{.worker = a.worker,
                                  .fence = a.fence,
                                  .ok = ok,
                                  .failure = ok ? FailureClass::none : failure,
                                  .run_us = static_cast<std::uint64_t>(Micros{ran}.count())},
                     now, effects);
  }
  void close_batch() {
    farm.finish_batch(now, effects);
    effects = {};
  }
};

inline bool has(const std::vector<Reason>& reasons, std::string_view code) {
  for (const Reason& r : reasons) {
    if (r.code == code) return true;
  }
  return false;
}

}  // namespace grange::core::testing
