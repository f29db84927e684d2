// What the core wants done, as values: records to write, then messages to let go once they are on disk.
#pragma once

#include <optional>
#include <vector>

#include "core/records.hpp"
#include "core/wait_counts.hpp"

namespace grange::core {

struct SendAssign {
  WorkerNo worker;
  Fence fence;
  bool checkpoint = false;
  std::uint32_t gang = UINT32_MAX;  // into Effects::gangs: its members' workers by rank
  std::uint32_t rank = 0;
  std::uint8_t alternative = 0;  // of the job's requests
};
struct SendCancel {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  BodyRef body = kNoBody;  // the reason, as a ResultBody's message
};
// Numbers as on the wire (PauseHow).
enum class PauseHow : std::uint8_t { freeze = 0, resume = 1, requeue = 2 };
struct SendPause {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  PauseHow how{};
};
struct SendTakeBack {
  WorkerNo worker;
  TaskId task;
};
struct SendAck {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  bool accepted = false;
};
struct NoteFailed {
  TaskId task;
  Attempt attempt = 0;
  WorkerNo worker;
  FailureClass failure{};
  Stage stage = Stage::none;
  BodyRef body = kNoBody;
  bool retry = false;
  Millis retry_in{};
};
struct NoteJob {
  JobNo job;
  JobState state{};
  std::uint32_t count = 0;
  JobCounts counts;
  std::uint32_t running = 0;
  std::uint32_t cancelled_from = 0;
  bool paused = false, open = false;
  std::uint32_t assigned = 0;
};
enum class WorkerNews : std::uint8_t {
  connected,
  disconnected,
  lost,
  left,
  quarantined,
  released,
  paused,
  resumed,
  forgotten
};
struct NoteWorker {
  WorkerNo worker;
  WorkerNews news{};
  std::uint32_t requeued = 0;
};

struct Effects {
  std::vector<Record> records;
  std::vector<SendAssign> assign;
  std::vector<std::vector<WorkerNo>> gangs;
  std::vector<SendCancel> cancel;
  std::vector<SendPause> pause;
  std::vector<SendTakeBack> take_back;
  std::vector<SendAck> acks;
  std::vector<NoteFailed> failed;
  std::vector<NoteJob> jobs;
  std::vector<NoteWorker> workers;
  WaitCounts waits;  // of first attempts that started; figures only, so they make no batch

  bool empty() const {
    return records.empty() && assign.empty() && cancel.empty() && pause.empty() && take_back.empty() && acks.empty() &&
           failed.empty() && jobs.empty() && workers.empty();
  }
};

// The direct answer to one event. Where an event promises something, the promise holds once its batch is on disk.
struct StepAnswer {
  Result<> result;
  std::uint32_t count =
      0;  // CancelJob, RetryTasks, PauseJob, ExtendJob: how many tasks; WorkerHello: how many were adopted
  std::vector<Fence> refused = {};  // WorkerHello: what it may no longer run
};

}  // namespace grange::core
