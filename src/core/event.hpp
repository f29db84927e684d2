// What can happen to the farm. Each is a fact that someone else checked the form of; whether it is true and timely is
// the core's to say.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/records.hpp"

namespace grange::core {

// How a parent stood when its child was submitted. For a parent that is live in the core only `ended_badly` counts.
struct Parent {
  bool ended = false;      // the whole job
  bool succeeded = false;  // ended, and every task completed
  // Of `each` and one-task dependencies: tasks that ended without success, or that an ended job does not have. All else
  // that ended succeeded. As ranges [first, end).
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ended_badly;
};
// A job of the caller's number (numbers grow). Its keys were checked by the queue. parents: as in header.after.
struct SubmitJob {
  JobNo job;
  JobHeader header;
  BodyRef body = kNoBody;
  std::vector<Parent> parents = {};
};
// A graph: all of them or none. Jobs may wait for earlier ones of the list (their Parent is empty).
struct SubmitGraph {
  std::vector<SubmitJob> jobs;
};
// More tasks for an open job; close: no more after these. parents: as at a submit of the job with these tasks, if it
// has an `each` dependency.
struct ExtendJob {
  JobNo job;
  std::uint32_t count = 0;
  bool close = false;
  BodyRef body = kNoBody;  // JobBody with the pages of the new tasks
  std::vector<Parent> parents = {};
  std::string key = {};  // was looked up before
};

// A worker is there. `worker` is its lasting number. held: what it says it holds.
struct SaidHeld {
  Fence fence;
  bool started = false;
  std::uint32_t alternative = 0;  // of the job's requests
};
struct WorkerHello {
  WorkerNo worker;
  Capacity capacity;
  std::uint32_t window = 1;
  std::vector<SaidHeld> held;
  BodyRef body = kNoBody;
};
// What it offers is another now.
struct WorkerChanged {
  WorkerNo worker;
  Capacity capacity;
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
struct WorkerRelease {
  WorkerNo worker;
};  // out of quarantine
// A person's word: nothing new goes there until it is taken back; what runs goes on. Kept while it is away.
struct WorkerPause {
  WorkerNo worker;
  bool pause = true;
};
// It is not here, and shall not be shown any more. One that is here: conflict.
struct WorkerForget {
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
  bool unsent = false;  // the queue could not hand it over now: the worker never heard of it
};                      // never started: taken back, or not wanted by the worker
// Its processes were frozen, or go on.
struct AttemptPaused {
  WorkerNo worker;
  Fence fence;
  bool paused = true;
};
// It ran, was stopped and is given back: for a pause, or as its worker drains. It may have left a checkpoint.
struct AttemptPreempted {
  WorkerNo worker;
  Fence fence;
};
struct AttemptEnded {
  WorkerNo worker;
  Fence fence;
  bool ok = true;
  bool permanent = false;
  FailureClass failure = FailureClass::none;
  std::uint64_t run_us = 0;
  BodyRef body = kNoBody;
  Stage stage = Stage::none;   // of a failure
  std::string exception = {};  // of a failure of class exception: its type
  bool unsent = false;  // the queue ended it before the worker heard of it: no acknowledgement, and not its fault
};
struct CheckpointTaken {
  WorkerNo worker;
  Fence fence;
  BodyRef body = kNoBody;
};

// body: a ResultBody whose message is the reason.
struct CancelJob {
  JobNo job;
  BodyRef body = kNoBody;
};
struct CancelTask {
  TaskId task;
  BodyRef body = kNoBody;
};
// Nothing new of it starts. freeze: what runs is frozen, too. A resume thaws what was frozen, but for tasks that were
// paused one by one.
struct PauseJob {
  JobNo job;
  bool pause = true;
  bool freeze = false;
};
// A waiting task is held back; a running one is frozen, or (requeue) stopped, given back and held back.
struct PauseTask {
  TaskId task;
  bool pause = true;
  bool requeue = false;
};
struct PauseFarm {
  bool pause = true;
};
struct SetUser {
  std::string user;
  UserLimits limits;
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
    // Tasks from progress.next_index on that have an outcome, as in load_job; those of `tasks` need not be named again.
    std::vector<std::uint32_t> skipped = {};
  };
  std::optional<Reopen> ended;  // set: the job is not in memory
};
struct Tick {};  // time passed
// We were not looking for a while (a full disk, a stopped machine): what the workers said meanwhile is still unread, so
// no lease may end on it.
struct Overslept {};

using Event = std::variant<SubmitJob, WorkerHello, WorkerAlive, WorkerGone, WorkerDrain, WorkerWindow, AttemptStarted,
                           AttemptReturned, AttemptEnded, CheckpointTaken, CancelJob, CancelTask, RetryTasks, Tick,
                           Overslept, SubmitGraph, ExtendJob, WorkerRelease, AttemptPaused, AttemptPreempted, PauseJob,
                           PauseTask, PauseFarm, SetUser, WorkerChanged, WorkerPause, WorkerForget>;

}  // namespace grange::core
