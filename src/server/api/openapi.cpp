// The OpenAPI document is made from the route table, so it cannot say what is not served.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

using json::array;
using json::object;

object of_type(std::string_view type) {
  return {{"type", type}};
}

// "id:string name:string total_tasks:integer" -> an object schema. "*" after a type: may be null.
object schema(std::string_view fields, std::string_view about) {
  object properties;
  while (!fields.empty()) {
    const std::size_t space = fields.find(' ');
    std::string_view field = fields.substr(0, space);
    fields = space == std::string_view::npos ? std::string_view{} : fields.substr(space + 1);
    const std::size_t colon = field.find(':');
    std::string_view type = field.substr(colon + 1);
    if (type.ends_with('*')) {
      type.remove_suffix(1);
      properties[field.substr(0, colon)] = object{{"type", array{type, "null"}}};
    } else {
      properties[field.substr(0, colon)] = of_type(type);
    }
  }
  return {{"type", "object"}, {"description", about}, {"properties", std::move(properties)}};
}

object schemas() {
  object out;
  out["Error"] = object{{"type", "object"},
                        {"description", "Every error has this shape."},
                        {"properties", object{{"error", schema("code:string message:string details:object",
                                                               "code is for programs, message for people")}}}};
  out["Stats"] = schema(
      "total_jobs:integer completed_jobs:integer pending_jobs:integer connected_workers:integer active_tasks:integer "
      "total_tasks_completed:integer "
      "blocked_tasks:integer paused:boolean running_jobs:integer failed_jobs:integer cancelled_jobs:integer "
      "queued_tasks:integer running_tasks:integer "
      "total_tasks_failed:integer slots:integer "
      "version:string uptime_seconds:number started_at:string policy:string storage_full:boolean next_event:integer",
      "Figures of the farm. pending_jobs are those that await the end of tasks, running ones included; next_event is "
      "where to follow events from.");
  out["Job"] = schema(
      "id:string job:integer name:string status:string user:string engine:string priority:integer total_tasks:integer "
      "completed_tasks:integer failed_tasks:integer "
      "cancelled_tasks:integer running_tasks:integer assigned_tasks:integer pending_tasks:integer "
      "blocked_tasks:integer paused_tasks:integer "
      "paused:boolean open:boolean created_at:string started_at:string* "
      "completed_at:string* progress:number existed:boolean",
      "A job. status: pending, running, completed, failed or cancelled. existed: a submit met a job with the same "
      "key.");
  out["Task"] = schema(
      "id:string job_id:string index:integer status:string attempt:integer worker_id:string* "
      "second_worker_id:string* failure:string* fault:string* stage:string* "
      "message:string* exit_code:integer* progress:object* run_ms:number ended_at:string* retry_at:string*",
      "A task of a job. fault: whose doing a failure was, job or system; stage: where in its life the attempt was; "
      "second_worker_id: runs a speculative attempt of it. exit_code: of a command that ended; progress: {done, total, "
      "text} while it runs.");
  out["Outcome"] = schema(
      "index:integer status:string encoding:string value_base64:string value_sha256:string exit_code:integer "
      "failure:string* fault:string* stage:string* exception:string* message:string* traceback:string* "
      "attempt:integer worker_id:string* run_ms:number files:array",
      "What a task ended with. value: JSON, or text; value_base64: a pickle or other bytes; value_sha256: a blob.");
  out["Outcome"].as_object()["properties"].as_object()["value"] = object{{"description", "Any JSON value"}};
  out["LogLine"] = schema(
      "cursor:integer task:string index:integer attempt:integer stream:string time:string text:string* "
      "data_base64:string",
      "A piece of a task's output.");
  out["Worker"] = schema(
      "id:string number:integer name:string status:string hostname:string os:string slots:integer cpus:number "
      "cpu_model:string memory_bytes:integer disk_bytes:integer gpus:array engines:array "
      "labels:object pool:string models:array services:array quarantined_until:string* success:number* "
      "failed_in_a_row:integer "
      "running:integer backlog:integer window:integer connected:boolean dialect:string* "
      "first_seen:string last_seen:string tasks_completed:integer "
      "tasks_failed:integer run_ms:number cpu_percent:number* memory_used_bytes:integer* load:object paused:boolean "
      "version:string "
      "python_version:string* sandbox:string notes:array",
      "A worker. status: online, busy, paused, quarantined, draining, reconnecting or offline. services: {name, kind, "
      "state, "
      "version, note, parallel, models, managed, pid, restarts, since_ms, last_error, cpu_percent, memory_bytes}; the "
      "state of one that its worker keeps running (managed) is stopped, starting, ready, unhealthy, backing_off or "
      "failed; a model's fit is GOOD, RISK, FAIL or UNKNOWN on this machine.");
  out["WorkerFailure"] = schema(
      "id:integer worker_id:string* job_id:string task_id:string index:integer attempt:integer failure:string "
      "fault:string* stage:string* "
      "message:string* failed_at:string",
      "An attempt that failed.");
  out["WorkerFailureStats"] =
      schema("worker_id:string failures:integer by_class:object tasks_completed:integer failure_rate:number",
             "Failures of one worker.");
  out["JobFile"] = schema(
      "name:string engine:string script:string count:integer args:array env:object files_in:array files_out:array "
      "stdin:string priority:integer retries:integer retry:object "
      "cpus:number gpus:number labels:object user:string key:string id:string fail_fast:boolean builtin:object "
      "python:object model:string encoding:string needs_model:string context:integer pool:string any_of:array "
      "nodes:integer "
      "weight:number max_running:integer not_before:string deadline:string open:boolean after:array when:string "
      "stages:object",
      "What to run. command: a list of strings, or one string for /bin/sh. timeout: seconds or \"10m\". memory, disk: "
      "bytes or \"2GiB\". \"{}\" in command and script is the "
      "task's argument, \"{index}\" its index.");
  object& file = out["JobFile"].as_object()["properties"].as_object();
  file["command"] =
      object{{"oneOf", array{object{{"type", "array"}, {"items", of_type("string")}}, of_type("string")}}};
  for (const std::string_view unit :
       {"timeout", "memory", "disk", "gpu_memory", "min_life", "start_in", "finish_in", "result_ttl", "grace"})
    file[unit] = object{{"oneOf", array{of_type("number"), of_type("string")}}};
  file["speculate"] = object{{"oneOf", array{of_type("boolean"), of_type("object")}}};
  file["unique"] = object{{"oneOf", array{of_type("string"), of_type("object")}}};
  out["Graph"] = schema("jobs:array",
                        "Job files that wait for each other: a name in \"after\" means a job of the "
                        "graph, or else the id of one that is here.");
  out["GraphAnswer"] = schema("jobs:array", "The jobs, in the order of the file.");
  out["Explanation"] = schema(
      "job:string* task:string* state:string summary:string waits:array workers:array workers_in_all:integer "
      "workers_could:integer workers_now:integer tasks_before:integer next_change:string*",
      "Why work waits. waits: {code, text, have, need, until}; workers: {worker, name, could, now, alternative, why}. "
      "could: "
      "once it is free; now: there is room this moment; next_change: the soonest time at which something changes by "
      "itself.");
  out["PauseJob"] = schema("freeze:boolean", "freeze: what runs stands still, too.");
  out["PauseTask"] = schema("how:string", "freeze (as it stands), or requeue (stopped and given back).");
  out["Told"] = schema("told:integer", "How many tasks are paused or resumed.");
  out["Extend"] =
      schema("args:array count:integer close:boolean key:string",
             "args: one task a value; count: so many tasks without one; close: no more after these. key: the "
             "same again for this job adds nothing and is answered as the first time.");
  out["Extended"] = schema("total_tasks:integer", "How many tasks the job has now.");
  out["RetryFilter"] = schema("classes:array indices:array", "Which tasks; left out: all of them.");
  out["Redrive"] = schema("job:string classes:array indices:array", "Which dead letters of which job.");
  out["DeadLetter"] = schema(
      "id:string job_id:string index:integer failure:string fault:string* stage:string* message:string* "
      "attempts:integer ended_at:string user:string",
      "A task that ended as failed.");
  out["Queue"] = schema(
      "paused:boolean policy:string live_jobs:integer queued_tasks:integer active_tasks:integer running_tasks:integer "
      "blocked_tasks:integer connected_workers:integer slots:integer",
      "The queue as it stands.");
  out["PolicyFigures"] =
      schema("name:string active:boolean assigned:integer completed:integer failed:integer active_seconds:number",
             "What was handed out, and how attempts ended, while this policy was the one.");
  const std::string_view limits_of_user =
      "name:string weight:number max_running:integer max_cpus:number max_gpus:number max_queued:integer "
      "starts_per_minute:integer submits_per_minute:integer";
  out["UserLimits"] = schema(limits_of_user, "What a user may have at once; 0: no limit.");
  std::string user_fields(limits_of_user);
  user_fields.append(
      " jobs:integer queued_tasks:integer running_tasks:integer cpus:number gpus:number usage:number share:number");
  out["User"] = schema(user_fields,
                       "A user. usage: resource-seconds used, decayed, over the weight: who has less is served first.");
  out["ScheduleFile"] =
      schema("cron:string job:object overlap:boolean catch_up:boolean paused:boolean",
             "cron: five fields, UTC, or @hourly and the like. overlap (true): a run starts though the "
             "one before has not ended. catch_up (false): one run for the time that nobody was there.");
  out["Schedule"] = schema(
      "name:string cron:string user:string paused:boolean overlap:boolean catch_up:boolean next:string* last:string* "
      "last_job:string* runs:integer left_out:integer last_error:string* job:object",
      "A job that is submitted again and again.");
  out["ScheduleRun"] = schema("job_id:string", "The job of the run.");
  out["RunFile"] = schema(
      "kind:string workers:array model:string prompt:string system:string service:string max_tokens:integer "
      "num_ctx:integer temperature:number top_p:number cache:boolean options:object op:string algorithm:string "
      "n:integer "
      "threads:integer checkpoint:string negative:string steps:integer width:integer height:integer batch:integer "
      "cfg:number sampler:string scheduler:string workflow:object seed:integer repeats:integer warmup:integer "
      "target_ttft_ms:number target_itl_ms:number force:boolean allow_mock:boolean",
      "A race. kind: llm (model, prompt), compute (algorithm, n) or image (checkpoint, prompt). workers: ids or names; "
      "left out: all that can. concurrency: requests at once, or a list of such numbers, one phase each.");
  out["RunFile"].as_object()["properties"].as_object()["concurrency"] =
      object{{"oneOf", array{of_type("integer"), object{{"type", "array"}, {"items", of_type("integer")}}}}};
  out["RunFile"].as_object()["properties"].as_object()["timeout"] =
      object{{"oneOf", array{of_type("number"), of_type("string")}}};
  out["RunStarted"] = schema("run_id:string status:string next_event:integer preflight:object",
                             "Follow topics=run:ID from next_event on, and nothing is missed.");
  out["Run"] = schema(
      "run_id:string kind:string status:string started_at:string ended_at:string* user:string model:string "
      "prompt:string machines:array settings:object repeats:integer warmup:integer concurrency:array preflight:array "
      "warnings:array winner:string* summary:object",
      "A race. status: running, completed, partial (some machines did not), failed or cancelled. Lists leave the "
      "summary out.");
  out["RunSummary"] = schema(
      "run_id:string kind:string status:string machines:object ranking:object samples:array warnings:array",
      "By machine: means of the first phase that counts, and all phases with their spread. A figure that the engine "
      "did not give is null.");
  out["RunComparison"] = schema("run_id:string kind:string compared_with:array",
                                "By machine and metric: now, before, ratio, p and a verdict.");
  out["Preflight"] = schema("kind:string ok:boolean machines:array warnings:array",
                            "By machine: reachable, engine_offered, model_there, fit, warnings, problem, chosen.");
  out["Reason"] = schema("reason:string", "Why; optional.");
  out["Cancelled"] = schema("cancelled:integer", "How many tasks were cancelled.");
  out["Retried"] = schema("retried:integer", "How many tasks run again.");
  out["Done"] = schema("ok:boolean", "It was done.");
  out["Blob"] = schema("sha256:string bytes:integer existed:boolean", "A blob that is here now.");
  out["BlobStatus"] = schema("sha256:string received:integer complete:boolean", "How much of it is here.");
  out["Model"] = schema("name:string version:string code_sha256:string bytes:integer code:string",
                        "Named code; code is hexadecimal text.");
  out["Policy"] = schema("policy:string policies:array", "The scheduling policy.");
  out["Database"] = schema(
      "path:string schema_version:integer db_bytes:integer wal_bytes:integer log_bytes:integer blobs:integer "
      "blob_bytes:integer disk_free_bytes:integer rows:object",
      "The data folder.");
  out["Health"] = schema("status:string version:string", "How it is.");
  out["ModelRequest"] =
      schema("model:string stream:boolean user:string",
             "The dialect's own request; it is passed on as it is. \"Prefer: wait=10\": at most so many "
             "seconds for a free service; x-grange-session: requests of one conversation.");
  out["ModelAnswer"] = of_type("object");
  out["ModelList"] = schema("object:string data:array", "All models.");
  out["ModelEntry"] = schema("id:string object:string created:integer owned_by:string grange:object",
                             "A model. grange: {kind, context, bytes, loaded, places}.");
  out["MachineModels"] =
      schema("models:array",
             "Models: {name, kind, bytes, family, parameters, quantization, context, digest, loaded, "
             "where}; where: {worker_id, worker_name, connected, service, service_kind, state, bytes, "
             "loaded, fit, good_context, max_context}.");
  out["ModelSync"] = schema(
      "model:string models:array source:string sha256:string folder:string service:string workers:array",
      "model: as Ollama knows it, or with a source a file's name. source (or from): a URL, or the SHA-256 of a blob of "
      "the farm. workers: ids or names; left out: all that can.");
  out["CheckpointSync"] = schema("checkpoint:string source:string sha256:string checkpoints:array workers:array",
                                 "One checkpoint, or a list of {name, source, sha256}.");
  out["ModelRemoval"] = schema("workers:array service:string folder:string", "From where; left out: from all.");
  out["ModelReset"] = schema("service:string", "Only the service of this name; left out: all of the worker.");
  out["ModelJobs"] = schema("jobs:array", "{job_id, worker_id, worker_name, model} each.");
  out["ResetJob"] = schema("job_id:string worker_id:string", "The job; its result says when all was ready again.");
  out["ServiceJob"] = schema("job_id:string worker_id:string service:string",
                             "The job; the result of a start says ready_ms, that of a stop stopped_ms.");
  out["OllamaModels"] = schema("models:array", "Models in Ollama's form.");
  out["OllamaVersion"] = schema("version:string", "Its version.");
  out["Gateway"] = schema(
      "active:integer waiting:integer requests:integer completed:integer failed:integer cancelled:integer "
      "refused:integer tokens_in:integer tokens_out:integer uncounted:integer bytes:integer failovers:integer "
      "ttft_ms:object limits:object services:array usage_since:string usage:array usage_by_principal:array "
      "usage_by_model:array recent:array",
      "active: streams now; uncounted: answers that did not say how many tokens they had; failovers: requests that "
      "went on to another service. ttft_ms: from a request's arrival to the first byte of its answer, of recent ones.");
  out["Overview"] = schema(
      "stats:object throughput:object wait_ms:object failures:object use:object distribution:array attention:array",
      "The farm at a glance. stats: as Stats; throughput: {completed_per_s, submitted_per_s, failed_per_s} of the last "
      "10 s; wait_ms: {p50, p95} of tasks that started in the last 5 minutes, from when they could, or null; failures: "
      "attempts of the last hour by class; use: {cores, memory, gpus} of the machines that are connected; "
      "distribution: "
      "{worker_id, name, running, completed}; attention: {kind, severity, title, text, job_id, worker_id}, worst "
      "first.");
  out["Overview"].as_object()["properties"].as_object()["stats"] = object{{"$ref", "#/components/schemas/Stats"}};
  out["History"] = schema("span:string step_ms:integer times_ms:array series:object",
                          "The farm over time. series: by name a list with one number, or null, for each of times_ms: "
                          "completed, failed and submitted tasks a second, queued, running, workers, wait_p50_ms, "
                          "wait_p95_ms, cpu_percent, memory_used_bytes, gpu_percent.");
  out["TaskGrid"] = schema("total:integer from:integer to:integer per_cell:integer states:object",
                           "How many tasks of each cell are in each state: pending, running, completed, failed, "
                           "cancelled, blocked, paused. A "
                           "state that no task is in is left out. Cell i holds the tasks from from + i * per_cell on.");
  out["WorkerLook"] =
      object{{"allOf", array{object{{"$ref", "#/components/schemas/Worker"}},
                             schema("tasks:array", "With what it holds now: {job_id, index, name, attempt, since}.")}}};
  out["WorkerHistory"] =
      object{{"type", "object"},
             {"description", "By worker: lists of equal length, oldest first. null: not measured."},
             {"additionalProperties",
              schema("times_ms:array cpu_percent:array memory_used_bytes:array network_in_bytes_per_s:array "
                     "network_out_bytes_per_s:array disk_read_bytes_per_s:array disk_write_bytes_per_s:array "
                     "temperature_c:array gpu_percent:array",
                     "gpu_percent: the busiest of its GPUs.")}};
  out["Me"] = schema("name:string role:string kind:string may:array own:array",
                     "Who one is. kind: local, token (the farm's own) or named. may: actions (x-action of each "
                     "operation here) on all there is; own: those on what belongs to one's own name.");
  const std::string_view token_fields =
      "name:string role:string created_ms:integer created_by:string expires_ms:integer*";
  out["TokenFile"] =
      schema("name:string role:string expires_in_s:integer",
             "role: admin, user (the default), viewer, worker or models. expires_in_s: left out, never.");
  std::string token_made(token_fields);
  token_made.append(" token:string");
  std::string token_shown(token_fields);
  token_shown.append(" last_used_ms:integer* expired:boolean");
  out["TokenMade"] = schema(token_made, "token: shown this once.");
  out["TokenRevoked"] = schema("name:string", "Which one is gone.");
  out["Tokens"] = object{
      {"type", "object"},
      {"description", "Tokens by name, and who asks."},
      {"properties",
       object{{"tokens", object{{"type", "array"}, {"items", schema(token_shown, "A token; never its secret.")}}},
              {"you", schema("name:string role:string", "Who asks.")}}}};
  out["Join"] = schema("command:string url:string token_needed:boolean token:string note:string",
                       "What to type on a new machine. token: only for who has it already.");
  out["Setting"] = schema("name:string value:string from:string help:string",
                          "A setting. from: default, environment, command line or file.");
  const std::string_view rule_fields = "enabled:boolean threshold:number* for_s:number severity:string";
  out["JobLook"] =
      object{{"allOf", array{object{{"$ref", "#/components/schemas/Job"}},
                             schema("children:array more_children:boolean",
                                    "With the jobs that wait, or waited, for it: {job_id, name, status}, the first "
                                    "100. Such as ended before version 5 of the data folder are not known.")}}};
  out["Alert"] = schema(
      "id:integer kind:string severity:string subject:string subject_name:string title:string text:string "
      "worker_id:string* job_id:string* began_ms:integer ended_ms:integer* silenced_until_ms:integer*",
      "subject: a worker's id, a job's, WORKER/SERVICE, or nothing for the farm. severity: info, warn or error.");
  out["Alerts"] = schema("open:array recent:array webhook:object",
                         "webhook: {url_host, sent, failed, waiting}; url_host is null without --alert-webhook.");
  for (const std::string_view list : {"open", "recent"})
    out["Alerts"].as_object()["properties"].as_object()[list] =
        object{{"type", "array"}, {"items", object{{"$ref", "#/components/schemas/Alert"}}}};
  std::string rule_shape("kind:string help:string unit:string* ");
  rule_shape.append(rule_fields).append(" changed:boolean silenced_until_ms:integer*");
  out["AlertRule"] = schema(
      rule_shape,
      "threshold and unit are null where it is so or it is not. for_s: it must hold so long before an alert opens.");
  out["AlertRules"] = schema("rules:array", "One of each kind.");
  out["AlertRules"].as_object()["properties"].as_object()["rules"] =
      object{{"type", "array"}, {"items", object{{"$ref", "#/components/schemas/AlertRule"}}}};
  out["AlertRuleChange"] = schema(rule_fields, "What is left out stays as it is. for_s: seconds, or \"5m\".");
  out["Silence"] =
      schema("for_s:number scope:string",
             "For how long; 0 takes it back. scope: subject (left out), or kind: all alerts of this kind.");
  out["Usage"] = schema(
      "days:array totals:object since_ms:integer",
      "days: {day, principal, model, requests, completed, failed, cancelled, refused, tokens_in, tokens_out, "
      "uncounted, "
      "bytes} each; totals: the same of all of them. Days are UTC, and since_ms is the begin of the first one that was "
      "asked for.");
  out["OpenApi"] = of_type("object");
  return out;
}

