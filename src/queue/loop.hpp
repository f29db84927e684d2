// The engine's turn without threads: drain calls -> step -> plan -> seal a batch; then, once the batch is on disk,
// release its answers and deliveries. `local` gives it threads and a real disk; the simulator gives it a virtual clock
// and one that fails.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/farm.hpp"
#include "queue/pages.hpp"
#include "queue/queue.hpp"
#include "store/store.hpp"

namespace grange::queue {

// Work for the engine, in order of arrival. Each is one function of the port.
struct CancelCall {
  JobNo job;
  std::optional<std::uint32_t> index;
  std::string reason;
  std::function<void(Result<std::uint32_t>)> done;
};
struct RetryCall {
  JobNo job;
  RetryFilter filter;
  std::function<void(Result<std::uint32_t>)> done;
};
struct AliveCall {
  WorkerNo worker;
};
struct GoneCall {
  WorkerNo worker;
  std::uint64_t session = 0;
  bool for_good = false;
};
struct DrainCall {
  WorkerNo worker;
};
struct ReleaseWorkerCall {
  WorkerNo worker;
  std::function<void(Result<>)> done;
};
struct PauseWorkerCall {
  WorkerNo worker;
  bool pause = true;
  std::function<void(Result<>)> done;
};
struct ForgetWorkerCall {
  WorkerNo worker;
  std::function<void(Result<>)> done;
};
struct SetPolicyCall {
  std::string name;
  std::function<void(Result<>)> done;
};
struct ForgetAllCall {
  std::function<void(Result<>)> done;
};
struct InspectCall {
  std::function<void(const core::Farm&, Now)> look;
};
struct MaintainCall {
  std::function<void(store::Store&)> work;
};
// Made by release(): an attempt whose arguments or inputs could not be handed over. refused empty: they could not be
// read now, it goes back to the queue; else why it fails for good.
struct UnsentCall {
  WorkerNo worker;
  Fence fence;
  std::string refused;
};
using Call = std::variant<SubmitCall, GraphCall, ExtendCall, HelloCall, ReportCall, CancelCall, RetryCall, PauseCall,
                          PauseFarmCall, SetUserCall, AliveCall, GoneCall, DrainCall, ReleaseWorkerCall, SetPolicyCall,
                          ForgetAllCall, InspectCall, MaintainCall, UnsentCall, PauseWorkerCall, ForgetWorkerCall>;

// One transaction, and what waits for it.
struct Batch {
  core::Effects effects;
  core::Bodies bodies;
  std::vector<std::function<void()>> answers;              // in the order of their calls
  std::vector<std::function<void(store::Store&)>> upkeep;  // after the commit, by the committer
  JobNo last_job;                                          // jobs up to this one are in the store once this is
  std::vector<JobNo> ended;                                // jobs whose end is in the store once this is
  std::vector<std::string> extends;                        // keys of extends that are in the store once this is

  bool empty() const { return effects.empty() && answers.empty() && upkeep.empty(); }
};

struct TurnOptions {
  std::string policy = "priority";
  Millis lease = limits::kLease;
  Millis aging{0};
  std::uint64_t seed = 1;
};

// Threading: take, turn, seal and next_wake belong to the engine's thread; committed and release to the committer's.
// The simulator calls all of them from one.
class Turn {
 public:
  // flush: everything sealed so far, and what seal() gives now, is on disk and released when it returns. Called from
  // within take(), for the rare calls that must read back what they act on.
  Turn(TurnOptions options, std::function<void(Now)> flush);
  ~Turn();

  Result<> load(store::Store& store, Now now);
  void take(Call call, Now now);
  // After the calls of one wake-up: time, then the plan. late: this turn began long after it was due.
  void turn(Now now, bool late);
  bool has_batch() const;
  bool large() const;                    // enough for one transaction
  std::unique_ptr<Batch> seal(Now now);  // null: there is nothing to write or to answer
  Instant next_wake() const;

  // On disk: what was sealed may be asked of the reader from now on.
  void committed(Batch& batch);
  // The batch's answers, deliveries and upkeep. `later`: calls that must go back into the inbox.
  void release(Batch& batch, store::Store& store, const Deliver& deliver, std::vector<Call>& later);

  std::uint64_t incarnation() const;
  const std::string& server_id() const;
  const core::Farm& farm() const;
  QueueCounters counters() const;  // any thread; commits and commit_us are the owner's

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace grange::queue
