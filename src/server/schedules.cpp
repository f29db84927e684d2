#include "server/schedules.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/limits.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::int64_t kLate = 60'000;          // ms; a run that is later than this was missed
constexpr std::int64_t kSubmitAgain = 10'000;   // ms; after a submit that failed for now
constexpr std::int64_t kLongestSleep = 60'000;  // ms; the wall clock may be set, so it is looked at so often
constexpr int kCounted = 100'000;               // of missed runs

bool for_now(ErrorClass c) {
  switch (c) {
    case ErrorClass::rate_limited:
    case ErrorClass::unavailable:
    case ErrorClass::storage_full:
    case ErrorClass::timeout:
    case ErrorClass::io:
      return true;
    default:
      return false;
  }
}

Error no_such(const std::string& name) {
  return Error{ErrorClass::not_found,
               "There is no schedule \"" + cut_utf8(name, limits::kNameBytes) + "\". List them with: grange schedules"};
}

}  // namespace

void Schedules::load(std::vector<Row> rows) {
  for (Row& row : rows) {
    auto cron = core::Cron::parse(row.cron);
    if (!cron) {
      spdlog::error("schedule {}: {}", for_log(row.name), cron.error().message);
      continue;
    }
    std::string name = row.name;
    schedules_.insert_or_assign(
        std::move(name),
        Schedule{.row = std::move(row), .cron = *cron, .generation = ++generations_, .busy = false, .retry_at = {}});
  }
}

Schedules::Schedule* Schedules::current(const std::string& name, std::uint64_t generation) {
  const auto it = schedules_.find(name);
  return it == schedules_.end() || it->second.generation != generation ? nullptr : &it->second;
}

void Schedules::look() {
  const WallMs now = ports_.now();
  std::vector<std::pair<std::string, std::uint64_t>> ready;
  for (auto& [name, schedule] : schedules_) {
    Row& row = schedule.row;
    if (row.paused || schedule.busy) continue;
    // Was the clock set back, then what it showed before means nothing; unless that is a mere correction.
    const bool corrected = row.last > now && row.last.ms - now.ms <= kLate;
    row.next = std::min(row.next, schedule.cron.next_after(corrected ? row.last : now));
    if (schedule.retry_at.ms - now.ms > kSubmitAgain) schedule.retry_at = {};
    if (row.next <= now && schedule.retry_at <= now) ready.emplace_back(name, schedule.generation);
  }
  for (const auto& [name, generation] : ready) {
    if (Schedule* schedule = current(name, generation); schedule != nullptr && !schedule->busy) due(*schedule, now);
  }
  arm();
}

void Schedules::due(Schedule& schedule, WallMs now) {
  Row& row = schedule.row;
  if (now.ms - row.next.ms > kLate && !row.catch_up) {
    const WallMs from{now.ms - kLate};
    int missed = 0;
    for (WallMs t = row.next; t <= from && missed < kCounted; t = schedule.cron.next_after(t)) ++missed;
    row.left_out += static_cast<std::uint64_t>(missed);
    row.next = schedule.cron.next_after(from);
    save(row);
    ports_.tell("schedule_left_out", row);
    if (row.next > now) return;
  }
  schedule.busy = true;
  if (row.overlap || row.last_job.empty()) return submit(schedule);
  ports_.has_ended(row.last_job, [this, name = row.name, generation = schedule.generation](bool ended) {
    Schedule* then = current(name, generation);
    if (then == nullptr) return;
    if (ended) return submit(*then);
    then->busy = false;
    leave_out(*then, ports_.now());
    save(then->row);
    ports_.tell("schedule_left_out", then->row);
    arm();
  });
}

void Schedules::submit(Schedule& schedule) {
  const WallMs time = schedule.row.next;
  const std::string name = schedule.row.name;
  ports_.submit(schedule.row, fmt::format("schedule:{}:{}", name, time.ms),
                [this, name, generation = schedule.generation, time](Result<SchedulePorts::Submitted> answer) {
                  if (Schedule* then = current(name, generation)) submitted(*then, time, std::move(answer));
                });
}

void Schedules::submitted(Schedule& schedule, WallMs time, Result<SchedulePorts::Submitted> answer) {
  const WallMs now = ports_.now();
  Row& row = schedule.row;
  schedule.busy = false;
  schedule.retry_at = {};
  const auto go_on = [&] { row.next = schedule.cron.next_after(now.ms - time.ms > kLate ? now : time); };
  if (answer) {
    if (!answer->existed || row.last != time) ++row.runs;
    row.last = time;
    row.last_job = answer->job_id;
    row.last_error.clear();
    go_on();
    save(row);
    ports_.tell("schedule_ran", row);
    return arm();
  }
  const bool news = row.last_error != answer.error().message;
  row.last_error = answer.error().message;
  if (for_now(answer.error().cls) && schedule.cron.next_after(time) > now) {
    schedule.retry_at = WallMs{now.ms + kSubmitAgain};
    if (news) save(row);
  } else {
    ++row.left_out;
    go_on();
    save(row);
  }
  if (news) {
    spdlog::warn("schedule {}: {}", for_log(row.name), for_log(row.last_error));
    ports_.tell("schedule_failed", row);
  }
  arm();
}