object content(std::string_view what) {
  if (what == "bytes")
    return {{"application/octet-stream", object{{"schema", object{{"type", "string"}, {"format", "binary"}}}}}};
  if (what == "html") return {{"text/html", object{{"schema", of_type("string")}}}};
  if (what == "text") return {{"text/plain", object{{"schema", of_type("string")}}}};
  if (what == "sse") return {{"text/event-stream", object{{"schema", of_type("string")}}}};
  const auto ref = [](std::string_view name) { return object{{"$ref", "#/components/schemas/" + std::string(name)}}; };
  if (what.ends_with("[]")) {
    what.remove_suffix(2);
    return {{"application/json", object{{"schema", object{{"type", "array"}, {"items", ref(what)}}}}}};
  }
  return {{"application/json", object{{"schema", ref(what)}}}};
}

}  // namespace

std::string openapi_json() {
  object paths;
  for (const Route& route : routes()) {
    array params;
    for (const RouteParam& param : route.params) {
      const bool in_path = route.pattern.find("{" + std::string(param.name) + "}") != std::string_view::npos;
      object one{{"name", param.name},
                 {"in", in_path ? "path" : "query"},
                 {"description", param.summary},
                 {"schema", of_type(param.type)}};
      if (in_path) one["required"] = true;
      params.push_back(std::move(one));
    }
    object ok{{"description", "Done"}};
    if (!route.response.empty()) ok["content"] = content(route.response);
    object operation{
        {"summary", route.summary},
        {"tags", array{route.tag}},
        {"x-action", name(route.action)},
        {"parameters", std::move(params)},
        {"responses", object{{"200", std::move(ok)},
                             {"default", object{{"description", "An error"}, {"content", content("Error")}}}}}};
    if (!route.request.empty()) operation["requestBody"] = object{{"content", content(route.request)}};
    if (open_to_all(route.action)) {
      operation["security"] = array{};
    } else {
      array roles;
      for (const Role role : {Role::admin, Role::user, Role::viewer, Role::worker, Role::models}) {
        const Right has = right(role, route.action);
        if (has != Right::no) roles.emplace_back(std::string(name(role)) + (has == Right::own ? " (own)" : ""));
      }
      operation["x-roles"] = std::move(roles);
    }
    std::string method(route.method);
    std::transform(method.begin(), method.end(), method.begin(), [](char c) { return static_cast<char>(c + 32); });
    if (!paths.contains(route.pattern)) paths[route.pattern] = object{};
    paths[route.pattern].as_object()[method] = std::move(operation);
  }
  const object document{
      {"openapi", "3.1.0"},
      {"info", object{{"title", "Grange"},
                      {"version", kVersion},
                      {"license", object{{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}},
                      {"description",
                       "The REST side of a Grange farm. The same operations are there over WebSocket at /ws: Protobuf "
                       "in binary frames, JSON in text frames."}}},
      {"security", array{object{{"token", array{}}}}},
      {"paths", std::move(paths)},
      {"components", object{{"schemas", schemas()},
                            {"securitySchemes",
                             object{{"token", object{{"type", "http"},
                                                     {"scheme", "bearer"},
                                                     {"description", "Only when the server was given a token"}}}}}}}};
  return json::serialize(document);
}

}  // namespace grange::server
