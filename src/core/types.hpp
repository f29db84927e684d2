// The words of the core: what a job asks for, what a worker offers, how an attempt can end. Values only.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/limits.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::core {

enum class TaskEnd : std::uint8_t { completed = 1, failed = 2, cancelled = 3 };

// Numbers as on the wire (FailureClass in wire.proto).
enum class FailureClass : std::uint8_t {
  none = 0,
  worker_lost = 1,
  out_of_memory = 2,
  time_limit = 3,
  exit_code = 4,
  exception = 5,
  engine = 6,
  refused = 7,
  cancelled = 8,
  deadline = 9,
  dependency = 10
};
inline constexpr std::size_t kCountedClasses = 8;  // those an attempt can fail with and be tried again: 1..7

// Where in its life an attempt was (Stage in wire.proto).
enum class Stage : std::uint8_t { none = 0, reserve = 1, startup = 2, download = 3, execute = 4, upload = 5 };

// Whose doing a failure is: the job's own (its code, its limits, its user) or the system's (machines, engines,
// network).
enum class Fault : std::uint8_t { none, job, system };
Fault fault_of(FailureClass c, Stage stage);

enum class JobState : std::uint8_t { pending = 0, running = 1, completed = 2, failed = 3, cancelled = 4 };
inline bool ended(JobState s) {
  return s >= JobState::completed;
}

std::string_view name(TaskEnd e);
std::string_view name(FailureClass c);
std::string_view name(JobState s);
std::string_view name(Stage s);
std::string_view name(Fault f);

// The strict table of seed 000. A task that is tried again gets a new attempt; an attempt never goes back.
enum class AttemptState : std::uint8_t { pending, assigned, running, paused, completed, failed };
std::string_view name(AttemptState s);
bool allowed(AttemptState from, AttemptState to);
Result<> transition(AttemptState& state, AttemptState to);  // "Cannot transition from X to Y"

// One demand on a worker's labels. value "*": any value.
struct LabelRule {
  std::string key, value;
  bool negate = false;  // no worker that has it
  friend auto operator<=>(const LabelRule&, const LabelRule&) = default;
};

// What a task needs. Equal requests are interned to one RequestId.
struct Request {
  std::uint32_t cpus_milli = 1000;
  std::uint32_t gpus_milli = 0;  // below 1000: a part of one GPU; else whole ones
  Bytes memory = 0;
  Bytes disk = 0;
  Bytes gpu_memory = 0;  // on each GPU that it gets
  std::string engine;
  std::string model = {};              // "": none
  std::string pool = {};               // "": any
  std::vector<LabelRule> labels = {};  // sorted
  Millis min_life{0};                  // the worker will still be there so long
  std::uint32_t context = 0;           // tokens that the worker can run `model` with; 0: any
  friend auto operator<=>(const Request&, const Request&) = default;
};

// What a worker offers.
struct Capacity {
  std::uint32_t slots = 1;
  std::uint32_t cpus_milli = 1000;
  std::uint32_t gpus_milli = 0;
  Bytes memory = 0;
  Bytes disk = 0;
  Bytes gpu_memory = 0;                      // of its smallest GPU
  std::vector<std::string> engines = {};     // sorted
  std::vector<std::string> models = {};      // sorted
  std::vector<std::uint32_t> contexts = {};  // of each model the largest that fits; 0, or none at all: not known
  std::string pool = "standard";
  std::vector<std::pair<std::string, std::string>> labels = {};  // sorted by key
  Millis life{0};                                                // from its hello on; 0: no end known

  // Of a model that it has.
  std::uint32_t context_of(std::string_view model) const {
    const auto it = std::lower_bound(models.begin(), models.end(), model);
    const auto at = static_cast<std::size_t>(it - models.begin());
    return it != models.end() && *it == model && at < contexts.size() ? contexts[at] : 0;
  }
  friend bool operator==(const Capacity&, const Capacity&) = default;
};

// The context that it asks for, not whether the model is there. What is not known is tried.
inline bool model_fits(const Request& r, const Capacity& c) {
  const std::uint32_t most = r.model.empty() || r.context == 0 ? 0 : c.context_of(r.model);
  return most == 0 || r.context <= most;
}

// A limit and a back-off for a class of failure, or for one exception type of it. Failures are counted by class: a rule
// for a type compares how often the task failed with any exception so far.
struct RetryRule {
  FailureClass failure = FailureClass::none;
  std::string exception = {};      // "": any
  std::uint32_t max_attempts = 1;  // 1..kMaxAttempts: tries that may end in a failure of the class
  Millis base = limits::kBackoffBase;
  Millis cap = limits::kBackoffCap;
};

struct RetryPolicy {
  std::uint32_t max_attempts = limits::kDefaultAttempts;  // tries that may end in a failure without a rule of its own
  Millis base = limits::kBackoffBase;
  Millis cap = limits::kBackoffCap;
  std::uint32_t crash_limit = limits::kDefaultCrashLimit;  // workers it may lose; not charged to max_attempts
  std::vector<RetryRule> rules = {};                       // the first that matches decides
};

// What a job waits for. The parent's number is lower than the child's, so there is no cycle.
struct Dependency {
  static constexpr std::uint32_t kAll = UINT32_MAX;
  JobNo job;
  std::uint32_t index = kAll;  // one task of it, or the whole job
  bool each = false;           // task i waits for task i; index is kAll
  bool pass = false;           // results become inputs of the waiting task
  friend bool operator==(const Dependency&, const Dependency&) = default;
};
enum class When : std::uint8_t { all_succeeded = 0, all_finished = 1, any_succeeded = 2 };

struct Speculation {
  bool on = false;
  std::uint32_t factor_milli = 2000;  // of the siblings' mean run time
  std::uint32_t min_done = 5;
};

struct JobHeader {
  std::uint32_t count = 1;  // grows while the job is open
  Request request = {};
  std::vector<Request> alternatives = {};  // tried after `request`, in order; at most kAlternatives
  int priority = 0;
  RetryPolicy retry = {};
  bool fail_fast = false;
  bool open = false;  // tasks may still be added
  std::string user = {};
  std::string kind = {};  // what a worker's speed is measured by: engine and function
  std::uint32_t weight_milli = 1000;
  std::uint32_t max_running = 0;  // tasks held at once; 0: no limit
  std::uint32_t nodes = 1;        // > 1: each task is a gang, on so many workers at once; rank 0's result is the task's
  WallMs not_before{}, deadline{};
  std::vector<Dependency> after = {};
  When when = When::all_succeeded;
  Speculation speculation = {};
  Millis result_ttl{0};
};

// What one user may have at once; 0: no limit.
struct UserLimits {
  std::uint32_t weight_milli = 1000;
  std::uint32_t max_running = 0;  // tasks held by workers
  std::uint32_t max_cpus_milli = 0;
  std::uint32_t max_gpus_milli = 0;
  std::uint64_t max_queued = 0;          // tasks that wait or run
  std::uint32_t starts_per_minute = 0;   // tasks handed out
  std::uint32_t submits_per_minute = 0;  // jobs
  friend bool operator==(const UserLimits&, const UserLimits&) = default;
};

struct JobCounts {
  std::uint32_t completed = 0, failed = 0, cancelled = 0;
  std::uint32_t ended() const { return completed + failed + cancelled; }
  friend bool operator==(const JobCounts&, const JobCounts&) = default;
};

// Where the bytes that belong to an event or record lie: an index into the batch's bodies, which the core never opens.
using BodyRef = std::uint32_t;
inline constexpr BodyRef kNoBody = UINT32_MAX;

}  // namespace grange::core
