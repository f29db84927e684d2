// Orders of a hostile server against the worker's mind.
#include "fuzz/input.hpp"
#include "worker/core.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  worker::CoreOptions options;
  options.total = {.slots = 2, .cpus_milli = 2000, .gpus_milli = 0, .memory = GiB, .disk = GiB};
  worker::WorkerCore core(options);
  worker::Effects effects;
  Instant now{1'000'000};
  // Frames of orders, each with its length in front.
  for (std::size_t at = 0; at + 2 <= size;) {
    const std::size_t length = static_cast<std::size_t>(data[at]) << 8 | data[at + 1];
    at += 2;
    const std::size_t n = std::min(length, size - at);
    worker::pb::WorkerOrders orders;
    if (orders.ParseFromArray(data + at, static_cast<int>(n))) {
      core.step(worker::OrdersArrived{&orders}, now, effects);
    }
    at += n;
    core.check_invariants();
    for (const auto& run : effects.start) {
      worker::pb::TaskResult result;
      result.set_ok((n & 1) != 0);
      core.step(worker::AttemptEnded{run.fence.task, run.fence.attempt, &result}, now, effects);
    }
    effects.clear();
    now = now + Micros{400'000};
    core.step(worker::Ticked{}, now, effects);
    core.check_invariants();
    worker::pb::WorkerReport report;
    (void)core.take_report(report, 64 * KiB);
  }
  return 0;
}
