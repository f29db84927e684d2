#include "server/alerts/alert_desk.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "server/api/views.hpp"
#include "server/overview/overview.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr Micros kSlowly{5'000'000};
constexpr Micros kWriteAgain{1'000'000};
constexpr std::size_t kLostKept = 1000, kFailedJobs = 1000;

json::value null_or(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}
json::value moment(WallMs at) {
  return at == WallMs{} ? json::value(nullptr) : json::value(at.ms);
}
json::value plain_number(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? json::value(static_cast<std::int64_t>(value))
                                                              : json::value(value);
}

store::AlertRow row_of_alert(const Alert& alert) {
  return {.id = alert.id,
          .kind = std::string(name(alert.kind)),
          .subject = alert.subject,
          .record = kept_alert(alert),
          .began = alert.began,
          .ended = alert.ended};
}

// The first page looks at these itself.
bool on_the_first_page(AlertKind kind) {
  switch (kind) {
    case AlertKind::worker_lost:
    case AlertKind::worker_quarantined:
    case AlertKind::no_workers:
    case AlertKind::job_waits:
    case AlertKind::job_failed:
    case AlertKind::storage_full:
    case AlertKind::farm_paused:
      return true;
    default:
      return false;
  }
}

}  // namespace

AlertDesk::AlertDesk(Services& services, OnStore on_store) : s_(services), on_store_(std::move(on_store)) {
  if (!s_.options.alert_webhook.empty()) webhook_ = std::make_unique<AlertWebhook>(s_.loop, s_.options.alert_webhook);
}

