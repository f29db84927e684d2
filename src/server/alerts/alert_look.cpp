// What alerts are about, as it is seen now.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "core/farm.hpp"
#include "server/alerts/alert_desk.hpp"
#include "server/api/views.hpp"
#include "server/gateway/gateway.hpp"
#include "server/overview/overview.hpp"
#include "server/text.hpp"

namespace grange::server {

// What the core is asked for, off the Loop.
struct AlertDesk::Slow {
  Now now;
  std::vector<JobNo> ask;
  std::vector<core::WorkerView> workers;
  std::vector<std::pair<JobNo, std::optional<core::Explanation>>> explained;
};

namespace {

constexpr Micros kDiskEvery{30'000'000}, kNamesEvery{30'000'000};
constexpr Micros kFiguresKept{300'000'000};
constexpr std::uint64_t kEndedLeast = 20;                              // tasks, before a share of them means anything
constexpr std::size_t kWaitLook = 300;                                 // s
constexpr std::int64_t kFailedFor = 3'600'000, kLostFor = 86'400'000;  // ms
constexpr std::size_t kReadyKept = 20'000;
constexpr std::size_t kSaid = 400;  // bytes of what a peer said

std::string tasks_word(std::uint64_t n) {
  return fmt::format("{} task{}", n, n == 1 ? "" : "s");
}
std::string gib_word(Bytes bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / static_cast<double>(GiB));
}

}  // namespace

std::string AlertDesk::called(WorkerNo worker) {
  const auto it = names_.find(worker);
  if (it == names_.end()) want_names_ = true;
  return it == names_.end() || it->second.empty() ? s_.workers->name_of(worker) : it->second;
}

AlertLook AlertDesk::fast_look(Now now, const core::FarmView& view) {
  AlertLook out = slow_;
  const std::uint64_t unfinished = view.queued_tasks + view.active_tasks;
  if (s_.queue->counters().storage_full) {
    out.push_back({.kind = AlertKind::storage_full,
                   .title = "The disk is full",
                   .text = "New work is refused until there is room in the data folder. What was accepted is safe."});
  }
  if (view.connected_workers == 0 && unfinished > 0) {
    out.push_back({.kind = AlertKind::no_workers,
                   .title = "No worker is connected",
                   .text = fmt::format("{} {} for one. Add a machine.", tasks_word(unfinished),
                                       unfinished == 1 ? "waits" : "wait")});
  }
  if (view.paused) {
    out.push_back({.kind = AlertKind::farm_paused,
                   .title = "The queue is paused",
                   .text = "Nothing new starts until it is resumed; what runs goes on."});
  }
  std::erase_if(lost_, [&](const auto& one) { return now.wall.ms - one.second.at.ms > kLostFor; });
  for (const auto& [worker, lost] : lost_) {
    const std::string& id = s_.workers->name_of(worker);
    if (id.empty()) continue;
    const std::string shown = called(worker);
    out.push_back({.kind = AlertKind::worker_lost,
                   .subject = id,
                   .subject_name = shown,
                   .title = fmt::format("{} was lost", shown),
                   .text = !lost.said.empty() ? lost.said
                           : lost.requeued == 0
                               ? "It has not been heard of since."
                               : fmt::format("It has not been heard of since; {} it held went to others.",
                                             tasks_word(lost.requeued)),
                   .worker_id = id});
  }
  std::erase_if(failed_, [&](const auto& one) { return now.wall.ms - one.second.at.ms > kFailedFor; });
  for (const auto& [number, job] : failed_) {
    if (job.id.empty()) continue;
    const std::string& shown = job.name.empty() ? job.id : job.name;
    out.push_back({.kind = AlertKind::job_failed,
                   .subject = job.id,
                   .subject_name = shown,
                   .title = fmt::format("{} failed", shown),
                   .text = fmt::format("{} of {} failed.", job.failed, tasks_word(job.total)),
                   .job_id = job.id});
  }
  return out;
}

std::optional<Micros> AlertDesk::waited(JobNo job, Now now) const {
  const auto& idle = s_.overview->idle();
  const auto it = idle.find(job);
  if (it == idle.end()) return std::nullopt;
  const auto before = waits_since_.find(job);
  const Micros here = now.mono - it->second;
  return before == waits_since_.end() ? here : std::max(here, Micros{(now.wall.ms - before->second.ms) * 1000});
}

std::vector<JobNo> AlertDesk::waiting_to_explain(Now now, const core::FarmView& view) {
  const auto& idle = s_.overview->idle();
  const AlertRule rule = state_.rule(AlertKind::job_waits);
  std::erase_if(waits_since_, [&](const auto& one) { return !idle.contains(one.first); });
  std::erase_if(waits_, [&](const auto& one) { return !rule.enabled || !idle.contains(one.first); });
  if (!rule.enabled) return {};
  const auto least = Micros{static_cast<std::int64_t>(rule.threshold * 60e6)};
  std::vector<WaitingJob> waiting;
  for (const auto& [job, since] : idle) {
    const Micros so_far = waited(job, now).value_or(Micros{0});
    if (so_far < least) continue;
    WaitingJob& one = waiting.emplace_back(WaitingJob{.job = job, .waited = so_far});
    const auto it = waits_.find(job);
    if (it == waits_.end()) continue;
    one.known = it->second.at != Instant{};
    one.on_purpose = it->second.on_purpose;
    one.looked = it->second.at;
    one.open = !it->second.subject.empty() && state_.open.contains({AlertKind::job_waits, it->second.subject});
  }
  const std::size_t workers = std::max<std::size_t>(workers_, view.connected_workers);
  return to_explain(std::move(waiting), explains_at_once(workers, view.live_jobs), now.mono);
}

