// The words of the core: what a job asks for, what a worker offers, how an attempt can end. Values only.
#pragma once

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
  cancelled = 8
};

enum class JobState : std::uint8_t { pending = 0, running = 1, completed = 2, failed = 3, cancelled = 4 };
inline bool ended(JobState s) {
  return s >= JobState::completed;
}

std::string_view name(TaskEnd e);
std::string_view name(FailureClass c);
std::string_view name(JobState s);

// The strict table of seed 000. A task that is tried again gets a new attempt; an attempt never goes back.
enum class AttemptState : std::uint8_t { pending, assigned, running, paused, completed, failed };
std::string_view name(AttemptState s);
bool allowed(AttemptState from, AttemptState to);
Result<> transition(AttemptState& state, AttemptState to);  // "Cannot transition from X to Y"

// What a task needs. Equal requests are interned to one RequestId.
struct Request {
  std::uint32_t cpus_milli = 1000;
  std::uint32_t gpus_milli = 0;
  Bytes memory = 0;
  Bytes disk = 0;
  std::string engine;
  std::vector<std::pair<std::string, std::string>> labels = {};  // sorted
  friend auto operator<=>(const Request&, const Request&) = default;
};

// What a worker offers.
struct Capacity {
  std::uint32_t slots = 1;
  std::uint32_t cpus_milli = 1000;
  std::uint32_t gpus_milli = 0;
  Bytes memory = 0;
  Bytes disk = 0;
  std::vector<std::string> engines = {};                         // sorted
  std::vector<std::pair<std::string, std::string>> labels = {};  // sorted
};

struct RetryPolicy {
  std::uint32_t max_attempts = limits::kDefaultAttempts;  // tries that may end in a failure of the task's own
  Millis base = limits::kBackoffBase;
  Millis cap = limits::kBackoffCap;
  std::uint32_t crash_limit = limits::kDefaultCrashLimit;  // workers it may lose; not charged to max_attempts
};

struct JobHeader {
  std::uint32_t count = 1;
  Request request = {};
  int priority = 0;
  RetryPolicy retry = {};
  bool fail_fast = false;
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
