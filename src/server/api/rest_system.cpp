#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "core/farm.hpp"
#include "server/alerts/alert_desk.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    out.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return out;
}

}  // namespace

json::object stats_json(const Services& s, const store::Totals& t, const core::FarmView& view,
                        const std::string& policy, std::uint64_t next_event) {
  return {{"total_jobs", t.jobs},
          {"completed_jobs", t.jobs_completed},
          {"pending_jobs", t.jobs_pending + t.jobs_running},
          {"connected_workers", view.connected_workers},
          {"active_tasks", view.active_tasks},
          {"total_tasks_completed", t.tasks_completed},
          {"running_jobs", t.jobs_running},
          {"failed_jobs", t.jobs_failed},
          {"cancelled_jobs", t.jobs_cancelled},
          {"queued_tasks", view.queued_tasks},
          {"running_tasks", view.running_tasks},
          {"blocked_tasks", view.blocked_tasks},
          {"paused", view.paused},
          {"total_tasks_failed", t.tasks_failed},
          {"slots", view.slots},
          {"version", kVersion},
          {"uptime_seconds", static_cast<double>((s.clock.now().mono - s.started).count()) / 1e6},
          {"started_at", time_json(s.started_at)},
          {"policy", policy},
          {"storage_full", s.queue->counters().storage_full},
          {"next_event", next_event}};
}

void Rest::get_stats(RestCallPtr call) {
  const std::uint64_t next = s_.events->next();  // before what is read: who follows from here misses nothing
  s_.readers->read<store::Totals>(
      [](store::Reader& reader) { return reader.totals(); },
      [this, call, next](Result<store::Totals> totals) {
        if (!totals) return call->fail(totals.error());
        s_.queue->inspect([this, call, next, t = *totals, post = s_.post](const core::Farm& farm, Now) {
          post([this, call, next, t, view = farm.view(), policy = std::string(farm.policy())] {
            call->answer(200, stats_json(s_, t, view, policy, next));
          });
        });
      });
}

void Rest::get_health(RestCallPtr call) {
  call->answer(200, json::object{{"status", s_.stopping ? "stopping" : "ok"}, {"version", kVersion}});
}

void Rest::get_ready(RestCallPtr call) {
  const bool full = !s_.queue->room_for(0).ok();
  const bool ready = !s_.stopping && !full;
  call->answer(ready ? 200 : 503, json::object{{"status", ready  ? "ready"
                                                          : full ? "storage_full"
                                                                 : "stopping"},
                                               {"version", kVersion}});
}

