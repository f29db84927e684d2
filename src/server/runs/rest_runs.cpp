// Races over REST, seed 004's routes among them.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <fstream>

#include "server/api/rest.hpp"
#include "server/runs/run_book.hpp"
#include "server/runs/run_export.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kComparedMost = 20;

json::object run_shown(const RunLook& look) {
  json::object out = look.metadata;
  out["summary"] = look.summary;
  return out;
}

// Nested lists, objects and numbers of a question's parameters, for a preflight that is asked with GET.
json::value read_parameter(const std::string& key, const std::string& text) {
  if (key == "workers" || key == "machines") {
    json::array out;
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      if (end > at) out.emplace_back(text.substr(at, end - at));
      at = end + 1;
    }
    return out;
  }
  if (key == "model" || key == "prompt" || key == "checkpoint" || key == "kind" || key == "service" ||
      key == "algorithm" || key == "op" || key == "system")
    return json::value(text);
  auto value = wire::parse_json(text);
  return value ? std::move(*value) : json::value(text);
}

std::optional<std::pair<std::string, std::string>> format_of(std::string_view name) {
  if (name == "csv") return std::pair<std::string, std::string>{"text/csv; charset=utf-8", "csv"};
  if (name == "json") return std::pair<std::string, std::string>{"application/json", "json"};
  if (name == "html") return std::pair<std::string, std::string>{"text/html; charset=utf-8", "html"};
  return std::nullopt;
}

std::string export_text(const RunLook& look, std::string_view format) {
  if (format == "csv") return run_csv(look.metadata, look.summary);
  if (format == "html") return run_html(look.metadata, look.summary);
  return wire::json_text(run_shown(look)) + "\n";
}

}  // namespace

void Rest::start_run(const RestCallPtr& call, const json::object& body, std::function<void(RunBook::Started)> started) {
  auto spec = read_run(body);
  if (!spec) return call->fail(spec.error());
  s_.runs->start(call->who, std::move(*spec), [call, started](Result<RunBook::Started> run) {
    if (!run) return call->fail(run.error());
    started(std::move(*run));
  });
}

void Rest::post_run(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  start_run(call, *body, [call](const RunBook::Started& run) {
    call->answer(201,
                 json::object{{"run_id", run.run_id},
                              {"status", "running"},
                              {"next_event", run.next_event},
                              {"preflight", run.preflight}},
                 {{"Location", "/api/runs/" + run.run_id}});
  });
}

void Rest::preflight_run(RestCallPtr call) {
  json::object body;
  if (call->request().method == "POST") {
    auto read = call->body();
    if (!read) return call->fail(read.error());
    body = std::move(*read);
  } else {
    for (const auto& [key, value] : call->request().query) body[key] = read_parameter(key, value);
  }
  auto spec = read_run(body);
  if (!spec) return call->fail(spec.error());
  s_.runs->check(call->who, std::move(*spec), [call](Result<json::object> checked) {
    if (!checked) return call->fail(checked.error());
    call->answer(200, *checked);
  });
}

void Rest::get_runs(RestCallPtr call) {
  store::RunFilter filter;
  std::uint64_t limit = 0;
  if (!call->number("limit", 1, limits::kPage, limits::kPageDefault, limit)) return;
  filter.limit = static_cast<std::uint32_t>(limit);
  filter.kind = call->query("kind");
  filter.before = call->query("before");
  if (!filter.kind.empty() && !run_kind(filter.kind))
    return call->fail({ErrorClass::invalid_argument, "\"kind\" must be llm, compute or image."});
  s_.runs->list(call->who, filter, [call, limit](Result<json::array> runs) {
    if (!runs) return call->fail(runs.error());
    std::map<std::string, std::string> headers;
    if (runs->size() == limit) headers["X-Next-Before"] = std::string(runs->back().at("run_id").get_string());
    call->answer(200, *runs, std::move(headers));
  });
}

void Rest::get_run(RestCallPtr call) {
  Millis wait{0};
  if (!call->seconds("wait", limits::kLongPoll, wait)) return;
  s_.runs->wait(call->path["id"], wait, [this, call] {
    s_.runs->look(call->who, call->path["id"], [call](Result<RunLook> look) {
      if (!look) return call->fail(look.error());
      call->answer(200, run_shown(*look));
    });
  });
}

