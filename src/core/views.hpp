// What can be seen of the live state. Copies: a view outlives the step it was taken in.
#pragma once

#include <string_view>
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
  std::uint32_t paused = 0;                 // frozen on a worker, or held back by hand
  std::uint32_t blocked = 0;                // waits for other tasks or jobs
  int priority = 0;
  WallMs started{};
  bool open = false, is_paused = false;
};

enum class LiveState : std::uint8_t { pending, assigned, running, delayed, recovering, paused, blocked };
std::string_view name(LiveState s);

struct TaskView {
  TaskId task;
  LiveState state{};
  Attempt attempt = 0;  // 0: never tried
  std::uint16_t failures = 0, crashes = 0;
  WorkerNo worker{};
  WorkerNo second{};     // runs a speculative attempt of it
  WallMs ready_at{};     // delayed
  bool by_hand = false;  // paused by a person
  WallMs started{};      // of what runs
};

// A live job's tasks, counted in cells of `per_cell` from `from` on. What is none of these has ended.
struct JobGrid {
  std::uint32_t count = 0, from = 0, to = 0, per_cell = 1;
  std::vector<std::uint32_t> pending, running, paused, blocked;
  std::vector<std::uint32_t> dropped;  // cancelled before they were ever handed out, without outcomes
};

struct WorkerView {
  WorkerNo worker;
  bool connected = false, draining = false;
  std::uint32_t window = 0, running = 0, backlog = 0;
  std::uint32_t cpus_used_milli = 0;
  Capacity capacity;
  std::uint32_t slots_in_use = 0;
  bool quarantined = false;
  WallMs quarantined_until{};
  std::uint32_t failed_in_a_row = 0;
  double success = 1, mean_run_us = 0;  // decayed
  bool paused = false;                  // by a person
};

// How much it keeps in mind of what may be over.
struct Footprint {
  std::size_t users = 0, kinds = 0, requests = 0, timers = 0;
};

struct FarmView {
  std::uint32_t live_jobs = 0, connected_workers = 0, slots = 0;
  std::uint64_t queued_tasks = 0;  // not held by a worker
  std::uint64_t active_tasks = 0;  // held by a worker
  std::uint64_t running_tasks = 0;
  std::uint64_t blocked_tasks = 0;
  bool paused = false;
};

}  // namespace grange::core
