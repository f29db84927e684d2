// What people do with work that is there, and with the farm as a whole.
#include <algorithm>

#include "base/mark.hpp"
#include "queue/turn_impl.hpp"

namespace grange::queue {
namespace {

// Tasks that a retry leaves out one by one, each with a row of its own.
constexpr std::size_t kLeftOut = 100'000;

Error no_job(JobNo job) {
  return {ErrorClass::not_found, "There is no job " + std::to_string(job.value) + ".", {}};
}

class Wanted {
 public:
  explicit Wanted(const RetryFilter& filter) : classes_(filter.classes), indices_(filter.indices) {
    std::sort(indices_.begin(), indices_.end());
  }
  bool all() const { return classes_.empty() && indices_.empty(); }
  bool operator()(std::uint32_t index, core::FailureClass failure) const {
    return (classes_.empty() || std::find(classes_.begin(), classes_.end(), failure) != classes_.end()) &&
           (indices_.empty() || std::binary_search(indices_.begin(), indices_.end(), index));
  }

 private:
  const std::vector<core::FailureClass>& classes_;
  std::vector<std::uint32_t> indices_;
};

}  // namespace

Error Turn::Impl::no_longer(JobNo job, Error error, std::string_view what) {
  if (error.cls != ErrorClass::not_found) return error;
  const auto ended_uncommitted_job = ended_uncommitted.find(job);
  core::JobState state{};
  std::string id = std::to_string(job.value);
  if (ended_uncommitted_job != ended_uncommitted.end()) {
    state = ended_uncommitted_job->second.state;
  } else if (auto row = reader->job(job); row.ok() && *row) {
    state = (*row)->state;
    id = (*row)->id;
  }
  if (!ended(state)) return error;
  return {ErrorClass::invalid_state_transition,
          "Job " + id + " has ended (" + std::string(core::name(state)) + "); " + std::string(what) + ".",
          {}};
}

void Turn::Impl::on(CancelCall& call, Now now) {
  BodyRef reason = core::kNoBody;
  if (!call.reason.empty()) {
    core::ResultBody body;
    body.message = std::move(call.reason);
    reason = keep(std::move(body));
  }
  auto stepped = call.index ? step(core::CancelTask{TaskId::of(call.job, *call.index), reason}, now)
                            : step(core::CancelJob{call.job, reason}, now);
  if (stepped.result.ok()) return answer(call.done, Result<std::uint32_t>(stepped.count));
  if (reason != core::kNoBody) batch.bodies.pop_back();
  answer(call.done,
         Result<std::uint32_t>(no_longer(call.job, std::move(stepped.result).error(), "there is nothing to cancel")));
}

void Turn::Impl::on(PauseCall& call, Now now) {
  auto stepped = call.index ? step(core::PauseTask{TaskId::of(call.job, *call.index), call.pause, call.requeue}, now)
                            : step(core::PauseJob{call.job, call.pause, call.freeze}, now);
  if (stepped.result.ok()) return answer(call.done, Result<std::uint32_t>(stepped.count));
  answer(call.done,
         Result<std::uint32_t>(no_longer(call.job, std::move(stepped.result).error(),
                                         call.pause ? "there is nothing to pause" : "there is nothing to resume")));
}

// A parent that runs again is no reason to refuse: the core lets its children wait for it anew.
Result<> Turn::Impl::check_parents(const store::JobRow& row, bool all, const std::vector<std::uint32_t>& tasks) {
  auto header = reader->header(row.job);
  if (!header.ok()) return std::move(header).error();
  if (!*header || (**header).when == core::When::all_finished) return {};
  const bool any = (**header).when == core::When::any_succeeded;
  struct Target {
    const core::Dependency& d;
    std::optional<store::JobRow> row;  // none: forgotten
    bool live = false;
    RangeSet bad;
  };
  std::vector<Target> targets;
  for (const core::Dependency& d : (**header).after) {
    auto parent = reader->job(d.job);
    if (!parent.ok()) return std::move(parent).error();
    Target& target = targets.emplace_back(Target{d, std::move(*parent), farm->job(d.job).has_value(), {}});
    if (!target.row || (!d.each && d.index == core::Dependency::kAll)) continue;
    auto unhappy = reader->unhappy(d.job);
    if (!unhappy.ok()) return std::move(unhappy).error();
    for (const auto& o : *unhappy) {
      if (!target.live || !farm->task(o.task)) target.bad.add(o.task.index());
    }
    if (target.live) continue;
    auto rest = beyond(d.job);
    if (!rest.ok()) return std::move(rest).error();
    for (const auto& [first, end] : rest->without.ranges()) target.bad.add(first, end);
  }
  // Of each: the task of this index; else kAll.
  const auto check = [&](std::uint32_t index) -> Result<> {
    std::optional<Error> first;
    bool hope = false, none = true;
    for (const Target& t : targets) {
      if (t.d.each != (index != core::Dependency::kAll)) continue;
      none = false;
      const std::uint32_t task = t.d.each ? index : t.d.index;
      const bool whole = task == core::Dependency::kAll;
      const bool bad = !t.row || (whole ? !t.live && t.row->state != core::JobState::completed : t.bad.contains(task));
      if (!bad) hope = true;
      if (!bad || first) continue;
      const std::string name = "job " + (t.row ? t.row->id : std::to_string(t.d.job.value));
      const std::string what = whole ? name : "task " + std::to_string(task) + " of " + name;
      const bool cancelled = whole && t.row && t.row->state == core::JobState::cancelled;
      first = Error{ErrorClass::conflict,
                    "Job " + row.id + " waits for " + what +
                        (!t.row      ? ", which is forgotten. Submit it again instead."
                         : cancelled ? ", which was cancelled. Retry that one first."
                         : whole     ? ", which failed. Retry that one first."
                                     : ", which did not succeed. Retry that one first."),
                    {}};
    }
    if (none || !first || (any && hope)) return {};
    return std::move(*first);
  };
  if (all) {
    if (auto fine = check(core::Dependency::kAll); !fine.ok()) return fine;
  }
  if (std::none_of(targets.begin(), targets.end(), [](const Target& t) { return t.d.each; })) return {};
  for (const std::uint32_t index : tasks) {
    if (auto fine = check(index); !fine.ok()) return fine;
  }
  return {};
}

void Turn::Impl::on(RetryCall& call, Now now) {
  answer(call.done, retry(call, now));
}

Result<std::uint32_t> Turn::Impl::retry(const RetryCall& call, Now now) {
  flush(now);
  const JobNo no = call.job;
  auto row = reader->job(no);
  if (!row.ok()) return std::move(row).error();
  if (!*row) return no_job(no);
  const store::JobRow& r = **row;
  if (r.state == core::JobState::completed) {
    return Error{ErrorClass::invalid_state_transition,
                 "Every task of job " + r.id + " completed; there is nothing to retry.",
                 {}};
  }
  auto unhappy = reader->unhappy(no);
  if (!unhappy.ok()) return std::move(unhappy).error();
  const Wanted wanted(call.filter);
  core::RetryTasks event{no, {}, {}};
  std::vector<std::uint32_t> waited;  // of these, those that ended for what they waited for, or while they waited
  for (const auto& o : *unhappy) {
    if (!wanted(o.task.index(), o.failure)) continue;
    event.tasks.push_back({o.task.index(), o.end, o.attempt});
    if (o.failure == core::FailureClass::dependency || o.attempt == 0) waited.push_back(o.task.index());
  }
  // A job that ended comes back whole, with what of it was never handed out. What of that nobody asked for is cancelled
  // again, task by task.
  std::vector<std::uint32_t> left_out;
  std::size_t left_out_count = 0;
  std::size_t range = 0;
  if (!farm->job(no)) {
    auto header = reader->header(no);
    if (!header.ok()) return std::move(header).error();
    if (!*header) return no_job(no);
    core::JobProgressed progress;
    progress.job = no;
    progress.state = r.state;
    progress.next_index = r.next_index;
    progress.counts = r.counts;
    progress.started = r.started;
    progress.count = r.count;
    progress.open = r.open;
    progress.opened = r.opened;
    progress.paused = r.paused;
    auto rest = beyond(no);
    if (!rest.ok()) return std::move(rest).error();
    range = rest->without.size();
    for (const auto& [first, end] : rest->without.ranges()) {
      for (std::uint32_t i = first; i < end; ++i) {
        if (wanted(i, core::FailureClass::cancelled)) {
          waited.push_back(i);
        } else if (left_out_count++ < kLeftOut) {
          left_out.push_back(i);
        }
      }
    }
    event.ended = core::RetryTasks::Reopen{std::move(**header), progress, std::move(rest->with_outcome)};
  }
  if (!wanted.all() && event.tasks.empty() && range == left_out_count) {
    return Error{
        ErrorClass::invalid_state_transition,
        "No task of job " + r.id + " that failed or was cancelled is meant by this; there is nothing to retry.",
        {}};
  }
  if (left_out_count > kLeftOut) {
    return Error{ErrorClass::invalid_argument,
                 "Job " + r.id + " was cancelled before " + std::to_string(left_out_count) +
                     " of its tasks ever ran, too many to leave them out. Retry all of it, or submit the tasks anew.",
                 {}};
  }
  if (!waited.empty()) {
    // Once opened, a job had what it waits for as a whole.
    if (auto fine = check_parents(r, !r.opened, waited); !fine.ok()) {
      GRANGE_MARK("retry_refused_for_a_parent");
      return std::move(fine).error();
    }
  }
  const core::Event retried = std::move(event);
  auto stepped = step(retried, now);
  if (!stepped.result.ok()) return std::move(stepped.result).error();
  const auto& reopened = std::get<core::RetryTasks>(retried).ended;
  if (reopened) {
    GRANGE_MARK("retry_reopened_a_job");
    inputs->added(no, reopened->header);
  }
  std::uint32_t count = stepped.count;
  if (!left_out.empty()) {
    GRANGE_MARK("retry_left_out_a_range");
    core::ResultBody body;
    body.message = "Left out when the job was retried.";
    const BodyRef reason = keep(std::move(body));
    for (const std::uint32_t index : left_out) {
      count -= step(core::CancelTask{TaskId::of(no, index), reason}, now).count;
    }
  }
  return count;
}

void Turn::Impl::on(PauseFarmCall& call, Now now) {
  answer(call.done, step(core::PauseFarm{call.pause}, now).result);
}
void Turn::Impl::on(SetUserCall& call, Now now) {
  answer(call.done, step(core::SetUser{std::move(call.user), call.limits}, now).result);
}
void Turn::Impl::on(SetPolicyCall& call, Now now) {
  answer(call.done, farm->set_policy(call.name, now, &batch.effects));
}

void Turn::Impl::on(ForgetAllCall& call, Now now) {
  if (farm->view().live_jobs > 0) {
    return answer(call.done,
                  Result<>(Error{ErrorClass::conflict, "Jobs are waiting or running. Cancel them, then clear.", {}}));
  }
  flush(now);
  batch.upkeep.push_back([done = std::move(call.done)](store::Store& store) { done(store.forget_all()); });
  flush(now);  // nothing may be accepted between the look and the deed
}

}  // namespace grange::queue
