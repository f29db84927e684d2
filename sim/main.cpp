// grange-sim: runs seeds of the simulator and prints the ledger.
#include <fmt/format.h>

#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "fairness.hpp"
#include "run.hpp"

#ifndef GRANGE_SIM_COMMIT
#define GRANGE_SIM_COMMIT ""
#endif

namespace grange::sim {
namespace {

// Seeds in which a mutant must be caught.
constexpr std::uint64_t kMutantSeeds = 500;

int all_mutants(std::uint64_t first) {
  int missed = 0;
  for (const std::string& name : mutants()) {
    const Ledger l =
        run_many({.first = first, .count = kMutantSeeds, .failures_most = 1, .mutant = name, .quiet = true});
    if (l.failures > 0) {
      fmt::print("{:<32} caught by seed {} after {} seeds: {}\n", name, l.lines[0].seed, l.seeds, l.lines[0].text);
    } else {
      fmt::print("{:<32} NOT caught in {} seeds\n", name, l.seeds);
      missed += 1;
    }
    std::fflush(stdout);
  }
  return missed;
}

}  // namespace
}  // namespace grange::sim

int main(int argc, char** argv) {
  using namespace grange::sim;
  CLI::App app{"The farm in a deterministic simulator."};
  double seconds = 0;
  std::uint64_t seed = 0, first = 1, count = 0;
  bool trace = false, list = false, every_mutant = false;
  std::string mutant, what;
  app.add_option("what", what, "fairness: measure the fair share, nothing else");
  app.add_option("--seconds", seconds, "real time to spend");
  app.add_option("--seeds", count, "how many seeds");
  app.add_option("--first", first, "the first seed");
  app.add_option("--seed", seed, "run this one");
  app.add_flag("--trace", trace, "say what happens");
  app.add_option("--mutant", mutant, "take this guard away");
  app.add_flag("--list-mutants", list, "their names");
  app.add_flag("--mutants", every_mutant, "each mutant, until it is caught");
  CLI11_PARSE(app, argc, argv);
  if (!trace) spdlog::set_level(spdlog::level::off);  // that a failing disk is complained of is no news here
  if (what == "fairness") return print_fairness();
  if (!what.empty()) {
    fmt::print(stderr, "There is no \"{}\"; try: grange-sim --help\n", what);
    return 2;
  }
  if (list) {
    for (const auto& name : mutants()) fmt::print("{}\n", name);
    return 0;
  }
  if (every_mutant) return all_mutants(first) == 0 ? 0 : 1;
  if (!set_mutant(mutant)) {
    fmt::print(stderr, "There is no mutant \"{}\"; see --list-mutants.\n", mutant);
    return 2;
  }
  if (seed != 0) {
    const RunResult r = run_seed(seed, trace);
    fmt::print("seed {}: {:.0f} simulated seconds, {} steps, {} restarts, {} jobs\n", seed, r.stats.seconds,
               r.stats.steps, r.stats.restarts, r.stats.jobs);
    if (!r.failure) return 0;
    fmt::print("seed {} FAILED {}: {}\n", seed, r.failure->rule, r.failure->text);
    return 1;
  }
  const auto begun = std::chrono::steady_clock::now();
  Plan plan{.first = first, .mutant = mutant};
  if (count > 0) plan.count = count;
  if (seconds > 0 || count == 0) plan.seconds = seconds > 0 ? seconds : 60;
  const Ledger ledger = run_many(plan);
  const double real = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  fmt::print("commit           {:>14}\n{}", GRANGE_SIM_COMMIT, report(ledger, real));
  fmt::print("{} mutants: ./dev sim --mutants\n", mutants().size());
  return ledger.failures == 0 ? 0 : 1;
}
