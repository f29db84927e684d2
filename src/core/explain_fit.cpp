#include "core/explain_fit.hpp"

#include <algorithm>

#include "core/explain_parts.hpp"
#include "core/explain_words.hpp"

namespace grange::core {
namespace {

std::string joined(const std::vector<std::string>& names) {
  if (names.empty()) return "none";
  std::string out;
  for (std::size_t i = 0; i < names.size() && i < 8; ++i) out += (i == 0 ? "" : ", ") + names[i];
  return names.size() > 8 ? out + " and others" : out;
}

// Services far away are many words for one thing, and a mock is none that anybody looks for.
std::string engines_of(const std::vector<std::string>& names) {
  constexpr std::string_view kRemote = "remote:";
  std::vector<std::string> shown;
  std::string remote;
  for (const std::string& one : names) {
    if (one.starts_with(kRemote)) {
      remote += (remote.empty() ? "" : ", ") + one.substr(kRemote.size());
    } else if (!one.ends_with("-mock")) {
      shown.push_back(one);
    }
  }
  if (!remote.empty()) shown.push_back("remote (" + remote + ")");
  return joined(shown);
}

std::int64_t number(std::uint64_t n) {
  return static_cast<std::int64_t>(std::min<std::uint64_t>(n, INT64_MAX));
}

// Demands that this worker will never meet.
void never(const Worker& w, const Request& r, std::vector<Reason>& why) {
  const Capacity& c = w.capacity;
  if (!std::binary_search(c.engines.begin(), c.engines.end(), r.engine)) {
    why.push_back(
        {.code = "engine",
         .text = "It needs the engine '" + r.engine + "'; this worker offers " + engines_of(c.engines) + "."});
  }
  if (!r.model.empty() && !std::binary_search(c.models.begin(), c.models.end(), r.model)) {
    why.push_back(
        {.code = "model", .text = "It needs the model '" + r.model + "'; this worker has " + joined(c.models) + "."});
  }
  if (!model_fits(r, c)) {
    const std::uint32_t most = c.context_of(r.model);
    why.push_back({.code = "model_fit",
                   .text = "It needs the model '" + r.model + "' with a context of " +
                           words::count(r.context, "token") + "; on this worker it fits with at most " +
                           words::count(most, "token") + ".",
                   .have = most,
                   .need = r.context});
  }
  if (!r.pool.empty() && r.pool != c.pool) {
    why.push_back({.code = "pool",
                   .text = "It asks for pool '" + r.pool + "'; this worker is in " +
                           (c.pool.empty() ? "none." : "'" + c.pool + "'.")});
  }
  for (const LabelRule& rule : r.labels) {
    const auto label =
        std::find_if(c.labels.begin(), c.labels.end(), [&](const auto& l) { return l.first == rule.key; });
    const bool has = label != c.labels.end() && (rule.value == "*" || rule.value == label->second);
    if (has != rule.negate) continue;
    if (rule.key == explaining::kPinned && !rule.negate && rule.value != "*") {
      why.push_back({.code = "pinned", .text = "It is for one worker only, and that is another one."});
      continue;
    }
    const std::string theirs = label == c.labels.end() ? "no label " + rule.key : label->first + "=" + label->second;
    why.push_back({.code = "label",
                   .text = std::string(rule.negate ? "It must run without the label " : "It needs the label ") +
                           rule.key + (rule.value == "*" ? "" : "=" + rule.value) + "; this worker has " + theirs +
                           "."});
  }
  const auto least = [&](const char* code, std::uint64_t need, std::uint64_t have, const std::string& needs,
                         const std::string& has) {
    if (need <= have) return;
    why.push_back({.code = code,
                   .text = "It needs " + needs + "; this worker has " + has + ".",
                   .have = number(have),
                   .need = number(need)});
  };
  least("cpus", r.cpus_milli, c.cpus_milli, words::cores(r.cpus_milli), words::cores(c.cpus_milli));
  least("memory", r.memory, c.memory, words::size(r.memory), words::size(c.memory) + " of memory");
  least("gpus", r.gpus_milli, c.gpus_milli, words::gpus(r.gpus_milli), words::gpus(c.gpus_milli));
  least("gpu_memory", r.gpu_memory, c.gpu_memory, words::size(r.gpu_memory) + " of GPU memory",
        words::size(c.gpu_memory) + " on its smallest");
  least("disk", r.disk, c.disk, words::size(r.disk) + " of disk", words::size(c.disk));
  if (c.slots == 0) why.push_back({.code = "slots", .text = "This worker has no slots.", .have = 0, .need = 1});
}

// What bars anything new from it.
void barred(const Farm::State& s, const Worker& w, const Demand& demand, const Request& r, Now now, bool avoid_counts,
            std::vector<Reason>& why) {
  if (!w.connected) why.push_back({.code = "disconnected", .text = "It is not connected."});
  if (w.draining) why.push_back({.code = "draining", .text = "It is draining: it takes nothing new."});
  if (w.paused) why.push_back({.code = "worker_paused", .text = "It is paused: it takes nothing new."});
  if (w.quarantined_until > now.mono) {
    why.push_back({.code = "quarantined",
                   .text = "It is in quarantine for " + words::span(w.quarantined_until - now.mono) + " more" +
                           (w.failed_in_a_row == 0  // of before a restart
                                ? "."
                                : ", after " + words::count(w.failed_in_a_row, "failure") + " in a row."),
                   .have = w.failed_in_a_row,
                   .need = 0,
                   .until = wall_of(w.quarantined_until, now)});
  } else if (w.on_trial && !w.held.empty()) {
    why.push_back({.code = "quarantined",
                   .text = "It is on trial after a quarantine: one task at a time.",
                   .have = 1,
                   .need = 0});
  }
  if (!lives(w, r, now)) {
    const auto left = w.leaves_at - now.mono;
    why.push_back({.code = "life",
                   .text = "It needs a worker that stays " + words::span(r.min_life) + "; this one leaves in " +
                           words::span(left) + ".",
                   .have = left.count() / 1000,
                   .need = r.min_life.count()});
  }
  if (avoid_counts && demand.task != nullptr && demand.task->avoids(w.no)) {
    why.push_back({.code = "avoided", .text = "It failed there or was given back, and another worker can run it."});
  }
  for (const auto& [at, kept] : s.reservations) {
    const bool mine = demand.job != nullptr && kept.job == demand.job->no;
    if (mine || at < demand.level || std::find(kept.workers.begin(), kept.workers.end(), w.no) == kept.workers.end())
      continue;
    why.push_back(
        {.code = "reserved",
         .text = "Its room is kept for job " + std::to_string(kept.job.value) + ", which has waited too long."});
  }
}

// What it would have room for, were nothing running there.
void busy(const Farm::State& s, Worker& w, const Request& r, std::vector<Reason>& why) {
  Spare spare = Spare::of(w);
  if (fits_now(s, spare, r)) return;
  const Capacity& c = w.capacity;
  const Load& l = w.load;
  const auto free = [&](const char* code, std::uint64_t used, std::uint64_t all, std::uint64_t need, auto say) {
    const std::uint64_t left = all > used ? all - used : 0;
    if (need <= left) return;
    why.push_back({.code = code,
                   .text = "It needs " + say(need) + "; this worker has " + say(left) + " free, of " + say(all) + ".",
                   .have = number(left),
                   .need = number(need)});
  };
  if (l.tasks >= c.slots) {
    why.push_back({.code = "slots",
                   .text = c.slots == 1 ? "Its only slot is taken."
                                        : "All of its " + words::count(c.slots, "slot") + " are taken.",
                   .have = 0,
                   .need = 1});
  }
  free("cpus", l.cpus_milli, c.cpus_milli, r.cpus_milli, words::cores);
  free("memory", l.memory, c.memory, r.memory, words::size);
  free("disk", l.disk, c.disk, r.disk, words::size);
  const std::size_t before = why.size();
  free("gpus", l.gpus_milli, c.gpus_milli, r.gpus_milli, words::gpus);
  if (r.gpus_milli > 0 && why.size() == before && why.empty()) {
    why.push_back({.code = "gpus",
                   .text = "It needs " + words::gpus(r.gpus_milli) + " in one piece; what is free there is in parts.",
                   .have = number(c.gpus_milli - std::min<std::uint64_t>(c.gpus_milli, l.gpus_milli)),
                   .need = r.gpus_milli});
  }
  if (w.held.size() >= w.window) {
    why.push_back({.code = "window",
                   .text = "It holds " + words::count(w.held.size(), "task") + " already, as many as it wants at once.",
                   .have = static_cast<std::int64_t>(w.held.size()),
                   .need = w.window});
  }
}

}  // namespace

WorkerFit fit_of(const Farm::State& s, Worker& w, const Demand& demand, bool avoid_counts, Now now) {
  WorkerFit best{.worker = w.no};
  std::size_t fewest = SIZE_MAX;
  std::vector<WorkerFit> each;
  for (std::size_t i = 0; i < demand.requests.size(); ++i) {
    if (demand.requests[i] == nullptr) continue;
    const Request& r = *demand.requests[i];
    WorkerFit fit{.worker = w.no, .alternative = static_cast<std::uint32_t>(i)};
    never(w, r, fit.why);
    barred(s, w, demand, r, now, avoid_counts, fit.why);
    fit.could = std::all_of(fit.why.begin(), fit.why.end(), [](const Reason& x) {
      return x.code == "reserved" || x.code == "quarantined" || x.code == "avoided";
    });
    if (fit.could) busy(s, w, r, fit.why);
    fit.now = fit.why.empty();
    const std::size_t rank = fit.now ? 0 : fit.could ? fit.why.size() : 1000 + fit.why.size();
    each.push_back(fit);
    if (rank >= fewest) continue;
    fewest = rank;
    best = std::move(fit);
  }
  if (best.could) return best;
  // None will do: each of the others says why, too.
  const auto said = best.why;
  for (const WorkerFit& other : each) {
    if (other.alternative == best.alternative) continue;
    for (Reason r : other.why) {
      if (std::any_of(said.begin(), said.end(), [&](const Reason& x) { return x.text == r.text; })) continue;
      r.text = "Alternative " + std::to_string(other.alternative) + ": " + r.text;
      best.why.push_back(std::move(r));
    }
  }
  return best;
}

}  // namespace grange::core
