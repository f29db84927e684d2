// The state machine: any events, in any order, from workers that may lie. Invariants after each step; a second farm
// that gets the same events gives the same records.
#include <map>

#include "core/farm.hpp"
#include "fuzz/input.hpp"

namespace {

using namespace grange;

struct World {
  core::Farm farm;
  Now now{{1'000'000}, {1'700'000'000'000}};
  Prng prng{7};
  std::uint32_t last_job = 0;
  std::map<std::uint64_t, std::pair<WorkerNo, Fence>> out;  // what was handed out, by order
  std::uint64_t handed = 0;
  std::size_t records = 0;

  World() : farm({.lease = Millis{3000}, .incarnation = 1, .seed = 1}) { farm.loaded(now); }

  std::pair<WorkerNo, Fence> pick(fuzz::Input& in) {
    if (out.empty())
      return {WorkerNo{in.below(5)}, Fence{TaskId::of(JobNo{in.below(4)}, in.below(8)), in.below(4), in.byte()}};
    auto it = out.begin();
    std::advance(it, in.below(static_cast<std::uint32_t>(std::min<std::size_t>(out.size(), 200))));
    auto found = it->second;
    switch (in.below(16)) {  // now and then a lie
      case 0:
        found.first = WorkerNo{in.below(5)};
        break;
      case 1:
        found.second.attempt += in.below(3);
        break;
      case 2:
        found.second.epoch += in.below(3);
        break;
      default:
        break;
    }
    return found;
  }

  core::JobHeader header(fuzz::Input& in) {
    core::JobHeader h;
    h.count = 1 + in.below(9);
    h.priority = static_cast<int>(in.below(3));
    h.request.engine = in.flip() ? "builtin" : "python";
    h.request.cpus_milli = 250 * (1 + in.below(8));
    h.user = in.flip() ? "a" : "b";
    h.kind = h.request.engine;
    h.fail_fast = in.below(8) == 0;
    h.open = in.below(8) == 0;
    h.nodes = in.below(6) == 0 ? 2 : 1;
    h.max_running = in.below(4) == 0 ? 1 + in.below(3) : 0;
    h.retry.max_attempts = 1 + in.below(3);
    h.retry.crash_limit = 1 + in.below(3);
    if (in.below(6) == 0)
      h.retry.rules.push_back({core::FailureClass::exception, "E", 1 + in.below(3), Millis{10}, Millis{100}});
    if (in.below(6) == 0) h.deadline = {now.wall.ms + in.below(10'000)};
    if (in.below(6) == 0) h.not_before = {now.wall.ms + in.below(10'000)};
    h.speculation.on = in.below(4) == 0;
    if (last_job > 0 && in.below(2) == 0) {
      h.when = static_cast<core::When>(in.below(3));
      core::Dependency d{.job = JobNo{1 + in.below(last_job)}};
      if (in.flip())
        d.each = true;
      else if (in.flip())
        d.index = in.below(9);
      h.after.push_back(d);
    }
    return h;
  }

  core::Event event(fuzz::Input& in) {
    switch (in.below(20)) {
      case 0:
      case 1: {
        core::SubmitJob e{JobNo{++last_job}, header(in)};
        for (const auto& d : e.header.after) {
          const auto parent = farm.job(d.job);
          e.parents.push_back({.ended = !parent, .succeeded = !parent && in.flip(), .ended_badly = {}});
        }
        return e;
      }
      case 2: {
        core::Capacity c{.slots = 1 + in.below(4), .cpus_milli = 1000 * (1 + in.below(4))};
        c.engines = {"builtin", "python"};
        core::WorkerHello e{WorkerNo{1 + in.below(4)}, c, 1 + in.below(8), {}};
        for (std::uint32_t n = in.below(4); n > 0; --n) e.held.push_back({pick(in).second, in.flip()});
        return e;
      }
      case 3:
        return core::WorkerGone{WorkerNo{in.below(5)}, in.flip(), in.flip()};
      case 4:
        return in.flip() ? core::Event(core::WorkerAlive{WorkerNo{in.below(5)}})
                         : core::Event(core::WorkerDrain{WorkerNo{in.below(5)}});
      case 5:
      case 6: {
        const auto [w, f] = pick(in);
        return core::AttemptStarted{w, f};
      }
      case 7:
      case 8:
      case 9: {
        const auto [w, f] = pick(in);
        core::AttemptEnded e{w, f};
        e.ok = in.below(3) != 0;
        e.permanent = in.below(8) == 0;
        e.failure = e.ok ? core::FailureClass::none : static_cast<core::FailureClass>(1 + in.below(10));
        e.run_us = in.below(5000);
        if (in.flip()) e.exception = "E";
        return e;
      }
      case 10: {
        const auto [w, f] = pick(in);
        return core::AttemptReturned{w, f};
      }
      case 11: {
        const auto [w, f] = pick(in);
        return in.flip() ? core::Event(core::AttemptPaused{w, f, in.flip()})
                         : core::Event(core::AttemptPreempted{w, f});
      }
      case 12:
        return core::CancelJob{JobNo{in.below(last_job + 2)}};
      case 13:
        return core::CancelTask{TaskId::of(JobNo{in.below(last_job + 2)}, in.below(10))};
      case 14:
        return core::PauseJob{JobNo{in.below(last_job + 2)}, in.flip(), in.flip()};
      case 15:
        return core::PauseTask{TaskId::of(JobNo{in.below(last_job + 2)}, in.below(10)), in.flip(), in.flip()};
      case 16:
        return core::ExtendJob{JobNo{in.below(last_job + 2)}, in.below(4), in.flip()};
      case 17:
        return core::SetUser{in.flip() ? "a" : "b",
                             {.weight_milli = 500 * (1 + in.below(4)), .max_running = in.below(4)}};
      case 18:
        if (in.below(4) == 0) return core::WorkerPause{WorkerNo{in.below(5)}, in.flip()};
        if (in.below(8) == 0) return core::WorkerForget{WorkerNo{in.below(5)}};
        return in.flip() ? core::Event(core::WorkerRelease{WorkerNo{in.below(5)}})
                         : core::Event(core::PauseFarm{in.below(4) == 0});
      default:
        return in.flip() ? core::Event(core::Tick{}) : core::Event(core::Overslept{});
    }
  }

  void run(fuzz::Input& in) {
    core::Effects effects;
    farm.step(event(in), now, effects);
    farm.check_invariants();
    const auto pass = in.below(4);
    now.mono = now.mono + Micros{pass * pass * 200'000};
    now.wall.ms += pass * pass * 200;
    if (farm.next_wake() <= now.mono) farm.step(core::Tick{}, now, effects);
    farm.apply(farm.plan(now, prng), now, effects);
    farm.finish_batch(now, effects);
    farm.check_invariants();
    for (const auto& a : effects.assign) out[handed++] = {a.worker, a.fence};
    records += effects.records.size();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  World one, two;
  fuzz::Input in(data, size), again(data, size);
  for (int steps = 0; steps < 200 && !in.done(); ++steps) {
    one.run(in);
    two.run(again);
    fuzz::require(one.records == two.records && one.handed == two.handed);
  }
  return 0;
}
