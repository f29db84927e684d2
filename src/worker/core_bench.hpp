// For tests of the worker's core: jobs of each kind, and a core to try them on.
#pragma once

#include <string>

#include "worker/core.hpp"

namespace grange::worker {

inline constexpr std::uint32_t kNoop = 1, kSleep = 2, kCommand = 3, kBig = 4, kPython = 5, kWrong = 6, kFail = 7;

inline void add_spec(pb::WorkerOrders& orders, std::uint32_t job) {
  pb::SpecOrder& order = *orders.add_specs();
  order.set_job(job);
  pb::JobSpec& spec = *order.mutable_spec();
  spec.set_engine("builtin");
  spec.mutable_requirements()->set_cpus_milli(1000);
  if (job == kNoop) spec.mutable_builtin()->set_op("noop");
  if (job == kFail)
    spec.mutable_builtin()->set_op("fail"), spec.mutable_builtin()->set_message("no"),
        spec.mutable_builtin()->set_permanent(true);
  if (job == kSleep) spec.mutable_builtin()->set_op("sleep"), spec.mutable_builtin()->set_ms(5);
  if (job == kCommand || job == kBig) spec.set_engine("command"), spec.mutable_command()->add_argv("true");
  if (job == kBig) spec.mutable_requirements()->set_cpus_milli(3000);
  if (job == kPython)
    spec.set_engine("python"), spec.set_encoding(pb::ENCODING_PICKLE),
        spec.mutable_python()->set_code_sha256(std::string(64, 'a'));
  if (job == kWrong) spec.set_engine("abacus");
}

struct Bench {
  explicit Bench(std::uint32_t slots = 4, bool python = true)
      : core({Need{slots, slots * 1000, 0, GiB, GiB}, python, std::chrono::seconds(2), std::chrono::seconds(5)}) {
    pb::WorkerOrders orders;
    for (std::uint32_t job = kNoop; job <= kFail; ++job) add_spec(orders, job);
    step(OrdersArrived{&orders});
  }
  void step(const Event& event) {
    core.step(event, now, effects);
    core.check_invariants();
  }
  void assign(std::uint32_t job, std::uint32_t index, Attempt attempt = 1, std::string args = "",
              LeaseEpoch epoch = 9) {
    pb::WorkerOrders orders;
    pb::Assignment& a = *orders.add_assign();
    a.set_task(TaskId::of(JobNo{job}, index).packed);
    a.set_attempt(attempt);
    a.set_epoch(epoch);
    a.set_args(args);
    step(OrdersArrived{&orders});
  }
  void end(std::uint32_t job, std::uint32_t index, bool ok = true, Attempt attempt = 1) {
    pb::TaskResult result;
    result.set_ok(ok);
    if (!ok) result.set_failure(pb::FAILURE_ENGINE);
    step(AttemptEnded{TaskId::of(JobNo{job}, index), attempt, &result});
  }
  void ack(const pb::TaskResult& result) {
    pb::WorkerOrders orders;
    orders.add_acks()->set_task(result.task());
    orders.mutable_acks(0)->set_attempt(result.attempt());
    step(OrdersArrived{&orders});
  }
  pb::WorkerReport report() {
    pb::WorkerReport out;
    while (core.take_report(out, 1000)) {
    }
    return out;
  }
  Instant now{1'000'000};
  Effects effects;
  WorkerCore core;
};

}  // namespace grange::worker
