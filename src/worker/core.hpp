// The worker's mind: which attempts it holds, what starts when, what the server still has to hear. Pure: no clock, no
// I/O, no threads.
//
// Builtin tasks end in here; python and command tasks leave as effects and come back as AttemptEnded.
// A result is kept until the server acknowledged it. An attempt that the server no longer wants is stopped and never
// reported.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/limits.hpp"
#include "worker/allocator.hpp"
#include "worker/job.hpp"

namespace grange::worker {

// What an engine gets.
struct Run {
  Fence fence;
  std::shared_ptr<const JobInfo> job;
  std::string args, args_sha256;
  std::string checkpoint, checkpoint_sha256;
  bool has_checkpoint = false;
};

enum class StopHow : std::uint8_t { soft, hard };

struct Effects {
  struct Stop {
    TaskId task;
    Attempt attempt = 0;
    Kind kind{};
    StopHow how{};
  };
  std::vector<Run> start;
  std::vector<Stop> stop;
  bool report = false;   // there is something to tell: call take_report
  bool drained = false;  // draining, and nothing is left
  void clear() {
    start.clear();
    stop.clear();
    report = drained = false;
  }
};

struct OrdersArrived {
  pb::WorkerOrders* orders = nullptr;
};  // its strings are moved out
struct AttemptEnded {
  TaskId task;
  Attempt attempt = 0;
  pb::TaskResult* result = nullptr;
};
struct Welcomed {
  const pb::Welcome* welcome = nullptr;
};
struct Ticked {};
struct DrainAsked {};
using Event = std::variant<OrdersArrived, AttemptEnded, Welcomed, Ticked, DrainAsked>;

struct CoreOptions {
  Need total;
  bool python = true;  // the engine is offered
  Micros python_grace = std::chrono::seconds(2);
  Micros command_grace = std::chrono::seconds(5);
};

class WorkerCore {
 public:
  explicit WorkerCore(CoreOptions options);
  WorkerCore(const WorkerCore&) = delete;
  WorkerCore& operator=(const WorkerCore&) = delete;

  void step(const Event& event, Instant now, Effects& effects);  // appends
  Instant next_wake() const;                                     // when a Ticked is due

  // Moves what is unsaid into `out`, about `limit` bytes at most. True: there is more.
  bool take_report(pb::WorkerReport& out, Bytes limit);
  void list_held(google::protobuf::RepeatedPtrField<pb::Held>& out) const;

  std::uint32_t window() const { return window_; }
  std::uint32_t running() const { return running_; }
  std::uint32_t waiting() const { return waiting_; }
  std::size_t held() const { return held_.size(); }
  std::size_t stopping() const { return stopping_.size(); }
  std::size_t specs() const { return jobs_.size(); }
  bool draining() const { return draining_; }
  bool drained() const { return draining_ && held_.empty() && stopping_.empty() && returns_unsaid_.empty(); }
  std::uint64_t ended() const { return ended_; }
  std::uint64_t failed() const { return failed_; }
  const Allocator& allocator() const { return allocator_; }
  void set_python(bool offered) { options_.python = offered; }
  // The current fence of an attempt that runs here and is wanted; null: nobody wants to hear of it.
  const Fence* running_fence(TaskId task, Attempt attempt) const;
  struct RunningView {
    Fence fence;
    std::string job_id, engine;
    Instant since;
  };
  std::vector<RunningView> running_list() const;
  void check_invariants() const;

 private:
  enum class State : std::uint8_t { waiting, running, finished };
  struct Held {
    Fence fence;
    std::shared_ptr<const JobInfo> job;
    Run run;  // until it starts
    State state = State::waiting;
    bool start_told = false;
    bool cancelled = false, out_of_time = false;
    std::uint32_t overtaken = 0;
    std::uint64_t order = 0;  // of arrival
    Allocator::Ticket ticket = 0;
    Instant arrived{}, started{};
    std::string cancel_reason;
    std::unique_ptr<pb::TaskResult> result;
    Held* before = nullptr;  // in its need's line
    Held* after = nullptr;
  };
  struct Line {
    Need need;
    Held* head = nullptr;
    Held* tail = nullptr;
    bool active = false;
  };
  struct Spec {
    std::shared_ptr<const JobInfo> info;
    std::uint64_t used = 0;  // order of its last assignment
  };
  struct Stopping {
    TaskId task;
    Attempt attempt = 0;
    Allocator::Ticket ticket = 0;
  };
  enum class DueKind : std::uint8_t { sleep_over, time_over, patience_over };
  struct Due {
    Instant at;
    TaskId task;
    Attempt attempt = 0;
    DueKind kind{};
    friend bool operator>(const Due& a, const Due& b) { return a.at > b.at; }
  };

  void orders(pb::WorkerOrders& orders, Instant now, Effects& effects);
  void assign(pb::Assignment& order, Instant now, Effects& effects);
  void cancel(const pb::CancelOrder& order, Instant now, Effects& effects);
  void welcomed(const pb::Welcome& welcome, Effects& effects);
  void ended(const AttemptEnded& event, Instant now, Effects& effects);
  void tick(Instant now, Effects& effects);
  void start_drain(Effects& effects);
  void forget_specs();
  void pump(Instant now, Effects& effects);
  void start(Held& held, Instant now, Effects& effects);
  void finish(Held& held, pb::TaskResult* result, Instant now, Effects& effects);
  void finish_failed(Held& held, pb::FailureClass failure, std::string message, bool permanent, Instant now,
                     Effects& effects);
  void stop(const Held& held, StopHow how, Effects& effects);
  void stop_softly(const Held& held, Instant now, Effects& effects);
  void disown(Held& held, Effects& effects);  // the server does not want it: erases `held`
  void return_waiting(Held& held, Effects& effects);
  void enqueue(Held& held);
  void dequeue(Held& held);
  void release(Held& held);
  void measured(Micros run);
  void add_due(Due due);
  void count_window();
  std::size_t line_of(const Need& need);
  Held* find(TaskId task, Attempt attempt);
  Held* find(const Due& due) { return find(due.task, due.attempt); }

  CoreOptions options_;
  Allocator allocator_;
  std::unordered_map<TaskId, Held> held_;
  std::vector<Stopping> stopping_;
  std::unordered_map<std::uint32_t, Spec> jobs_;
  std::size_t forget_at_ = 2 * limits::kSpecsKept;
  std::vector<Line> lines_;
  std::vector<std::size_t> active_;  // lines with someone in them
  std::vector<Due> due_;             // a heap, soonest first; those of ended attempts are swept out now and then
  std::deque<TaskId> results_unsaid_;
  std::vector<TaskId> starts_unsaid_;
  std::vector<Fence> returns_unsaid_;
  std::uint64_t next_order_ = 1;
  std::uint32_t running_ = 0, waiting_ = 0;
  std::uint64_t ended_ = 0, failed_ = 0;
  double mean_us_ = -1;  // < 0: nothing measured yet
  std::uint32_t window_ = 1, window_told_ = 0;
  bool draining_ = false, drain_unsaid_ = false;
};

// The window for a mean run time (< 0: unknown): slots, and a backlog that lasts about 50 ms.
std::uint32_t window_for(std::uint32_t slots, double mean_run_us);

}  // namespace grange::worker
