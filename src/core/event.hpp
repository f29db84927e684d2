// What can happen to the farm. Each is a fact that someone else checked the form of; whether it is true and timely is
// the core's to say.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/records.hpp"

namespace grange::core {

// A job of the caller's number (numbers grow). Its keys were checked by the queue.
struct SubmitJob {
  JobNo job;
  JobHeader header;
  BodyRef body = kNoBody;
};

// A worker is there. `worker` is its lasting number. held: what it says it holds; true: started.
struct WorkerHello {
  WorkerNo worker;
  Capacity capacity;
  std::uint32_t window = 1;
  std::vector<std::pair<Fence, bool>> held;
  BodyRef body = kNoBody;
};
struct WorkerAlive {
  WorkerNo worker;
};
// for_good: it said goodbye, or cannot resume: what it holds is lost now, not when its lease ends. charge: it did not
// leave of its own will, so what it ran may be what ended it.
struct WorkerGone {
  WorkerNo worker;
  bool for_good = false;
  bool charge = false;
};
struct WorkerDrain {
  WorkerNo worker;
};
struct WorkerWindow {
  WorkerNo worker;
  std::uint32_t window = 1;
};

struct AttemptStarted {
  WorkerNo worker;
  Fence fence;
};
struct AttemptReturned {
  WorkerNo worker;
  Fence fence;
};  // taken back, never started
struct AttemptEnded {
  WorkerNo worker;
  Fence fence;
  bool ok = true;
  bool permanent = false;
  FailureClass failure = FailureClass::none;
  std::uint64_t run_us = 0;
  BodyRef body = kNoBody;
};
struct CheckpointTaken {
  WorkerNo worker;
  Fence fence;
  BodyRef body = kNoBody;
};

struct CancelJob {
  JobNo job;
};
struct CancelTask {
  TaskId task;
};
// Failed and cancelled tasks run again; `tasks` were read from the store. A job that had ended comes back whole.
struct RetryTasks {
  JobNo job;
  struct Again {
    std::uint32_t index = 0;
    TaskEnd end = TaskEnd::failed;
    Attempt attempt = 0;
  };
  std::vector<Again> tasks;
  struct Reopen {
    JobHeader header;
    JobProgressed progress;
  };
  std::optional<Reopen> ended;  // set: the job is not in memory
};
struct Tick {};  // time passed
// We were not looking for a while (a full disk, a stopped machine): what the workers said meanwhile is still unread, so
// no lease may end on it.
struct Overslept {};

using Event =
    std::variant<SubmitJob, WorkerHello, WorkerAlive, WorkerGone, WorkerDrain, WorkerWindow, AttemptStarted,
                 AttemptReturned, AttemptEnded, CheckpointTaken, CancelJob, CancelTask, RetryTasks, Tick, Overslept>;

}  // namespace grange::core
