#include "cli/top_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "cli/term.hpp"

namespace grange::cli::top {
namespace {

enum JobColumn {
  jc_id,
  jc_name,
  jc_state,
  jc_done,
  jc_failed,
  jc_running,
  jc_waiting,
  jc_left,
  jc_took,
  jc_age,
  jc_user,
  jc_priority
};
enum WorkerColumn {
  wc_name,
  wc_state,
  wc_running,
  wc_cpu,
  wc_memory,
  wc_gpu,
  wc_done,
  wc_failed,
  wc_seen,
  wc_host,
  wc_pool,
  wc_id
};

std::string percent(const std::optional<double>& value) {
  return value ? fmt::format("{:.0f}%", *value) : "-";
}

double took(const Job& job, Clock now) {
  if (job.started_ms < 0) return -1;
  return static_cast<double>(
             std::max<std::int64_t>(0, (job.ended_ms < 0 ? now.wall_ms : job.ended_ms) - job.started_ms)) /
         1000;
}

std::string since(std::int64_t then_ms, Clock now) {
  if (then_ms < 0) return "-";
  return short_time(static_cast<double>(std::max<std::int64_t>(0, now.wall_ms - then_ms)) / 1000);
}

int order_of(const std::string& status) {
  static constexpr const char* kOrder[] = {"running", "paused", "pending",  "failed",      "cancelled",   "completed",
                                           "busy",    "online", "draining", "quarantined", "reconnecting"};
  const auto* it = std::find(std::begin(kOrder), std::end(kOrder), status);
  return static_cast<int>(it - std::begin(kOrder));
}

double share(const Job& job) {
  return job.total == 0 ? 0 : static_cast<double>(job.done()) / static_cast<double>(job.total);
}

}  // namespace

const std::vector<Column>& job_columns() {
  static const std::vector<Column> columns = {{"JOB", 0, true},     {"NAME", 0},         {"STATE", 0},
                                              {"DONE", 1, true},    {"FAILED", 3, true}, {"RUNNING", 4, true},
                                              {"WAITING", 5, true}, {"LEFT", 2, true},   {"TOOK", 7, true},
                                              {"AGE", 6, true},     {"USER", 8},         {"PRIO", 9, true}};
  return columns;
}

const std::vector<Column>& worker_columns() {
  static const std::vector<Column> columns = {{"WORKER", 0},     {"STATE", 0},        {"RUNNING", 1, true},
                                              {"CPU", 2, true},  {"MEMORY", 3, true}, {"GPU", 6, true},
                                              {"DONE", 4, true}, {"FAILED", 5, true}, {"SEEN", 7, true},
                                              {"HOST", 8},       {"POOL", 9},         {"ID", 10}};
  return columns;
}

Tone tone_of(const std::string& status) {
  if (status == "completed" || status == "online") return Tone::good;
  if (status == "failed" || status == "quarantined") return Tone::bad;
  if (status == "running" || status == "busy" || status == "assigned") return Tone::busy;
  if (status == "paused" || status == "cancelled" || status == "draining" || status == "reconnecting")
    return Tone::warn;
  return Tone::none;
}

std::string short_count(double n) {
  if (n < 99'999.5) return human_count(static_cast<std::uint64_t>(std::llround(std::max(0.0, n))));
  if (n < 999'500) return fmt::format("{:.0f}k", n / 1000);
  return n < 9.95e6 ? fmt::format("{:.1f}M", n / 1e6) : fmt::format("{:.0f}M", n / 1e6);
}

std::string short_bytes(double used, double total) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  for (; total >= 1024 && unit < 5; ++unit) {
    used /= 1024;
    total /= 1024;
  }
  return fmt::format("{:.{}f}/{:.{}f} {}", used, used < 10 ? 1 : 0, total, total < 10 ? 1 : 0, kUnits[unit]);
}

std::string short_time(double seconds) {
  const std::int64_t s = std::llround(std::max(0.0, seconds));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

Text job_cell(const State& state, const Job& job, int column, Clock now) {
  const auto count = [](std::int64_t n, Tone tone) {
    return Text{short_count(static_cast<double>(n)), n > 0 ? Style{tone} : Style{.dim = true}};
  };
  switch (column) {
    case jc_id:
      return {job.id, {}};
    case jc_name:
      return {job.name.empty() ? "-" : job.name, {}};
    case jc_state:
      return {job.status, {tone_of(job.status)}};
    case jc_done:
      return {fmt::format("{}/{}", short_count(static_cast<double>(job.done())),
                          short_count(static_cast<double>(job.total))),
              {}};
    case jc_failed:
      return count(job.failed, Tone::bad);
    case jc_running:
      return count(job.running, Tone::busy);
    case jc_waiting:
      return count(job.waiting(), Tone::none);
    case jc_left: {
      const auto left = left_of(state, job, now);
      return {left ? short_time(*left) : "-", {}};
    }
    case jc_took: {
      const double seconds = took(job, now);
      return {seconds < 0 ? "-" : short_time(seconds), {}};
    }
    case jc_age:
      return {since(job.created_ms, now), {}};
    case jc_user:
      return {job.user, {}};
    default:
      return {std::to_string(job.priority), {}};
  }
}

Text worker_cell(const State&, const Worker& worker, int column, Clock now) {
  const auto count = [](std::int64_t n, Tone tone) {
    return Text{short_count(static_cast<double>(n)), n > 0 ? Style{tone} : Style{.dim = true}};
  };
  switch (column) {
    case wc_name:
      return {worker.name.empty() ? worker.id : worker.name, {}};
    case wc_state:
      return {worker.status, {tone_of(worker.status)}};
    case wc_running:
      return {fmt::format("{}/{}", worker.running, worker.slots), {}};
    case wc_cpu:
      return {percent(worker.cpu_percent), {}};
    case wc_memory:
      return {worker.memory_used
                  ? short_bytes(static_cast<double>(*worker.memory_used), static_cast<double>(worker.memory))
                  : "-",
              {}};
    case wc_gpu:
      return {percent(worker.gpu_percent), {}};
    case wc_done:
      return count(worker.completed, Tone::none);
    case wc_failed:
      return count(worker.failed, Tone::bad);
    case wc_seen:
      return {since(worker.seen_ms, now), {}};
    case wc_host:
      return {worker.host, {}};
    case wc_pool:
      return {worker.pool, {}};
    default:
      return {worker.id, {}};
  }
}

bool job_before(const State& state, const Job& a, const Job& b, int column, Clock now) {
  const auto tie = [&](const auto& x, const auto& y) { return std::tie(x, b.number) < std::tie(y, a.number); };
  switch (column) {
    case jc_id:
      return a.number > b.number;
    case jc_name:
      return tie(a.name, b.name);
    case jc_state:
      return tie(order_of(a.status), order_of(b.status));
    case jc_done:
      return tie(share(b), share(a));
    case jc_failed:
      return tie(b.failed, a.failed);
    case jc_running:
      return tie(b.running, a.running);
    case jc_waiting:
      return tie(b.waiting(), a.waiting());
    case jc_left: {
      const double never = 1e18;
      return tie(left_of(state, a, now).value_or(never), left_of(state, b, now).value_or(never));
    }
    case jc_took:
      return tie(took(b, now), took(a, now));
    case jc_age:
      return tie(b.created_ms, a.created_ms);
    case jc_user:
      return tie(a.user, b.user);
    case jc_priority:
      return tie(b.priority, a.priority);
    default: {  // what runs, what waits, what has ended; the newest of each first
      const auto rank = [](const Job& job) { return job.ended() ? 2 : job.status == "running" ? 0 : 1; };
      return tie(rank(a), rank(b));
    }
  }
}

bool worker_before(const Worker& a, const Worker& b, int column) {
  const auto tie = [&](const auto& x, const auto& y) { return std::tie(x, a.name, a.id) < std::tie(y, b.name, b.id); };
  switch (column) {
    case wc_state:
      return tie(order_of(a.status), order_of(b.status));
    case wc_running:
      return tie(b.running, a.running);
    case wc_cpu:
      return tie(b.cpu_percent.value_or(-1), a.cpu_percent.value_or(-1));
    case wc_memory:
      return tie(b.memory_used.value_or(-1), a.memory_used.value_or(-1));
    case wc_gpu:
      return tie(b.gpu_percent.value_or(-1), a.gpu_percent.value_or(-1));
    case wc_done:
      return tie(b.completed, a.completed);
    case wc_failed:
      return tie(b.failed, a.failed);
    case wc_seen:
      return tie(b.seen_ms, a.seen_ms);
    case wc_host:
      return tie(a.host, b.host);
    case wc_pool:
      return tie(a.pool, b.pool);
    case wc_id:
      return a.id < b.id;
    case wc_name:
      return std::tie(a.name, a.id) < std::tie(b.name, b.id);
    default: {  // those that are gone come last
      const bool x = a.status == "offline", y = b.status == "offline";
      return tie(x, y);
    }
  }
}

}  // namespace grange::cli::top
