#include "server/job_news.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {
constexpr std::size_t kFailuresTold = 200;  // of one delivery; the rest stand in /api/worker-failures
}

void JobNews::tell(const queue::JobChange& change, std::string_view type) {
  s_.jobs->with(change.job, [this, change, type = std::string(type)](Result<JobMetaPtr> meta) {
    if (!meta) return;  // deleted meanwhile
    const std::string data = fmt::format(
        R"({{"id":{},"job":{},"name":{},"user":{},"engine":{},"status":"{}","total_tasks":{},"completed_tasks":{},"failed_tasks":{},"cancelled_tasks":{},"running_tasks":{},"assigned_tasks":{},"paused":{},"open":{}}})",
        wire::quoted((*meta)->id), change.job.value, wire::quoted((*meta)->name), wire::quoted((*meta)->user),
        wire::quoted((*meta)->engine), core::name(change.state), change.count, change.counts.completed,
        change.counts.failed, change.counts.cancelled, change.running, change.assigned, change.paused, change.open);
    s_.events->publish(Topic::jobs, change.job, (*meta)->id, type, data, s_.clock.now().wall);
  });
}

// Only while somebody follows tasks: there may be a hundred thousand of them a second.
void JobNews::tell_ended(const queue::Delivery& delivery) {
  JobNo job{};
  bool followed = false;
  for (const queue::Ended& ended : delivery.ended) {
    if (ended.end == core::TaskEnd::failed) continue;  // task_failed says it
    if (ended.task.job() != job) {
      job = ended.task.job();
      const JobMetaPtr meta = s_.jobs->find(job);
      followed = meta == nullptr || s_.events->tasks_followed(job, meta->id);
    }
    if (!followed) continue;
    s_.jobs->with(job, [this, task = ended.task, end = ended.end, attempt = ended.attempt, worker = ended.worker,
                        run_us = ended.run_us](Result<JobMetaPtr> meta) {
      if (!meta || !s_.events->tasks_followed((*meta)->job, (*meta)->id)) return;
      const std::string data = fmt::format(
          R"({{"task":{},"index":{},"attempt":{},"worker_id":{},"run_ms":{:.3f}}})",
          wire::quoted((*meta)->id + "/" + std::to_string(task.index())), task.index(), attempt,
          worker.value == 0 ? "null" : wire::quoted(s_.workers->name_of(worker)), static_cast<double>(run_us) / 1000);
      s_.events->publish(Topic::tasks, (*meta)->job, (*meta)->id,
                         end == core::TaskEnd::completed ? "task_completed" : "task_cancelled", data,
                         s_.clock.now().wall);
    });
  }
}

void JobNews::deliver(const queue::Delivery& delivery) {
  std::size_t failures = 0;
  for (const queue::Failed& failed : delivery.failed) {
    if (++failures > kFailuresTold) break;
    s_.jobs->with(failed.task.job(), [this, failed](Result<JobMetaPtr> meta) {
      if (!meta) return;
      const std::string data = fmt::format(
          R"({{"task":{},"index":{},"attempt":{},"worker_id":{},"failure":"{}","stage":{},"fault":"{}","message":{},"will_retry":{},"retry_in_ms":{}}})",
          wire::quoted((*meta)->id + "/" + std::to_string(failed.task.index())), failed.task.index(), failed.attempt,
          wire::quoted(s_.workers->name_of(failed.worker)), core::name(failed.failure),
          failed.stage == core::Stage::none ? "null" : wire::quoted(core::name(failed.stage)),
          core::name(core::fault_of(failed.failure, failed.stage)),
          wire::quoted(is_utf8(failed.message) ? failed.message : ""), failed.will_retry, failed.retry_in.count());
      s_.events->publish(Topic::tasks, (*meta)->job, (*meta)->id, "task_failed", data, s_.clock.now().wall);
    });
  }
  if (s_.events->tasks_followed()) tell_ended(delivery);
  for (const queue::JobChange& change : delivery.jobs) {
    const auto [it, fresh] = live_.try_emplace(change.job);
    Told& told = it->second;
    const bool turned = fresh || told.state != change.state;
    // After a restart what was told before is not known; a job's own state says it.
    const bool paused = !fresh && told.latest.paused != change.paused;
    const bool grew = !fresh && (told.latest.count != change.count || told.latest.open != change.open);
    told.state = change.state;
    told.latest = change;
    if (paused || (fresh && change.paused)) tell(change, change.paused ? "job_paused" : "job_resumed");
    if (grew) tell(change, "job_extended");
    if (core::ended(change.state)) {
      live_.erase(it);
      tell(change, "job_ended");
    } else if (turned) {
      tell(change, fresh && change.state == core::JobState::pending ? "job_submitted"
                   : change.state == core::JobState::pending        ? "job_pending"
                                                                    : "job_started");
    } else if (!told.dirty) {
      told.dirty = true;
      dirty_.push_back(change.job);
    }
  }
  for (const queue::WorkerChange& change : delivery.workers) {
    static constexpr std::string_view types[] = {"worker_connected", "worker_disconnected", "worker_lost",
                                                 "worker_left",      "worker_quarantined",  "worker_released",
                                                 "worker_paused",    "worker_resumed",      "worker_forgotten"};
    const auto kind = static_cast<std::size_t>(change.kind);
    if (kind >= std::size(types)) continue;
    if (change.kind == queue::WorkerChangeKind::quarantined)
      spdlog::warn("worker {} fails what others can do: it gets nothing new for a while",
                   for_log(s_.workers->name_of(change.worker)));
    s_.events->publish(
        Topic::workers, {}, "", types[kind],
        fmt::format(R"({{"worker_id":{},"number":{},"requeued":{}}})", wire::quoted(s_.workers->name_of(change.worker)),
                    change.worker.value, change.requeued),
        s_.clock.now().wall);
  }
}

void JobNews::tick() {
  const auto dirty = std::move(dirty_);
  dirty_.clear();
  for (const JobNo job : dirty) {
    const auto it = live_.find(job);
    if (it == live_.end() || !it->second.dirty) continue;
    it->second.dirty = false;
    tell(it->second.latest, "job_progress");
  }
}

}  // namespace grange::server
