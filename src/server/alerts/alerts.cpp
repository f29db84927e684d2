#include "server/alerts/alerts.hpp"

#include <algorithm>
#include <set>

namespace grange::server {
namespace {

bool is_bad(const AlertKindInfo& about, const AlertRule& rule, double value) {
  if (!rule.enabled) return false;
  if (about.unit.empty()) return true;
  return about.below ? value < rule.threshold : value >= rule.threshold;
}

void show(Alert& alert, const Sighting& seen) {
  alert.subject_name = seen.subject_name;
  alert.title = seen.title;
  alert.text = seen.text;
  alert.worker_id = seen.worker_id;
  alert.job_id = seen.job_id;
}

void keep_ended(AlertState& state, Alert alert) {
  state.recent.push_front(std::move(alert));
  if (state.recent.size() > kAlertsRecent) state.recent.pop_back();
}

}  // namespace

const Alert* AlertState::find(std::uint64_t id) const {
  for (const auto& [key, one] : open) {
    if (one.alert.id == id) return &one.alert;
  }
  const auto it = std::find_if(recent.begin(), recent.end(), [&](const Alert& one) { return one.id == id; });
  return it == recent.end() ? nullptr : &*it;
}

WallMs AlertState::silenced_until(const Alert& alert, WallMs now) const {
  WallMs until = silent_kinds[static_cast<std::size_t>(alert.kind)];
  if (const auto it = silent_subjects.find({alert.kind, alert.subject}); it != silent_subjects.end())
    until = std::max(until, it->second);
  return until > now ? until : WallMs{};
}

std::vector<AlertChange> step(AlertState& state, const AlertLook& look, Now now) {
  std::vector<AlertChange> changes;
  std::set<AlertState::Key> seen;
  state.left_out = 0;
  for (const Sighting& one : look) {
    const AlertRule rule = state.rule(one.kind);
    if (!is_bad(info(one.kind), rule, one.value)) continue;
    AlertState::Key key{one.kind, one.subject};
    if (!seen.insert(key).second) continue;
    if (const auto open = state.open.find(key); open != state.open.end()) {
      open->second.gone.reset();
      show(open->second.alert, one);
      continue;
    }
    const Instant since = state.pending.try_emplace(key, now.mono).first->second;
    if (now.mono - since < rule.holds) continue;
    if (state.open.size() >= kAlertsOpen) {
      ++state.left_out;
      continue;
    }
    state.pending.erase(key);
    Alert alert;
    alert.id = ++state.last_id;
    alert.kind = one.kind;
    alert.severity = rule.severity;
    alert.subject = one.subject;
    alert.began = now.wall;
    show(alert, one);
    alert.told = state.silenced_until(alert, now.wall) == WallMs{};
    changes.push_back({AlertChange::What::opened, alert.told, alert});
    state.open.emplace(std::move(key), AlertState::Open{.alert = std::move(alert), .gone = {}});
  }
  std::erase_if(state.pending, [&](const auto& one) { return !seen.contains(one.first); });
  for (auto it = state.open.begin(); it != state.open.end();) {
    auto& [alert, gone] = it->second;
    if (!seen.contains(it->first)) {
      if (!gone) gone = now.mono;
      if (now.mono - *gone >= kAlertGone || !state.rule(alert.kind).enabled) {
        alert.ended = now.wall;
        changes.push_back({AlertChange::What::ended, alert.told, alert});
        keep_ended(state, std::move(alert));
        it = state.open.erase(it);
        continue;
      }
    } else if (!alert.told && state.silenced_until(alert, now.wall) == WallMs{}) {
      alert.told = true;
      changes.push_back({AlertChange::What::changed, true, alert});
    }
    ++it;
  }
  return changes;
}

WallMs silence_of(const AlertState& state, const Alert& alert, bool whole_kind) {
  if (whole_kind) return state.silent_kinds[static_cast<std::size_t>(alert.kind)];
  const auto it = state.silent_subjects.find({alert.kind, alert.subject});
  return it == state.silent_subjects.end() ? WallMs{} : it->second;
}

void set_silence(AlertState& state, const Alert& alert, bool whole_kind, WallMs until) {
  if (whole_kind) {
    state.silent_kinds[static_cast<std::size_t>(alert.kind)] = until;
  } else if (until == WallMs{}) {
    state.silent_subjects.erase({alert.kind, alert.subject});
  } else {
    state.silent_subjects[{alert.kind, alert.subject}] = until;
  }
}

Result<Alert> silence(AlertState& state, std::uint64_t id, Millis length, bool whole_kind, WallMs now) {
  const Alert* alert = state.find(id);
  if (alert == nullptr)
    return Error{ErrorClass::not_found, "There is no alert " + std::to_string(id) + ". List them with: grange alerts"};
  std::erase_if(state.silent_subjects, [&](const auto& one) { return one.second <= now; });
  const WallMs until{length == Millis{0} ? 0 : now.ms + length.count()};
  if (!whole_kind && until != WallMs{} && state.silent_subjects.size() >= kSilences &&
      !state.silent_subjects.contains({alert->kind, alert->subject})) {
    return Error{ErrorClass::conflict,
                 "There are " + std::to_string(kSilences) +
                     " silences already. Silence the whole kind, or turn its rule off with: grange alerts set"};
  }
  set_silence(state, *alert, whole_kind, until);
  return *alert;
}

}  // namespace grange::server
