// What alerts there are, and the rule of each: from when on, for how long, how bad.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/units.hpp"

namespace grange::server {

enum class AlertKind : std::uint8_t {
  worker_lost,
  worker_quarantined,
  no_workers,
  job_waits,
  job_failed,
  failure_rate,
  queue_wait,
  disk_low,
  machine_hot,
  machine_memory,
  service_down,
  storage_full,
  farm_paused,
};
inline constexpr std::size_t kAlertKinds = 13;
std::string_view name(AlertKind kind);
std::optional<AlertKind> alert_kind(std::string_view name);

enum class Severity : std::uint8_t { info, warn, error };
std::string_view name(Severity severity);
std::optional<Severity> severity(std::string_view name);

struct AlertRule {
  bool enabled = true;
  double threshold = 0;  // of kinds that have one
  Millis holds{};        // it must hold so long before an alert opens
  Severity severity = Severity::warn;
  friend bool operator==(const AlertRule&, const AlertRule&) = default;
};

// What a person set; what is not set is as it comes, also when a later version comes with something else.
struct AlertChoice {
  std::optional<bool> enabled = {};
  std::optional<double> threshold = {};
  std::optional<Millis> holds = {};
  std::optional<Severity> severity = {};
  friend bool operator==(const AlertChoice&, const AlertChoice&) = default;
};

struct AlertKindInfo {
  std::string_view name, help;
  std::string_view unit;  // of the threshold; "": it has none
  double least = 0, most = 0;
  bool below = false;  // it holds under the threshold, not from it on
  AlertRule standard;
};
const AlertKindInfo& info(AlertKind kind);

AlertRule rule_of(AlertKind kind, const AlertChoice& choice);
AlertChoice without_standard(AlertKind kind, AlertChoice choice);  // what is chosen as it comes is no choice

}  // namespace grange::server
