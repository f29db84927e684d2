// The only owner of scheduling truth. Pure: no clock, no I/O, no threads; the same events at the same times give the
// same effects.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/prng.hpp"
#include "core/effects.hpp"
#include "core/event.hpp"
#include "core/explain.hpp"
#include "core/views.hpp"

namespace grange::core {

struct FarmOptions {
  Millis lease = limits::kLease;
  std::uint64_t incarnation = 1;  // of the server: high bits of every lease epoch
  std::uint64_t seed = 1;         // jitter of back-offs
  std::string policy = "priority";
  Millis aging{0};                      // a job that waited so long is one priority higher; 0: never
  Millis starving = limits::kStarving;  // work that fits some worker and waited so long gets room kept for it
  std::uint32_t each_at_once = 10'000;  // tasks of an `each` job that are let go and wait for a worker
  std::uint32_t failed_range = limits::kFailedRange;
};

// Which waiting work goes to which worker, as counts: ids are bound when the plan is applied.
struct Plan {
  struct Grant {
    JobNo job;
    WorkerNo worker;
    std::uint32_t count = 0;
    std::uint8_t alternative = 0;  // of the job's requests
    TaskId task{};                 // this one (count 1); packed 0: any that is ready
  };
  // One task on several workers at once: rank r on workers[r].
  struct GangGrant {
    JobNo job;
    TaskId task{};  // packed 0: any that is ready
    std::vector<WorkerNo> workers;
    std::uint8_t alternative = 0;
  };
  // A second attempt of a task that runs.
  struct Second {
    TaskId task;
    WorkerNo worker;
  };
  struct TakeBack {
    WorkerNo worker;
    std::uint32_t count = 0;
    TaskId task{};  // this one (count 1); packed 0: the newest that did not start
  };
  std::vector<Grant> grants;
  std::vector<GangGrant> gangs;
  std::vector<Second> seconds;
  std::vector<TakeBack> take_backs;
  std::size_t looked = 0;  // tasks and workers, for second attempts: what that cost
  bool empty() const { return grants.empty() && gangs.empty() && seconds.empty() && take_backs.empty(); }
};

class Farm {
 public:
  explicit Farm(FarmOptions options);
  ~Farm();

  // Start-up, before the first step: what the store had, jobs by number. Tasks that were handed out wait for their
  // worker until one lease has passed.
  void load_job(JobNo job, const JobHeader& header, const JobProgressed& progress,
                const std::vector<std::uint32_t>& open, const std::vector<std::uint32_t>& skipped);
  void load_task(const TaskKept& kept, Now now);
  void load_user(const UserSet& user);
  void load_farm(const FarmSet& farm);
  void load_expected(WorkerNo worker);  // was connected when the server ended
  void load_quarantine(const WorkerQuarantined& worker, Now now);
  void load_paused(WorkerNo worker);
  void loaded(Now now);

  // Total: every event in every state has an answer. Appends to `effects`.
  StepAnswer step(const Event& event, Now now, Effects& effects);
  Plan plan(Now now, Prng& prng) const;
  void apply(const Plan& plan, Now now, Effects& effects);
  // Ends a batch: the last word on each job that it touched.
  void finish_batch(Now now, Effects& effects);
  bool dirty() const;         // some job was touched since the last finish_batch
  Instant next_wake() const;  // when a Tick is due at the latest

  Result<> set_policy(std::string_view name, Now now, Effects* effects = nullptr);  // with effects: to be kept
  std::string_view policy() const;

  FarmView view() const;
  std::optional<JobView> job(JobNo job) const;      // live jobs only
  std::optional<TaskView> task(TaskId task) const;  // of live jobs; nullopt: ended, or no such task
  std::vector<Dependency> after(JobNo job) const;   // what a live job waits, or waited, for
  std::vector<JobView> jobs() const;
  std::vector<WorkerView> workers() const;
  std::optional<WorkerView> worker(WorkerNo worker) const;
  std::vector<TaskView> held_by(WorkerNo worker) const;
  // Its tasks from `from` to below `to` in at most `cells` cells; nullopt: no such live job.
  std::optional<JobGrid> grid(JobNo job, std::uint32_t from, std::uint32_t to, std::uint32_t cells) const;
  std::vector<UserView> users() const;  // those with limits of their own or with live jobs
  std::vector<PolicyView> policies(Now now) const;
  // nullopt: no such live job, or the task has ended. index kAll: the job as a whole.
  std::optional<Explanation> explain(JobNo job, std::uint32_t index, Now now) const;
  // Where a job like this would run, and what it would wait for, were it submitted now. Changes nothing.
  Explanation preview(const JobHeader& header, Now now) const;

  Footprint footprint() const;
  void check_invariants() const;  // asserts

  struct State;  // private to the core's own files

 private:
  std::unique_ptr<State> s_;
};

std::vector<std::string_view> policy_names();

}  // namespace grange::core
