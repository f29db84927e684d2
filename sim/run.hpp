// One seed from its options to its verdict, and the ledger over many.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "options.hpp"

namespace grange::sim {

struct Failure {
  std::uint64_t seed = 0;
  std::string rule, text;
};

struct RunStats {
  double seconds = 0;
  std::uint64_t steps = 0, restarts = 0, jobs = 0, results = 0;
  std::array<std::uint64_t, kFaults> faults{};
};

struct RunResult {
  RunStats stats;
  std::optional<Failure> failure;
};

RunResult run_seed(std::uint64_t seed, bool trace);

// Marks and mutants of this build.
std::vector<std::pair<std::string, std::uint64_t>> marks();
std::vector<std::string> mutants();
bool set_mutant(std::string_view name);  // "": none

// What is added up over seeds; plain memory, so that a child that dies on an assert leaves it behind.
struct Ledger {
  static constexpr std::size_t kMarks = 256, kFailures = 64, kText = 400;
  std::uint64_t seeds = 0, steps = 0, restarts = 0, jobs = 0, results = 0;
  double seconds = 0;
  std::array<std::uint64_t, kFaults> faults{};
  std::array<std::uint64_t, kMarks> marks{};
  std::uint64_t running = 0;  // the seed at work
  std::uint32_t failures = 0;
  struct Line {
    std::uint64_t seed;
    char text[kText];
  };
  std::array<Line, kFailures> lines{};
  void add(const RunResult& result);
  void fail(std::uint64_t seed, std::string_view text);
};

// Seeds from `first` on, each in a child process that may die: until `count` seeds, `seconds` of real time or
// `failures_most` failures.
struct Plan {
  std::uint64_t first = 1, count = UINT64_MAX;
  double seconds = 1e18;
  std::uint32_t failures_most = 20;
  std::string mutant;
  bool quiet = false;
};
Ledger run_many(const Plan& plan);
std::string report(const Ledger& ledger, double real_seconds);

}  // namespace grange::sim