Result<> AlertDesk::load(store::Reader& reader) {
  auto rules = reader.alert_rules();
  if (!rules) return std::move(rules).error();
  for (const store::AlertRuleRow& row : *rules) {
    if (!restore_rule(state_, row.kind, row.rule)) spdlog::warn("the rule of {} alerts was not understood", row.kind);
  }
  auto alerts = reader.alerts();
  if (!alerts) return std::move(alerts).error();
  for (const store::AlertRow& row : *alerts) {
    if (!restore_alert(state_, row.id, row.kind, row.subject, row.record, row.began, row.ended))
      spdlog::warn("alert {} of an earlier time was not understood", row.id);
  }
  std::stable_sort(state_.recent.begin(), state_.recent.end(),
                   [](const Alert& a, const Alert& b) { return a.ended > b.ended; });
  auto workers = reader.workers();
  if (!workers) return std::move(workers).error();
  std::map<std::string, const store::WorkerRow*> by_id;
  for (const store::WorkerRow& row : *workers) {
    names_[row.worker] = row.name;
    if (!row.forgotten) by_id[row.id] = &row;
  }
  const WallMs hour_ago{s_.clock.now().wall.ms - 3'600'000};
  auto failed = reader.jobs({.state = core::JobState::failed, .before = {}, .limit = kFailedJobs});
  if (!failed) return std::move(failed).error();
  for (const store::JobRow& row : *failed) {
    if (row.ended >= hour_ago) failed_[row.job] = {row.ended, row.counts.failed, row.count, row.id, row.name};
  }
  // What only a change would tell, which was before the start.
  for (const auto& [key, open] : state_.open) {
    const auto& [kind, subject] = key;
    const auto worker = by_id.find(subject);
    if (kind == AlertKind::worker_lost && worker != by_id.end()) {
      lost_[worker->second->worker] = {open.alert.began, 0, open.alert.text};
    } else if (kind == AlertKind::service_down) {
      const std::string& id = open.alert.worker_id;
      if (subject.size() > id.size() + 1) were_ready_.emplace(id, subject.substr(id.size() + 1));
    } else if (kind == AlertKind::job_waits) {
      const auto job = read_ref(reader, subject);
      const auto waited = static_cast<std::int64_t>(state_.rule(kind).threshold * 60'000);
      if (!job) continue;
      auto row = reader.job(*job);
      if (!row) return std::move(row).error();
      if (!*row || core::ended((*row)->state) || (*row)->paused) continue;
      waits_since_[*job] = {open.alert.began.ms - waited};
      waits_[*job].subject = subject;
      s_.overview->waits(*job);
    }
  }
  return {};
}

void AlertDesk::learn_name(JobNo job) {
  s_.jobs->with(job, [this, job](Result<JobMetaPtr> meta) {
    const auto it = failed_.find(job);
    if (it == failed_.end()) return;
    if (!meta) {
      failed_.erase(it);  // deleted meanwhile
      return;
    }
    it->second.id = (*meta)->id;
    it->second.name = (*meta)->name;
  });
}

void AlertDesk::deliver(const queue::Delivery& delivery) {
  const WallMs now = s_.clock.now().wall;
  for (const queue::JobChange& change : delivery.jobs) {
    if (change.state != core::JobState::failed) {
      if (!failed_.empty()) failed_.erase(change.job);
      continue;
    }
    const auto [it, fresh] = failed_.try_emplace(change.job, FailedJob{.at = now, .id = "", .name = ""});
    it->second.failed = change.counts.failed;
    it->second.total = change.count;
    if (!fresh && !it->second.id.empty()) continue;
    if (failed_.size() > kFailedJobs) {
      failed_.erase(std::min_element(failed_.begin(), failed_.end(),
                                     [](const auto& a, const auto& b) { return a.second.at < b.second.at; }));
    }
    learn_name(change.job);
  }
  for (const queue::WorkerChange& change : delivery.workers) {
    using Kind = queue::WorkerChangeKind;
    if (change.kind == Kind::lost) {
      if (lost_.size() < kLostKept) lost_[change.worker] = {now, change.requeued};
    } else if (change.kind == Kind::connected || change.kind == Kind::left || change.kind == Kind::forgotten) {
      lost_.erase(change.worker);
      want_names_ = true;  // it may be new, or be called otherwise now
      if (change.kind == Kind::forgotten) names_.erase(change.worker);
    }
  }
}

void AlertDesk::sampled(Now now, const core::FarmView& view) {
  if (s_.stopping) return;
  if (!looking_ && (looked_ == Instant{} || now.mono - looked_ >= kSlowly)) {
    looked_ = now.mono;
    look_slowly(now, view);
  }
  const std::uint64_t left_out = state_.left_out;
  changed(step(state_, fast_look(now, view), now), now);
  if (left_out == 0 && state_.left_out > 0)
    spdlog::warn("{} alerts are open, as many as may be: others are not shown until some of these are over",
                 kAlertsOpen);
}

void AlertDesk::changed(std::vector<AlertChange> changes, Now now) {
  for (const AlertChange& change : changes) {
    const bool ended = change.what == AlertChange::What::ended;
    const json::object shown = alert_json(change.alert);
    if (ended) spdlog::info("alert over: {}", for_log(change.alert.title));
    if (change.what == AlertChange::What::opened) spdlog::warn("alert: {}", for_log(change.alert.title));
    publish(ended ? "alert_ended" : change.what == AlertChange::What::opened ? "alert_opened" : "alert_changed", shown);
    if (change.tell && webhook_ != nullptr) {
      // Chats that take such a call show `text`.
      const std::string text = fmt::format("{}{}: {}", ended ? "Over: " : "", change.alert.title, change.alert.text);
      webhook_->send(
          wire::json_text(json::object{{"event", ended ? "ended" : "opened"}, {"alert", shown}, {"text", text}}));
    }
    dirty_.insert_or_assign(change.alert.id, row_of_alert(change.alert));
  }
  if (!dirty_.empty() && !writing_ && now.mono - tried_ >= kWriteAgain) write();
}

void AlertDesk::write() {
  auto rows = std::make_shared<std::vector<store::AlertRow>>();
  for (auto& [id, row] : dirty_) rows->push_back(std::move(row));
  dirty_.clear();
  writing_ = true;
  tried_ = s_.clock.now().mono;
  on_store_([rows](store::Store& store) { return store.put_alerts({}, *rows, kAlertsRecent); },
            [this, rows](Result<> done) {
              writing_ = false;
              if (done) return;
              spdlog::warn("alerts were not written, and will be: {}", done.error().message);
              tried_ = tried_ + Micros{10'000'000};
              for (store::AlertRow& row : *rows) dirty_.try_emplace(row.id, std::move(row));
            });
}

void AlertDesk::keep_in(store::Store& store) {
  std::vector<store::AlertRow> rows;
  for (auto& [id, row] : dirty_) rows.push_back(std::move(row));
  dirty_.clear();
  if (rows.empty()) return;
  if (auto kept = store.put_alerts({}, rows, kAlertsRecent); !kept)
    spdlog::warn("alerts were not written: {}", kept.error().message);
}

void AlertDesk::publish(std::string_view type, const json::object& data) const {
  s_.events->publish(Topic::alerts, {}, "", type, wire::json_text(data), s_.clock.now().wall);
}

void AlertDesk::choose(AlertKind kind, AlertChoice choice, std::function<void(Result<>)> done) {
  AlertChoice& now = state_.choices[static_cast<std::size_t>(kind)];
  const AlertChoice before = std::exchange(now, without_standard(kind, choice)), chosen = now;
  const store::AlertRuleRow row{std::string(name(kind)), kept_rule(state_, kind, s_.clock.now().wall)};
  on_store_([row](store::Store& store) { return store.put_alerts({row}, {}, kAlertsRecent); },
            [this, kind, before, chosen, done = std::move(done)](Result<> written) {
              AlertChoice& then = state_.choices[static_cast<std::size_t>(kind)];
              if (!written && then == chosen) then = before;
              if (written) publish("alert_rule", rule_json(kind));
              done(std::move(written));
            });
}

void AlertDesk::silence(std::uint64_t id, Millis length, bool whole_kind, std::function<void(Result<Alert>)> done) {
  const WallMs now = s_.clock.now().wall;
  const Alert* about = state_.find(id);
  const WallMs before = about == nullptr ? WallMs{} : silence_of(state_, *about, whole_kind);
  auto found = server::silence(state_, id, length, whole_kind, now);
  if (!found) return done(std::move(found).error());
  const store::AlertRuleRow row{std::string(name(found->kind)), kept_rule(state_, found->kind, now)};
  on_store_([row](store::Store& store) { return store.put_alerts({row}, {}, kAlertsRecent); },
            [this, alert = *found, whole_kind, before, chosen = silence_of(state_, *found, whole_kind),
             done = std::move(done)](Result<> written) {
              if (!written) {
                if (silence_of(state_, alert, whole_kind) == chosen) set_silence(state_, alert, whole_kind, before);
                return done(std::move(written).error());
              }
              for (const auto& [key, open] : state_.open) {
                if (key.first == alert.kind && (whole_kind || key.second == alert.subject))
                  publish("alert_changed", alert_json(open.alert));
              }
              if (whole_kind) publish("alert_rule", rule_json(alert.kind));
              const Alert* latest = state_.find(alert.id);
              done(latest == nullptr ? alert : *latest);
            });
}

std::vector<Attention> AlertDesk::attention() const {
  std::vector<Attention> out;
  const WallMs now = s_.clock.now().wall;
  for (const auto& [key, open] : state_.open) {
    const Alert& alert = open.alert;
    if (on_the_first_page(alert.kind) || state_.silenced_until(alert, now) != WallMs{}) continue;
    out.push_back({std::string(name(alert.kind)), std::string(name(alert.severity)), alert.title, alert.text,
                   alert.job_id, alert.worker_id});
  }
  return out;
}

json::object AlertDesk::alert_json(const Alert& alert) const {
  return {{"id", alert.id},
          {"kind", name(alert.kind)},
          {"severity", name(alert.severity)},
          {"subject", alert.subject},
          {"subject_name", alert.subject_name},
          {"title", alert.title},
          {"text", alert.text},
          {"worker_id", null_or(alert.worker_id)},
          {"job_id", null_or(alert.job_id)},
          {"began_ms", alert.began.ms},
          {"ended_ms", moment(alert.ended)},
          {"silenced_until_ms", moment(state_.silenced_until(alert, s_.clock.now().wall))}};
}

json::object AlertDesk::rule_json(AlertKind kind) const {
  const AlertKindInfo& about = info(kind);
  const AlertRule rule = state_.rule(kind);
  const bool has_threshold = !about.unit.empty();
  const WallMs until = state_.silent_kinds[static_cast<std::size_t>(kind)];
  return {{"kind", about.name},
          {"help", about.help},
          {"unit", has_threshold ? json::value(about.unit) : json::value(nullptr)},
          {"enabled", rule.enabled},
          {"threshold", has_threshold ? plain_number(rule.threshold) : json::value(nullptr)},
          {"for_s", plain_number(static_cast<double>(rule.holds.count()) / 1000)},
          {"severity", name(rule.severity)},
          {"changed", rule != about.standard},
          {"silenced_until_ms", moment(until > s_.clock.now().wall ? until : WallMs{})}};
}

json::object AlertDesk::webhook_json() const {
  return {{"url_host", webhook_ == nullptr ? json::value(nullptr) : json::value(webhook_->host())},
          {"sent", webhook_ == nullptr ? 0 : webhook_->sent()},
          {"failed", webhook_ == nullptr ? 0 : webhook_->failed()},
          {"waiting", webhook_ == nullptr ? 0 : webhook_->waiting()}};
}

std::string AlertDesk::metrics() const {
  std::map<std::pair<std::string_view, std::string_view>, std::size_t> counts;
  for (std::size_t kind = 0; kind < kAlertKinds; ++kind) {
    const auto one = static_cast<AlertKind>(kind);
    counts[{name(one), name(state_.rule(one).severity)}] = 0;
  }
  for (const auto& [key, open] : state_.open) ++counts[{name(open.alert.kind), name(open.alert.severity)}];
  std::string out = "# HELP grange_alerts Alerts that are open.\n# TYPE grange_alerts gauge\n";
  for (const auto& [of, n] : counts)
    out += fmt::format("grange_alerts{{kind=\"{}\",severity=\"{}\"}} {}\n", of.first, of.second, n);
  out += "# HELP grange_alerts_left_out What would be an alert, too, if not so many were open.\n";
  out += fmt::format("# TYPE grange_alerts_left_out gauge\ngrange_alerts_left_out {}\n", state_.left_out);
  out += "# HELP grange_alert_notices_total Calls of the alert webhook, by how they ended.\n";
  out += "# TYPE grange_alert_notices_total counter\n";
  out += fmt::format("grange_alert_notices_total{{result=\"sent\"}} {}\n", webhook_ == nullptr ? 0 : webhook_->sent());
  out +=
      fmt::format("grange_alert_notices_total{{result=\"failed\"}} {}\n", webhook_ == nullptr ? 0 : webhook_->failed());
  return out;
}

}  // namespace grange::server
