// The first page's figures in JSON.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "server/alerts/alert_desk.hpp"
#include "server/overview/overview_look.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kRateSeconds = 10, kWaitSeconds = 300;

json::value rounded_to(std::optional<double> value, double step) {
  return value ? json::value(std::round(*value / step) * step) : json::value(nullptr);
}

json::object use_json(const std::vector<core::WorkerView>& workers, const WorkerHub& hub) {
  struct Machine {
    double cores = 0, busy = 0;
    Bytes memory = 0, memory_used = 0;
    double gpus = 0, gpus_busy = 0;
  };
  // Several workers of one machine offer, and measure, the same.
  std::map<std::string, Machine> machines;
  for (const core::WorkerView& view : workers) {
    const WorkerChannel* channel = view.connected ? hub.find(view.worker) : nullptr;
    if (channel == nullptr) continue;
    const WorkerFigures figures = channel->figures();
    Machine& machine = machines[channel->host()];
    machine.cores = std::max(machine.cores, view.capacity.cpus_milli / 1000.0);
    machine.memory = std::max(machine.memory, view.capacity.memory);
    machine.gpus = std::max(machine.gpus, view.capacity.gpus_milli / 1000.0);
    if (!figures.measured) continue;
    machine.busy = figures.cpu_percent / 100 * machine.cores;
    machine.memory_used = std::min(figures.memory_used, machine.memory);
    machine.gpus_busy = 0;
    for (const GpuLook& gpu : figures.load.gpus) machine.gpus_busy += gpu.percent.value_or(0) / 100;
  }
  Machine all;
  for (const auto& [host, machine] : machines) {
    all.cores += machine.cores;
    all.busy += machine.busy;
    all.memory += machine.memory;
    all.memory_used += machine.memory_used;
    all.gpus += machine.gpus;
    all.gpus_busy += machine.gpus_busy;
  }
  return {{"cores", json::object{{"used", rounded_to(all.busy, 0.01)}, {"total", all.cores}}},
          {"memory", json::object{{"used_bytes", all.memory_used}, {"total_bytes", all.memory}}},
          {"gpus", json::object{{"used", rounded_to(all.gpus_busy, 0.01)}, {"total", all.gpus}}}};
}

}  // namespace

void Overview::build(Look& look) {
  const Now now = look.now;
  std::map<WorkerNo, const store::WorkerRow*> rows;
  for (const store::WorkerRow& row : look.rows) rows.emplace(row.worker, &row);
  const auto id_of = [&](WorkerNo worker) { return s_.workers->name_of(worker); };
  const auto name_of = [&](WorkerNo worker) {
    const auto it = rows.find(worker);
    return it == rows.end() || it->second->name.empty() ? id_of(worker) : it->second->name;
  };

  AttentionLook seen;
  seen.workers = look.view.connected_workers;
  seen.unfinished_tasks = look.view.queued_tasks + look.view.active_tasks;
  seen.ever_had_workers = !look.rows.empty();
  seen.storage_full = s_.queue->counters().storage_full;
  seen.paused = look.view.paused;
  for (const auto& [job, why] : look.explained) {
    const auto row = look.jobs.find(job);
    const auto since =
        std::find_if(look.idle.begin(), look.idle.end(), [j = job](const auto& one) { return one.first == j; });
    if (row == look.jobs.end() || waits_on_purpose(why)) continue;
    seen.waiting.push_back({.job_id = row->second.id.empty() ? std::to_string(job.value) : row->second.id,
                            .name = row->second.name,
                            .why = name_workers(why.summary, name_of),
                            .since = std::chrono::duration_cast<Millis>(now.mono - since->second),
                            .hopeless = why.workers_could == 0});
  }
  for (const auto& [job, at] : look.failed) {
    const auto row = look.jobs.find(job);
    if (row == look.jobs.end() || row->second.state != core::JobState::failed) continue;
    seen.failed.push_back({.job_id = row->second.id.empty() ? std::to_string(job.value) : row->second.id,
                           .name = row->second.name,
                           .failed = row->second.counts.failed,
                           .total = row->second.count,
                           .ago = Millis{now.wall.ms - at.ms}});
  }
  json::array distribution;
  std::sort(look.workers.begin(), look.workers.end(), [](const auto& a, const auto& b) { return a.worker < b.worker; });
  for (const core::WorkerView& view : look.workers) {
    if (view.quarantined) {
      seen.quarantined.push_back({.id = id_of(view.worker),
                                  .name = name_of(view.worker),
                                  .span = Millis{view.quarantined_until.ms - now.wall.ms},
                                  .number = view.failed_in_a_row});
    }
    const auto row = rows.find(view.worker);
    distribution.push_back(json::object{{"worker_id", id_of(view.worker)},
                                        {"name", name_of(view.worker)},
                                        {"running", view.running},
                                        {"completed", row == rows.end() ? 0 : row->second->completed}});
  }
  for (const auto& [worker, lost] : lost_) {
    if (lost.at.ms < now.wall.ms - 3'600'000) continue;
    seen.lost.push_back({.id = id_of(worker),
                         .name = name_of(worker),
                         .span = Millis{now.wall.ms - lost.at.ms},
                         .number = lost.requeued});
  }
  seen.more_dead_letters = dead_ > 100;
  seen.dead_letters = std::min<std::uint64_t>(dead_, 100);
  if (s_.alerts != nullptr) seen.alerts = s_.alerts->attention();
  json::array attention_json;
  for (const Attention& one : attention(seen)) {
    json::object item{{"kind", one.kind}, {"severity", one.severity}, {"title", one.title}, {"text", one.text}};
    if (!one.job_id.empty()) item["job_id"] = one.job_id;
    if (!one.worker_id.empty()) item["worker_id"] = one.worker_id;
    attention_json.push_back(std::move(item));
  }
  json::object failures;
  const std::int64_t first_minute = now.wall.ms / 60'000 - 59;
  for (const Minute& minute : failures_) {
    if (minute.minute < first_minute) continue;
    for (const auto& [failure, n] : minute.failures) {
      const json::value* before = failures.if_contains(core::name(failure));
      failures[core::name(failure)] = n + (before == nullptr ? 0 : before->to_number<std::uint64_t>());
    }
  }
  const core::WaitCounts waits = history_.waits(kWaitSeconds);
  const json::object page{
      {"stats", stats_json(s_, look.totals, look.view, look.policy, look.next_event)},
      {"throughput",
       json::object{{"completed_per_s", rounded_to(history_.rate(History::completed, kRateSeconds), 0.01)},
                    {"submitted_per_s", rounded_to(history_.rate(History::submitted, kRateSeconds), 0.01)},
                    {"failed_per_s", rounded_to(history_.rate(History::failed, kRateSeconds), 0.01)}}},
      {"wait_ms",
       json::object{{"p50", rounded_to(waits.percentile(0.5), 0.1)}, {"p95", rounded_to(waits.percentile(0.95), 0.1)}}},
      {"failures", std::move(failures)},
      {"use", use_json(look.workers, *s_.workers)},
      {"distribution", std::move(distribution)},
      {"attention", std::move(attention_json)}};
  text_ = std::make_shared<const std::string>(json::serialize(page));
  made_ = s_.clock.now().mono;
  answer(text_);
}

}  // namespace grange::server
