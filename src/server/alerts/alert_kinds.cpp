#include "server/alerts/alert_kinds.hpp"

namespace grange::server {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

constexpr AlertRule standard(double threshold, Millis holds, Severity severity, bool enabled = true) {
  return {.enabled = enabled, .threshold = threshold, .holds = holds, .severity = severity};
}

constexpr std::array<AlertKindInfo, kAlertKinds> kInfos{{
    {"worker_lost",
     "A worker went silent and has not come back. It ends when it does, when it is removed, or after a day.", "", 0, 0,
     false, standard(0, seconds{0}, Severity::warn)},
    {"worker_quarantined", "A worker fails what others can do, and gets nothing new for a while.", "", 0, 0, false,
     standard(0, seconds{0}, Severity::warn)},
    {"no_workers", "Work waits and no worker is connected.", "", 0, 0, false,
     standard(0, seconds{30}, Severity::error)},
    {"job_waits", "A job has tasks that have waited so long; nothing of it runs, and nobody wanted it so.", "min", 0,
     100'000, false, standard(10, seconds{0}, Severity::warn)},
    {"job_failed", "A job ended as failed within the last hour. It ends when the job is tried again.", "", 0, 0, false,
     standard(0, seconds{0}, Severity::warn)},
    {"failure_rate", "So many of the tasks that ended in the last 5 minutes failed; looked at from 20 tasks on.", "%",
     0, 100, false, standard(20, seconds{60}, Severity::warn)},
    {"queue_wait", "5 of 100 tasks that started in the last 5 minutes had waited so long, or longer.", "s", 0,
     10'000'000, false, standard(600, minutes{5}, Severity::info, false)},
    {"disk_low", "The disk of the data folder has less than this free.", "%", 0, 100, true,
     standard(10, seconds{60}, Severity::warn)},
    {"machine_hot", "The hottest sensor of a machine, or one of its GPUs, is at this or above.", "°C", 0, 200, false,
     standard(90, seconds{60}, Severity::warn)},
    {"machine_memory", "A machine uses so much of its memory.", "%", 0, 100, false,
     standard(95, minutes{5}, Severity::warn)},
    {"service_down", "A service of a worker that was ready is not any more.", "", 0, 0, false,
     standard(0, seconds{30}, Severity::warn)},
    {"storage_full", "The disk is full, and new work is refused.", "", 0, 0, false,
     standard(0, seconds{0}, Severity::error)},
    {"farm_paused", "The queue is paused, and nothing new starts.", "", 0, 0, false,
     standard(0, minutes{10}, Severity::info)},
}};

}  // namespace

const AlertKindInfo& info(AlertKind kind) {
  return kInfos[static_cast<std::size_t>(kind)];
}

std::string_view name(AlertKind kind) {
  return info(kind).name;
}

std::optional<AlertKind> alert_kind(std::string_view name) {
  for (std::size_t i = 0; i < kAlertKinds; ++i) {
    if (kInfos[i].name == name) return static_cast<AlertKind>(i);
  }
  return std::nullopt;
}

std::string_view name(Severity severity) {
  return severity == Severity::error ? "error" : severity == Severity::warn ? "warn" : "info";
}

std::optional<Severity> severity(std::string_view word) {
  for (const Severity one : {Severity::info, Severity::warn, Severity::error}) {
    if (name(one) == word) return one;
  }
  return std::nullopt;
}

AlertRule rule_of(AlertKind kind, const AlertChoice& choice) {
  AlertRule rule = info(kind).standard;
  if (choice.enabled) rule.enabled = *choice.enabled;
  if (choice.threshold) rule.threshold = *choice.threshold;
  if (choice.holds) rule.holds = *choice.holds;
  if (choice.severity) rule.severity = *choice.severity;
  return rule;
}

AlertChoice without_standard(AlertKind kind, AlertChoice choice) {
  const AlertRule& as_it_comes = info(kind).standard;
  if (choice.enabled == as_it_comes.enabled) choice.enabled.reset();
  if (choice.threshold == as_it_comes.threshold) choice.threshold.reset();
  if (choice.holds == as_it_comes.holds) choice.holds.reset();
  if (choice.severity == as_it_comes.severity) choice.severity.reset();
  return choice;
}

}  // namespace grange::server
