// What a race asks of each machine, as people and programs write it.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"
#include "server/api/operations.hpp"

namespace grange::server {

namespace json = boost::json;

enum class RunKind : std::uint8_t { llm, compute, image };
std::string_view name(RunKind kind);

inline constexpr std::uint32_t kRunRepeats = 10'000;
inline constexpr std::uint32_t kRunConcurrency = 1024;
inline constexpr std::size_t kRunPhases = 16;
inline constexpr std::size_t kRunMachines = 256;
inline constexpr std::uint64_t kRunTasks = 50'000;  // of all machines together

// A part of what one machine does: one job. All phases of a machine come one after the other.
struct Phase {
  bool warmup = false;  // not counted
  std::uint32_t concurrency = 1, tasks = 1;
};

struct RunSpec {
  RunKind kind{};
  std::vector<std::string> workers;  // ids or names; none: all that can
  std::uint32_t repeats = 1, warmup = 0;
  std::vector<std::uint32_t> concurrency{1};
  Millis timeout{0};   // of one request; 0: the kind's own
  bool force = false;  // also machines that a preflight would leave out
  bool allow_mock = false;
  bool cache = false;  // llm: prompts that a service remembers from the request before may come from there
  std::optional<double> target_ttft_ms, target_itl_ms;
  std::uint64_t seed = 0;
  bool seed_given = false;
  std::string model;  // image: the checkpoint; compute: the algorithm
  std::string prompt, system, service;
  json::object settings;  // the rest: max_tokens, num_ctx …; op, n, threads; steps, width, height …
  json::object workflow;  // image: ComfyUI's own

  Millis limit() const;           // of one request
  std::uint32_t context() const;  // tokens; 0: not said
  std::vector<Phase> phases() const;
};

// The body of POST /api/runs. Form and ranges; what a machine can do is the preflight's to say.
Result<RunSpec> read_run(const json::object& body);
json::object write_run(const RunSpec& spec);  // read_run() of it gives the same again
std::string op_of(const RunSpec& spec);       // compute: primes | gemm | memory | disk; else ""
std::string what_of(const RunSpec& spec);     // in a few words what each machine does: "primes segmented_sieve"

// SHA-256 over what two runs must share to be compared: kind, model, prompt and settings, not who and how often.
std::string digest_of(const RunSpec& spec);

// A number in `settings`, of any JSON kind.
std::optional<double> number_at(const json::object& from, std::string_view key);

// One machine of a run.
struct RunMachine {
  std::string id, name;     // of the worker; names are made unique
  std::string model;        // as this machine spells it
  std::uint32_t cores = 1;  // that its tasks ask for
  bool forced = false;      // though its preflight said no
};
// Its jobs, phase by phase: each waits for the end of the one before.
std::vector<SubmitInput> jobs_of(const RunSpec& spec, const std::string& run_id, const std::string& user,
                                 std::size_t machine, const RunMachine& on);

}  // namespace grange::server
