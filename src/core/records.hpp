// What the core wants on disk. A batch of these is one transaction; the store's fold over all of them is the state
// after a restart.
#pragma once

#include <array>
#include <string>
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
  std::uint32_t count = 0;  // tasks in all, now
  bool open = false;        // tasks may still be added
  bool opened = false;      // what it waited for is there; never taken back
  bool paused = false;
  friend bool operator==(const JobProgressed&, const JobProgressed&) = default;
};

// How often a task failed, by class.
using FailureCounts = std::array<std::uint8_t, kCountedClasses>;

// A task that will run, or runs, as something that its job's range does not imply: attempt > 1, paused by hand, or let
// go one by one by the tasks that it waited for. Replaces an earlier one.
struct TaskKept {
  TaskId task;
  Attempt attempt = 1;  // the next one, or the newest that is out
  FailureCounts failures{};
  bool parked = false;  // paused by hand: waits until it is resumed, and is frozen if a worker still has it
  WallMs ready_at{};
  bool requeue = false;  // parked: given back instead, if a worker still has it
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
  Stage stage = Stage::none;
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

// Tasks first .. first + count - 1 were added to an open job. Their argument pages are in the body. key: the same again
// adds nothing, and is told first + count.
struct JobExtended {
  JobNo job;
  std::uint32_t first = 0, count = 0;
  BodyRef body = kNoBody;
  std::string key = {};
};
// What was never handed out of a job ended as cancelled, without outcomes. The reason is a ResultBody's message.
struct JobCancelled {
  JobNo job;
  BodyRef body = kNoBody;
};
// Nothing new goes there before `until`; 0: it is out of quarantine.
struct WorkerQuarantined {
  WorkerNo worker;
  WallMs until{};
  std::uint32_t times = 0;  // in a row
};
// What people said of a worker. forgotten: shown no more, until it says hello again.
struct WorkerMarked {
  WorkerNo worker;
  bool paused = false, forgotten = false;
};
struct UserSet {
  std::string user;
  UserLimits limits;
};
// What holds for the whole farm.
struct FarmSet {
  bool paused = false;
  std::string policy = {};       // chosen while it ran; "": none
  std::string policy_over = {};  // the one that the server was started with then: another start option counts again
  friend bool operator==(const FarmSet&, const FarmSet&) = default;
};

using Record = std::variant<JobAdded, JobProgressed, TaskKept, TaskEnded, TaskReopened, AttemptFailed, CheckpointKept,
                            WorkerSeen, JobExtended, UserSet, FarmSet, JobCancelled, WorkerQuarantined, WorkerMarked>;

}  // namespace grange::core
