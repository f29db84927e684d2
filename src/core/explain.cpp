// Why work waits: first what holds it back wherever it would run, then each worker.
#include <algorithm>
#include <map>

#include "core/explain_fit.hpp"
#include "core/explain_words.hpp"
#include "core/fair.hpp"

namespace grange::core {
namespace {

constexpr std::uint32_t kAll = Dependency::kAll;
constexpr const char* kFarmPaused = "The whole queue is paused: nothing new starts until it is resumed.";
constexpr std::size_t kJobsCounted = 20'000;                             // for tasks_before, which is an estimate
constexpr std::size_t kRangesCounted = 10'000, kQueueCounted = 100'000;  // of one job, for the same

Reason reason(std::string code, std::string text, std::uint64_t have = 0, std::uint64_t need = 0, WallMs until = {}) {
  return {std::move(code), std::move(text), static_cast<std::int64_t>(have), static_cast<std::int64_t>(need), until};
}

std::string gang_room(std::uint32_t nodes, std::uint32_t could, std::uint32_t now) {
  return "It needs room on " + words::count(nodes, "worker") + " at the same time; of the " + std::to_string(could) +
         " that can run it, " + std::to_string(now) + (now == 1 ? " has" : " have") + " room now.";
}

// Tasks that could be handed out, were the job not held back as a whole.
std::uint64_t startable(const Job& job) {
  return (job.each() ? 0 : job.fresh()) + job.again.size() + job.picky.size();
}

bool to_be_frozen(const Task& task) {
  return task.held() != nullptr && (task.held()->freezing || task.held()->state == AttemptState::paused);
}

std::string paused_job(const Job& job, bool all) {
  std::string text = "Job " + std::to_string(job.no.value) + " is paused until it is resumed";
  if (!all) return text + ".";
  const auto looked = job.live.begin() + static_cast<std::ptrdiff_t>(std::min(job.live.size(), kQueueCounted));
  const auto frozen = static_cast<std::uint64_t>(
      std::count_if(job.live.begin(), looked, [](const Task* t) { return to_be_frozen(*t); }));
  const std::uint64_t out = job.assigned + job.running, waiting = job.header.count - job.counts.ended() - out;
  text += ": " + words::count(waiting, "task") + (waiting == 1 ? " waits, " : " wait, ") +
          (looked == job.live.end() ? "" : "at least ") + std::to_string(frozen) +
          (frozen == 1 ? " is frozen" : " are frozen");
  if (out > frozen) text += ", " + std::to_string(out - frozen) + " still with workers";
  return text + ".";
}

// How an open job that others wait for gets to its end.
std::string closes(const Job* parent) {
  if (parent == nullptr || !parent->header.open) return "";
  const std::string no = std::to_string(parent->no.value);
  return " Job " + no + " is open: it ends only after it is closed (grange close " + no + ").";
}

void wait_for_gates(Farm::State& s, const Job& job, std::uint32_t index, const Task* task, Now now, Explanation& e) {
  if (s.paused) e.waits.push_back(reason("paused_farm", kFarmPaused));
  if (job.paused) e.waits.push_back(reason("paused_job", paused_job(job, index == kAll)));
  if (task != nullptr && std::holds_alternative<Parked>(task->where)) {
    e.waits.push_back(reason("paused_task", "This task is paused until it is resumed."));
  }
  const bool alone = index != kAll;
  for (const Dependency& d : job.header.after) {
    if (d.each ? (!alone || task != nullptr || s.target_ended(d, index)) : (job.opened || s.target_ended(d, index)))
      continue;
    const Job* parent = s.job(d.job);
    std::string what = d.each            ? "task " + std::to_string(index) + " of job " + std::to_string(d.job.value)
                       : d.index == kAll ? "job " + std::to_string(d.job.value)
                                         : "task " + std::to_string(d.index) + " of job " + std::to_string(d.job.value);
    const std::uint64_t done = parent == nullptr ? 0 : parent->counts.ended(),
                        all = parent == nullptr ? 0 : parent->header.count;
    std::string text = "Waits for " + what;
    if (!d.each && d.index == kAll) {
      text += ", of which " + std::to_string(done) + " of " + words::count(all, "task") + " ended." + closes(parent);
    } else if (parent != nullptr && parent->header.open && (d.each ? index : d.index) >= all) {
      text += ", which is open and has " + words::count(all, "task") + " so far.";
    } else {
      text += ".";
    }
    e.waits.push_back(reason("dependency", std::move(text), done, all));
  }
  if (job.each() && !alone && job.fresh() > 0) {
    std::string text = words::count(job.fresh(), "task") + " of it " + (job.fresh() == 1 ? "waits" : "wait") +
                       ", each for its own task of another job.";
    for (const Dependency& d : job.header.after) {
      const Job* parent = d.each ? s.job(d.job) : nullptr;
      if (parent != nullptr && parent->header.open && parent->header.count < job.header.count) {
        text += " Job " + std::to_string(d.job.value) + " is open and has " +
                words::count(parent->header.count, "task") + " so far.";
      }
    }
    e.waits.push_back(reason("dependency", std::move(text), job.counts.ended(), job.header.count));
  }
  if (job.too_early) {
    e.waits.push_back(reason(
        "not_before", "It is not to start for " + words::span(Millis{job.header.not_before.ms - now.wall.ms}) + ".", 0,
        0, job.header.not_before));
  }
  if (task == nullptr) return;
  if (const auto* delayed = std::get_if<Delayed>(&task->where)) {
    std::uint32_t failures = 0;
    for (const auto n : task->failures) failures += n;
    e.waits.push_back(reason("backoff",
                             "It is tried again in " + words::span(delayed->ready_at - now.mono) +
                                 (failures > 0 ? ", after " + words::count(failures, "failure") + "." : "."),
                             failures, 0, wall_of(delayed->ready_at, now)));
  }
}

// Of a job none of whose tasks is ready: what each of them waits for.
void wait_for_tasks(const Job& job, const Farm::State& s, Now now, Explanation& e) {
  if (job.delayed > 0) {
    const Delayed* first = nullptr;
    const std::size_t looked = std::min(job.live.size(), kQueueCounted);
    for (std::size_t i = 0; i < looked; ++i) {
      const auto* delayed = std::get_if<Delayed>(&job.live[i]->where);
      if (delayed != nullptr && (first == nullptr || delayed->ready_at < first->ready_at)) first = delayed;
    }
    const std::string when =
        first == nullptr ? " tried again later." : " tried again in " + words::span(first->ready_at - now.mono) + ".";
    e.waits.push_back(reason("backoff",
                             job.delayed == 1
                                 ? "1 task of it was given back or failed, and is" + when
                                 : words::count(job.delayed, "task") + " of it were given back or failed; " +
                                       (looked < job.live.size() ? "one is" : "the first is") + when,
                             job.delayed, 0, first == nullptr ? WallMs{} : wall_of(first->ready_at, now)));
  }
  if (job.parked > 0) {
    e.waits.push_back(reason("paused_task",
                             words::count(job.parked, "task") + " of it " +
                                 (job.parked == 1 ? "is paused until it is resumed." : "are paused until resumed."),
                             job.parked));
  }
  if (job.recovering > 0) {
    e.waits.push_back(reason("recovering",
                             words::count(job.recovering, "task") +
                                 " of it may still run on a worker that has not come back since the server restarted.",
                             job.recovering, 0,
                             s.recover_until == Instant::never() ? WallMs{} : wall_of(s.recover_until, now)));
  }
  if (job.header.open && job.counts.ended() == job.header.count) {
    const std::string no = std::to_string(job.no.value);
    e.waits.push_back(reason("open",
                             "It is open and has no task left: it ends when it is closed (grange close " + no +
                                 "), or goes on when tasks are added (grange add " + no + ").",
                             job.counts.ended(), job.header.count));
  }
}

void wait_for_deadline(const JobHeader& header, Now now, Explanation& e) {
  if (header.deadline <= now.wall) return;
  e.waits.push_back(reason(
      "deadline",
      "It fails if it has not ended by its deadline, in " + words::span(Millis{header.deadline.ms - now.wall.ms}) + ".",
      0, 0, header.deadline));
}

void wait_for_quota(const User& user, const std::string& who, const std::vector<const Request*>& requests,
                    std::uint32_t nodes, Now now, Explanation& e) {
  const UserLimits& l = user.limits;
  // Whoever fits by one of the alternatives is not held back.
  for (const Request* r : requests) {
    if (quota_room(user, *r, nodes, {}, now) > 0) return;
  }
  const Request& r = *requests.front();
  const auto over = [&](const std::string& has, const std::string& may, const std::string& needs, bool never) {
    return never ? who + " may have " + may + " at once, and this alone needs " + needs + "."
                 : who + " has " + has + " and may have " + may + "; this needs " + needs + ".";
  };
  if (l.max_running > 0 && user.load.tasks + nodes > l.max_running) {
    const std::string may = words::count(l.max_running, "task");
    e.waits.push_back(reason("quota_running",
                             nodes == 1
                                 ? who + " runs " + words::count(user.load.tasks, "task") + " and may have " +
                                       std::to_string(l.max_running) + " at once."
                                 : over(words::count(user.load.tasks, "task"), may,
                                        std::to_string(nodes) + ", one for each of its nodes", nodes > l.max_running),
                             user.load.tasks, l.max_running));
  }
  if (l.max_cpus_milli > 0 && user.load.cpus_milli + std::uint64_t{r.cpus_milli} * nodes > l.max_cpus_milli) {
    e.waits.push_back(reason(
        "quota_cpus",
        over(words::cores(user.load.cpus_milli), words::cores(l.max_cpus_milli),
             words::cores(std::uint64_t{r.cpus_milli} * nodes), std::uint64_t{r.cpus_milli} * nodes > l.max_cpus_milli),
        user.load.cpus_milli, l.max_cpus_milli));
  }
  if (l.max_gpus_milli > 0 && user.load.gpus_milli + std::uint64_t{r.gpus_milli} * nodes > l.max_gpus_milli) {
    e.waits.push_back(reason(
        "quota_gpus",
        over(words::gpus(user.load.gpus_milli), words::gpus(l.max_gpus_milli),
             words::gpus(std::uint64_t{r.gpus_milli} * nodes), std::uint64_t{r.gpus_milli} * nodes > l.max_gpus_milli),
        user.load.gpus_milli, l.max_gpus_milli));
  }
  if (l.starts_per_minute > 0 && !whole(tokens(user.starts, l.starts_per_minute, now))) {
    const Instant next = next_token(user.starts, l.starts_per_minute, now);
    e.waits.push_back(reason("rate",
                             who + " may start " + words::count(l.starts_per_minute, "task") +
                                 " a minute; the next in " + words::span(next - now.mono) + ".",
                             0, l.starts_per_minute, wall_of(next, now)));
  }
}

// Of alternatives only those within the quota can be had, so long as there is one.
void leave_out_over_quota(const User& user, std::uint32_t nodes, Now now, Demand& demand) {
  const auto within = [&](const Request* r) { return quota_room(user, *r, nodes, {}, now) > 0; };
  if (std::none_of(demand.requests.begin(), demand.requests.end(), within)) return;
  for (const Request*& r : demand.requests) {
    if (!within(r)) r = nullptr;
  }
}

struct Ahead {
  std::uint64_t n = 0;
  bool more = false;  // it was not counted to the end
};

// What came back goes before what was never handed out, that by its number.
Ahead siblings_before(const Job& job, std::uint32_t index, const Task* task) {
  if (index == kAll || job.gated()) return {};
  if (task == nullptr) {
    if (job.each()) return {};
    std::uint64_t ahead = job.again.size();
    std::uint32_t at = job.next_index;
    std::size_t looked = 0;
    const auto& ranges = job.skipped.ranges();
    auto it = ranges.upper_bound(at);
    if (it != ranges.begin()) --it;
    for (; it != ranges.end() && it->first < index; ++it) {
      if (++looked > kRangesCounted) return {ahead, true};
      if (it->first > at) ahead += it->first - at;
      at = std::max(at, it->second);
    }
    return {index > at ? ahead + index - at : ahead};
  }
  const auto end = job.again.begin() + static_cast<std::ptrdiff_t>(std::min(job.again.size(), kQueueCounted));
  const auto at = std::find(job.again.begin(), end, index);
  const bool there = std::holds_alternative<Ready>(task->where) && !task->picky();
  if (at == end) return {there ? kQueueCounted : 0, there};
  return {static_cast<std::uint64_t>(at - job.again.begin())};
}

// Whom his quotas hold back, or no worker can serve, takes nobody's turn.
bool could_go(const Farm::State& s, const User& user, const Shape& shape, Now now) {
  if (shape.hopeless_fleet == s.fleet && shape.hopeless) return false;
  if (shape.could_fleet == s.fleet && !shape.could) return false;
  return std::any_of(shape.requests.begin(), shape.requests.end(),
                     [&](RequestId r) { return quota_room(user, s.requests[r.value], shape.nodes, {}, now) > 0; });
}

// Who goes first of what is ready and could take the same room.
void wait_for_turn(Farm::State& s, const Job& job, Ahead siblings, Now now, Explanation& e) {
  const int mine = s.level(job);
  std::uint64_t higher = 0, older = 0, fairer = 0;
  const Flow* first = nullptr;
  std::size_t counted = 0;
  for (const auto& [at, level] : s.ready) {
    if (at < mine) break;
    for (const auto& [no, flow] : level.flows) {
      for (const auto& [shape, queue] : flow.queues) {
        if (!could_go(s, *flow.user, s.shapes[shape.value], now)) continue;
        for (const auto& [key, other_no] : queue.jobs) {
          if (++counted > kJobsCounted) break;
          const Job& other = *s.job(other_no);
          if (&other == &job) continue;
          if (at > mine) {
            higher += other.ready();
          } else if (!s.policy->by_priority()) {
            older += other.no < job.no ? other.ready() : 0;
          } else if (&flow != job.flow ? fair::tag(flow) < (job.flow == nullptr ? level.time : fair::tag(*job.flow))
                                       : fair::tag(other) < fair::tag(job)) {
            fairer += other.ready();
            if (&flow != job.flow && (first == nullptr || fair::tag(flow) < fair::tag(*first))) first = &flow;
          }
        }
      }
    }
  }
  e.tasks_before = higher + older + fairer + siblings.n;
  if (siblings.n > 0 || siblings.more) {
    e.waits.push_back(reason("siblings",
                             (siblings.more ? "At least " : "") + words::count(siblings.n, "task") +
                                 " of the same job " + (siblings.n == 1 ? "goes" : "go") + " first.",
                             0, siblings.n));
  }
  if (higher > 0) {
    e.waits.push_back(reason(
        "priority", words::count(higher, "task") + " of a higher priority " + (higher == 1 ? "goes" : "go") + " first.",
        0, higher));
  }
  if (older > 0) {
    e.waits.push_back(reason(
        "policy",
        "Under fifo, " + words::count(older, "task") + " that came earlier " + (older == 1 ? "goes" : "go") + " first.",
        0, older));
  }
  if (fairer > 0) {
    std::string text =
        words::count(fairer, "task") + " of jobs that had less so far " + (fairer == 1 ? "goes" : "go") + " first.";
    if (first != nullptr && job.flow != nullptr) {
      text = (first->user->name.empty() ? "The anonymous user" : "User '" + first->user->name + "'") +
             " had less so far (" + words::number(fair::tag(*first)) + " against " +
             words::number(fair::tag(*job.flow)) + " core-seconds by weight) and is served next; " +
             words::count(fairer, "task") + (fairer == 1 ? " waits" : " wait") + " with such a claim.";
    }
    e.waits.push_back(reason("fair_share", std::move(text), 0, fairer));
  }
}

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
    return r.code == "draining" || r.code == "disconnected" || r.code == "quarantined" || r.code == "avoided" ||
           r.code == "reserved";
  });
}