void AlertDesk::look_slowly(Now now, const core::FarmView& view) {
  looking_ = true;
  measure_disk();
  auto slow = std::make_shared<Slow>();
  slow->now = now;
  slow->ask = waiting_to_explain(now, view);
  if (want_names_ && (names_asked_ == Instant{} || now.mono - names_asked_ >= kNamesEvery)) {
    want_names_ = false;
    names_asked_ = now.mono;
    s_.readers->read<std::vector<store::WorkerRow>>([](store::Reader& reader) { return reader.workers(); },
                                                    [this](Result<std::vector<store::WorkerRow>> rows) {
                                                      if (!rows) return;
                                                      for (store::WorkerRow& row : *rows)
                                                        names_[row.worker] = std::move(row.name);
                                                    });
  }
  s_.queue->inspect([this, slow, post = s_.post](const core::Farm& farm, Now at) {
    slow->workers = farm.workers();
    for (const JobNo job : slow->ask) slow->explained.emplace_back(job, farm.explain(job, core::Dependency::kAll, at));
    post([this, slow] { looked(*slow); });
  });
}

void AlertDesk::looked(const Slow& slow) {
  looking_ = false;
  workers_ = slow.workers.size();
  AlertLook look;
  see_machines(look, slow.workers);
  see_services(look);
  see_figures(look, slow.now);
  see_waiting(look, slow);
  slow_ = std::move(look);
}

void AlertDesk::see_waiting(AlertLook& out, const Slow& slow) {
  for (const auto& [job, why] : slow.explained) {
    if (!s_.overview->idle().contains(job)) continue;
    WaitLook& one = waits_[job];
    one.at = slow.now.mono;
    one.on_purpose = !why || waits_on_purpose(*why);
    one.why = one.on_purpose ? "" : name_workers(why->summary, [this](WorkerNo worker) { return called(worker); });
  }
  for (auto& [job, one] : waits_) {
    const auto so_far = waited(job, slow.now);
    if (!so_far || one.on_purpose || one.why.empty()) continue;
    if (one.shown.empty()) {
      const JobMetaPtr meta = s_.jobs->find(job);
      if (meta == nullptr) {
        s_.jobs->with(job, [](const Result<JobMetaPtr>&) {});  // known in the next look
        continue;
      }
      one.subject = meta->id;
      one.shown = meta->name.empty() ? meta->id : meta->name;
    }
    out.push_back({.kind = AlertKind::job_waits,
                   .subject = one.subject,
                   .subject_name = one.shown,
                   .value = static_cast<double>(so_far->count()) / 60e6,
                   .title = fmt::format("{} has waited for {}", one.shown,
                                        span_words(std::chrono::duration_cast<Millis>(*so_far))),
                   .text = one.why,
                   .job_id = one.subject});
  }
}

// Workers of one machine measure the same: one of them speaks for it, as long as it is here.
void AlertDesk::see_machines(AlertLook& out, const std::vector<core::WorkerView>& workers) {
  struct Machine {
    const core::WorkerView* view = nullptr;
    WorkerFigures figures;
  };
  std::map<std::string, std::map<WorkerNo, Machine>> machines;
  for (const core::WorkerView& view : workers) {
    if (view.quarantined) {
      const std::string shown = called(view.worker);
      out.push_back(
          {.kind = AlertKind::worker_quarantined,
           .subject = s_.workers->name_of(view.worker),
           .subject_name = shown,
           .title = fmt::format("{} is in quarantine", shown),
           .text = fmt::format("It failed {} in a row that others could do.", tasks_word(view.failed_in_a_row)),
           .worker_id = s_.workers->name_of(view.worker)});
    }
    const WorkerChannel* channel = view.connected ? s_.workers->find(view.worker) : nullptr;
    if (channel == nullptr) continue;
    WorkerFigures figures = channel->figures();
    if (figures.connected && figures.measured)
      machines[channel->host()].emplace(view.worker, Machine{&view, std::move(figures)});
  }
  std::erase_if(speaks_for_, [&](const auto& one) { return !machines.contains(one.first); });
  for (const auto& [host, here] : machines) {
    WorkerNo& speaker = speaks_for_.try_emplace(host, here.begin()->first).first->second;
    if (!here.contains(speaker)) speaker = here.begin()->first;
    const Machine& machine = here.at(speaker);
    const std::string &id = s_.workers->name_of(speaker), shown = called(speaker);
    const WorkerLoad& load = machine.figures.load;
    std::optional<double> hottest = load.temperature_c;
    for (const GpuLook& gpu : load.gpus) {
      if (gpu.temperature_c && (!hottest || *gpu.temperature_c > *hottest)) hottest = gpu.temperature_c;
    }
    if (hottest) {
      out.push_back({.kind = AlertKind::machine_hot,
                     .subject = id,
                     .subject_name = shown,
                     .value = *hottest,
                     .title = fmt::format("{} is hot", shown),
                     .text = fmt::format("Its hottest sensor is at {:.0f} °C.", *hottest),
                     .worker_id = id});
    }
    // All of it: a figure that is about more than this worker has was cut to it.
    if (const Bytes total = machine.view->capacity.memory; machine.figures.memory_used < total) {
      out.push_back(
          {.kind = AlertKind::machine_memory,
           .subject = id,
           .subject_name = shown,
           .value = 100 * static_cast<double>(machine.figures.memory_used) / static_cast<double>(total),
           .title = fmt::format("{} is nearly out of memory", shown),
           .text = fmt::format("{} of {} are in use.", gib_word(machine.figures.memory_used), gib_word(total)),
           .worker_id = id});
    }
  }
}