void Schedules::leave_out(Schedule& schedule, WallMs now) {
  ++schedule.row.left_out;
  schedule.row.next = schedule.cron.next_after(now);
}

void Schedules::save(const Row& row) {
  ports_.save(row, [name = row.name](Result<> saved) {
    // What is in memory is right; should we crash, the run's key tells that it was made.
    if (!saved) spdlog::warn("schedule {}: {}", for_log(name), saved.error().message);
  });
}

void Schedules::arm() {
  const WallMs now = ports_.now();
  std::int64_t soonest = kLongestSleep;
  bool any = false;
  for (const auto& [name, schedule] : schedules_) {
    if (schedule.row.paused || schedule.busy) continue;
    any = true;
    soonest = std::min(soonest, std::max(schedule.row.next.ms, schedule.retry_at.ms) - now.ms);
  }
  if (any) ports_.wake(Millis{std::max<std::int64_t>(1, soonest)});
}

std::vector<store::ScheduleRow> Schedules::list() const {
  std::vector<Row> out;
  for (const auto& [name, schedule] : schedules_) out.push_back(schedule.row);
  return out;
}

Result<store::ScheduleRow> Schedules::find(const std::string& name) const {
  const auto it = schedules_.find(name);
  if (it == schedules_.end()) return no_such(name);
  return it->second.row;
}

void Schedules::put(Row row, std::function<void(Result<Row>)> done) {
  auto cron = core::Cron::parse(row.cron);
  if (!cron) return done(std::move(cron).error());
  const auto it = schedules_.find(row.name);
  if (it == schedules_.end() && schedules_.size() >= limits::kSchedules)
    return done(Error{ErrorClass::rate_limited, fmt::format("This server takes {} schedules.", limits::kSchedules)});
  if (it != schedules_.end()) {
    const Row& old = it->second.row;
    row.last = old.last;
    row.last_job = old.last_job;
    row.runs = old.runs;
    row.left_out = old.left_out;
  }
  row.last_error.clear();
  row.next = cron->next_after(ports_.now());
  // On disk first: what was answered is there after a crash.
  ports_.save(row, [this, row, cron = *cron, done = std::move(done)](Result<> saved) {
    if (!saved) return done(std::move(saved).error());
    Schedule& schedule =
        schedules_
            .insert_or_assign(
                row.name,
                Schedule{.row = row, .cron = cron, .generation = ++generations_, .busy = false, .retry_at = {}})
            .first->second;
    done(schedule.row);
    ports_.tell("schedule_set", row);
    look();
  });
}

void Schedules::drop(const std::string& name, std::function<void(Result<>)> done) {
  if (!schedules_.contains(name)) return done(no_such(name));
  ports_.drop(name, [this, name, done = std::move(done)](Result<> dropped) {
    if (!dropped) return done(std::move(dropped));
    if (const auto it = schedules_.find(name); it != schedules_.end()) {
      const Row row = it->second.row;
      schedules_.erase(it);
      ports_.tell("schedule_removed", row);
    }
    done({});
  });
}

void Schedules::set_paused(const std::string& name, bool paused, std::function<void(Result<Row>)> done) {
  const auto it = schedules_.find(name);
  if (it == schedules_.end()) return done(no_such(name));
  Row row = it->second.row;
  row.paused = paused;
  if (!paused) row.next = it->second.cron.next_after(ports_.now());
  ports_.save(row, [this, name, generation = it->second.generation, paused, next = row.next,
                    done = std::move(done)](Result<> saved) {
    if (!saved) return done(std::move(saved).error());
    Schedule* schedule = current(name, generation);
    if (schedule == nullptr) return done(no_such(name));
    schedule->row.paused = paused;
    if (!paused && !schedule->busy) schedule->row.next = next;
    done(schedule->row);
    ports_.tell(paused ? "schedule_paused" : "schedule_resumed", schedule->row);
    look();
  });
}

void Schedules::run(const std::string& name, std::function<void(Result<SchedulePorts::Submitted>)> done) {
  const auto it = schedules_.find(name);
  if (it == schedules_.end()) return done(no_such(name));
  const WallMs now = ports_.now();
  ports_.submit(it->second.row, fmt::format("schedule:{}:by-hand:{}", name, now.ms),
                [this, name, now, generation = it->second.generation,
                 done = std::move(done)](Result<SchedulePorts::Submitted> answer) {
                  Schedule* schedule = current(name, generation);
                  if (schedule != nullptr) {
                    Row& row = schedule->row;
                    if (answer) {
                      ++row.runs;
                      row.last = std::max(row.last, now);
                      row.last_job = answer->job_id;
                      row.last_error.clear();
                    } else {
                      row.last_error = answer.error().message;
                    }
                    save(row);
                    ports_.tell(answer ? "schedule_ran" : "schedule_failed", row);
                  }
                  done(std::move(answer));
                });
}

}  // namespace grange::server
