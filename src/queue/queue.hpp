// The port that the server uses: submit, hello, report, cancel, retry, ask. Home in this build: `local` (core + SQLite
// journal).
//
// Threading: every call may come from any thread, returns at once, and is carried out in the order of arrival. Answers
// (`done`) and deliveries come on the queue's release thread, after what they promise is on disk; they must not block.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bodies.hpp"
#include "core/types.hpp"

namespace grange::core {
class Farm;
}

namespace grange::queue {

using core::BodyRef;

struct SubmitCall {
  core::JobHeader header;
  core::JobBody body;
  struct Answer {
    JobNo job;
    std::string id;
    bool existed = false;
  };
  // Errors: conflict (key or id known, other content), storage_full, rate_limited (too many queued tasks), unavailable
  // (closing).
  std::function<void(Result<Answer>)> done;
};

struct HelloCall {
  core::WorkerBody body;
  core::Capacity capacity;
  std::uint32_t window = 1;
  std::vector<std::pair<Fence, bool>> held;  // bool: it runs (or ran)
  bool resumable = true;                     // false: its tasks are lost with its connection (JSON workers)
  struct Answer {
    WorkerNo worker;
    std::vector<Fence> refused;
    std::uint64_t session = 0;
  };  // session: pass it to all that follows
  std::function<void(Result<Answer>)> done;
};

struct ResultReport {
  Fence fence;
  bool ok = true;
  bool permanent = false;  // do not try again
  core::FailureClass failure = core::FailureClass::none;
  std::uint64_t run_us = 0;
  core::ResultBody body;
};

struct ReportCall {
  WorkerNo worker;
  std::vector<Fence> started;
  std::vector<ResultReport> results;
  std::vector<Fence> returned;
  std::vector<std::pair<Fence, core::CheckpointBody>> checkpoints;
  std::uint32_t window = 0;  // 0: unchanged
};

// What the queue hands out, once a committed batch. Views into it live as long as it does.
struct Assign {
  WorkerNo worker;
  Fence fence;
  std::string args, args_sha256;
  bool has_checkpoint = false;
  std::string checkpoint, checkpoint_sha256;
};
struct Order {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
};
struct AckOrder {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  bool accepted = false;
};
struct Ended {
  TaskId task;
  core::TaskEnd end{};
  core::FailureClass failure{};
  Attempt attempt = 0;
  WorkerNo worker{};
  std::uint64_t run_us = 0;
  std::shared_ptr<const core::ResultBody> body;  // null: none
};
struct JobChange {
  JobNo job;
  core::JobState state{};
  std::uint32_t count = 0;
  core::JobCounts counts;
  std::uint32_t running = 0;
  // Tasks that were never handed out and ended with the job (cancelled): [first, count). None: first == count.
  std::uint32_t cancelled_from = 0;
};
struct Failed {
  TaskId task;
  Attempt attempt = 0;
  WorkerNo worker{};
  core::FailureClass failure{};
  std::string message;
  bool will_retry = false;
  Millis retry_in{};
};
enum class WorkerChangeKind : std::uint8_t { connected, disconnected, lost, left };
struct WorkerChange {
  WorkerNo worker;
  WorkerChangeKind kind{};
  std::uint32_t requeued = 0;
};

struct Delivery {
  std::vector<Assign> assign;
  std::vector<Order> cancel;  // stop the attempt
  std::vector<Order> take_back;
  std::vector<AckOrder> acks;
  std::vector<Ended> ended;  // in order of their commit
  std::vector<Failed> failed;
  std::vector<JobChange> jobs;  // after `ended`: a job whose state ended has no more outcomes
  std::vector<WorkerChange> workers;
};

struct QueueCounters {
  std::uint64_t events = 0, batches = 0, commits = 0, commit_us = 0, tasks_ended = 0, assigned = 0;
  bool storage_full = false;
};

class Queue {
 public:
  virtual ~Queue() = default;
  virtual void submit(SubmitCall call) = 0;
  virtual void hello(HelloCall call) = 0;
  virtual void report(ReportCall call) = 0;
  virtual void alive(WorkerNo worker) = 0;  // renews its leases
  virtual void gone(WorkerNo worker, std::uint64_t session,
                    bool for_good) = 0;     // connection lost; for_good: it said goodbye
  virtual void drain(WorkerNo worker) = 0;  // no new work for it
  // index nullopt: the whole job. Answers: the number of tasks cancelled. not_found, invalid_state_transition (ended).
  virtual void cancel(JobNo job, std::optional<std::uint32_t> index, std::string reason,
                      std::function<void(Result<std::uint32_t>)> done) = 0;
  // Failed and cancelled tasks run again. Answers: how many.
  virtual void retry(JobNo job, std::function<void(Result<std::uint32_t>)> done) = 0;
  virtual void set_policy(std::string name, std::function<void(Result<>)> done) = 0;
  virtual void forget_all(std::function<void(Result<>)> done) = 0;  // db clear; conflict while jobs run
  // Looks at the live state, on the engine's thread, between two steps. Quick.
  virtual void inspect(std::function<void(const core::Farm&)> look) = 0;
  // Would `bytes` of new work be taken in? storage_full says why not.
  virtual Result<> room_for(Bytes bytes) const = 0;
  virtual QueueCounters counters() const = 0;
};

using Deliver = std::function<void(Delivery)>;

}  // namespace grange::queue