void Rest::get_metrics(RestCallPtr call) {
  s_.readers->read<store::Totals>(
      [](store::Reader& reader) { return reader.totals(); },
      [this, call](Result<store::Totals> totals) {
        if (!totals) return call->fail(totals.error());
        s_.queue->inspect([this, call, t = *totals, post = s_.post](const core::Farm& farm, Now) {
          post([this, call, t, view = farm.view()] {
            const queue::QueueCounters q = s_.queue->counters();
            std::string text;
            const auto metric = [&text](std::string_view name, std::string_view kind, std::string_view help,
                                        auto value) {
              text += fmt::format("# HELP {} {}\n# TYPE {} {}\n{} {}\n", name, help, name, kind, name, value);
            };
            text += "# HELP grange_jobs Jobs in the store, by state.\n# TYPE grange_jobs gauge\n";
            for (const auto& [state, n] :
                 std::initializer_list<std::pair<std::string_view, std::uint64_t>>{{"pending", t.jobs_pending},
                                                                                   {"running", t.jobs_running},
                                                                                   {"completed", t.jobs_completed},
                                                                                   {"failed", t.jobs_failed},
                                                                                   {"cancelled", t.jobs_cancelled}}) {
              text += fmt::format("grange_jobs{{state=\"{}\"}} {}\n", state, n);
            }
            text +=
                "# HELP grange_tasks_ended_total Tasks that ended, by how.\n# TYPE grange_tasks_ended_total counter\n";
            for (const auto& [end, n] : std::initializer_list<std::pair<std::string_view, std::uint64_t>>{
                     {"completed", t.tasks_completed}, {"failed", t.tasks_failed}, {"cancelled", t.tasks_cancelled}}) {
              text += fmt::format("grange_tasks_ended_total{{end=\"{}\"}} {}\n", end, n);
            }
            metric("grange_tasks_submitted_total", "counter", "Tasks that were ever accepted.", t.tasks_submitted);
            metric("grange_tasks_queued", "gauge", "Tasks that no worker holds.", view.queued_tasks);
            metric("grange_tasks_active", "gauge", "Tasks that workers hold.", view.active_tasks);
            metric("grange_tasks_blocked", "gauge", "Tasks that wait for other tasks or jobs.", view.blocked_tasks);
            metric("grange_queue_paused", "gauge", "1 while nothing new is started.", view.paused ? 1 : 0);
            metric("grange_tasks_running", "gauge", "Tasks that run.", view.running_tasks);
            metric("grange_workers_connected", "gauge", "Workers that are connected.", view.connected_workers);
            metric("grange_slots", "gauge", "Executors of connected workers.", view.slots);
            metric("grange_tasks_assigned_total", "counter", "Assignments since the server's start.", q.assigned);
            metric("grange_commits_total", "counter", "Transactions since the server's start.", q.commits);
            metric("grange_commit_seconds_total", "counter", "Time in transactions since the server's start.",
                   static_cast<double>(q.commit_us) / 1e6);
            metric("grange_storage_full", "gauge", "1 while new work is refused for lack of disk space.",
                   q.storage_full ? 1 : 0);
            metric("grange_client_sessions", "gauge", "Sessions of clients.", clients_.size());
            metric("grange_event_followers", "gauge", "Followers of events.", s_.events->followers());
            metric("grange_uptime_seconds", "gauge", "Since the server's start.",
                   static_cast<double>((s_.clock.now().mono - s_.started).count()) / 1e6);
            text += s_.alerts->metrics();
            call->answer_text(200, "text/plain; version=0.0.4; charset=utf-8", std::move(text));
          });
        });
      });
}

void Rest::get_database(RestCallPtr call) {
  s_.files->read<store::DbInfo>([](store::Reader& reader) { return reader.info(); },
                                [call](Result<store::DbInfo> info) {
                                  if (!info) return call->fail(info.error());
                                  json::object rows;
                                  for (const auto& [table, n] : info->rows) rows[table] = n;
                                  call->answer(200, json::object{{"path", info->path},
                                                                 {"schema_version", info->schema_version},
                                                                 {"db_bytes", info->db_bytes},
                                                                 {"wal_bytes", info->wal_bytes},
                                                                 {"log_bytes", info->log_bytes},
                                                                 {"blobs", info->blobs},
                                                                 {"blob_bytes", info->blob_bytes},
                                                                 {"disk_free_bytes", info->disk_free_bytes},
                                                                 {"rows", std::move(rows)}});
                                });
}

void Rest::clear_database(RestCallPtr call) {
  if (call->query("confirm") != "yes") {
    return call->fail({ErrorClass::invalid_argument,
                       "This deletes all jobs, results and logs. If you mean it: DELETE /api/db?confirm=yes"});
  }
  operations_.clear_database(call->who, [this, call](Result<> done) {
    if (!done) return call->fail(done.error());
    s_.runs->forget_all();
    s_.alerts->forget_jobs();
    call->answer(200, json::object{{"ok", true}});
  });
}

void Rest::get_policy(RestCallPtr call) {
  s_.queue->inspect([call, post = s_.post](const core::Farm& farm, Now) {
    post([call, policy = std::string(farm.policy())] {
      json::array names;
      for (const std::string_view one : core::policy_names()) names.emplace_back(one);
      call->answer(200, json::object{{"policy", policy}, {"policies", std::move(names)}});
    });
  });
}

void Rest::get_policies(RestCallPtr call) {
  s_.queue->inspect([call, post = s_.post](const core::Farm& farm, Now now) {
    post([call, policies = farm.policies(now)] {
      json::array out;
      for (const core::PolicyView& policy : policies) out.push_back(policy_json(policy));
      call->answer(200, out);
    });
  });
}

