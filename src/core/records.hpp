// What the core wants on disk. A batch of these is one transaction; the store's fold over all of them is the state
// after a restart.
#pragma once

#include <variant>
#include <vector>

#include "core/types.hpp"

namespace grange::core {

// A job was accepted. Its spec and argument pages are in the body.
struct JobAdded {
  JobNo job;
  BodyRef body = kNoBody;
  JobHeader header;
  WallMs at;
};

// The last word of a batch on a job: at most one a job and batch.
// Tasks from `next_index` on were never handed out; below it, a task without an outcome is live.
struct JobProgressed {
  JobNo job;
  JobState state = JobState::pending;
  std::uint32_t next_index = 0;
  JobCounts counts;
  WallMs started{};  // 0: not yet
  WallMs ended{};
  friend bool operator==(const JobProgressed&, const JobProgressed&) = default;
};

// A task that will run, or runs, as an attempt that its job's range does not imply (attempt > 1). Replaces an earlier
// one.
struct TaskKept {
  TaskId task;
  Attempt attempt = 1;
  std::uint16_t failures = 0;
  std::uint16_t crashes = 0;
  WallMs ready_at{};
};

// A task ended. Removes its TaskKept and its checkpoint.
struct TaskEnded {
  TaskId task;
  TaskEnd end = TaskEnd::completed;
  FailureClass failure = FailureClass::none;
  Attempt attempt = 0;     // 0: never handed out
  WorkerNo worker{};       // 0: none
  BodyRef body = kNoBody;  // the result, or the failure's message
  WallMs at{};
  std::uint64_t run_us = 0;
};

// An outcome is taken back: the task runs again (retry of a failed one).
struct TaskReopened {
  TaskId task;
};

// An attempt failed, whatever became of the task: the history behind /api/worker-failures.
struct AttemptFailed {
  TaskId task;
  Attempt attempt = 1;
  WorkerNo worker{};
  FailureClass failure = FailureClass::none;
  BodyRef body = kNoBody;
  WallMs at{};
};

struct CheckpointKept {
  TaskId task;
  Attempt attempt = 1;
  BodyRef body = kNoBody;
};

struct WorkerSeen {
  WorkerNo worker;
  bool connected = false;
  BodyRef body = kNoBody;
  WallMs at{};
};  // body: name and manifest; kNoBody: as before

using Record =
    std::variant<JobAdded, JobProgressed, TaskKept, TaskEnded, TaskReopened, AttemptFailed, CheckpointKept, WorkerSeen>;

}  // namespace grange::core
