#include "server/overview/overview_look.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/farm.hpp"
#include "server/alerts/alert_desk.hpp"

namespace grange::server {
namespace {

constexpr Micros kSampleEvery{990'000};
constexpr Micros kKeepEvery{30'000'000};
constexpr std::uint32_t kRowsKept = 720;  // of each step
constexpr Micros kFresh{1'000'000};
constexpr Micros kWaitsLong{30'000'000};
constexpr Millis kLookBack{3'600'000};
constexpr std::size_t kNamed = 5;            // of jobs that wait, and of jobs that failed
constexpr std::size_t kFailedKept = 100;     // jobs
constexpr std::size_t kSamplesKept = 180;    // of one worker: half an hour of heartbeats
constexpr std::uint32_t kDeadCounted = 100;  // then it is "more than"
constexpr Micros kDeadEvery{10'000'000};

}  // namespace

Result<> Overview::load(store::Reader& reader) {
  auto rows = reader.history(std::nullopt);
  if (!rows) return std::move(rows).error();
  for (const store::HistoryRow& row : *rows) {
    for (std::size_t span = 1; span < History::kSpans.size(); ++span) {
      if (History::kSpans[span].step == row.step) (void)history_.restore(span, row.at, row.figures);
    }
  }
  const Now now = s_.clock.now();
  sampled_ = kept_ = now.mono;
  const WallMs hour_ago{now.wall.ms - kLookBack.count()};
  auto failures = reader.failures(std::nullopt, std::nullopt, 0, 0, 1000);
  if (!failures) return std::move(failures).error();
  for (auto it = failures->rbegin(); it != failures->rend(); ++it) {
    if (it->at < hour_ago) continue;
    const std::int64_t minute = it->at.ms / 60'000;
    if (failures_.empty() || failures_.back().minute < minute) failures_.push_back({.minute = minute, .failures = {}});
    failures_.back().failures[it->failure] += 1;
  }
  auto failed = reader.jobs({.state = core::JobState::failed, .before = {}, .limit = kFailedKept});
  if (!failed) return std::move(failed).error();
  for (const store::JobRow& row : *failed) {
    if (row.ended >= hour_ago) failed_jobs_.emplace_back(row.job, row.ended);
  }
  std::sort(failed_jobs_.begin(), failed_jobs_.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const core::JobState state : {core::JobState::pending, core::JobState::running}) {
    auto live = reader.jobs({.state = state, .before = {}, .limit = 1000});
    if (!live) return std::move(live).error();
    for (const store::JobRow& row : *live) {
      if (!row.paused && row.counts.ended() < row.count) idle_.emplace(row.job, now.mono);
    }
  }
  return {};
}

void Overview::waits(JobNo job) {
  idle_.try_emplace(job, s_.clock.now().mono);
}

void Overview::deliver(const queue::Delivery& delivery) {
  const Now now = s_.clock.now();
  for (const queue::JobChange& change : delivery.jobs) {
    if (core::ended(change.state)) {
      idle_.erase(change.job);
      if (change.state != core::JobState::failed) continue;
      std::erase_if(failed_jobs_, [&](const auto& entry) { return entry.first == change.job; });  // it was tried again
      failed_jobs_.emplace_front(change.job, now.wall);
      if (failed_jobs_.size() > kFailedKept) failed_jobs_.pop_back();
      continue;
    }
    const bool waits = change.counts.ended() < change.count && change.running + change.assigned == 0 && !change.paused;
    if (waits) {
      idle_.try_emplace(change.job, now.mono);
    } else if (!idle_.empty()) {
      idle_.erase(change.job);
    }
  }
  for (const queue::Failed& failed : delivery.failed) {
    const std::int64_t minute = now.wall.ms / 60'000;
    if (failures_.empty() || failures_.back().minute < minute) failures_.push_back({.minute = minute, .failures = {}});
    if (failures_.size() > 60) failures_.pop_front();
    failures_.back().failures[failed.failure] += 1;
    if (!failed.will_retry) dead_counted_ = {};
  }
  for (const queue::WorkerChange& change : delivery.workers) {
    using Kind = queue::WorkerChangeKind;
    if (change.kind == Kind::lost) {
      lost_[change.worker] = {now.wall, change.requeued};
    } else if (change.kind == Kind::connected || change.kind == Kind::forgotten) {
      lost_.erase(change.worker);
      if (change.kind == Kind::forgotten) loads_.erase(change.worker);
    }
  }
}

void Overview::worker_said(WorkerNo worker, const WorkerFigures& figures) {
  auto& ring = loads_[worker];
  ring.push_back({s_.clock.now().wall, figures.cpu_percent, figures.memory_used, figures.load});
  if (ring.size() > kSamplesKept) ring.pop_front();
}

void Overview::tick(Now now) {
  if (now.mono - sampled_ < kSampleEvery || sampling_) return;
  sampling_ = true;
  s_.queue->inspect([this, post = s_.post](const core::Farm& farm, Now) {
    post([this, view = farm.view()] {
      sampling_ = false;
      sample(s_.clock.now(), view);
    });
  });
  if (now.mono - swept_ < Micros{60'000'000}) return;
  swept_ = now.mono;
  const WallMs hour_ago{now.wall.ms - kLookBack.count()};
  std::erase_if(loads_, [&](const auto& entry) { return entry.second.back().at < hour_ago; });
  std::erase_if(lost_, [&](const auto& entry) { return entry.second.at < hour_ago; });
  std::erase_if(failed_jobs_, [&](const auto& entry) { return entry.second < hour_ago; });
}

void Overview::sample(Now now, const core::FarmView& view) {
  const queue::QueueCounters counters = s_.queue->counters();
  const double seconds = static_cast<double>((now.mono - sampled_).count()) / 1e6;
  if (seconds <= 0) return;
  sampled_ = now.mono;
  FarmSample sample;
  sample.completed = static_cast<double>(counters.completed - before_.completed) / seconds;
  sample.failed = static_cast<double>(counters.failed - before_.failed) / seconds;
  sample.submitted = static_cast<double>(counters.submitted - before_.submitted) / seconds;
  sample.waits = counters.waits.since(before_.waits);
  sample.queued = static_cast<double>(view.queued_tasks);
  sample.running = static_cast<double>(view.running_tasks);
  sample.workers = view.connected_workers;
  before_ = counters;
  measure(sample);
  history_.add(sample, now.wall);
  if (s_.alerts != nullptr) s_.alerts->sampled(now, view);
  if (now.mono - kept_ < kKeepEvery) return;
  kept_ = now.mono;
  keep();
}

// Workers of one machine all measure the machine: each counts once.
void Overview::measure(FarmSample& sample) const {
  struct Machine {
    double cpu_percent = 0, cores = 0;
    Bytes memory_used = 0;
  };
  std::map<std::string, Machine> machines;
  double gpu_sum = 0;
  std::size_t gpus = 0;
  for (const auto& [number, channel] : s_.workers->all()) {
    const WorkerFigures figures = channel->figures();
    if (!figures.connected || !figures.measured) continue;
    auto [it, fresh] = machines.try_emplace(channel->host());
    it->second.cpu_percent = figures.cpu_percent;
    it->second.memory_used = figures.memory_used;
    it->second.cores = std::max(it->second.cores, figures.cpus_milli / 1000.0);
    for (const GpuLook& gpu : figures.load.gpus) {
      if (!fresh || !gpu.percent) continue;
      gpu_sum += *gpu.percent;
      gpus += 1;
    }
  }
  if (gpus > 0) sample.gpu_percent = gpu_sum / static_cast<double>(gpus);
  double busy = 0, cores = 0;
  Bytes used = 0;
  for (const auto& [host, machine] : machines) {
    busy += machine.cpu_percent * machine.cores;
    cores += machine.cores;
    used += machine.memory_used;
  }
  if (machines.empty() || cores <= 0) return;
  sample.cpu_percent = busy / cores;
  sample.memory_used = static_cast<double>(used);
}

void Overview::keep() {
  auto rows = std::make_shared<std::vector<store::HistoryRow>>();
  for (History::Kept& kept : history_.unwritten(true)) {
    rows->push_back({.step = History::kSpans[kept.span].step, .at = kept.at, .figures = std::move(kept.figures)});
  }
  if (rows->empty()) return;
  on_store_([rows](store::Store& store) { return store.put_history(*rows, kRowsKept); },
            [](Result<> done) {
              if (!done) spdlog::warn("the history of the farm was not written: {}", done.error().message);
            });
}

void Overview::text(std::function<void(Result<std::shared_ptr<const std::string>>)> done) {
  const Now now = s_.clock.now();
  if (text_ != nullptr && now.mono - made_ < kFresh) return done(text_);
  waiting_.push_back(std::move(done));
  if (waiting_.size() > 1) return;
  auto look = std::make_shared<Look>();
  look->next_event = s_.events->next();  // before what is read: following from here misses nothing
  look->now = now;
  for (const auto& [job, since] : idle_) {
    if (now.mono - since >= kWaitsLong) look->idle.emplace_back(job, since);
  }
  const std::size_t n = std::min(kNamed, look->idle.size());
  std::partial_sort(
      look->idle.begin(), look->idle.begin() + static_cast<std::ptrdiff_t>(n), look->idle.end(),
      [](const auto& a, const auto& b) { return std::pair(a.second, a.first) < std::pair(b.second, b.first); });
  look->idle.resize(n);
  for (const auto& [job, at] : failed_jobs_) {
    if (look->failed.size() < kNamed && at.ms >= now.wall.ms - kLookBack.count()) look->failed.emplace_back(job, at);
  }
  look->count_dead = dead_counted_.us == 0 || now.mono - dead_counted_ >= kDeadEvery;
  if (look->count_dead) dead_counted_ = now.mono;  // what fails from here on is counted the next time
  s_.readers->read<Unit>(
      [look](store::Reader& reader) -> Result<> {
        auto totals = reader.totals();
        if (!totals) return std::move(totals).error();
        look->totals = *totals;
        auto rows = reader.workers();
        if (!rows) return std::move(rows).error();
        look->rows = std::move(*rows);
        for (store::WorkerRow& row : look->rows) row.manifest.clear();
        std::vector<JobNo> named;
        for (const auto& [job, since] : look->idle) named.push_back(job);
        for (const auto& [job, at] : look->failed) named.push_back(job);
        for (const JobNo job : named) {
          auto row = reader.job(job);
          if (!row) return std::move(row).error();
          if (row->has_value()) look->jobs.emplace(job, std::move(**row));
        }
        if (!look->count_dead) return {};
        store::DeadFilter filter;
        filter.limit = kDeadCounted + 1;
        auto dead = reader.dead(filter);
        if (!dead) return std::move(dead).error();
        look->dead = dead->size();
        return {};
      },
      [this, look](Result<> read) {
        if (!read) return answer(read.error());
        if (look->count_dead) dead_ = look->dead;
        s_.queue->inspect([this, look, post = s_.post](const core::Farm& farm, Now at) {
          look->view = farm.view();
          look->policy = std::string(farm.policy());
          look->workers = farm.workers();
          for (const auto& [job, since] : look->idle) {
            if (auto why = farm.explain(job, core::Dependency::kAll, at))
              look->explained.emplace_back(job, std::move(*why));
          }
          post([this, look] { build(*look); });
        });
      });
}

void Overview::answer(Result<std::shared_ptr<const std::string>> text) {
  const auto waiting = std::move(waiting_);
  waiting_.clear();
  for (const auto& done : waiting) done(text);
}

}  // namespace grange::server
