#include "core/fair.hpp"

#include <algorithm>

#include "core/fit.hpp"

namespace grange::core::fair {
namespace {

constexpr double kDecay = 1.0 / 16;

double seconds(std::uint64_t us) {
  return static_cast<double>(us) / 1e6;
}
void decay(double& mean, double value) {
  mean += (value - mean) * kDecay;
}

void charge(Farm::State& s, Job& job, const Task& task, double time) {
  const double cost = time * weight_of(s.request(job, task.held()->alternative)) * 1000;
  job.used += cost / job.header.weight_milli;
  job.user->used += cost / job.user->limits.weight_milli;
  if (job.flow != nullptr) job.flow->used += cost / job.user->limits.weight_milli;
  s.touch_books(job);
}

// Of kinds beyond the limit the one that was used longest ago is forgotten.
KindRecord& kind_of(Worker& w, std::uint32_t kind) {
  const auto it = w.kinds.find(kind);
  if (it != w.kinds.end()) return it->second;
  if (w.kinds.size() >= limits::kKinds) {
    const auto oldest = std::min_element(w.kinds.begin(), w.kinds.end(),
                                         [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    w.kinds.erase(oldest);
  }
  return w.kinds[kind];
}

}  // namespace

double weight_of(const Request& r) {
  constexpr double kCoresPerGpu = 8, kMemoryPerCore = 4.0 * GiB;
  return std::max({r.cpus_milli / 1000.0, r.gpus_milli / 1000.0 * kCoresPerGpu,
                   static_cast<double>(r.memory) / kMemoryPerCore, 0.01});
}

double tag(const Job& job) {
  return job.used + job.in_flight * 1000 / job.header.weight_milli;
}
double tag(const Flow& flow) {
  return flow.used + flow.in_flight * 1000 / flow.user->limits.weight_milli;
}

void hold(Farm::State& s, Job& job, Worker& worker, const Task& task) {
  const Request& r = s.request(job, task.held()->alternative);
  worker.load.add(r);
  job.user->load.add(r);
  job.holds += 1;
  job.holding += weight_of(r);
  if (job.flow != nullptr) job.flow->holds += 1;
  s.touch_books(job);
}

void unhold(Farm::State& s, Job& job, Worker& worker, const Task& task) {
  const Request& r = s.request(job, task.held()->alternative);
  worker.load.remove(r);
  job.user->load.remove(r);
  job.holds -= 1;
  job.holding = job.holds == 0 ? 0 : job.holding - weight_of(r);
  if (job.flow != nullptr) job.flow->holds -= 1;
  s.touch_books(job);
}

void lift(Farm::State& s, Job& job) {
  if (job.flow == nullptr) return;
  Flow& flow = *job.flow;
  Level& level = s.ready.at(job.at_level);
  if (flow.holds == 0) flow.used = std::max(flow.used, level.time);
  if (job.holds == 0) job.used = std::max(job.used, flow.job_time);
  level.time = std::max(level.time, flow.used);
  flow.job_time = std::max(flow.job_time, job.used);
  s.touch_books(job);
}

void charge_end(Farm::State& s, Job& job, Worker& worker, const Task& task, bool ok, std::uint64_t run_us) {
  charge(s, job, task, seconds(run_us));
  if (ok && job.mean_run_s < 0) {
    job.mean_run_s = seconds(run_us);
  } else if (ok) {
    decay(job.mean_run_s, seconds(run_us));
  }
  const double success = ok ? 1 : 0;
  const auto us = static_cast<double>(run_us);
  decay(worker.success, success);
  decay(worker.mean_run_us, us);
  KindRecord& kind = kind_of(worker, job.kind);
  decay(kind.success, success);
  if (ok) {
    if (kind.attempts == 0) kind.mean_run_us = us;
    decay(kind.mean_run_us, us);
    kind.attempts += 1;
  }
  kind.used = ++s.use_counter;
  (ok ? s.book->completed : s.book->failed) += 1;
}

void charge_lost(Farm::State& s, Job& job, const Task& task, Now now) {
  const HeldBy& held = *task.held();
  if (held.started.us == 0 || held.state == AttemptState::assigned) return;
  charge(s, job, task, static_cast<double>(std::max<std::int64_t>(0, (now.mono - held.started).count())) / 1e6);
}

void unstart(User& user, Now now) {
  const std::uint32_t rate = user.limits.starts_per_minute;
  if (rate == 0) return;
  refill(user.starts, rate, now);
  user.starts.tokens = std::min<double>(rate, user.starts.tokens + 1);
}

}  // namespace grange::core::fair
