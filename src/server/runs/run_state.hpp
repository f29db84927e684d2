// One race as a function: (state, event, time) -> (state, effects). No clock, no I/O.
#pragma once

#include <map>
#include <variant>

#include "server/runs/run_spec.hpp"

namespace grange::server {

// Of a request and of a machine alike.
enum class Fate : std::uint8_t { waiting, running, completed, failed, lost, timeout, cancelled };
std::string_view name(Fate fate);
inline bool over(Fate fate) {
  return fate >= Fate::completed;
}

struct Sample {
  std::uint32_t phase = 0, repeat = 0;
  Fate fate = Fate::waiting;
  std::string engine, service, model;          // as the engine said
  std::string mock_reason;                     // "": no mock
  json::object metrics;                        // its figures, flat
  std::string text;                            // the beginning of what came out
  std::string error, message;                  // class and sentence of a failure
  std::int64_t started_us = -1, ended_us = 0;  // since the run's start; -1: not seen
  bool wrong = false;                          // it says itself that its result is not correct
};

struct PhaseState {
  JobNo job{};
  std::string job_id;
  std::uint32_t ended = 0;
  bool over = false;
  std::int64_t first_us = -1, last_us = -1;  // of its requests
};

struct MachineState {
  RunMachine machine;
  WorkerNo worker{};
  json::object checked;  // what the preflight said
  std::vector<PhaseState> phases;
  std::map<std::pair<std::uint32_t, std::uint32_t>, Sample> samples;  // by phase and repeat
  Fate fate = Fate::waiting;
  std::string error, message;
  Instant moved{};
  std::optional<Instant> away;  // not connected since; only known after a restart
  std::string waits;            // why nothing of it runs; "": it does, or nobody looked
  std::string gone;             // class of a wait that ends its part if it lasts: what it needs is not there any more
  std::optional<Instant> gone_since;
};

struct RunState {
  std::string id, user;
  RunSpec spec;
  std::vector<Phase> phases;
  std::vector<MachineState> machines;
  std::vector<std::string> warnings;
  WallMs started_at{}, ended_at{};
  Instant started{};
  bool over = false, cancelled = false;
  std::string status() const;  // running | completed | partial | failed | cancelled
};

namespace run_events {
struct Began {
  std::size_t machine;
  std::uint32_t phase, repeat, attempt;
};
struct Said {  // by the engine
  std::size_t machine;
  std::uint32_t phase, repeat, attempt;
  std::string type, data;  // data: a JSON object, checked
};
struct TaskOver {
  std::size_t machine;
  std::uint32_t phase, repeat;
  core::TaskEnd end{};
  core::FailureClass failure{};
  std::uint64_t run_us = 0;
  json::value value = nullptr;  // the engine's result
  std::string error, message;
  std::optional<std::int64_t> at_us = {};  // read from the store after a restart: when it was, since the run's start
};
struct JobOver {
  std::size_t machine;
  std::uint32_t phase;
};
struct WorkerLost {
  std::size_t machine;
};
struct WorkerBack {
  std::size_t machine;
};
// Looked at now and then while nothing of it runs.
struct Waits {
  std::size_t machine;
  std::string why;    // for people; "": nothing holds it back
  std::string error;  // "service_down", "missing_model": its part ends if that lasts; "": it may last
};
struct Cancel {
  std::string reason;
};
struct Tick {};
}  // namespace run_events
using RunEvent =
    std::variant<run_events::Began, run_events::Said, run_events::TaskOver, run_events::JobOver, run_events::WorkerLost,
                 run_events::WorkerBack, run_events::Waits, run_events::Cancel, run_events::Tick>;

// What those who follow the run hear, and what its file keeps.
struct Tell {
  std::string type;
  std::optional<std::size_t> machine;
  std::uint32_t phase = 0, repeat = 0;
  std::string payload;  // JSON object
};
struct CancelJob {
  JobNo job;
  std::string reason;
};
struct RunEnded {};
using RunEffect = std::variant<Tell, CancelJob, RunEnded>;

// Longer than this without a sign of a machine beyond its request's own limit, and the race goes on without it.
inline constexpr Micros kRunPatience{600'000'000};
// A service that is started anew is back within this; one that is gone for longer ends its machine's part.
inline constexpr Micros kServicePatience{30'000'000};

std::vector<RunEffect> step(RunState& run, const RunEvent& event, Instant now, Micros lease);

bool is_input(std::string_view key);  // of a result: what was asked, not what was measured

// Figures of an engine's result, one level deep: {"itl_ms":{"mean":3}} is "itl_ms" 3 and "itl_ms_p50" …
json::object flat_metrics(const json::object& result);

}  // namespace grange::server
