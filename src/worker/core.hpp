// The worker's mind: which attempts it holds, what starts when, what the server still has to hear. Pure: no clock, no
// I/O, no threads.
//
// Builtin tasks end in here; python and command tasks leave as effects and come back as AttemptEnded.
// A result is kept until the server acknowledged it. An attempt that the server no longer wants is stopped and never
// reported. A frozen attempt keeps what it has, and its clocks stand still.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
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
  std::vector<pb::Input> inputs;  // results of parents
  std::vector<std::string> gang;  // host names by rank
  std::uint32_t rank = 0;
  std::vector<std::uint32_t> gpus;  // indices of those that it got
  bool hides_gpus = false;          // this machine has some; it may see its own only
  Bytes memory = 0;                 // that it asked for; 0: it did not say
  std::uint32_t cpus_milli = 0;     // that it got
};

enum class StopHow : std::uint8_t { soft, hard };

struct Effects {
  struct Stop {
    TaskId task;
    Attempt attempt = 0;
    Kind kind{};
    StopHow how{};
  };
  struct Freeze {
    TaskId task;
    Attempt attempt = 0;
    Kind kind{};
    bool on = true;  // false: it goes on
  };
  std::vector<Run> start;
  std::vector<Freeze> freeze;
  std::vector<Stop> stop;  // after the others
  bool report = false;     // there is something to tell: call take_report
  bool drained = false;    // draining, and nothing is left
  void clear() {
    start.clear();
    freeze.clear();
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
// The engine has come to this stage of the attempt.
struct StageEntered {
  TaskId task;
  Attempt attempt = 0;
  pb::Stage stage{};
};
struct Welcomed {
  const pb::Welcome* welcome = nullptr;
};
struct Ticked {};
struct DrainAsked {};
using Event = std::variant<OrdersArrived, AttemptEnded, StageEntered, Welcomed, Ticked, DrainAsked>;

struct CoreOptions {
  Need total;
  bool python = true;  // the engine is offered
  Micros python_grace = std::chrono::seconds(2);
  Micros command_grace = std::chrono::seconds(5);
  std::vector<Bytes> gpus = {};  // memory of each
  // As in the manifest: which of a job's alternatives this worker meets.
  std::map<std::string, std::string> labels = {};
  std::string pool = {};
  std::vector<std::string> models = {};
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
  bool drained() const {
    return draining_ && held_.empty() && stopping_.empty() && returns_unsaid_.empty() && preempted_unsaid_.empty();
  }
  std::uint64_t ended() const { return ended_; }
  std::uint64_t failed() const { return failed_; }
  const Allocator& allocator() const { return allocator_; }
  void set_python(bool offered) { options_.python = offered; }
  // The current fence of an attempt that runs here and is wanted; null: nobody wants to hear of it.
  const Fence* running_fence(TaskId task, Attempt attempt) const;
  bool giving_back(TaskId task, Attempt attempt) const;  // it is being stopped for its own good
  struct RunningView {
    Fence fence;
    std::string job_id, engine;
    Instant since;
    pb::Stage stage{};
    bool frozen = false;
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
    bool start_told = false, pause_untold = false;
    bool cancelled = false, frozen = false, preempted = false;
    pb::Stage stage = pb::STAGE_RESERVE;
    std::uint32_t stages_entered = 0;  // a bit for each: its limit counts once
    std::uint32_t overtaken = 0;
    std::size_t need_class = 0;
    std::uint32_t alternative = 0;  // as it was assigned
    std::uint64_t order = 0;        // of arrival
    Allocator::Ticket ticket = 0;
    Instant arrived{}, started{}, frozen_at{}, stage_at{};
    Micros still{0};   // how long it was frozen
    Micros budget{0};  // of the stages so far, what was not used when this one began
    Instant sleep_over = Instant::never(), time_over = Instant::never(), stage_over = Instant::never(),
            patience_over = Instant::never();
    std::string cancel_reason, over;  // over: which limit it went past; then it is ended
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
  enum class DueKind : std::uint8_t { sleep_over, time_over, stage_over, patience_over };
  struct Due {
    Instant at;
    TaskId task;
    Attempt attempt = 0;
    DueKind kind{};
    friend bool operator>(const Due& a, const Due& b) { return a.at > b.at; }
  };

  // core.cpp: what the server says
  void orders(pb::WorkerOrders& orders, Instant now, Effects& effects);
  void assign(pb::Assignment& order, Instant now, Effects& effects);
  void welcomed(const pb::Welcome& welcome, Instant now, Effects& effects);
  void start_drain(Instant now, Effects& effects);
  void forget_specs();
  void disown(Held& held, Effects& effects);  // the server does not want it: erases `held`
  void return_waiting(Held& held, Effects& effects);

  // core_run.cpp: an attempt from its start to its end
  void pump(Instant now, Effects& effects);
  void start(Held& held, Instant now, Effects& effects);
  void ended(const AttemptEnded& event, Instant now, Effects& effects);
  void finish(Held& held, pb::TaskResult* result, Instant now, Effects& effects);
  void finish_failed(Held& held, pb::FailureClass failure, std::string message, bool permanent, Instant now,
                     Effects& effects);
  void enqueue(Held& held);
  void dequeue(Held& held);
  void release(Held& held);
  void measured(Micros run);
  void count_window();
  std::size_t line_of(const Need& need);

  // core_stop.cpp: what ends or halts an attempt
  void cancel(const pb::CancelOrder& order, Instant now, Effects& effects);
  void pause(const pb::PauseOrder& order, Instant now, Effects& effects);
  void freeze(Held& held, Instant now, Effects& effects);
  void thaw(Held& held, Instant now, Effects& effects);
  void preempt(Held& held, Instant now, Effects& effects);
  void given_back(Held& held, Effects& effects);  // erases `held`
  void say_pause(Held& held);
  void stop(const Held& held, StopHow how, Effects& effects);
  void stop_softly(Held& held, Instant now, Effects& effects);

  // core_time.cpp: stages and everything that falls due
  void enter(Held& held, pb::Stage stage, Instant now);
  void tick(Instant now, Effects& effects);
  void over(Held& held, std::string message, Instant now, Effects& effects);
  void set_due(Held& held, DueKind kind, Instant at);
  static Instant& due_at(Held& held, DueKind kind);
  bool stands(const Due& due);

  Held* find(TaskId task, Attempt attempt);
  std::vector<const Held*> in_order() const;

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
  std::vector<Fence> returns_unsaid_, preempted_unsaid_;
  std::vector<TaskId> pauses_unsaid_;
  std::uint64_t next_order_ = 1;
  std::uint32_t running_ = 0, waiting_ = 0;
  std::uint64_t ended_ = 0, failed_ = 0;
  double mean_us_ = -1;  // < 0: nothing measured yet
  std::uint32_t window_ = 1, window_told_ = 0;
  bool draining_ = false, drain_unsaid_ = false;
};

// The window for a mean run time (< 0: unknown): slots, and a backlog that lasts about 50 ms.
std::uint32_t window_for(std::uint32_t slots, double mean_run_us);

const char* stage_name(pb::Stage stage);

}  // namespace grange::worker
