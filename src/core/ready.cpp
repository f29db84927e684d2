// Keeps the queues of ready work, and the list of workers with room, true to the state.
#include "core/ready.hpp"

#include <algorithm>

#include "core/fair.hpp"
#include "core/state.hpp"

namespace grange::core {
namespace {

constexpr std::size_t kRestingFlows = 1024;  // of a level; who rests keeps his place so long as they are few

void insert(Farm::State& s, Flow& flow, Job& job) {
  job.key = s.policy->by_priority() ? fair::tag(job) : 0;  // in strict order of arrival, the number decides
  flow.queues[job.shape].jobs.insert({job.key, job.no});
}

// Puts the flow's queue of this shape where it belongs among the users.
void place(Farm::State& s, Level& level, Flow& flow, ShapeId shape) {
  const auto it = flow.queues.find(shape);
  GRANGE_ASSERT(it != flow.queues.end());
  ReadyQueue& queue = it->second;
  const bool was_in = queue.placed;
  const bool empty = queue.jobs.empty();
  const double key = empty                     ? 0
                     : s.policy->by_priority() ? fair::tag(flow)
                                               : static_cast<double>(queue.jobs.begin()->second.value);
  if (was_in && !empty && key == queue.key) return;
  if (was_in) {
    const auto users = level.users.find(shape);
    users->second.erase({queue.key, flow.user->no});
    if (users->second.empty()) level.users.erase(users);
  }
  if (empty) {
    flow.queues.erase(it);
    return;
  }
  queue.key = key;
  queue.placed = true;
  level.users[shape].insert({key, flow.user->no});
}

void leave_flow(Farm::State& s, Job& job) {
  if (job.flow == nullptr) return;
  Flow& flow = *job.flow;
  flow.in_flight -= job.in_flight;
  flow.holds -= job.holds;
  flow.members -= 1;
  job.flow = nullptr;
  const auto at = s.ready.find(job.at_level);
  at->second.members -= 1;
  if (at->second.members == 0) {
    s.ready.erase(at);  // nobody is left to compare with
  } else if (flow.members == 0 && at->second.flows.size() > kRestingFlows) {
    at->second.flows.erase(flow.user->no);
  }
}

void join_flow(Farm::State& s, Job& job, int at) {
  Level& level = s.ready[at];
  auto [it, fresh] = level.flows.try_emplace(job.user->no);
  Flow& flow = it->second;
  if (fresh) flow.user = job.user;
  job.flow = &flow;
  job.at_level = at;
  flow.members += 1;
  level.members += 1;
  flow.holds += job.holds;
  flow.in_flight += job.in_flight;
}

void enqueue(Farm::State& s, Job& job) {
  const int at = s.level(job);
  if (job.flow == nullptr || job.at_level != at) {
    leave_flow(s, job);
    join_flow(s, job, at);
  }
  Level& level = s.ready.at(at);
  Flow& flow = *job.flow;
  // Time spent idle earns nothing.
  if (flow.queues.empty() && flow.holds == 0) flow.used = std::max(flow.used, level.time);
  if (job.holds == 0) job.used = std::max(job.used, flow.job_time);
  insert(s, flow, job);
  place(s, level, flow, job.shape);
  job.queued = true;
}

void dequeue(Farm::State& s, Job& job) {
  Level& level = s.ready.at(job.at_level);
  job.flow->queues.at(job.shape).jobs.erase({job.key, job.no});
  place(s, level, *job.flow, job.shape);
  job.queued = false;
}

}  // namespace

void Farm::State::enrol(Job& job) {
  auto [it, fresh] = shape_ids.try_emplace({job.requests, job.header.nodes});
  if (fresh) {
    if (free_shapes.empty()) {
      it->second = ShapeId{static_cast<std::uint32_t>(shapes.size())};
      shapes.emplace_back();
    } else {
      it->second = free_shapes.back();
      free_shapes.pop_back();
    }
    shapes[it->second.value] = {.requests = job.requests, .nodes = job.header.nodes};
  }
  job.shape = it->second;
  shapes[job.shape.value].jobs += 1;
  job.waits_from = clock;
}

void Farm::State::forget(Job& job) {
  GRANGE_ASSERT(!job.queued && job.holds == 0);
  leave_flow(*this, job);
  GRANGE_ASSERT(job.runs.empty());
  look_at(job, Instant::never());
  for (const RequestId r : job.requests) release(r);
  release_kind(job.kind);
  Shape& shape = shapes[job.shape.value];
  shape.jobs -= 1;
  if (shape.jobs > 0) return;
  shape_ids.erase({shape.requests, shape.nodes});
  free_shapes.push_back(job.shape);
}

void Farm::State::index(Job& job) {
  if (!job.runs.empty()) touch_books(job);  // it may have been paused or resumed
  const bool wanted = job.wanted();
  if (wanted == job.queued) return;
  if (!wanted) return dequeue(*this, job);
  job.waits_from = clock;
  enqueue(*this, job);
}

void Farm::State::reindex() {
  std::vector<Job*> all;
  all.reserve(jobs.size());
  for (const auto& [no, job] : jobs) all.push_back(job.get());
  std::sort(all.begin(), all.end(), [](const Job* a, const Job* b) { return a->no < b->no; });
  for (Job* job : all) {
    if (job->queued) dequeue(*this, *job);
  }
  for (Job* job : all) {
    if (job->wanted()) enqueue(*this, *job);
  }
}

void Farm::State::touch_books(Job& job) {
  if (job.stale) return;
  job.stale = true;
  stale_jobs.push_back(job.no);
}

void Farm::State::watch_run(Job& job, const Task& task, bool leaves) {
  if (!job.header.speculation.on || gang(job) || task.extra || task.held() == nullptr) return;
  const HeldBy& held = *task.held();
  const std::pair<Instant, std::uint32_t> run{held.started, task.id.index()};
  if (!leaves && held.state == AttemptState::running && !task.has_extras && held.started.us != 0) {
    job.runs.insert(run);
  } else {
    job.runs.erase(run);
  }
  touch_books(job);
}

Micros Farm::State::straggles_after(const Job& job) const {
  return Micros{static_cast<std::int64_t>(std::max(0.0, job.mean_run_s) * 1e3 * job.header.speculation.factor_milli)};
}

void Farm::State::look_at(Job& job, Instant at) {
  if (at == job.straggler_at) return;
  if (job.straggler_at != Instant::never()) speculating.erase({job.straggler_at, job.no});
  job.straggler_at = at;
  if (at != Instant::never()) speculating.insert({at, job.no});
}

void Farm::State::settle() {
  std::vector<Job*> moved;
  for (const JobNo no : stale_jobs) {
    Job* job = this->job(no);
    if (job == nullptr) continue;
    job->stale = false;
    const double in_flight = job->holding * (job->mean_run_s < 0 ? 1 : job->mean_run_s);
    if (job->flow != nullptr) {
      Flow& flow = *job->flow;
      flow.in_flight = flow.holds == 0 ? 0 : flow.in_flight + in_flight - job->in_flight;
    }
    job->in_flight = in_flight;
    moved.push_back(job);
    const bool looks = !job->runs.empty() && !job->gated() && job->mean_run_s >= 0 &&
                       job->counts.completed >= job->header.speculation.min_done;
    look_at(*job,
            looks ? std::max(job->runs.begin()->first + straggles_after(*job), job->straggler_rest) : Instant::never());
  }
  stale_jobs.clear();
  if (!policy->by_priority()) return;
  // Two rounds: the keys of users follow from all of their jobs.
  for (Job* job : moved) {
    if (!job->queued || fair::tag(*job) == job->key) continue;
    job->flow->queues.at(job->shape).jobs.erase({job->key, job->no});
    insert(*this, *job->flow, *job);
  }
  for (Job* job : moved) {
    if (job->flow == nullptr) continue;
    Level& level = ready.at(job->at_level);
    for (auto it = job->flow->queues.begin(); it != job->flow->queues.end();) {
      const ShapeId shape = (it++)->first;
      place(*this, level, *job->flow, shape);
    }
  }
}

// Once in each quarter of the ageing time: what waited so long is one level higher until it is served.
void Farm::State::age(Now now) {
  if (options.aging.count() <= 0 || !policy->by_priority() || now.mono < aged_at) return;
  aged_at = now.mono + std::max(Micros{options.aging} / 4, Micros{Millis{100}});
  std::vector<std::pair<Job*, int>> moved;
  for (auto& [at, level] : ready) {
    for (auto& [no, flow] : level.flows) {
      for (auto& [shape, queue] : flow.queues) {
        for (const auto& [key, job_no] : queue.jobs) {
          Job* job = this->job(job_no);
          const auto waited = (now.mono - job->waits_from) / Micros{options.aging};
          const int boost =
              static_cast<int>(std::clamp<std::int64_t>(waited, 0, limits::kPriorityMax - job->header.priority));
          if (boost != job->boost) moved.emplace_back(job, boost);
        }
      }
    }
  }
  std::sort(moved.begin(), moved.end(), [](const auto& a, const auto& b) { return a.first->no < b.first->no; });
  for (const auto& [job, boost] : moved) {
    dequeue(*this, *job);
    job->boost = boost;
    enqueue(*this, *job);
  }
}

void Farm::State::served(Job& job) {
  job.waits_from = clock;
  if (job.boost == 0) return;
  if (job.queued) dequeue(*this, job);
  job.boost = 0;
  if (job.wanted()) enqueue(*this, job);
}

void Farm::State::watch_room(Worker& w) {
  const bool roomy = w.held.size() < w.window;
  if (roomy == (w.open_position != Worker::kNotOpen)) return;
  if (!roomy) return close_room(w);
  w.open_position = static_cast<std::uint32_t>(open.size());
  open.push_back(&w);
}

void Farm::State::close_room(Worker& w) {
  if (w.open_position == Worker::kNotOpen) return;
  Worker* last = open.back();
  open[w.open_position] = last;
  last->open_position = w.open_position;
  open.pop_back();
  w.open_position = Worker::kNotOpen;
}

void Farm::State::check_ready() const {
  std::size_t queued_jobs = 0, roomy = 0;
  for (const auto& [no, job] : jobs) {
    if (!job->queued) continue;
    queued_jobs += 1;
    GRANGE_ASSERT(job->flow != nullptr && job->at_level == level(*job));
    GRANGE_ASSERT(job->flow->queues.at(job->shape).jobs.contains({job->key, no}));
  }
  for (const auto& [at, level] : ready) {
    std::uint32_t members = 0;
    std::size_t places = 0;
    for (const auto& [no, flow] : level.flows) {
      members += flow.members;
      for (const auto& [shape, queue] : flow.queues) {
        GRANGE_ASSERT(!queue.jobs.empty() && level.users.at(shape).contains({queue.key, no}));
        places += 1;
        queued_jobs -= queue.jobs.size();
      }
    }
    for (const auto& [shape, users_of] : level.users) places -= users_of.size();
    GRANGE_ASSERT(places == 0 && members == level.members && members > 0);
  }
  GRANGE_ASSERT(queued_jobs == 0);
  for (const auto& [no, w] : workers) {
    const bool in = w->open_position != Worker::kNotOpen;
    GRANGE_ASSERT(in == (w->held.size() < w->window) && (!in || open[w->open_position] == w.get()));
    roomy += in ? 1 : 0;
  }
  GRANGE_ASSERT(roomy == open.size());
}

}  // namespace grange::core