void AlertDesk::offered(const std::string& worker_id, const gateway::ServiceList& services) {
  if (were_ready_.size() > kReadyKept) were_ready_.clear();
  for (int i = 0; i < services.size() && i < static_cast<int>(gateway::kServices); ++i) {
    const pb::Service& service = services[i];
    if (service.state() != "down") {
      were_ready_.emplace(worker_id, service.name());
    } else if (service.care() == "stopped") {
      were_ready_.erase({worker_id, service.name()});  // a person wanted that
    }
  }
}

void AlertDesk::see_services(AlertLook& out) {
  for (const auto& [id, place] : s_.gateway->board().places()) {
    const pb::Service& service = place.service;
    if (service.state() != "down" || !were_ready_.contains({place.worker_id, service.name()})) continue;
    const std::string worker = called(place.worker);
    const std::string& why = service.last_error().empty() ? service.note() : service.last_error();
    out.push_back({.kind = AlertKind::service_down,
                   .subject = place.worker_id + "/" + service.name(),
                   .subject_name = fmt::format("{} on {}", service.name(), worker),
                   .title = fmt::format("{} on {} is down", service.name(), worker),
                   .text = why.empty() ? "It does not answer." : cut_utf8(why, kSaid),
                   .worker_id = place.worker_id});
  }
}

void AlertDesk::see_figures(AlertLook& out, Now now) {
  const queue::QueueCounters counters = s_.queue->counters();
  figures_.push_back({now.mono, counters.completed, counters.failed});
  while (now.mono - figures_.front().at > kFiguresKept) figures_.pop_front();
  const std::uint64_t failed = counters.failed - figures_.front().failed;
  const std::uint64_t ended = failed + counters.completed - figures_.front().completed;
  if (ended >= kEndedLeast) {
    const double percent = 100 * static_cast<double>(failed) / static_cast<double>(ended);
    out.push_back(
        {.kind = AlertKind::failure_rate,
         .value = percent,
         .title = fmt::format("{:.0f} % of tasks fail", percent),
         .text = fmt::format("{} of {} that ended in the last 5 minutes failed.", failed, tasks_word(ended))});
  }
  if (const auto p95 = s_.overview->history().waits(kWaitLook).percentile(0.95)) {
    out.push_back({.kind = AlertKind::queue_wait,
                   .value = *p95 / 1000,
                   .title = "Tasks wait long",
                   .text = fmt::format("5 of 100 tasks that started in the last 5 minutes had waited {} or longer.",
                                       span_words(Millis{static_cast<std::int64_t>(*p95)}))});
  }
  if (disk_free_percent_) {
    out.push_back({.kind = AlertKind::disk_low,
                   .value = *disk_free_percent_,
                   .title = "The disk is nearly full",
                   .text = fmt::format("{:.0f} % ({}) are free where the data folder is. Under {} MiB new work is "
                                       "refused.",
                                       *disk_free_percent_, gib_word(disk_free_), store::OpenOptions{}.reserve / MiB)});
  }
}

// A disk that does not answer holds up a thread that may wait.
void AlertDesk::measure_disk() {
  const Instant now = s_.clock.now().mono;
  if (disk_asked_ != Instant{} && now - disk_asked_ < kDiskEvery) return;
  disk_asked_ = now;
  using Space = std::filesystem::space_info;
  s_.files->read<Space>(
      [folder = s_.options.data_dir](store::Reader&) -> Result<Space> {
        std::error_code wrong;
        const Space space = std::filesystem::space(folder, wrong);
        if (wrong) return Error{ErrorClass::io, wrong.message()};
        return space;
      },
      [this](Result<Space> space) {
        if (!space || space->capacity == 0) return;
        disk_free_ = space->available;
        disk_free_percent_ = 100 * static_cast<double>(space->available) / static_cast<double>(space->capacity);
      });
}

}  // namespace grange::server
