// When an alert opens, ends, and is told. Pure: what is seen now and the time in, what changed out.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "server/alerts/alert_kinds.hpp"

namespace grange::server {

inline constexpr Millis kAlertGone{30'000};         // it must be gone so long before it ends
inline constexpr std::size_t kAlertsOpen = 1000;    // at once
inline constexpr std::size_t kAlertsRecent = 1000;  // that ended, and are kept
inline constexpr std::size_t kSilences = 1000;      // of subjects

// One thing that is so now: `value` against the rule's threshold decides whether that is bad.
struct Sighting {
  AlertKind kind{};
  std::string subject = {};  // a worker's id, a job's, WORKER/SERVICE, or "" for the farm
  std::string subject_name = {};
  double value = 0;
  std::string title = {}, text = {};
  std::string worker_id = {}, job_id = {};  // "": about none
};
using AlertLook = std::vector<Sighting>;

struct Alert {
  std::uint64_t id = 0;
  AlertKind kind{};
  Severity severity{};
  std::string subject, subject_name, title, text, worker_id, job_id;
  WallMs began{};
  WallMs ended{};     // 0: it is open
  bool told = false;  // that it opened; one that opens while it is silenced is told when the silence is over
};

struct AlertChange {
  enum class What { opened, ended, changed };
  What what{};
  bool tell = false;  // to who wants to be notified: that it opened, or (ended) that it is over
  Alert alert;
};

struct AlertState {
  using Key = std::pair<AlertKind, std::string>;  // kind and subject
  struct Open {
    Alert alert;
    std::optional<Instant> gone;  // not seen since
  };
  std::array<AlertChoice, kAlertKinds> choices;
  std::array<WallMs, kAlertKinds> silent_kinds{};  // until then
  std::map<Key, WallMs> silent_subjects;
  std::map<Key, Open> open;
  std::map<Key, Instant> pending;  // seen since, not long enough yet
  std::deque<Alert> recent;        // ended, the newest first
  std::uint64_t last_id = 0;
  std::uint64_t left_out = 0;  // that would be open now, too, beyond kAlertsOpen

  AlertRule rule(AlertKind kind) const { return rule_of(kind, choices[static_cast<std::size_t>(kind)]); }
  const Alert* find(std::uint64_t id) const;
  // 0: it is not silenced.
  WallMs silenced_until(const Alert& alert, WallMs now) const;
};

std::vector<AlertChange> step(AlertState& state, const AlertLook& look, Now now);

// Of the subject of an alert, or of all of its kind; a length of 0 takes it back. Answers the alert.
Result<Alert> silence(AlertState& state, std::uint64_t id, Millis length, bool whole_kind, WallMs now);

// The silence of its subject, or of its kind, alone; 0: none.
WallMs silence_of(const AlertState& state, const Alert& alert, bool whole_kind);
void set_silence(AlertState& state, const Alert& alert, bool whole_kind, WallMs until);

// What is kept of a kind as JSON: its rule and its silences; "" when there is nothing to keep.
std::string kept_rule(const AlertState& state, AlertKind kind, WallMs now);
bool restore_rule(AlertState& state, std::string_view kind, std::string_view text);
std::string kept_alert(const Alert& alert);
// In the order of their ids. False: not understood, and left out.
bool restore_alert(AlertState& state, std::uint64_t id, std::string_view kind, std::string_view subject,
                   std::string_view record, WallMs began, WallMs ended);

}  // namespace grange::server