void Rest::export_run(RestCallPtr call, const std::string& format) {
  const auto type = format_of(format);
  if (!type) return call->fail({ErrorClass::invalid_argument, "\"format\" must be csv, json or html."});
  s_.runs->look(call->who, call->path["id"], [this, call, type, format](Result<RunLook> look) {
    if (!look) return call->fail(look.error());
    // A report of thousands of requests takes its time.
    s_.files->read<std::string>(
        [look = std::make_shared<RunLook>(std::move(*look)), format](store::Reader&) -> Result<std::string> {
          return export_text(*look, format);
        },
        [call, type](Result<std::string> text) {
          if (!text) return call->fail(text.error());
          call->answer_text(
              200, type->first, std::move(*text),
              {{"Content-Disposition", fmt::format("attachment; filename=\"{}.{}\"", call->path["id"], type->second)}});
        });
  });
}

void Rest::get_run_export(RestCallPtr call) {
  const std::string format = call->query("format");
  export_run(call, format.empty() ? "json" : format);
}

void Rest::download_run(RestCallPtr call) {
  export_run(call, "csv");
}

void Rest::get_run_events(RestCallPtr call) {
  const std::string id = call->path["id"];
  s_.runs->look(call->who, id, [this, call, id](Result<RunLook> look) {
    if (!look) return call->fail(look.error());
    s_.files->read<std::string>(
        [path = s_.runs->events_file(id)](store::Reader&) -> Result<std::string> {
          std::ifstream file(path, std::ios::binary);
          std::string text((std::istreambuf_iterator<char>(file)), {});
          text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);  // whole lines only
          return text;
        },
        [call](Result<std::string> text) {
          if (!text) return call->fail(text.error());
          call->answer_text(200, "application/x-ndjson", std::move(*text));
        });
  });
}

void Rest::compare_run(RestCallPtr call) {
  std::vector<std::string> with;
  const json::value list = read_parameter("workers", call->query("with"));
  for (const json::value& one : list.get_array()) with.emplace_back(one.get_string());
  if (with.size() > kComparedMost)
    return call->fail(
        {ErrorClass::invalid_argument, fmt::format("Compare with at most {} runs at once.", kComparedMost)});
  s_.runs->compare(call->who, call->path["id"], std::move(with), [call](Result<json::object> compared) {
    if (!compared) return call->fail(compared.error());
    call->answer(200, *compared);
  });
}

void Rest::cancel_run(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  const json::value* reason = body->if_contains("reason");
  s_.runs->cancel(call->who, call->path["id"],
                  reason != nullptr && reason->is_string() ? std::string(reason->get_string()) : "", call->just_ok());
}

void Rest::delete_run(RestCallPtr call) {
  s_.runs->remove(call->who, call->path["id"], call->just_ok());
}

// Seed 004: one sieve or picture, on every machine that can; the whole result is the answer, if it comes in time.
void Rest::run_and_wait(const RestCallPtr& call, std::string_view kind) {
  Millis wait = limits::kLongPoll;
  if (!call->query("wait").empty() && !call->seconds("wait", limits::kLongPoll, wait)) return;
  auto body = call->body();
  if (!body) return call->fail(body.error());
  body->erase("progress_interval_s");  // the worker's own pace
  (*body)["kind"] = kind;
  start_run(call, *body, [this, call, wait](const RunBook::Started& run) {
    s_.runs->wait(run.run_id, wait, [this, call, id = run.run_id] {
      s_.runs->look(call->who, id, [call](Result<RunLook> look) {
        if (!look) return call->fail(look.error());
        json::object out = look->summary;
        out.erase("samples");
        const json::object machines = machines_json(look->summary);
        if (!machines.empty() && machines.begin()->value().is_object()) {
          const json::object& first = machines.begin()->value().get_object();
          if (const json::value* jobs = first.if_contains("jobs");
              jobs != nullptr && jobs->is_array() && !jobs->get_array().empty())
            out["job_id"] = jobs->get_array()[0];
          for (const auto& [key, value] : first) out.emplace(key, value);
        }
        const json::value* status = look->summary.if_contains("status");
        out["ok"] = status != nullptr && *status == "completed";
        const bool running = status != nullptr && *status == "running";
        call->answer(running ? 202 : 200, out);
      });
    });
  });
}

