// Why work waits: first what holds it back wherever it would run, then each worker.
#include <algorithm>

#include "core/explain_parts.hpp"
#include "core/explain_words.hpp"

namespace grange::core {
namespace explaining {
namespace {

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
}  // namespace explaining

std::optional<Explanation> Farm::explain(JobNo no, std::uint32_t index, Now now) const {
  using namespace explaining;
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
  using namespace explaining;
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
