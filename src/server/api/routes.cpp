#include "server/api/routes.hpp"

#include "server/api/rest.hpp"

namespace grange::server {

namespace {

std::vector<Route> farm_routes() {
  const RouteParam limit{"limit", "integer", "At most so many, up to 1000; 100 when left out"};
  const RouteParam skip{"skip", "integer", "Leave out so many first; for long lists prefer the cursor"};
  const RouteParam worker{"id", "string", "The worker's id"};
  const RouteParam sha{"sha256", "string", "64 lower-case hexadecimal characters"};
  const RouteParam model{"name", "string", "The model's name"};
  const RouteParam version{"version", "string", "Its version"};
  const RouteParam user{"name", "string", "The user; anonymous: those without a name"};
  const RouteParam schedule{"name", "string", "The schedule's name"};
  constexpr std::string_view moved = "Leads to its place in the dashboard";
  return {
      {"GET",
       "/api/stats",
       Action::see_stats,
       "system",
       "Figures of the whole farm",
       {},
       "",
       "Stats",
       &Rest::get_stats},
      {"GET",
       "/api/workers",
       Action::see_workers,
       "workers",
       "All workers that ever were, with what they do now",
       {},
       "",
       "Worker[]",
       &Rest::get_workers},
      {"POST",
       "/api/workers/{id}/drain",
       Action::drain_worker,
       "workers",
       "Give it no new work; it leaves when what it runs has ended",
       {worker},
       "",
       "Done",
       &Rest::drain_worker},
      {"POST",
       "/api/workers/{id}/release",
       Action::release_worker,
       "workers",
       "End its quarantine",
       {worker},
       "",
       "Done",
       &Rest::release_worker},
      {"GET",
       "/api/worker-failures",
       Action::see_failures,
       "workers",
       "Attempts that failed, newest first. X-Next-Before is the cursor of the next page",
       {{"worker_id", "string", "Of one worker"},
        {"job_id", "string", "Of one job"},
        skip,
        limit,
        {"before", "integer", "Entries with a lower id"}},
       "",
       "WorkerFailure[]",
       &Rest::get_failures},
      {"GET",
       "/api/worker-failure-stats",
       Action::see_failures,
       "workers",
       "Failures by worker and class",
       {},
       "",
       "WorkerFailureStats[]",
       &Rest::get_failure_stats},
      {"GET",
       "/api/events",
       Action::see_events,
       "system",
       "Numbered facts as server-sent events. A gap means: take a snapshot again",
       {{"topics", "string", "jobs, tasks, workers, system, runs, alerts, job:ID, run:ID, separated by commas"},
        {"from", "integer", "Start with this number; Last-Event-ID works too"}},
       "",
       "sse",
       &Rest::get_events},
      {"PUT",
       "/api/blobs/{sha256}",
       Action::write_blob,
       "blobs",
       "Upload bytes by their SHA-256. After a break go on with offset; the status route tells where",
       {sha, {"offset", "integer", "The body begins at this byte"}},
       "bytes",
       "Blob",
       &Rest::put_blob},
      {"GET",
       "/api/blobs/{sha256}",
       Action::read_blob,
       "blobs",
       "The bytes; Range and If-None-Match work",
       {sha},
       "",
       "bytes",
       &Rest::get_blob},
      {"HEAD",
       "/api/blobs/{sha256}",
       Action::read_blob,
       "blobs",
       "Is it here, and how large is it",
       {sha},
       "",
       "",
       &Rest::get_blob},
      {"GET",
       "/api/blobs/{sha256}/status",
       Action::read_blob,
       "blobs",
       "How much of an upload has arrived",
       {sha},
       "",
       "BlobStatus",
       &Rest::get_blob_status},
      {"GET", "/models", Action::read_model, "models", "Named code", {}, "", "Model[]", &Rest::get_models},
      {"PUT",
       "/models/{name}/{version}",
       Action::write_model,
       "models",
       "Give code (a cloudpickle of a function) a name. A version does not change any more",
       {model, version},
       "bytes",
       "Model",
       &Rest::put_model},
      {"GET",
       "/models/{name}/{version}",
       Action::read_model,
       "models",
       "Named code, as hexadecimal text",
       {model, version},
       "",
       "Model",
       &Rest::get_model},
      {"GET",
       "/api/db",
       Action::see_database,
       "system",
       "The data folder: sizes, rows, free space",
       {},
       "",
       "Database",
       &Rest::get_database},
      {"DELETE",
       "/api/db",
       Action::clear_database,
       "system",
       "Delete all jobs and results. Refused while jobs run",
       {{"confirm", "string", "Must be yes"}},
       "",
       "Done",
       &Rest::clear_database},
      {"GET",
       "/api/policy",
       Action::see_policy,
       "system",
       "The scheduling policy, and those there are",
       {},
       "",
       "Policy",
       &Rest::get_policy},
      {"PUT",
       "/api/policy",
       Action::set_policy,
       "system",
       "Change the scheduling policy",
       {},
       "Policy",
       "Policy",
       &Rest::put_policy},
      {"GET",
       "/api/policies",
       Action::see_policy,
       "system",
       "The scheduling policies, and what each has done",
       {},
       "",
       "PolicyFigures[]",
       &Rest::get_policies},
      {"GET",
       "/api/queue",
       Action::see_stats,
       "system",
       "How much waits and runs, and whether anything starts",
       {},
       "",
       "Queue",
       &Rest::get_queue},
      {"POST",
       "/api/queue/pause",
       Action::pause_queue,
       "system",
       "Start nothing new",
       {},
       "",
       "Done",
       &Rest::pause_queue},
      {"POST",
       "/api/queue/resume",
       Action::pause_queue,
       "system",
       "Start new work again",
       {},
       "",
       "Done",
       &Rest::resume_queue},
      {"GET",
       "/api/users",
       Action::see_users,
       "users",
       "Users with limits of their own or with live jobs, and their shares",
       {},
       "",
       "User[]",
       &Rest::get_users},
      {"GET", "/api/users/{name}", Action::see_users, "users", "One user", {user}, "", "User", &Rest::get_user},
      {"PUT",
       "/api/users/{name}",
       Action::set_users,
       "users",
       "Set the weight and the limits of a user; what is left out is without limit",
       {user},
       "UserLimits",
       "UserLimits",
       &Rest::put_user},
      {"DELETE",
       "/api/users/{name}",
       Action::set_users,
       "users",
       "Take the limits of a user away",
       {user},
       "",
       "Done",
       &Rest::delete_user},
      {"GET",
       "/api/schedules",
       Action::see_schedules,
       "schedules",
       "Jobs that are submitted again and again",
       {},
       "",
       "Schedule[]",
       &Rest::get_schedules},
      {"GET",
       "/api/schedules/{name}",
       Action::see_schedules,
       "schedules",
       "One schedule",
       {schedule},
       "",
       "Schedule",
       &Rest::get_schedule},
      {"PUT",
       "/api/schedules/{name}",
       Action::set_schedules,
       "schedules",
       "Add or replace a schedule",
       {schedule},
       "ScheduleFile",
       "Schedule",
       &Rest::put_schedule},
      {"DELETE",
       "/api/schedules/{name}",
       Action::set_schedules,
       "schedules",
       "Remove a schedule; its jobs stay",
       {schedule},
       "",
       "Done",
       &Rest::delete_schedule},
      {"POST",
       "/api/schedules/{name}/pause",
       Action::set_schedules,
       "schedules",
       "Submit nothing more of it",
       {schedule},
       "",
       "Schedule",
       &Rest::pause_schedule},
      {"POST",
       "/api/schedules/{name}/resume",
       Action::set_schedules,
       "schedules",
       "Go on with it; what was missed is not made up",
       {schedule},
       "",
       "Schedule",
       &Rest::resume_schedule},
      {"POST",
       "/api/schedules/{name}/run",
       Action::set_schedules,
       "schedules",
       "One run now",
       {schedule},
       "",
       "ScheduleRun",
       &Rest::run_schedule},
      {"GET", "/health", Action::see_health, "system", "The process answers", {}, "", "Health", &Rest::get_health},
      {"GET", "/ready", Action::see_health, "system", "It takes work: 200, or 503", {}, "", "Health", &Rest::get_ready},
      {"GET", "/metrics", Action::see_metrics, "system", "Figures for Prometheus", {}, "", "text", &Rest::get_metrics},
      {"GET", "/openapi.json", Action::see_docs, "system", "This document", {}, "", "OpenApi", &Rest::get_openapi},
      {"GET", "/docs", Action::see_docs, "system", "This document as a page", {}, "", "html", &Rest::get_docs},
      {"GET", "/", Action::see_page, "system", "The dashboard", {}, "", "html", &Rest::get_page},
      {"GET", "/compute", Action::see_page, "system", moved, {}, "", "html", &Rest::get_moved_page},
      {"GET", "/image", Action::see_page, "system", moved, {}, "", "html", &Rest::get_moved_page},
      {"GET", "/admin", Action::see_page, "system", moved, {}, "", "html", &Rest::get_moved_page},
      {"GET",
       "/assets/{file}",
       Action::see_page,
       "system",
       "Scripts and style of the pages",
       {{"file", "string", "docs.js, docs.css, or a file of the dashboard"}},
       "",
       "text",
       &Rest::get_asset},
  };
}

}  // namespace

const std::vector<Route>& routes() {
  static const std::vector<Route> table = [] {
    std::vector<Route> all = job_routes();
    for (auto* part : {&farm_routes, &overview_routes, &gateway_routes, &run_routes, &token_routes, &alert_routes}) {
      for (Route& route : (*part)()) all.push_back(std::move(route));
    }
    return all;
  }();
  return table;
}

namespace {

bool fits(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& params) {
  const auto part = [](std::string_view& text) {
    text.remove_prefix(1);
    const std::size_t slash = text.find('/');
    const std::string_view out = text.substr(0, slash);
    text = slash == std::string_view::npos ? std::string_view{} : text.substr(slash);
    return out;
  };
  while (!pattern.empty() && !path.empty()) {
    if (path.front() != '/') return false;
    // A model's name may have slashes in it: it is the rest of the path.
    if (pattern == "/{model}" && path.size() > 1) {
      params["model"] = std::string(path.substr(1));
      return true;
    }
    const std::string_view want = part(pattern), have = part(path);
    if (want.starts_with('{')) {
      if (have.empty()) return false;
      params[std::string(want.substr(1, want.size() - 2))] = std::string(have);
    } else if (want != have) {
      return false;
    }
  }
  return pattern.empty() && path.empty();
}

}  // namespace

Match match_route(std::string_view method, std::string_view path) {
  Match out;
  if (path.size() > 1 && path.back() == '/' && path[path.size() - 2] != '/') path.remove_suffix(1);
  for (const Route& route : routes()) {
    std::map<std::string, std::string> params;
    if (!fits(route.pattern, path, params)) continue;
    if (route.method == method) return {.route = &route, .params = std::move(params), .allow = {}};
    out.allow += (out.allow.empty() ? "" : ", ") + std::string(route.method);
  }
  // HEAD is GET without its body, which the listener leaves out.
  if (method == "HEAD" && out.allow.find("GET") != std::string::npos) return match_route("GET", path);
  return out;
}

}  // namespace grange::server
