// What scheduling costs as a farm grows: state changes a second on one core, and memory, against workers and tasks.
//
//   grange_core_scale [workers tasks]      CSV on standard output, the machine and the settings before it
//
// A state change is an event that the core took and that moved a task: handed out, started, ended. Nothing is written
// or sent; the loop is the server's: events of a batch, plan, apply, end of batch.
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "core/farm.hpp"

namespace {

using namespace grange;
using namespace grange::core;

#ifndef GRANGE_COMMIT
#define GRANGE_COMMIT "unknown"
#endif

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
// Of this thread: what one core works, whatever else the machine does.
double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

std::uint64_t resident() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t all = 0, pages = 0;
  statm >> all >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

double grown(std::uint64_t before) {
  return std::max(0.0, static_cast<double>(resident()) - static_cast<double>(before));
}

struct Setting {
  std::uint32_t workers = 2000;
  std::uint64_t tasks = 10'000'000;
  std::uint64_t blocked = 0;  // behind a request that nobody meets
  std::uint32_t users = 8, slots = 8, window = 16, batch = 4096;
};

struct Figures {
  double changes_a_second = 0, wall = 0, cpu = 0;
  std::uint64_t changes = 0;
  double queued_bytes = 0, live_bytes = 0;  // a task
};

// A farm in its steady state: each turn a batch of held tasks ends, and what came free is filled again.
class Bench {
 public:
  explicit Bench(const Setting& s) : s_(s) {
    for (std::uint32_t w = 1; w <= s.workers; ++w) {
      Capacity c{.slots = s.slots, .cpus_milli = 1000 * s.slots, .memory = 64 * GiB, .engines = {"builtin"}};
      farm_.step(WorkerHello{.worker = {w}, .capacity = c, .window = s.window, .held = {}}, now_, effects_);
    }
    const auto before = resident();
    submit(s.blocked, true);
    submit(s.tasks, false);
    farm_.finish_batch(now_, effects_);
    effects_ = {};
    queued_bytes_ = grown(before) / static_cast<double>(s.tasks + s.blocked);
  }

  Figures run(double limit_s) {
    Figures f;
    f.queued_bytes = queued_bytes_;
    const auto before = resident();
    plan();
    const std::size_t live = held_.size() - done_;
    f.live_bytes = live == 0 ? 0 : grown(before) / static_cast<double>(live);
    const double begin = seconds(), cpu_begin = cpu_seconds();
    changes_ = 0;
    while (done_ < held_.size() && cpu_seconds() - cpu_begin < limit_s) turn();
    f.wall = seconds() - begin;
    f.cpu = cpu_seconds() - cpu_begin;
    f.changes = changes_;
    f.changes_a_second = static_cast<double>(changes_) / f.cpu;
    return f;
  }

 private:
  void submit(std::uint64_t left, bool unmeetable) {
    const std::uint64_t each = std::max<std::uint64_t>(1, left / s_.users);
    for (std::uint32_t user = 0; left > 0; ++user) {
      const auto n = std::min<std::uint64_t>({left, each, limits::kTasksPerJob});
      JobHeader h{.count = static_cast<std::uint32_t>(n)};
      h.request.engine = "builtin";
      h.request.memory = unmeetable ? 1024 * GiB : GiB;
      h.user = "user" + std::to_string(user % s_.users);
      h.priority = unmeetable ? 1 : 0;
      const auto answer = farm_.step(SubmitJob{.job = {++job_}, .header = h}, now_, effects_);
      if (!answer.result.ok()) {
        std::fprintf(stderr, "%s\n", answer.result.error().message.c_str());
        std::exit(1);
      }
      left -= n;
    }
  }

  void plan() {
    farm_.apply(farm_.plan(now_, prng_), now_, effects_);
    changes_ += effects_.assign.size();
    if (done_ > (1u << 20)) {
      held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(done_));
      done_ = 0;
    }
    held_.insert(held_.end(), effects_.assign.begin(), effects_.assign.end());
    farm_.finish_batch(now_, effects_);
    effects_ = {};
  }