void Rest::put_policy(RestCallPtr call) {
  const auto value = wire::parse_json(call->request().body);
  const json::value* policy = value && value->is_object() ? value->get_object().if_contains("policy") : nullptr;
  if (policy == nullptr || !policy->is_string())
    return call->fail({ErrorClass::invalid_argument, "Send {\"policy\": \"NAME\"}; GET /api/policy lists the names."});
  const std::string wanted(policy->get_string());
  const auto names = core::policy_names();
  if (std::find(names.begin(), names.end(), wanted) == names.end()) {
    std::string list;
    for (const std::string_view one : names) list += (list.empty() ? "" : ", ") + std::string(one);
    return call->fail(
        {ErrorClass::invalid_argument, "There is no policy \"" + cut_utf8(wanted, 64) + "\"; there are " + list + "."});
  }
  operations_.set_policy(call->who, wanted, [call, wanted](Result<> done) {
    if (!done) return call->fail(done.error());
    call->answer(200, json::object{{"policy", wanted}});
  });
}

void Rest::get_events(RestCallPtr call) {
  std::string bad;
  auto topics = Topics::parse(split(call->query("topics")), bad);
  if (!topics)
    return call->fail(
        {ErrorClass::invalid_argument, "There is no topic \"" + cut_utf8(bad, 64) +
                                           "\"; there are jobs, tasks, workers, system, runs, job:ID and run:ID."});
  std::uint64_t number = 0;
  if (!call->number("from", 0, UINT64_MAX - 1, UINT64_MAX, number)) return;
  if (const auto last = call->request().headers.find("last-event-id"); last != call->request().headers.end()) {
    if (const auto seen = to_number(last->second); seen && *seen < UINT64_MAX - 1) number = *seen + 1;
  }
  const auto from = number == UINT64_MAX ? std::nullopt : std::optional(number);
  auto headers = security_headers();
  headers["Content-Type"] = "text/event-stream";
  headers["Cache-Control"] = "no-store";
  const net::HttpExchangePtr exchange = call->exchange;
  if (s_.events->followers() >= limits::kFollowers)
    return call->fail({ErrorClass::rate_limited, "Too many followers of events."});
  exchange->start_stream({.status = 200, .headers = std::move(headers), .body = {}});
  exchange->write(
      fmt::format("retry: 2000\nevent: hello\ndata: {{\"next\":{}}}\n\n", from.value_or(s_.events->next())));
  struct Stream {
    net::HttpExchangePtr exchange;
    std::optional<Events::Follower> follower;
  };
  auto stream = std::make_shared<Stream>();
  stream->exchange = exchange;
  // Through post: the exchange may outlive the server.
  exchange->on_closed([this, stream, post = s_.post] {
    post([this, stream] {
      if (stream->follower) s_.events->unfollow(*stream->follower);
      stream->exchange = nullptr;  // breaks the circle of stream and callbacks
    });
  });
  exchange->on_writable([this, weak = std::weak_ptr<Stream>(stream), post = s_.post] {
    post([this, weak] {
      const auto open = weak.lock();
      if (open != nullptr && open->follower) s_.events->writable(*open->follower);
    });
  });
  stream->follower =
      s_.events->follow(std::move(*topics), from,
                        {.fact =
                             [weak = std::weak_ptr<Stream>(stream)](const Fact& fact) {
                               const auto open = weak.lock();
                               return open != nullptr && open->exchange != nullptr &&
                                      open->exchange->write(fmt::format("id: {}\nevent: {}\ndata: {}\n\n", fact.number,
                                                                        fact.type, fact.json));
                             },
                         .gap =
                             [weak = std::weak_ptr<Stream>(stream)](std::uint64_t next) {
                               const auto open = weak.lock();
                               return open != nullptr && open->exchange != nullptr &&
                                      open->exchange->write(fmt::format("event: gap\ndata: {{\"next\":{}}}\n\n", next));
                             }});
  keep_open(exchange);
}

}  // namespace grange::server