void nearest_first(std::vector<WorkerFit>& fits) {
  std::stable_sort(fits.begin(), fits.end(), [](const WorkerFit& a, const WorkerFit& b) {
    const auto rank = [](const WorkerFit& f) {
      return std::tuple(!f.now, !f.could, !f.could && !right_kind(f), in_quarantine(f) || told(f, {"avoided"}),
                        f.why.size());
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
    std::uint64_t draining = 0, away = 0;
    for (const WorkerFit& f : fits) {
      if (!right_kind(f)) continue;
      (told(f, {"draining"}) ? draining : away) += 1;
    }
    const auto are = [](std::uint64_t n, const char* what) {
      return std::to_string(n) + (n == 1 ? " is " : " are ") + what;
    };
    why.text = "No worker that could run it takes new work: " + (draining > 0 ? are(draining, "draining") : "") +
               (draining > 0 && away > 0 ? ", " : "") + (away > 0 ? are(away, "not connected") : "") + ".";
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
    const Reason why = nobody(one);
    if (asked++ == 0) out = why;
    text += " " + std::to_string(i) + ": " + why.text;
  }
  if (asked > 1 && !right_kind(fits.front())) out.text = "No worker meets any of the alternatives." + text;
  return out;
}

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
    e.waits.push_back(reason("no_worker", "No worker is connected."));
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

void next_change(Explanation& e) {
  const auto soonest = [&](const std::vector<Reason>& reasons) {
    for (const Reason& r : reasons) {
      if (r.until.ms != 0 && (e.next_change.ms == 0 || r.until < e.next_change)) e.next_change = r.until;
    }
  };
  soonest(e.waits);
  for (const WorkerFit& f : e.workers) soonest(f.why);
}

void finish(Explanation& e, std::uint32_t nodes) {
  next_change(e);
  // Whose turn it is matters only while there is no room.
  const auto hard = std::find_if(e.waits.begin(), e.waits.end(), [](const Reason& r) {
    return r.code != "fair_share" && r.code != "priority" && r.code != "siblings" && r.code != "policy" &&
           r.code != "deadline";
  });
  if (hard != e.waits.end()) {
    e.summary = hard->text;
  } else if (e.workers_now >= nodes) {
    e.summary = "Nothing holds it back: there is room for it now.";
  } else {
    wait_for_room(e, nodes, e.summary);
  }
}

std::string with_workers(std::uint64_t out) {
  return words::count(out, "task") + " of it " + (out == 1 ? "is" : "are") + " with workers. The rest: ";
}

void order(Explanation& e) {
  // Turn after what blocks it altogether.
  std::stable_sort(e.waits.begin(), e.waits.end(), [](const Reason& a, const Reason& b) {
    const auto late = [](const Reason& r) {
      return r.code == "deadline"                                                                           ? 2
             : r.code == "priority" || r.code == "fair_share" || r.code == "policy" || r.code == "siblings" ? 1
                                                                                                            : 0;
    };
    return late(a) < late(b);
  });
}

}  // namespace

std::optional<Explanation> Farm::explain(JobNo no, std::uint32_t index, Now now) const {
  State& s = *s_;
  Job* job = s.job(no);
  if (job == nullptr || job->all_ended()) return std::nullopt;
  const Task* task = nullptr;
  Explanation e{.job = no, .index = index};
  if (index != kAll) {
    const auto view = this->task(TaskId::of(no, index));
    if (!view) return std::nullopt;
    e.state = name(view->state);
    task = s.task(TaskId::of(no, index));
  } else {
    e.state = job->paused ? "paused" : !job->opened ? "blocked" : std::string(name(job->state()));
  }
  s.settle();
  Demand demand{.requests = {}, .task = task, .job = job, .level = s.level(*job)};
  for (const RequestId r : job->requests) demand.requests.push_back(&s.requests[r.value]);
  const std::uint32_t nodes = job->header.nodes;
  if (task != nullptr && task->held() != nullptr) {
    const HeldBy& held = *task->held();
    const std::string who = "worker " + std::to_string(held.worker.value);
    e.summary = held.state == AttemptState::paused     ? "It is frozen on " + who + " until it is resumed."
                : held.state == AttemptState::assigned ? "It is with " + who + ", which has not started it yet."
                : held.freezing                        ? "It is about to be frozen on " + who + "."
                                                       : "It runs on " + who + ".";
    if (to_be_frozen(*task)) e.waits.push_back(reason(job->paused ? "paused_job" : "paused_task", e.summary));
    wait_for_deadline(job->header, now, e);
    next_change(e);
    return e;
  }
  if (task != nullptr && std::holds_alternative<Recovering>(task->where)) {
    e.summary =
        "It may still run on a worker that has not come back since the server restarted; it runs anew if none claims "
        "it.";
    const bool known = s.recover_until != Instant::never();
    e.waits.push_back(reason("recovering", e.summary, 0, 0, known ? wall_of(s.recover_until, now) : WallMs{}));
    wait_for_deadline(job->header, now, e);
    next_change(e);
    return e;
  }
  wait_for_gates(s, *job, index, task, now, e);
  const auto out = job->assigned + job->running;
  if (index == kAll && startable(*job) == 0) {
    wait_for_tasks(*job, s, now, e);
    if (job->fresh() == 0) {  // nothing of it asks for a worker now
      if (e.waits.empty()) {
        e.summary = "All that is left of it is with workers: " + words::count(job->running, "task") +
                    (job->running == 1 ? " runs, " : " run, ") + std::to_string(job->assigned) +
                    (job->assigned == 1 ? " is" : " are") + " about to." + closes(job);
      } else {
        e.summary = e.waits.front().text;
        if (out > 0 && !job->paused) e.summary = with_workers(out) + e.summary;
      }
      wait_for_deadline(job->header, now, e);
      next_change(e);
      return e;
    }
  }
  if (index == kAll && job->again.empty() && !job->picky.empty() && (job->each() || job->fresh() == 0)) {
    demand.task = s.task(TaskId::of(no, job->picky.front()));
  }
  wait_for_quota(*job->user, job->user->name.empty() ? "The anonymous user" : "User '" + job->user->name + "'",
                 demand.requests, nodes, now, e);
  leave_out_over_quota(*job->user, nodes, now, demand);
  if (job->header.max_running > 0 && job->assigned + job->running >= job->header.max_running) {
    e.waits.push_back(
        reason("max_running",
               "The job runs " + words::count(job->assigned + job->running, "task") + ", as many as it allows itself.",
               job->assigned + job->running, job->header.max_running));
  }
  fill_workers(s, demand, nodes, now, e);
  if (nodes > 1 && e.workers_could >= nodes && e.workers_now < nodes) {
    e.waits.push_back(reason("gang", gang_room(nodes, e.workers_could, e.workers_now), e.workers_now, nodes));
  }
  if (e.workers_now < nodes) wait_for_turn(s, *job, siblings_before(*job, index, task), now, e);
  wait_for_deadline(job->header, now, e);
  order(e);
  finish(e, nodes);
  if (index == kAll && out > 0 && !job->paused) e.summary = with_workers(out) + e.summary;
  return e;
}

Explanation Farm::preview(const JobHeader& header, Now now) const {
  State& s = *s_;
  s.settle();
  Explanation e{.state = "not submitted"};
  Demand demand{.requests = {&header.request}, .level = s.policy->by_priority() ? header.priority : 0};
  for (const Request& r : header.alternatives) demand.requests.push_back(&r);
  if (s.paused) e.waits.push_back(reason("paused_farm", kFarmPaused));
  for (const Dependency& d : header.after) {
    if (!s.lives(d.job)) continue;
    e.waits.push_back(
        reason("dependency", "It would wait for job " + std::to_string(d.job.value) + "." + closes(s.job(d.job))));
  }
  if (header.not_before > now.wall) {
    e.waits.push_back(reason("not_before",
                             "It is not to start for " + words::span(Millis{header.not_before.ms - now.wall.ms}) + ".",
                             0, 0, header.not_before));
  }
  if (const auto it = s.users.find(header.user); it != s.users.end()) {
    const User& user = *it->second;
    wait_for_quota(user, user.name.empty() ? "The anonymous user" : "User '" + user.name + "'", demand.requests,
                   header.nodes, now, e);
    if (user.limits.max_running > 0 && header.nodes > user.limits.max_running) {
      for (Reason& r : e.waits) {
        if (r.code == "quota_running") r.text = "It would be refused: " + r.text;
      }
    }
    leave_out_over_quota(user, header.nodes, now, demand);
    if (user.limits.max_queued > 0 && user.queued + header.count > user.limits.max_queued) {
      e.waits.push_back(reason("quota_queued",
                               "It would be refused: " + words::count(user.queued, "task") +
                                   " are queued already, and " + std::to_string(user.limits.max_queued) +
                                   " are allowed.",
                               user.queued, user.limits.max_queued));
    }
  }
  fill_workers(s, demand, header.nodes, now, e);
  if (header.nodes > 1 && e.workers_could >= header.nodes && e.workers_now < header.nodes) {
    e.waits.push_back(
        reason("gang", gang_room(header.nodes, e.workers_could, e.workers_now), e.workers_now, header.nodes));
  }
  if (e.workers_now < header.nodes) {
    Job guess;
    guess.header.priority = header.priority;
    guess.no = JobNo{UINT32_MAX};
    wait_for_turn(s, guess, {}, now, e);
  }
  wait_for_deadline(header, now, e);
  order(e);
  finish(e, header.nodes);
  return e;
}

}  // namespace grange::core