  void turn() {
    now_.mono.us += 1000;
    now_.wall.ms += 1;
    const std::size_t n = std::min<std::size_t>(s_.batch, held_.size() - done_);
    for (std::size_t i = 0; i < n; ++i) {
      const SendAssign a = held_[done_++];
      farm_.step(AttemptStarted{a.worker, a.fence}, now_, effects_);
      farm_.step(AttemptEnded{.worker = a.worker, .fence = a.fence, .run_us = 800}, now_, effects_);
    }
    changes_ += 2 * n;
    if (++turns_ % 1000 == 0) {
      for (std::uint32_t w = 1; w <= s_.workers; ++w) farm_.step(WorkerAlive{{w}}, now_, effects_);
    }
    plan();
  }

  Setting s_;
  Farm farm_{FarmOptions{.lease = Millis{10'000'000}}};
  Prng prng_{1};
  Now now_{{1'000'000}, {1'700'000'000'000}};
  Effects effects_;
  std::vector<SendAssign> held_;
  std::size_t done_ = 0;
  std::uint64_t changes_ = 0, turns_ = 0;
  std::uint32_t job_ = 0;
  double queued_bytes_ = 0;
};

void row(const char* curve, const Setting& s, const Figures& f) {
  std::printf("%s,%u,%llu,%llu,%.0f,%llu,%.3f,%.3f,%.1f,%.0f\n", curve, s.workers,
              static_cast<unsigned long long>(s.tasks), static_cast<unsigned long long>(s.blocked), f.changes_a_second,
              static_cast<unsigned long long>(f.changes), f.cpu, f.wall, f.queued_bytes, f.live_bytes);
  std::fflush(stdout);
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

// The same farm with and without a million tasks that nobody can run, in turns, so that both see the same machine.
void blocked_pair() {
  std::vector<double> with, without;
  Setting s{.workers = 200, .tasks = 2'000'000};
  for (int i = 0; i < 5; ++i) {
    s.blocked = 0;
    without.push_back(Bench(s).run(0.7).changes_a_second);
    s.blocked = 1'000'000;
    with.push_back(Bench(s).run(0.7).changes_a_second);
  }
  const auto median = [](std::vector<double>& v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  const double a = median(without), b = median(with);
  std::printf("# 1000000 tasks behind an unmeetable request: %.0f/s without, %.0f/s with: slower by %.1f %%\n", a, b,
              100 * (a - b) / a);
}

}  // namespace

int main(int argc, char** argv) {
  utsname host{};
  uname(&host);
  std::printf("# machine: %s, %s %s, one thread\n# commit: %s\n", processor().c_str(), host.sysname, host.release,
              GRANGE_COMMIT);
  const Setting d;
  std::printf("# settings: %u users, %u slots and a window of %u a worker, batches of %u results\n", d.users, d.slots,
              d.window, d.batch);
  std::printf(
      "curve,workers,tasks,blocked,changes_per_core_second,changes,core_seconds,wall_seconds,bytes_per_queued_task,"
      "bytes_per_live_task\n");
  if (argc == 3) {
    const Setting s{.workers = static_cast<std::uint32_t>(std::atoi(argv[1])),
                    .tasks = std::strtoull(argv[2], nullptr, 10)};
    row("one", s, Bench(s).run(60));
    return 0;
  }
  for (const std::uint32_t workers : {10u, 30u, 100u, 300u, 1000u, 2000u}) {
    const Setting s{.workers = workers, .tasks = 3'000'000};
    row("workers", s, Bench(s).run(2));
  }
  for (const std::uint64_t tasks : {10'000ull, 100'000ull, 1'000'000ull, 10'000'000ull}) {
    const Setting s{.workers = 2000, .tasks = tasks};
    row("tasks", s, Bench(s).run(20));
  }
  blocked_pair();
  return 0;
}
