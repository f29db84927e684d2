// What holds work back wherever it would run: pauses, gates, times, quotas, and whose turn it is.
#include <algorithm>

#include "core/explain_parts.hpp"
#include "core/explain_words.hpp"
#include "core/fair.hpp"

namespace grange::core::explaining {
namespace {

constexpr std::size_t kJobsCounted = 20'000;                             // for tasks_before, which is an estimate
constexpr std::size_t kRangesCounted = 10'000, kQueueCounted = 100'000;  // of one job, for the same

}  // namespace

Reason reason(std::string code, std::string text, std::uint64_t have, std::uint64_t need, WallMs until) {
  return {std::move(code), std::move(text), static_cast<std::int64_t>(have), static_cast<std::int64_t>(need), until};
}

std::string gang_room(std::uint32_t nodes, std::uint32_t could, std::uint32_t now) {
  return "It needs room on " + words::count(nodes, "worker") + " at the same time; of the " + std::to_string(could) +
         " that can run it, " + std::to_string(now) + (now == 1 ? " has" : " have") + " room now.";
}

std::uint64_t startable(const Job& job) {
  return (job.each() ? 0 : job.fresh()) + job.again.size() + job.picky.size();
}

bool to_be_frozen(const Task& task) {
  return task.held() != nullptr && (task.held()->freezing || task.held()->state == AttemptState::paused);
}

namespace {

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

}  // namespace

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

void leave_out_over_quota(const User& user, std::uint32_t nodes, Now now, Demand& demand) {
  const auto within = [&](const Request* r) { return quota_room(user, *r, nodes, {}, now) > 0; };
  if (std::none_of(demand.requests.begin(), demand.requests.end(), within)) return;
  for (const Request*& r : demand.requests) {
    if (!within(r)) r = nullptr;
  }
}

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

namespace {

// Whom his quotas hold back, or no worker can serve, takes nobody's turn.
bool could_go(const Farm::State& s, const User& user, const Shape& shape, Now now) {
  if (shape.hopeless_fleet == s.fleet && shape.hopeless) return false;
  if (shape.could_fleet == s.fleet && !shape.could) return false;
  return std::any_of(shape.requests.begin(), shape.requests.end(),
                     [&](RequestId r) { return quota_room(user, s.requests[r.value], shape.nodes, {}, now) > 0; });
}

}  // namespace

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

}  // namespace grange::core::explaining
