// What waits for what. A job with dependencies on jobs or single tasks is gated as a whole until they are met, once;
// the tasks of a job with an `each` dependency are let go one by one. The core keeps no outcome of an ended task:
// whether a parent did well is heard when it ends, and a child that is still waiting has heard of nothing yet that
// decides.
#include "core/graph.hpp"

#include "base/mark.hpp"
#include "base/mutant.hpp"

namespace grange::core {
namespace {

// Ended with its job as a range, so that no word went out about it.
bool in_range(const Job& parent, std::uint32_t index) {
  return parent.cancelled && index >= parent.next_index && !parent.skipped.contains(index);
}

// Word of one parent that needs no word of the others.
bool decides(When when, bool ok) {
  return ok ? when == When::any_succeeded : when == When::all_succeeded;
}

enum class Decision { wait, open, fail };
Decision decide(When when, bool ok, bool all_ended) {
  switch (when) {
    case When::all_succeeded:
      if (!ok && !GRANGE_MUTANT("dependency_met_by_failure")) return Decision::fail;
      break;
    case When::all_finished:
      break;
    case When::any_succeeded:
      if (ok) return Decision::open;
      return all_ended ? Decision::fail : Decision::wait;
  }
  return all_ended ? Decision::open : Decision::wait;
}

// Of an ended or cancelled parent, what has no outcome and will have none; below `most`.
RangeSet never_ran(const Job& parent, std::uint32_t most) {
  RangeSet out;
  const std::uint32_t count = std::min(parent.header.count, most);
  if (parent.cancelled) {
    for (const auto& [first, end] : parent.skipped.gaps(parent.next_index, count)) out.add(first, end);
  }
  if (parent.all_ended()) out.add(parent.header.count, most);
  return out;
}

// Tasks of a live parent that have not ended, below `most`; those beyond its count may still be added.
void add_live(RangeSet& live, const Job& parent, std::uint32_t most) {
  live.add(parent.header.count, most);
  for (const Task* task : parent.live) {
    if (task->id.index() < most) live.add(task->id.index());
  }
  if (parent.cancelled) return;
  for (const auto& [first, end] : parent.skipped.gaps(parent.next_index, std::min(parent.header.count, most))) {
    live.add(first, end);
  }
}

// Let go and not handed out. What a restart finds may still be out, until its worker is back or lost.
std::size_t backlog(const Job& job) {
  return job.again.size() + job.picky.size() + job.recovering;
}

// Any of several parents lets a task go, so which one did is known at that moment only; the number of such tasks is
// limited at the submit.
bool at_once(const Job& job) {
  return job.header.when == When::any_succeeded && std::count_if(job.header.after.begin(), job.header.after.end(),
                                                                 [](const Dependency& d) { return d.each; }) > 1;
}

// The same from counts: of parents that did well, did badly, and live.
Decision decide(When when, std::size_t good, std::size_t bad, std::size_t live) {
  if (when == When::any_succeeded) {
    if (good > 0) return Decision::open;
    return live == 0 ? Decision::fail : Decision::wait;
  }
  if (when == When::all_succeeded && bad > 0) return Decision::fail;
  return live == 0 ? Decision::open : Decision::wait;
}

}  // namespace

bool Farm::State::task_ended(Job& parent, std::uint32_t index) {
  if (parent.all_ended()) return true;
  if (index >= parent.header.count) return false;  // it may still be added
  if (task(TaskId::of(parent.no, index)) != nullptr) return false;
  return parent.cancelled || index < parent.next_index || parent.skipped.contains(index);
}

bool Farm::State::target_ended(const Dependency& d, std::uint32_t index) {
  Job* parent = job(d.job);
  if (parent == nullptr) return true;
  if (d.each) return task_ended(*parent, index);
  return d.index == Dependency::kAll ? parent->all_ended() : task_ended(*parent, d.index);
}

bool Farm::State::targets_ended(const Job& job, std::uint32_t index) {
  const bool each = index != Dependency::kAll;
  return std::all_of(job.header.after.begin(), job.header.after.end(),
                     [&](const Dependency& d) { return d.each != each || target_ended(d, index); });
}

void Farm::State::link(Job& job) {
  for (const Dependency& d : job.header.after) {
    if (waits_on(job, d) && lives(d.job)) this->job(d.job)->children.insert(Job::Edge::of(d, job.no));
  }
}

void Farm::State::unlink(Job& job) {
  for (const Dependency& d : job.header.after) {
    if (Job* parent = this->job(d.job)) parent->children.erase(Job::Edge::of(d, job.no));
  }
}

// A job that had ended lives again: who still waits and names it hears of its end anew. A job of an `each` dependency
// of which nothing was handed out yet waits task by task again; that is also what a restart of the server makes of it.
void Farm::State::relink_children(JobNo parent, Effects& effects) {
  std::vector<Job*> naming;
  for (const auto& [no, job] : jobs) {
    const auto& after = job->header.after;
    if (std::any_of(after.begin(), after.end(), [&](const Dependency& d) { return d.job == parent; })) {
      naming.push_back(job.get());
    }
  }
  std::sort(naming.begin(), naming.end(), [](const Job* a, const Job* b) { return a->no < b->no; });
  for (Job* job : naming) {
    if (job->cancelled || job->all_ended()) continue;
    regate(*job);
    index(*job);
    let_go_met(*job, effects);
  }
}

RangeSet Farm::State::live_targets(const Job& job) {
  RangeSet live;
  for (const Dependency& d : job.header.after) {
    if (d.each && lives(d.job)) add_live(live, *this->job(d.job), job.header.count);
  }
  return live;
}

bool Farm::State::let_go_met(Job& job, std::uint32_t most, Effects& effects) {
  for (const auto& [from, to] : live_targets(job).gaps(job.next_index, job.header.count)) {
    for (const auto& [first, end] : job.skipped.gaps(from, to)) {
      for (std::uint32_t i = first; i < end; ++i) {
        if (most == 0) return false;
        let_go(job, i, effects);
        most -= 1;
      }
    }
  }
  return true;
}

void Farm::State::let_go_met(Job& job, Effects& effects) {
  if (!job.one_by_one || job.cancelled) return;
  const std::size_t waiting = backlog(job);
  const auto room =
      static_cast<std::uint32_t>(options.each_at_once - std::min<std::size_t>(waiting, options.each_at_once));
  if (at_once(job)) {
    let_go_met(job, UINT32_MAX, effects);
  } else if (let_go_met(job, room, effects)) {
    letting_go.erase(job.no);
  } else {
    GRANGE_MARK("each_let_go_in_parts");
    letting_go.insert(job.no);
  }
}

// One tick lets go of no more than one job may have ready; the next begins with the next job.
void Farm::State::let_go_more(Effects& effects) {
  std::vector<JobNo> order(letting_go.upper_bound(let_go_last), letting_go.end());
  order.insert(order.end(), letting_go.begin(), letting_go.upper_bound(let_go_last));
  std::size_t done = 0;
  for (const JobNo no : order) {
    Job& job = *this->job(no);
    const std::size_t before = backlog(job);
    if (before >= options.each_at_once) continue;
    let_go_met(job, effects);
    let_go_last = no;
    done += backlog(job) - before;
    if (done >= options.each_at_once) return;
  }
}

bool Farm::State::more_to_let_go() const {
  return std::any_of(letting_go.begin(), letting_go.end(), [&](JobNo no) {
    const Job& job = *jobs.at(no);
    return backlog(job) < options.each_at_once;
  });
}

// Of a great range one fails, if none did before, and the rest of what waits is given up, as what a step writes must
// stay small; what is out already goes on.
void Farm::State::fail_ranges(Job& job, const RangeSet& which, Now now, Effects& effects) {
  const bool great = which.size() > options.failed_range;
  if (great) GRANGE_MARK("each_range_given_up");
  for (const auto& [first, end] : which.ranges()) {
    for (std::uint32_t i = first; i < end && !job.cancelled; ++i) {
      if (great && job.counts.failed > 0) break;
      end_fresh(job, i, TaskEnd::failed, FailureClass::dependency, kNoBody, now, effects);
      fail_fast(job, now, effects);
    }
  }
  if (!great || job.cancelled) return;
  if (job.opened) return end_range(job);
  // What was let go waits for another job as a whole: none of it is out.
  end_rest(job, TaskEnd::cancelled, FailureClass::cancelled, kNoBody, now, effects);
}

void Farm::State::set_one_by_one(Job& job, bool on) {
  job.one_by_one = on;
  if (!on) letting_go.erase(job.no);
  index(job);
}

void Farm::State::open_up(Job& job) {
  GRANGE_MARK("dependency_met");
  job.opened = true;
  job.ready_from = clock;
  for (const Dependency& d : job.header.after) {
    Job* parent = d.each ? nullptr : this->job(d.job);
    if (parent != nullptr) parent->children.erase(Job::Edge::of(d, job.no));
  }
  index(job);
  touch(job);
}

void Farm::State::let_go(Job& job, std::uint32_t at, Effects& effects) {
  GRANGE_MARK("each_task_let_go");
  Task& task = materialize(job, at);
  effects.records.push_back(TaskKept{.task = task.id});
  make_ready(job, task);
  touch(job);
}

void Farm::State::gate(Job& job, const std::vector<Parent>& parents, JobNo first, Now now, Effects& effects) {
  const auto& after = job.header.after;
  if (after.empty()) return;
  // How one target stands. Parents that are not here ended, or the job was refused.
  enum Standing { good, bad, live };
  const auto standing = [&](std::size_t k) {
    const Dependency& d = after[k];
    Job* parent = this->job(d.job);
    if (parent != nullptr && !target_ended(d, d.index)) return live;
    if (d.index == Dependency::kAll) {
      const bool well = parent != nullptr ? parent->state() == JobState::completed : parents[k].succeeded;
      return well ? good : bad;
    }
    // What ended since the first of these jobs came in did so by what it waits for.
    if (parent != nullptr && (parent->no >= first || in_range(*parent, d.index) || d.index >= parent->header.count)) {
      return bad;
    }
    if (k >= parents.size()) return good;
    const auto& ended_badly = parents[k].ended_badly;
    return std::any_of(ended_badly.begin(), ended_badly.end(),
                       [&](const auto& range) { return d.index >= range.first && d.index < range.second; })
               ? bad
               : good;
  };
  if (!job.opened) {
    std::size_t n[3] = {};
    for (std::size_t k = 0; k < after.size(); ++k) {
      if (!after[k].each) n[standing(k)] += 1;
    }
    const Decision d = decide(job.header.when, n[good], n[bad], n[live]);
    if (d == Decision::fail) {
      GRANGE_MARK("child_of_failed_parent_submitted");
      end_rest(job, TaskEnd::failed, FailureClass::dependency, kNoBody, now, effects);
      return;
    }
    if (d == Decision::open) job.opened = true;
  }
  job.one_by_one = std::any_of(after.begin(), after.end(), [&](const Dependency& d) { return d.each && lives(d.job); });
  gate_tasks(job, 0, parents, first, now, effects);
  link(job);
}

void Farm::State::gate_tasks(Job& job, std::uint32_t from, const std::vector<Parent>& parents, JobNo first, Now now,
                             Effects& effects) {
  const auto& after = job.header.after;
  const std::uint32_t count = job.header.count;
  // Of each index: whether some parent did badly, and whether one did well.
  RangeSet some_bad, some_good;
  bool each = false;
  for (std::size_t k = 0; k < after.size(); ++k) {
    if (!after[k].each) continue;
    each = true;
    const Job* parent = this->job(after[k].job);
    RangeSet bad, live;
    if (parent != nullptr) {
      if (!parent->all_ended()) add_live(live, *parent, count);
      bad = never_ran(*parent, count);
      // What ended since the first of these jobs came in did so by what it waits for.
      if (parent->no >= first) bad.add(0, count);
    }
    if (k < parents.size()) {
      for (const auto& [f, e] : parents[k].ended_badly) bad.add(f, std::min(e, count));
    }
    RangeSet not_good = live;
    for (const auto& [f, e] : bad.ranges()) {
      not_good.add(f, e);
      for (const auto& [a, b] : live.gaps(f, e)) some_bad.add(a, b);
    }
    for (const auto& [f, e] : not_good.gaps(from, count)) some_good.add(f, e);
  }
  if (!each) return;
  RangeSet fail;
  if (job.header.when == When::all_succeeded) {
    for (const auto& [f, e] : some_bad.ranges()) fail.add(std::max(f, from), e);
  } else if (job.header.when == When::any_succeeded) {
    RangeSet others = live_targets(job);
    for (const auto& [f, e] : some_good.ranges()) others.add(f, e);
    for (const auto& [f, e] : others.gaps(from, count)) fail.add(f, e);
    if (job.one_by_one && at_once(job)) {
      for (const auto& [f, e] : some_good.ranges()) {
        for (std::uint32_t i = f; i < e; ++i) let_go(job, i, effects);
      }
    }
  }
  fail_ranges(job, fail, now, effects);
  let_go_met(job, effects);
}

void Farm::State::regate(Job& job) {
  if (!job.opened && targets_ended(job, Dependency::kAll)) {
    job.opened = true;
    touch(job);
  }
  job.one_by_one = job.next_index == 0 && std::any_of(job.header.after.begin(), job.header.after.end(),
                                                      [&](const Dependency& d) { return d.each && lives(d.job); });
  link(job);
}

void Farm::State::gate_event(Job& job, bool ok, Now now, Effects& effects) {
  if (job.opened || job.cancelled) return;
  switch (decide(job.header.when, ok, targets_ended(job, Dependency::kAll))) {
    case Decision::wait:
      return;
    case Decision::open:
      return open_up(job);
    case Decision::fail:
      end_rest(job, TaskEnd::failed, FailureClass::dependency, kNoBody, now, effects);
  }
}

void Farm::State::decide_task(Job& job, std::uint32_t at, bool ok, Now now, Effects& effects) {
  if (!job.one_by_one || job.cancelled || at < job.next_index || at >= job.header.count || job.skipped.contains(at)) {
    return;  // it is not waiting for this any more
  }
  switch (decide(job.header.when, ok, targets_ended(job, at))) {
    case Decision::wait:
      return;
    case Decision::open:
      if (backlog(job) < options.each_at_once || at_once(job)) return let_go(job, at, effects);
      letting_go.insert(job.no);
      return;
    case Decision::fail:
      end_fresh(job, at, TaskEnd::failed, FailureClass::dependency, kNoBody, now, effects);
      fail_fast(job, now, effects);
  }
}

void Farm::State::task_settled(TaskId id, bool ok, bool decisive, Now now, Effects& effects) {
  Job* parent = job(id.job());
  if (parent == nullptr) return;
  std::set<JobNo> children;  // what follows may shorten the parent's list
  for (const std::uint32_t target : {id.index(), Job::Edge::kEach}) {
    auto edge = parent->children.lower_bound({target, {}});
    for (; edge != parent->children.end() && edge->target == target; ++edge) children.insert(edge->child);
  }
  for (const JobNo no : children) {
    Job* child = job(no);
    if (child == nullptr || decides(child->header.when, ok) != decisive) continue;
    for (const Dependency& d : child->header.after) {
      if (d.job != id.job()) continue;
      if (d.each) {
        decide_task(*child, id.index(), ok, now, effects);
      } else if (d.index == id.index()) {
        gate_event(*child, ok, now, effects);
      }
    }
  }
}

// All of a job ended, or what was never handed out of it did, as a range.
void Farm::State::job_settled(JobNo no, bool decisive, Now now, Effects& effects) {
  Job* parent = job(no);
  if (parent == nullptr || !(parent->all_ended() || parent->cancelled)) return;
  const bool all = parent->all_ended();
  std::set<JobNo> children;
  for (const Job::Edge& edge : parent->children) children.insert(edge.child);
  if (!decisive && all) parent->children.clear();
  const bool well = parent->state() == JobState::completed;
  for (const JobNo child_no : children) {
    Job* child = job(child_no);
    if (child == nullptr) continue;
    const When when = child->header.when;
    bool each = false;
    for (const Dependency& d : child->header.after) {
      if (d.job != no) continue;
      if (d.each) {
        each = true;
        if (decides(when, false) == decisive) range_settled(*child, *parent, now, effects);
      } else if (d.index == Dependency::kAll) {
        if (all && decides(when, well) == decisive) gate_event(*child, well, now, effects);
      } else if (in_range(*parent, d.index) || (all && d.index >= parent->header.count)) {
        if (decides(when, false) == decisive) gate_event(*child, false, now, effects);
      }
    }
    if (decisive || !each || !child->one_by_one) continue;
    // A parent that lives, or whose word is still to come, has an edge to it.
    const bool more = std::any_of(child->header.after.begin(), child->header.after.end(), [&](const Dependency& d) {
      const Job* other = d.each ? job(d.job) : nullptr;
      return other != nullptr && other->children.contains(Job::Edge::of(d, child_no));
    });
    if (!more) {
      set_one_by_one(*child, false);
    } else if (when == When::all_finished) {
      let_go_met(*child, effects);
    }
  }
}

// What was never handed out of the parent did badly. Of its other tasks a word went out when they ended.
void Farm::State::range_settled(Job& child, const Job& parent, Now now, Effects& effects) {
  const When when = child.header.when;
  if (!child.one_by_one || child.cancelled || when == When::all_finished) return;
  if (when == When::all_succeeded && GRANGE_MUTANT("dependency_met_by_failure")) return;
  RangeSet live;
  if (when == When::any_succeeded) live = live_targets(child);
  RangeSet fail;
  const RangeSet bad = never_ran(parent, child.header.count);
  for (const auto& [from, to] : bad.ranges()) {
    for (const auto& [a, b] : live.gaps(from, to)) {
      for (const auto& [first, end] : child.skipped.gaps(std::max(a, child.next_index), b)) fail.add(first, end);
    }
  }
  fail_ranges(child, fail, now, effects);
}

// Before a step ends. What a child's end does to its own children is queued behind, so that no graph is too deep. Words
// that decide alone go out before those that count only when all have ended: of two parents that ended in one step, the
// one that failed is heard before the other lets a child go.
void Farm::State::spread(Now now, Effects& effects) {
  std::size_t tasks_decisive = 0, jobs_decisive = 0, tasks_rest = 0, jobs_rest = 0;
  while (true) {
    if (tasks_decisive < settled.size()) {
      const auto [id, end] = settled[tasks_decisive++];
      task_settled(id, end == TaskEnd::completed, true, now, effects);
    } else if (jobs_decisive < settled_jobs.size()) {
      job_settled(settled_jobs[jobs_decisive++], true, now, effects);
    } else if (tasks_rest < settled.size()) {
      const auto [id, end] = settled[tasks_rest++];
      task_settled(id, end == TaskEnd::completed, false, now, effects);
    } else if (jobs_rest < settled_jobs.size()) {
      job_settled(settled_jobs[jobs_rest++], false, now, effects);
    } else {
      break;
    }
  }
  settled.clear();
  settled_jobs.clear();
}

}  // namespace grange::core
