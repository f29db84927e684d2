// Alerts and their rules as text in the store, and back.
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "server/alerts/alerts.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

namespace json = boost::json;

std::string kept_text(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::optional<std::int64_t> whole_of(const json::value* value) {
  return value != nullptr && value->is_int64() ? std::optional(value->get_int64()) : std::nullopt;
}

}  // namespace

std::string kept_rule(const AlertState& state, AlertKind kind, WallMs now) {
  const AlertChoice& choice = state.choices[static_cast<std::size_t>(kind)];
  json::object out;
  if (choice.enabled) out["enabled"] = *choice.enabled;
  if (choice.threshold) out["threshold"] = *choice.threshold;
  if (choice.holds) out["for_ms"] = choice.holds->count();
  if (choice.severity) out["severity"] = name(*choice.severity);
  if (const WallMs until = state.silent_kinds[static_cast<std::size_t>(kind)]; until > now) out["silent"] = until.ms;
  json::object subjects;
  for (auto it = state.silent_subjects.lower_bound({kind, ""});
       it != state.silent_subjects.end() && it->first.first == kind; ++it) {
    if (it->second > now) subjects[it->first.second] = it->second.ms;
  }
  if (!subjects.empty()) out["silent_subjects"] = std::move(subjects);
  return out.empty() ? "" : json::serialize(out);
}

bool restore_rule(AlertState& state, std::string_view kind_name, std::string_view text) {
  const auto kind = alert_kind(kind_name);
  const auto parsed = wire::parse_json(std::string(text));
  if (!kind || !parsed || !parsed->is_object()) return false;
  const json::object& from = parsed->get_object();
  AlertChoice& choice = state.choices[static_cast<std::size_t>(*kind)];
  if (const json::value* one = from.if_contains("enabled"); one != nullptr && one->is_bool())
    choice.enabled = one->get_bool();
  if (const json::value* one = from.if_contains("threshold"); one != nullptr && one->is_number())
    choice.threshold = one->to_number<double>();
  if (const auto ms = whole_of(from.if_contains("for_ms"))) choice.holds = Millis{*ms};
  choice.severity = severity(kept_text(from, "severity"));
  if (const auto ms = whole_of(from.if_contains("silent"))) state.silent_kinds[static_cast<std::size_t>(*kind)] = {*ms};
  if (const json::value* subjects = from.if_contains("silent_subjects"); subjects != nullptr && subjects->is_object()) {
    for (const auto& [subject, until] : subjects->get_object()) {
      if (const auto ms = whole_of(&until)) state.silent_subjects[{*kind, std::string(subject)}] = {*ms};
    }
  }
  return true;
}

std::string kept_alert(const Alert& alert) {
  return json::serialize(json::object{{"severity", name(alert.severity)},
                                      {"subject_name", alert.subject_name},
                                      {"title", alert.title},
                                      {"text", alert.text},
                                      {"worker_id", alert.worker_id},
                                      {"job_id", alert.job_id},
                                      {"told", alert.told}});
}

bool restore_alert(AlertState& state, std::uint64_t id, std::string_view kind_name, std::string_view subject,
                   std::string_view record, WallMs began, WallMs ended) {
  state.last_id = std::max(state.last_id, id);
  const auto kind = alert_kind(kind_name);
  const auto parsed = wire::parse_json(std::string(record));
  if (!kind || !parsed || !parsed->is_object()) return false;
  const json::object& from = parsed->get_object();
  Alert alert;
  alert.id = id;
  alert.kind = *kind;
  alert.severity = severity(kept_text(from, "severity")).value_or(Severity::warn);
  alert.subject = std::string(subject);
  alert.subject_name = kept_text(from, "subject_name");
  alert.title = kept_text(from, "title");
  alert.text = kept_text(from, "text");
  alert.worker_id = kept_text(from, "worker_id");
  alert.job_id = kept_text(from, "job_id");
  alert.began = began;
  alert.ended = ended;
  const json::value* told = from.if_contains("told");
  alert.told = told != nullptr && told->is_bool() && told->get_bool();
  if (ended == WallMs{}) {
    return state.open.emplace(AlertState::Key{*kind, alert.subject}, AlertState::Open{.alert = alert, .gone = {}})
        .second;
  }
  state.recent.push_front(std::move(alert));
  if (state.recent.size() > kAlertsRecent) state.recent.pop_back();
  return true;
}

}  // namespace grange::server
