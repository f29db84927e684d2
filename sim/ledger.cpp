#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>

#include "run.hpp"

namespace grange::sim {
namespace {

constexpr unsigned kHang = 20;  // real seconds for one seed

double real_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void Ledger::fail(std::uint64_t seed, std::string_view text) {
  if (failures < kFailures) {
    Line& line = lines[failures];
    line.seed = seed;
    const std::size_t size = std::min(text.size(), kText - 1);
    std::memcpy(line.text, text.data(), size);
    line.text[size] = 0;
  }
  failures += 1;
}

void Ledger::add(const RunResult& result) {
  seeds += 1;
  seconds += result.stats.seconds;
  steps += result.stats.steps;
  restarts += result.stats.restarts;
  jobs += result.stats.jobs;
  results += result.stats.results;
  for (std::size_t i = 0; i < kFaults; ++i) faults[i] += result.stats.faults[i];
  if (result.failure) fail(result.failure->seed, result.failure->rule + ": " + result.failure->text);
}

Ledger run_many(const Plan& plan) {
  void* memory = ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return {};
  auto* shared = new (memory) Ledger{};
  const double until = real_now() + plan.seconds;
  std::uint64_t next = plan.first;
  while (next - plan.first < plan.count && real_now() < until && shared->failures < plan.failures_most) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      set_mutant(plan.mutant);
      if (plan.quiet && std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(2);
      const std::uint64_t end = plan.count == UINT64_MAX ? next + 500 : std::min(plan.first + plan.count, next + 500);
      std::vector<std::uint64_t> before;
      for (const auto& [name, hits] : marks()) before.push_back(hits);
      for (std::uint64_t seed = next; seed < end && real_now() < until && shared->failures < plan.failures_most;
           ++seed) {
        shared->running = seed;
        ::alarm(kHang);
        shared->add(run_seed(seed, false));
        ::alarm(0);
        std::size_t i = 0;
        for (const auto& [name, hits] : marks()) {
          if (i < Ledger::kMarks) shared->marks[i] += hits - before[i];
          before[i++] = hits;
        }
      }
      std::fflush(nullptr);
      ::_exit(0);
    }
    if (child < 0) break;
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
      shared->seeds += 1;
      shared->fail(shared->running, WTERMSIG(status) == SIGALRM
                                        ? "hang: it did not end in time"
                                        : "assert: the process was ended by signal " +
                                              std::to_string(WTERMSIG(status)) + " (its message is on stderr)");
    } else if (WEXITSTATUS(status) != 0) {
      break;
    }
    next = shared->running + 1;
  }
  const Ledger out = *shared;
  ::munmap(memory, sizeof(Ledger));
  return out;
}

std::string report(const Ledger& l, double real_seconds) {
  std::string out;
  out += fmt::format("seeds            {:>14}   ({:.1f} a second)\n", l.seeds,
                     static_cast<double>(l.seeds) / std::max(real_seconds, 1e-9));
  out += fmt::format(
      "simulated hours  {:>14.1f}\nsteps            {:>14}\nserver restarts  {:>14}\njobs             {:>14}\nresults "
      "accepted {:>14}\n",
      l.seconds / 3600, l.steps, l.restarts, l.jobs, l.results);
  out += "faults\n";
  for (std::size_t i = 0; i < kFaults; ++i)
    out += fmt::format("  {:<18} {:>10}\n", name(static_cast<Fault>(i)), l.faults[i]);
  const auto all = marks();
  std::size_t reached = 0;
  std::string missing;
  for (std::size_t i = 0; i < std::min(all.size(), Ledger::kMarks); ++i) {
    if (l.marks[i] > 0) {
      reached += 1;
    } else {
      missing += " " + all[i].first;
    }
  }
  out += fmt::format("marks            {:>14} of {}{}{}\n", reached, all.size(),
                     missing.empty() ? "" : "; not reached:", missing);
  out += fmt::format("failures         {:>14}\n", l.failures);
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(l.failures, Ledger::kFailures); ++i)
    out += fmt::format("  seed {}: {}\n    replay: ./dev sim --seed {} --trace\n", l.lines[i].seed, l.lines[i].text,
                       l.lines[i].seed);
  return out;
}

}  // namespace grange::sim
