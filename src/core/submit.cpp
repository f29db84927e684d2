// Work comes in: jobs, graphs of jobs, more tasks of an open job. All of it is checked before any of it is taken.
#include <cmath>

#include "core/fit.hpp"
#include "core/state.hpp"

namespace grange::core {
namespace {

Error invalid(std::string why) {
  return {ErrorClass::invalid_argument, std::move(why), {}};
}
Error limited(std::string why) {
  return {ErrorClass::rate_limited, std::move(why), {}};
}
std::string shown(const User& u) {
  return u.name.empty() ? "anonymous" : u.name;
}

Result<> check_header(const JobHeader& h, WallMs now) {
  if (h.count == 0 && !h.open) return invalid("A job needs at least one task, or must be open for more.");
  if (h.count > limits::kTasksPerJob) {
    return invalid("A job has at most " + std::to_string(limits::kTasksPerJob) + " tasks.");
  }
  if (h.nodes == 0 || h.nodes > limits::kNodes) {
    return invalid("A gang has 1 to " + std::to_string(limits::kNodes) + " nodes, not " + std::to_string(h.nodes) +
                   ".");
  }
  if (h.nodes > 1 && h.speculation.on)
    return invalid("A gang has no speculative second attempts. Turn `speculate` off.");
  if (h.alternatives.size() > limits::kAlternatives) {
    return invalid("A job has at most " + std::to_string(limits::kAlternatives) + " alternative requirements.");
  }
  if (h.after.size() > limits::kDependencies) {
    return invalid("A job waits for at most " + std::to_string(limits::kDependencies) + " others.");
  }
  if (h.retry.rules.size() > limits::kRetryRules) {
    return invalid("A job has at most " + std::to_string(limits::kRetryRules) + " retry rules.");
  }
  if (h.weight_milli == 0) return invalid("The weight of a job is more than 0.");
  if (h.deadline.ms != 0 && h.deadline <= now) return invalid("The deadline of this job has passed already.");
  return {};
}

// Where any of several parents is enough, a task is let go at once, whatever else is ready: nothing but its record
// would tell after a restart that one of them did well.
constexpr std::uint32_t kEachOfAny = 100'000;

Result<> check_each(const JobHeader& h, std::uint64_t count) {
  const auto each = std::count_if(h.after.begin(), h.after.end(), [](const Dependency& d) { return d.each; });
  if (h.when != When::any_succeeded || each < 2 || count <= kEachOfAny) return {};
  return invalid("A job of which each task waits for any of several others has at most " + std::to_string(kEachOfAny) +
                 " tasks. Split it, or wait for all of them.");
}

}  // namespace

StepAnswer Farm::State::submit(const SubmitJob* first, std::size_t n, Now now, Effects& effects) {
  const auto refuse = [](Error e) { return StepAnswer{std::move(e), 0, {}}; };
  struct Ask {
    std::uint64_t tasks = 0;
    std::uint32_t jobs = 0, nodes = 0;  // nodes: of the largest gang
  };
  std::map<std::string_view, Ask> by_user;
  std::uint64_t all = 0;
  std::vector<const JobHeader*> headers;
  for (const SubmitJob* e = first; e != first + n; ++e) {
    GRANGE_ASSERT(!jobs.contains(e->job));
    if (auto checked = check_header(e->header, now.wall); !checked.ok()) return refuse(std::move(checked).error());
    for (std::size_t k = 0; k < e->header.after.size(); ++k) {
      const Dependency& d = e->header.after[k];
      const std::string name = "job " + std::to_string(d.job.value);
      if (d.job >= e->job) return refuse(invalid("This job waits for " + name + ", which there is not (yet)."));
      if (d.each && d.index != Dependency::kAll) {
        return refuse(invalid("A dependency is on one task or on each of them, not both."));
      }
      const JobHeader* parent = nullptr;
      const SubmitJob* sibling =
          std::lower_bound(first, e, d.job, [](const SubmitJob& s, JobNo no) { return s.job < no; });
      if (sibling != e && sibling->job == d.job) {
        parent = &sibling->header;
      } else if (const Job* live = job(d.job)) {
        parent = &live->header;
      } else if (k >= e->parents.size() || !e->parents[k].ended) {
        return refuse(invalid("This job waits for " + name + ", which there is not."));
      }
      if (parent == nullptr || parent->open) continue;
      if (d.index != Dependency::kAll && d.index >= parent->count) {
        return refuse(invalid("This job waits for task " + std::to_string(d.index) + " of " + name +
                              ", which has only " + std::to_string(parent->count) + "."));
      }
      if (d.each && e->header.count > parent->count) {
        return refuse(invalid("Each task waits for the same task of " + name + ", which has only " +
                              std::to_string(parent->count) + "."));
      }
    }
    if (auto checked = check_each(e->header, e->header.count); !checked.ok()) return refuse(std::move(checked).error());
    Ask& ask = by_user[e->header.user];
    ask.tasks += e->header.count;
    ask.jobs += 1;
    ask.nodes = std::max(ask.nodes, e->header.nodes);
    all += e->header.count;
    headers.push_back(&e->header);
  }
  if (queued + active + all > limits::kQueuedTasks || jobs.size() + n > limits::kLiveJobs) {
    return refuse(limited("The queue is full (" + std::to_string(queued + active) + " tasks in " +
                          std::to_string(jobs.size()) + " jobs). Wait for some of them to end, or cancel some."));
  }
  if (auto checked = check_requests(headers); !checked.ok()) return refuse(std::move(checked).error());
  std::size_t new_users = 0;
  for (const auto& [name, ask] : by_user) {
    const auto it = users.find(name);
    if (it == users.end()) {
      new_users += 1;
      continue;
    }
    User& u = *it->second;
    if (u.idle_since != 0) new_users += 1;
    if (u.limits.max_running != 0 && ask.nodes > u.limits.max_running) {
      return refuse(invalid("User " + shown(u) + " may have " + std::to_string(u.limits.max_running) +
                            " tasks with workers at once, and this gang needs " + std::to_string(ask.nodes) +
                            ", one for each of its nodes. Ask for fewer nodes, or raise max_running."));
    }
    if (u.limits.max_queued != 0 && u.queued + ask.tasks > u.limits.max_queued) {
      return refuse(limited("User " + shown(u) + " may have " + std::to_string(u.limits.max_queued) +
                            " tasks in the queue and has " + std::to_string(u.queued) +
                            ". Wait for some of them to end, or cancel some."));
    }
    const std::uint32_t rate = u.limits.submits_per_minute;
    if (rate == 0) continue;
    refill(u.submits, rate, now);
    const double need = std::min(ask.jobs, rate);  // a graph larger than a minute's worth waits for a full minute
    if (u.submits.tokens + 1e-9 < need) {
      const auto wait = static_cast<std::int64_t>(std::ceil((need - u.submits.tokens) * 60 / rate));
      Error error = limited("User " + shown(u) + " may submit " + std::to_string(rate) +
                            (rate == 1 ? " job" : " jobs") + " a minute. Try again in " + std::to_string(wait) + " s.");
      error.details = "{\"retry_in_ms\":" + std::to_string(wait * 1000) + "}";
      return refuse(std::move(error));
    }
  }
  if (users.size() - idle_users.size() + new_users > limits::kUsers) {
    return refuse(limited("There are jobs of too many different users. Submit as one of them."));
  }
  for (const auto& [name, ask] : by_user) {
    const auto it = users.find(name);
    if (it != users.end() && it->second->limits.submits_per_minute != 0) it->second->submits.tokens -= ask.jobs;
  }
  for (const SubmitJob* e = first; e != first + n; ++e) {
    Job& job = add_job(e->job, e->header, now);
    count_in(job, job.header.count);
    effects.records.push_back(JobAdded{e->job, e->body, e->header, now.wall});
    arm(job, now);
    gate(job, e->parents, first->job, now, effects);
    index(job);
    touch(job);
  }
  return {Result<>{}, static_cast<std::uint32_t>(n), {}};
}

StepAnswer Farm::State::on(const SubmitJob& e, Now now, Effects& effects) {
  return submit(&e, 1, now, effects);
}

StepAnswer Farm::State::on(const SubmitGraph& e, Now now, Effects& effects) {
  if (e.jobs.empty() || e.jobs.size() > limits::kGraphJobs) {
    return {invalid("A graph has 1 to " + std::to_string(limits::kGraphJobs) + " jobs."), 0, {}};
  }
  for (std::size_t i = 1; i < e.jobs.size(); ++i) GRANGE_ASSERT(e.jobs[i - 1].job < e.jobs[i].job);
  return submit(e.jobs.data(), e.jobs.size(), now, effects);
}

StepAnswer Farm::State::on(const ExtendJob& e, Now now, Effects& effects) {
  Job* j = job(e.job);
  if (j == nullptr) return {Error{ErrorClass::not_found, "No such job is waiting or running.", {}}, 0, {}};
  if (!j->header.open) {
    return {
        Error{ErrorClass::invalid_state_transition, "This job is not open: no tasks can be added to it.", {}}, 0, {}};
  }
  if (j->header.count + std::uint64_t{e.count} > limits::kTasksPerJob) {
    return {invalid("A job has at most " + std::to_string(limits::kTasksPerJob) + " tasks."), 0, {}};
  }
  if (auto reached = check_each(j->header, j->header.count + e.count); !reached.ok()) {
    return {std::move(reached), 0, {}};
  }
  for (const Dependency& d : j->header.after) {
    const Job* parent = d.each && e.count > 0 ? job(d.job) : nullptr;
    if (parent == nullptr || parent->header.open || j->header.count + e.count <= parent->header.count) continue;
    return {invalid("Each task waits for the same task of job " + std::to_string(d.job.value) + ", which has only " +
                    std::to_string(parent->header.count) + "."),
            0,
            {}};
  }
  const User& u = *j->user;
  if (queued + active + e.count > limits::kQueuedTasks ||
      (u.limits.max_queued != 0 && u.queued + e.count > u.limits.max_queued)) {
    return {limited("The queue is full. Wait for some tasks to end, or cancel some."), 0, {}};
  }
  const std::uint32_t from = j->header.count;
  j->header.count += e.count;
  count_in(*j, e.count);
  if (e.count > 0) j->ready_from = now.mono;
  if (e.count > 0 || !e.key.empty()) {
    effects.records.push_back(JobExtended{e.job, from, e.count, e.body, e.key});
  }
  if (e.close) j->header.open = false;
  index(*j);
  touch(*j);
  if (e.count > 0) gate_tasks(*j, from, e.parents, {UINT32_MAX}, now, effects);
  settle_if_ended(*j);
  return {Result<>{}, j->header.count, {}};
}

StepAnswer Farm::State::on(const SetUser& e, Now, Effects& effects) {
  if (e.limits.weight_milli == 0) return {invalid("The weight of a user is more than 0."), 0, {}};
  const auto known = users.find(e.user);
  if (users.size() - idle_users.size() >= limits::kUsers && (known == users.end() || known->second->idle_since != 0)) {
    return {limited("There are too many different users."), 0, {}};
  }
  User& u = user_of(e.user);
  u.limits = e.limits;
  u.limited = !(e.limits == UserLimits{});
  rest(u);
  effects.records.push_back(UserSet{e.user, e.limits});
  return {};
}

}  // namespace grange::core
