// What a seed decides before anything runs: sizes, policies, workload mix, and which faults come how often.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "world.hpp"

namespace grange::sim {

enum class Fault : std::uint8_t {
  server_crash,     // between two instructions of the engine's loop
  crash_in_commit,  // at the n-th operation of the disk
  power_loss,       // of these, with un-synced writes lost or torn
  io_error,
  disk_full,
  server_stall,  // the engine does not run for a while
  worker_crash,
  worker_pause,  // past its lease
  worker_slow,
  worker_lies,  // hostile fences, foreign tasks, double and reordered results
  cut,
  half_open,
  one_way,    // asymmetric partition
  stall,      // of one connection
  reconnect,  // a second connection while the first still delivers
  retry_storm,
  cancel_race,
  wall_jump,
  version_skew,
  config_change,
  capacity_change,
  kCount
};
inline constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::kCount);
std::string_view name(Fault fault);

struct Options {
  std::uint64_t seed = 0;
  // farm
  std::string policy;
  Millis lease{}, heartbeat{};
  Millis aging{};
  int page_size = 4096;
  // sizes
  std::uint32_t workers = 0, liars = 0, clients = 0, ops = 0, users = 0;
  std::uint32_t tasks_most = 0, slots_most = 0;
  Micros run_mean{}, faulty{};  // mean length of a task; how long the faults last
  // the disk and the wires
  Micros commit_mean{}, delay_mean{};
  // workload: weights of operations
  double fails = 0, crashes_worker = 0;
  bool graphs = false, gangs = false, speculation = false, alternatives = false, deadlines = false, quotas = false,
       pauses = false, open_jobs = false, retries = false, cancels = false, command = false, unsatisfiable = false,
       checkpoints = false;
  // mean time between faults of a class; 0: none
  std::array<Micros, kFaults> every{};
  bool has(Fault f) const { return every[static_cast<std::size_t>(f)].count() > 0; }

  static Options draw(std::uint64_t seed);
  std::string text() const;
};

}  // namespace grange::sim
