// What can be seen of the live state. Copies: a view outlives the step it was taken in.
#pragma once

#include <vector>

#include "core/types.hpp"

namespace grange::core {

struct JobView {
  JobNo job;
  JobState state{};
  std::uint32_t count = 0, next_index = 0;
  JobCounts counts;
  std::uint32_t assigned = 0, running = 0;  // held by workers: not started, started
  std::uint32_t waiting = 0;                // ready to run now
  std::uint32_t delayed = 0;                // waits for its back-off
  int priority = 0;
  WallMs started{};
};

enum class LiveState : std::uint8_t { pending, assigned, running, delayed, recovering };

struct TaskView {
  TaskId task;
  LiveState state{};
  Attempt attempt = 0;  // 0: never tried
  std::uint16_t failures = 0, crashes = 0;
  WorkerNo worker{};
  WallMs ready_at{};  // delayed
};

struct WorkerView {
  WorkerNo worker;
  bool connected = false, draining = false;
  std::uint32_t window = 0, running = 0, backlog = 0;
  std::uint32_t cpus_used_milli = 0;
  Capacity capacity;
};

struct FarmView {
  std::uint32_t live_jobs = 0, connected_workers = 0, slots = 0;
  std::uint64_t queued_tasks = 0;  // not held by a worker
  std::uint64_t active_tasks = 0;  // held by a worker
  std::uint64_t running_tasks = 0;
};

}  // namespace grange::core
