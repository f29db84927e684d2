// What each worker lacks, and in one sentence what all of them do.
#include <algorithm>
#include <tuple>

#include "core/explain_parts.hpp"
#include "core/explain_words.hpp"

namespace grange::core::explaining {
namespace {

bool told(const WorkerFit& fit, std::initializer_list<std::string_view> codes) {
  return std::any_of(fit.why.begin(), fit.why.end(),
                     [&](const Reason& r) { return std::find(codes.begin(), codes.end(), r.code) != codes.end(); });
}
bool in_quarantine(const WorkerFit& fit) {
  return std::any_of(fit.why.begin(), fit.why.end(),
                     [](const Reason& r) { return r.code == "quarantined" && r.until.ms != 0; });
}
// Whatever it lacks can change without another worker.
bool right_kind(const WorkerFit& fit) {
  return std::all_of(fit.why.begin(), fit.why.end(), [](const Reason& r) {
    return r.code == "draining" || r.code == "worker_paused" || r.code == "disconnected" || r.code == "quarantined" ||
           r.code == "avoided" || r.code == "reserved";
  });
}

void nearest_first(std::vector<WorkerFit>& fits) {
  std::stable_sort(fits.begin(), fits.end(), [](const WorkerFit& a, const WorkerFit& b) {
    const auto rank = [](const WorkerFit& f) {
      return std::tuple(!f.now, !f.could, told(f, {"pinned"}), !f.could && !right_kind(f),
                        in_quarantine(f) || told(f, {"avoided"}), f.why.size());
    };
    return rank(a) < rank(b);
  });
}

// In one sentence, what nobody has: the demand that keeps the nearest workers away, with the best that there is.
Reason nobody(const std::vector<WorkerFit>& fits) {
  const WorkerFit& nearest = fits.front();
  Reason why = nearest.why.front();
  const auto best = [&](std::string needs, auto say) {
    std::int64_t most = -1;
    WorkerNo who{};
    for (const WorkerFit& f : fits) {
      for (const Reason& r : f.why) {
        if (r.code == why.code && r.have > most) {
          most = r.have;
          who = f.worker;
        }
      }
    }
    why.have = most;
    why.text = "Waits for " + needs + ": it needs " + say(static_cast<std::uint64_t>(why.need)) +
               "; the largest worker, " + std::to_string(who.value) + ", has " + say(static_cast<std::uint64_t>(most)) +
               ".";
  };
  if (right_kind(nearest)) {
    std::uint64_t draining = 0, paused = 0, away = 0;
    for (const WorkerFit& f : fits) {
      if (!right_kind(f)) continue;
      (told(f, {"draining"}) ? draining : told(f, {"worker_paused"}) ? paused : away) += 1;
    }
    const auto are = [](std::uint64_t n, const char* what) {
      return std::to_string(n) + (n == 1 ? " is " : " are ") + what;
    };
    std::string list;
    const auto name = [&](std::uint64_t n, const char* what) {
      if (n > 0) list += (list.empty() ? "" : ", ") + are(n, what);
    };
    name(draining, "draining");
    name(paused, "paused");
    name(away, "not connected");
    why.text = "No worker that could run it takes new work: " + list + ".";
  } else if (why.code == "cpus") {
    best("cores", words::cores);
  } else if (why.code == "gpus") {
    best("GPUs", words::gpus);
  } else if (why.code == "memory" || why.code == "gpu_memory" || why.code == "disk") {
    best(why.code == "gpu_memory" ? "GPU memory" : why.code, words::size);
  } else {
    why.text =
        "No worker can run it now. The nearest, worker " + std::to_string(nearest.worker.value) + ": " + why.text;
  }
  return why;
}

std::vector<WorkerFit> all_fits(Farm::State& s, const Demand& demand, bool avoid, Now now) {
  std::vector<WorkerFit> fits;
  fits.reserve(s.workers.size());
  for (const auto& [no, w] : s.workers) fits.push_back(fit_of(s, *w, demand, avoid, now));
  return fits;
}

Reason nobody(const Farm::State& s, const Request& r, const std::vector<WorkerFit>& fits) {
  // What it is pinned to is the only one that matters, and may be away.
  if (told(fits.front(), {"pinned"})) {
    std::string who;
    for (const LabelRule& rule : r.labels) {
      if (rule.key == kPinned && !rule.negate) who = rule.value;
    }
    return reason("pinned", "It is for the worker '" + who + "' only, which is not connected.");
  }
  Reason why = nobody(fits);
  why.text += next_step(s, r, why);
  return why;
}

// The same of each alternative.
Reason nobody(Farm::State& s, const Demand& demand, const std::vector<WorkerFit>& fits, Now now) {
  Reason out;
  std::string text;
  std::size_t asked = 0;
  for (std::size_t i = 0; i < demand.requests.size(); ++i) {
    if (demand.requests[i] == nullptr) continue;
    Demand only = demand;
    for (std::size_t k = 0; k < only.requests.size(); ++k) {
      if (k != i) only.requests[k] = nullptr;
    }
    auto one = all_fits(s, only, false, now);
    nearest_first(one);
    const Reason why = nobody(s, *demand.requests[i], one);
    if (asked++ == 0) out = why;
    text += " " + std::to_string(i) + ": " + why.text;
  }
  if (asked > 1 && !right_kind(fits.front())) out.text = "No worker meets any of the alternatives." + text;
  return out;
}

}  // namespace

void fill_workers(Farm::State& s, const Demand& demand, std::uint32_t nodes, Now now, Explanation& e) {
  auto fits = all_fits(s, demand, true, now);
  const auto able = [](const WorkerFit& f) { return f.could && !in_quarantine(f) && !told(f, {"avoided"}); };
  auto ready = static_cast<std::uint32_t>(std::count_if(fits.begin(), fits.end(), able));
  if (ready < nodes && demand.task != nullptr && demand.task->picky()) {  // it goes where it failed before
    fits = all_fits(s, demand, false, now);
    ready = static_cast<std::uint32_t>(std::count_if(fits.begin(), fits.end(), able));
  }
  for (const WorkerFit& f : fits) {
    e.workers_could += f.could ? 1 : 0;
    e.workers_now += f.now ? 1 : 0;
  }
  e.workers_in_all = static_cast<std::uint32_t>(fits.size());
  nearest_first(fits);
  if (fits.empty()) {
    e.waits.push_back(reason("no_worker", "No worker is connected. Start one with: grange worker --server URL"));
  } else if (e.workers_could == 0) {
    e.waits.push_back(nobody(s, demand, fits, now));
  } else if (e.workers_could < nodes) {
    e.waits.push_back(reason("gang",
                             "It needs " + words::count(nodes, "worker") + " at the same time, and only " +
                                 std::to_string(e.workers_could) + " can run it.",
                             e.workers_could, nodes));
  } else if (ready == 0) {
    WallMs first{};
    for (const WorkerFit& f : fits) {
      for (const Reason& r : f.why) {
        if (r.code == "quarantined" && r.until.ms != 0 && (first.ms == 0 || r.until < first)) first = r.until;
      }
    }
    const std::string out = words::span(Millis{first.ms - now.wall.ms}) + ".";
    e.waits.push_back(reason("quarantined",
                             e.workers_could == 1 ? "The only worker that could run it is in quarantine for " + out
                                                  : "The " + words::count(e.workers_could, "worker") +
                                                        " that could run it are in quarantine, the first for " + out,
                             0, nodes, first));
  }
  if (fits.size() > limits::kExplainWorkers) fits.resize(limits::kExplainWorkers);
  e.workers = std::move(fits);
}

void wait_for_room(const Explanation& from, std::uint32_t nodes, std::string& summary) {
  if (nodes > 1) {
    summary = gang_room(nodes, from.workers_could, from.workers_now);
    return;
  }
  const auto busy = std::find_if(from.workers.begin(), from.workers.end(), [](const WorkerFit& f) { return f.could; });
  summary =
      "Waits for room: " + words::count(from.workers_could, "worker") + " can run it, none of which has room now.";
  if (from.workers_could == 1) summary = "Waits for room: the only worker that can run it has none now.";
  if (busy != from.workers.end() && !busy->why.empty()) {
    summary += " Worker " + std::to_string(busy->worker.value) + ": " + busy->why.front().text;
  }
}

}  // namespace grange::core::explaining