void Rest::post_compute(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  // A race has defaults; a question that says nothing is rather a mistake than a wish for minutes of all machines.
  const json::value* op = body->if_contains("op");
  if (!body->contains("n") && (op == nullptr || *op == "primes"))
    return call->fail({ErrorClass::invalid_argument,
                       "Say what is to be computed: {\"n\": 100000000} for primes (\"algorithm\": segmented_sieve, "
                       "simple_sieve, trial_division or primesieve; \"threads\"), or {\"op\": \"gemm\"}, \"memory\" or "
                       "\"disk\"."});
  run_and_wait(call, "compute");
}

void Rest::post_txt2img(RestCallPtr call) {
  run_and_wait(call, "image");
}

std::vector<Route> run_routes() {
  const RouteParam id{"id", "string", "The run's id, such as 2024-01-15_143022_abc123"};
  const RouteParam wait{"wait", "integer", "Answer when it has ended, or after so many seconds, up to 60"};
  const RouteParam limit{"limit", "integer", "At most so many, up to 1000; 100 when left out"};
  const Action see = Action::see_jobs, make = Action::submit_job, stop = Action::cancel_job;
  return {
      {"POST",
       "/api/runs",
       make,
       "runs",
       "Start a race: one request on every chosen worker at once",
       {},
       "RunFile",
       "RunStarted",
       &Rest::post_run},
      {"GET",
       "/api/runs",
       see,
       "runs",
       "Races, newest first. X-Next-Before is the cursor of the next page",
       {{"kind", "string", "llm, compute or image"}, {"before", "string", "Races that started before this one"}, limit},
       "",
       "Run[]",
       &Rest::get_runs},
      {"GET",
       "/api/runs/preflight",
       Action::see_workers,
       "runs",
       "What each machine could do of such a race: the keys of a RunFile as parameters",
       {},
       "",
       "Preflight",
       &Rest::preflight_run},
      {"POST",
       "/api/runs/preflight",
       Action::see_workers,
       "runs",
       "What each machine could do of such a race",
       {},
       "RunFile",
       "Preflight",
       &Rest::preflight_run},
      {"GET",
       "/api/runs/{id}",
       see,
       "runs",
       "One race: what was asked, and what came of it",
       {id, wait},
       "",
       "Run",
       &Rest::get_run},
      {"DELETE",
       "/api/runs/{id}",
       stop,
       "runs",
       "Delete a race that has ended, and its files",
       {id},
       "",
       "Done",
       &Rest::delete_run},
      {"POST",
       "/api/runs/{id}/cancel",
       stop,
       "runs",
       "Cancel a race and its jobs",
       {id},
       "Reason",
       "Done",
       &Rest::cancel_run},
      {"GET",
       "/api/runs/{id}/compare",
       see,
       "runs",
       "Against earlier races",
       {id, {"with", "string", "Ids, with commas between; left out: the newest earlier ones of the same settings"}},
       "",
       "RunComparison",
       &Rest::compare_run},
      {"GET",
       "/api/runs/{id}/export",
       see,
       "runs",
       "The race as a file",
       {id, {"format", "string", "csv, json or html (one page that needs nothing else)"}},
       "",
       "bytes",
       &Rest::get_run_export},
      {"POST", "/api/runs/{id}/download", see, "runs", "The race as CSV", {id}, "", "bytes", &Rest::download_run},
      {"GET",
       "/api/runs/{id}/events",
       see,
       "runs",
       "All that was told while it ran, one JSON object a line",
       {id},
       "",
       "bytes",
       &Rest::get_run_events},
      {"POST",
       "/api/compute",
       make,
       "runs",
       "A compute race; answers with its result if it ends within `wait`",
       {wait},
       "RunFile",
       "RunSummary",
       &Rest::post_compute},
      {"POST",
       "/api/image/txt2img",
       make,
       "runs",
       "An image race; answers with its result if it ends within `wait`",
       {wait},
       "RunFile",
       "RunSummary",
       &Rest::post_txt2img},
  };
}

}  // namespace grange::server
