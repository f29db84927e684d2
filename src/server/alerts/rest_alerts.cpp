// Alerts over REST.
#include <fmt/format.h>

#include <cmath>

#include "server/alerts/alert_desk.hpp"
#include "server/api/job_keys.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Millis kLongestHold{7ll * 24 * 3600 * 1000};
constexpr Millis kLongestSilence{366ll * 24 * 3600 * 1000};

Result<AlertKind> kind_in(const RestCallPtr& call) {
  const std::string& asked = call->path["kind"];
  if (const auto kind = alert_kind(asked)) return *kind;
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < kAlertKinds; ++i) names.push_back(name(static_cast<AlertKind>(i)));
  const std::string_view near = nearest(asked, names);
  return Error{ErrorClass::not_found,
               fmt::format("There are no \"{}\" alerts{}.", cut_utf8(is_utf8(asked) ? asked : "?", 64),
                           near.empty() ? "; list the kinds with: grange alerts rules"
                                        : fmt::format("; did you mean {}?", near))};
}

// How long; false: it was not given, or is wrong.
bool span_of(Keys& keys, std::string_view key, Millis most, Millis& out) {
  std::uint64_t ms = 0;
  if (!keys.duration(key, ms)) return false;
  if (ms > static_cast<std::uint64_t>(most.count()))
    return keys.wrong(key, fmt::format("may be {} days at most", most.count() / 86'400'000));
  out = Millis{static_cast<std::int64_t>(ms)};
  return true;
}

}  // namespace

void Rest::get_alerts(RestCallPtr call) {
  std::uint64_t limit = 0;
  if (!call->number("limit", 0, kAlertsRecent, 100, limit)) return;
  const AlertState& state = s_.alerts->state();
  std::vector<const Alert*> open;
  for (const auto& [key, one] : state.open) open.push_back(&one.alert);
  // The worst first, then the newest.
  std::sort(open.begin(), open.end(), [](const Alert* a, const Alert* b) {
    return std::pair(b->severity, b->id) < std::pair(a->severity, a->id);
  });
  json::array open_json, recent_json;
  for (const Alert* one : open) open_json.push_back(s_.alerts->alert_json(*one));
  for (const Alert& one : state.recent) {
    if (recent_json.size() >= limit) break;
    recent_json.push_back(s_.alerts->alert_json(one));
  }
  call->answer(200, json::object{{"open", std::move(open_json)},
                                 {"recent", std::move(recent_json)},
                                 {"webhook", s_.alerts->webhook_json()}});
}

void Rest::get_alert_rules(RestCallPtr call) {
  json::array rules;
  for (std::size_t i = 0; i < kAlertKinds; ++i) rules.push_back(s_.alerts->rule_json(static_cast<AlertKind>(i)));
  call->answer(200, json::object{{"rules", std::move(rules)}});
}

void Rest::put_alert_rule(RestCallPtr call) {
  const auto kind = kind_in(call);
  if (!kind) return call->fail(kind.error());
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  AlertChoice choice = s_.alerts->state().choices[static_cast<std::size_t>(*kind)];
  bool enabled = false;
  if (keys.flag("enabled", enabled)) choice.enabled = enabled;
  if (const json::value* threshold = keys.find("threshold"); threshold != nullptr) {
    const AlertKindInfo& about = info(*kind);
    const double number = threshold->is_number() ? threshold->to_number<double>() : NAN;
    if (about.unit.empty()) {
      keys.wrong("threshold", fmt::format("means nothing for {}: it is so, or it is not", about.name));
    } else if (!(number >= about.least && number <= about.most)) {
      keys.wrong("threshold", fmt::format("must be a number from {} to {} ({})", about.least, about.most, about.unit));
    } else {
      choice.threshold = number;
    }
  }
  Millis holds{};
  if (span_of(keys, "for_s", kLongestHold, holds)) choice.holds = holds;
  std::string word;
  if (keys.text("severity", word)) {
    choice.severity = severity(word);
    if (!choice.severity) keys.wrong("severity", "must be info, warn or error");
  }
  if (auto fine = keys.finish("a rule of alerts"); !fine) return call->fail(fine.error());
  s_.alerts->choose(*kind, choice, [this, call, kind = *kind](Result<> done) {
    if (!done) return call->fail(done.error());
    call->answer(200, s_.alerts->rule_json(kind));
  });
}

void Rest::delete_alert_rule(RestCallPtr call) {
  const auto kind = kind_in(call);
  if (!kind) return call->fail(kind.error());
  s_.alerts->choose(*kind, {}, [this, call, kind = *kind](Result<> done) {
    if (!done) return call->fail(done.error());
    call->answer(200, s_.alerts->rule_json(kind));
  });
}

void Rest::silence_alert(RestCallPtr call) {
  const auto id = to_number(call->path["id"]);
  if (!id)
    return call->fail({ErrorClass::invalid_argument, "An alert's id is a number. List them with: grange alerts"});
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  Millis length{};
  if (!span_of(keys, "for_s", kLongestSilence, length))
    keys.wrong("for_s", "is missing: for how long; 0 takes a silence back");
  std::string scope = "subject";
  if (keys.text("scope", scope) && scope != "subject" && scope != "kind")
    keys.wrong("scope", "must be subject (what this alert is about) or kind (all alerts like it)");
  if (auto fine = keys.finish("a silence"); !fine) return call->fail(fine.error());
  s_.alerts->silence(*id, length, scope == "kind", [this, call](Result<Alert> alert) {
    if (!alert) return call->fail(alert.error());
    call->answer(200, s_.alerts->alert_json(*alert));
  });
}

std::vector<Route> alert_routes() {
  const RouteParam kind{"kind", "string", "The kind, as the rules name it"};
  return {
      {"GET",
       "/api/alerts",
       Action::see_alerts,
       "alerts",
       "Alerts that are open, the worst first, and those that ended, the newest first",
       {{"limit", "integer", "At most so many that ended, up to 1000; 100 when left out"}},
       "",
       "Alerts",
       &Rest::get_alerts},
      {"GET",
       "/api/alerts/rules",
       Action::see_alerts,
       "alerts",
       "The rule of each kind of alert",
       {},
       "",
       "AlertRules",
       &Rest::get_alert_rules},
      {"PUT",
       "/api/alerts/rules/{kind}",
       Action::set_alerts,
       "alerts",
       "Change a rule; what is left out stays",
       {kind},
       "AlertRuleChange",
       "AlertRule",
       &Rest::put_alert_rule},
      {"DELETE",
       "/api/alerts/rules/{kind}",
       Action::set_alerts,
       "alerts",
       "Back to the rule as it comes",
       {kind},
       "",
       "AlertRule",
       &Rest::delete_alert_rule},
      {"POST",
       "/api/alerts/{id}/silence",
       Action::set_alerts,
       "alerts",
       "Notify nobody of what this alert is about, for a time",
       {{"id", "integer", "The alert's id"}},
       "Silence",
       "Alert",
       &Rest::silence_alert},
  };
}

}  // namespace grange::server
