#include "run.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>

#include "client.hpp"
#include "net.hpp"
#include "server.hpp"
#include "worker.hpp"

namespace grange::sim {
namespace {

// Simulated time in which all must have ended once the faults stopped (L1). A worker may sit in quarantine for an hour.
constexpr Micros kBound{4 * 3'600'000'000};

class Run {
 public:
  Run(std::uint64_t seed, bool trace)
      : options_(Options::draw(seed)),
        world_(seed, trace),
        net_(world_, options_.delay_mean),
        auditor_(world_),
        dice_(seed, 4),
        server_(world_, net_, auditor_, options_) {
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, static_cast<int>(seed & 0x7fffffff) | 1, nullptr);
    if (trace) fmt::print("{}\n", options_.text());
    for (std::uint32_t i = 0; i < options_.workers + options_.liars; ++i)
      workers_.push_back(
          std::make_unique<WorkerActor>(world_, net_, auditor_, options_, rumours_, i + 1, i >= options_.workers));
    for (std::uint32_t i = 0; i < options_.workers; ++i) machines_.push_back(workers_[i]->machine());
    for (std::uint32_t i = 0; i < options_.clients; ++i)
      clients_.push_back(std::make_unique<ClientActor>(world_, net_, auditor_, options_, i + 1, machines_));
  }

  RunResult go() {
    RunResult out;
    try {
      drive();
    } catch (const Violation& v) {
      world_.trace("VIOLATED {}: {}", v.rule, v.text);
      out.failure = Failure{world_.seed(), v.rule, v.text};
    }
    out.stats = {.seconds = world_.seconds(),
                 .steps = world_.steps(),
                 .restarts = server_.restarts(),
                 .jobs = auditor_.jobs(),
                 .results = auditor_.results_accepted(),
                 .faults = {}};
    for (std::size_t i = 0; i < kFaults; ++i) out.stats.faults[i] = world_.faults()[i];
    return out;
  }

 private:
  void drive() {
    server_.start();
    for (auto& w : workers_) {
      world_.after(dice_.skewed(ms(3000)), [this, w = w.get()] {
        if (!w->running()) w->start();
      });
    }
    for (auto& c : clients_) c->start();
    const Instant end = world_.mono() + options_.faulty;
    for (std::size_t i = 0; i < kFaults; ++i) {
      if (options_.every[i].count() > 0) next_fault(static_cast<Fault>(i), end);
    }
    while (world_.step(end)) {
    }
    world_.trace("---- the faults stop");
    heal();
    const Instant bound = world_.mono() + kBound;
    Instant look = world_.mono() + ms(5000);
    for (;;) {
      while (world_.step(look)) {
      }
      if (server_.up()) {
        const std::string missing = auditor_.unfinished(server_.reader());
        const bool answered = std::all_of(clients_.begin(), clients_.end(), [](const auto& c) { return c->idle(); });
        if (missing.empty() && answered) break;
        if (world_.mono() > bound) violated("L1", missing.empty() ? clients_.front()->state() : missing + why(missing));
      } else if (world_.mono() > bound) {
        violated("L1", "the server does not come up again");
      }
      look = look + ms(5000);
    }
    // L3: what nobody needs any more is let go of.
    const Instant rest = world_.mono() + std::chrono::duration_cast<Micros>(server_.lease()) * 2 + ms(10'000);
    while (world_.step(rest)) {
    }
    if (!server_.up()) violated("L1", "the server is down, and nothing was done to it");
    auditor_.check_store(server_.reader());
    server_.look_inside();
    if (const auto view = server_.farm().view(); view.active_tasks > 0 && view.live_jobs == 0)
      violated("L3", fmt::format("all has ended, and workers still hold {} tasks", view.active_tasks));
    explain_all();
  }

  // L1: what cannot run says why.
  void explain_all() {
    for (const core::JobView& job : server_.farm().jobs()) {
      const auto why = server_.farm().explain(job.job, core::Dependency::kAll, world_.now());
      if (!why || (why->waits.empty() && why->workers.empty() && why->summary.empty()))
        violated("L1", fmt::format("job {} cannot run, and explain does not say why", job.job.value));
    }
  }

  std::string why(const std::string& missing) {
    unsigned no = 0;
    if (std::sscanf(missing.c_str(), "job %u", &no) != 1) return {};
    const auto text = server_.farm().explain(JobNo{no}, core::Dependency::kAll, world_.now());
    std::string out = text ? "; explain: " + text->summary : std::string();
    if (const auto task = server_.farm().task(TaskId::of(JobNo{no}, 0)))
      out += fmt::format(" (task 0 is {} on worker {}, attempt {})", core::name(task->state), task->worker.value,
                         task->attempt);
    return out;
  }

  void heal() {
    auditor_.all_disturbed();
    net_.heal();
    server_.heal();
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      WorkerActor& w = *workers_[i];
      if (i >= options_.workers) {
        // The liar goes; or stays, and hears nothing for ever (L4).
        w.heal();
        if (dice_.chance(0.5)) {
          GRANGE_MARK("deaf_worker_to_the_end");
          net_.block(w.number(), false, true);
        } else {
          w.crash(ms(86'400'000));
        }
        continue;
      }
      w.heal();
      if (changed_.contains(w.number())) {
        w.change(machines_[i]);
        w.crash(dice_.skewed(ms(2000)));
      }
    }
    for (auto& c : clients_) c->settle();
  }

  WorkerActor* someone() { return workers_[dice_.below(workers_.size())].get(); }

  void next_fault(Fault f, Instant end) {
    world_.after(dice_.skewed(options_.every[static_cast<std::size_t>(f)]), [this, f, end] {
      if (world_.mono() >= end) return;
      strike(f, end);
      next_fault(f, end);
    });
  }

  void strike(Fault f, Instant end) {
    const auto count = [&] { world_.fault(static_cast<std::size_t>(f)); };
    const bool power = options_.has(Fault::power_loss) && dice_.chance(0.7);
    WorkerActor* w = someone();
    const auto lease = std::chrono::duration_cast<Micros>(server_.lease());
    switch (f) {
      case Fault::server_crash:
        if (!server_.up()) return;
        count();
        return server_.die_in(static_cast<std::uint32_t>(1 + dice_.below(30)), power);
      case Fault::crash_in_commit:
        if (!server_.up()) return;
        count();
        return server_.die_in_commit(1 + dice_.below(60), power);
      case Fault::power_loss:
        if (!server_.up()) return;
        return server_.die_in(static_cast<std::uint32_t>(1 + dice_.below(10)), true);
      case Fault::io_error:
        if (!server_.up()) return;
        count();
        return server_.disk_error(1 + dice_.below(20), dice_.chance(0.3));
      case Fault::disk_full:
        if (!server_.up()) return;
        count();
        server_.disk_full(true);
        world_.after(dice_.skewed(ms(8000)), [this] { server_.disk_full(false); });
        return;
      case Fault::server_stall:
        if (!server_.up()) return;
        count();
        return server_.stall(dice_.skewed(lease));
      case Fault::worker_crash:
        if (!w->running()) return;
        count();
        return w->crash(dice_.skewed(ms(6000)));
      case Fault::worker_pause:
        if (!w->running()) return;
        count();
        if (dice_.chance(0.7)) GRANGE_MARK("worker_paused_past_its_lease");
        return w->pause(dice_.skewed(lease * 2));
      case Fault::worker_slow:
        count();
        w->slow(static_cast<int>(dice_.between(2, 8)));
        world_.after(ms(30'000), [w] { w->slow(1); });
        return;
      case Fault::worker_lies:
        return;  // the liar counts for itself
      case Fault::cut:
      case Fault::half_open: {
        count();
        const bool client = dice_.chance(0.3);
        const std::uint32_t host =
            client ? 10'001 + static_cast<std::uint32_t>(dice_.below(options_.clients)) : w->number();
        if (!client) auditor_.disturbed(host);
        world_.trace("net: {} host {}", f == Fault::cut ? "cuts" : "half-opens", host);
        return net_.cut(host, f == Fault::half_open);
      }
      case Fault::one_way: {
        count();
        const bool up = dice_.chance(0.5);
        const std::uint32_t host = w->number();
        world_.trace("net: {} of host {} is blocked", up ? "up" : "down", host);
        net_.block(host, up, true);
        auditor_.disturbed(host);
        GRANGE_MARK("one_way_partition");
        const Micros how_long = dice_.skewed(lease * 2);
        // For as long as it lasts the worker is not undisturbed.
        for (Micros t = ms(0); t < how_long; t += ms(2000)) world_.after(t, [this, host] { auditor_.disturbed(host); });
        world_.after(how_long, [this, host, up] {
          net_.block(host, up, false);
          auditor_.disturbed(host);
        });
        return;
      }
      case Fault::stall: {
        count();
        const Micros how_long = dice_.skewed(lease);
        net_.stall(w->number(), how_long);
        auditor_.disturbed(w->number());
        world_.after(how_long, [this, host = w->number()] { auditor_.disturbed(host); });
        return;
      }
      case Fault::reconnect:
        if (!w->online()) return;
        count();
        GRANGE_MARK("second_connection_beside_the_first");
        return w->second_connection();
      case Fault::retry_storm:
        count();
        return clients_[dice_.below(clients_.size())]->storm();
      case Fault::cancel_race:
        count();
        return clients_[dice_.below(clients_.size())]->race_cancel();
      case Fault::wall_jump:
        count();
        world_.shift_wall(dice_.between(-3'600'000, 3'600'000));
        return world_.trace("the wall clock jumps");
      case Fault::version_skew:
        count();
        if (dice_.chance(0.4)) {
          w->be_of_another_version(static_cast<int>(dice_.between(1, 2)));
          w->crash(dice_.skewed(ms(1000)));
        } else {
          w->add_unknown_fields(true);
        }
        return;
      case Fault::config_change: {
        if (!server_.up()) return;
        count();
        const auto names = core::policy_names();
        return server_.restart_with(std::string(names[dice_.below(names.size())]), Millis{dice_.between(6, 30) * 1000});
      }
      case Fault::capacity_change: {
        if (!w->running()) return;
        count();
        Machine m = w->machine();
        m.slots = static_cast<std::uint32_t>(dice_.between(1, options_.slots_most));
        m.zone = dice_.chance(0.5) ? "a" : "b";
        w->change(m);
        changed_.insert(w->number());
        if (dice_.chance(0.5)) return w->drain();
        return w->crash(dice_.skewed(ms(2000)));
      }
      case Fault::kCount:
        return;
    }
    static_cast<void>(end);
  }

  const Options options_;
  World world_;
  Net net_;
  Auditor auditor_;
  Dice dice_;
  Rumours rumours_;
  Server server_;
  std::vector<Machine> machines_;
  std::set<std::uint32_t> changed_;
  std::vector<std::unique_ptr<WorkerActor>> workers_;
  std::vector<std::unique_ptr<ClientActor>> clients_;
};

}  // namespace

RunResult run_seed(std::uint64_t seed, bool trace) {
  Run run(seed, trace);
  return run.go();
}

std::vector<std::pair<std::string, std::uint64_t>> marks() {
  std::vector<std::pair<std::string, std::uint64_t>> out;
  for (const auto* m = marks::Counter::first(); m != nullptr; m = m->next) out.emplace_back(m->name, m->hits);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> mutants() {
  std::vector<std::string> out;
  for (const auto* m = mutants::Switch::first(); m != nullptr; m = m->next) out.emplace_back(m->name);
  std::sort(out.begin(), out.end());
  return out;
}

bool set_mutant(std::string_view name) {
  bool found = name.empty();
  for (auto* m = mutants::Switch::first(); m != nullptr; m = m->next) {
    m->on = m->name == name;
    found = found || m->on;
  }
  return found;
}

}  // namespace grange::sim
