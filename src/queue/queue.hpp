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
#include "core/effects.hpp"
#include "core/event.hpp"
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

// A graph: all of it or none. Dependency::job of a job may name an earlier one of the list: kSibling + its place in it.
inline constexpr std::uint32_t kSibling = 0x8000'0000;
struct GraphCall {
  std::vector<std::pair<core::JobHeader, core::JobBody>> jobs;
  std::function<void(Result<std::vector<SubmitCall::Answer>>)> done;
};

// More tasks for an open job. Answers: the job's number of tasks. not_found, invalid_state_transition (not open,
// ended). The same key of the same job again adds nothing and is answered as the first time, even after its end.
struct ExtendCall {
  JobNo job;
  std::uint32_t count = 0;
  bool close = false;
  std::string key = {};
  std::vector<core::ArgumentPage> pages;  // `first` counts from the first new task
  std::vector<std::string> blobs;
  std::function<void(Result<std::uint32_t>)> done;
};

// index nullopt: the whole job. Answers: how many running tasks were told. not_found, invalid_state_transition.
struct PauseCall {
  JobNo job;
  std::optional<std::uint32_t> index;
  bool pause = true;
  bool freeze = false;   // a job: what runs is frozen too
  bool requeue = false;  // a task: it is given back instead of frozen
  std::function<void(Result<std::uint32_t>)> done;
};
struct PauseFarmCall {
  bool pause = true;
  std::function<void(Result<>)> done;
};
struct SetUserCall {
  std::string user;
  core::UserLimits limits;
  std::function<void(Result<>)> done;
};
// Which ended tasks run again; empty: all that failed or were cancelled.
struct RetryFilter {
  std::vector<core::FailureClass> classes;
  std::vector<std::uint32_t> indices;
};

struct HelloCall {
  core::WorkerBody body;
  core::Capacity capacity;
  std::uint32_t window = 1;
  std::vector<core::SaidHeld> held;
  bool resumable = true;  // false: its tasks are lost with its connection (JSON workers)
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
  core::Stage stage = core::Stage::none;
  std::string exception;
  core::ResultBody body;
};

struct ReportCall {
  WorkerNo worker;
  std::vector<Fence> started;
  std::vector<ResultReport> results;
  std::vector<Fence> returned, paused, resumed, preempted;
  std::vector<std::pair<Fence, core::CheckpointBody>> checkpoints;
  std::uint32_t window = 0;  // 0: unchanged
  struct Offer {
    core::WorkerBody body;
    core::Capacity capacity;
  };
  std::optional<Offer> offer = {};  // what it offers is another now
};

// What the queue hands out, once a committed batch. Views into it live as long as it does.
// A parent's result. Of an empty value and name: it had none.
struct Input {
  TaskId task;
  std::string value, sha256;
};
struct Assign {
  WorkerNo worker;
  Fence fence;
  std::string args, args_sha256;
  bool has_checkpoint = false;
  std::string checkpoint, checkpoint_sha256;
  std::vector<Input> inputs;
  std::vector<WorkerNo> gang;  // of a gang: its workers by rank
  std::uint32_t rank = 0;
  std::uint32_t alternative = 0;  // of the job's requests
};
struct PauseOrder {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  core::PauseHow how{};
};
struct Order {
  WorkerNo worker;
  TaskId task;
  Attempt attempt = 0;
  std::string reason = {};
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
  std::uint32_t running = 0, assigned = 0;  // on workers: started, not started
  // Tasks that were never handed out and ended with the job (cancelled): [first, count). None: first == count.
  std::uint32_t cancelled_from = 0;
  bool paused = false, open = false;
};
struct Failed {
  TaskId task;
  Attempt attempt = 0;
  WorkerNo worker{};
  core::FailureClass failure{};
  core::Stage stage{};
  std::string message;
  bool will_retry = false;
  Millis retry_in{};
};
enum class WorkerChangeKind : std::uint8_t {
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
struct WorkerChange {
  WorkerNo worker;
  WorkerChangeKind kind{};
  std::uint32_t requeued = 0;
};

struct Delivery {
  std::vector<Assign> assign;
  std::vector<Order> cancel;  // stop the attempt
  std::vector<PauseOrder> pause;
  std::vector<Order> take_back;
  std::vector<AckOrder> acks;
  std::vector<Ended> ended;  // in order of their commit
  std::vector<Failed> failed;
  std::vector<JobChange> jobs;  // after `ended`: a job whose state ended has no more outcomes
  std::vector<WorkerChange> workers;
};

struct QueueCounters {
  std::uint64_t events = 0, batches = 0, commits = 0, commit_us = 0, tasks_ended = 0, assigned = 0;
  std::uint64_t submitted = 0, completed = 0, failed = 0;  // tasks, since the start
  core::WaitCounts waits;                                  // of tasks that started, since the start
  bool storage_full = false;
};

class Queue {
 public:
  virtual ~Queue() = default;
  virtual void submit(SubmitCall call) = 0;
  virtual void submit_graph(GraphCall call) = 0;
  virtual void extend(ExtendCall call) = 0;
  virtual void pause(PauseCall call) = 0;
  virtual void pause_farm(PauseFarmCall call) = 0;
  virtual void set_user(SetUserCall call) = 0;
  virtual void hello(HelloCall call) = 0;
  virtual void report(ReportCall call) = 0;
  virtual void alive(WorkerNo worker) = 0;  // renews its leases
  virtual void gone(WorkerNo worker, std::uint64_t session,
                    bool for_good) = 0;     // connection lost; for_good: it said goodbye
  virtual void drain(WorkerNo worker) = 0;  // no new work for it
  virtual void release_worker(WorkerNo worker, std::function<void(Result<>)> done) = 0;  // out of quarantine
  // Nothing new for it, until it is resumed; what it runs goes on.
  virtual void pause_worker(WorkerNo worker, bool pause, std::function<void(Result<>)> done) = 0;
  virtual void forget_worker(WorkerNo worker, std::function<void(Result<>)> done) = 0;  // conflict while it is here
  // index nullopt: the whole job. Answers: the number of tasks cancelled. not_found, invalid_state_transition (ended).
  virtual void cancel(JobNo job, std::optional<std::uint32_t> index, std::string reason,
                      std::function<void(Result<std::uint32_t>)> done) = 0;
  // Failed and cancelled tasks run again. Answers: how many.
  virtual void retry(JobNo job, RetryFilter filter, std::function<void(Result<std::uint32_t>)> done) = 0;
  virtual void set_policy(std::string name, std::function<void(Result<>)> done) = 0;
  virtual void forget_all(std::function<void(Result<>)> done) = 0;  // db clear; conflict while jobs run
  // Looks at the live state, on the engine's thread, between two steps. Quick.
  virtual void inspect(std::function<void(const core::Farm&, Now)> look) = 0;
  // Would `bytes` of new work be taken in? storage_full says why not.
  virtual Result<> room_for(Bytes bytes) const = 0;
  virtual QueueCounters counters() const = 0;
};

using Deliver = std::function<void(Delivery)>;

}  // namespace grange::queue
