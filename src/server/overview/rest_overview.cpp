// What only the dashboard asks, and anybody may.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "core/farm.hpp"
#include "server/api/rest.hpp"
#include "server/overview/grid.hpp"
#include "server/overview/overview.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::uint64_t kCellsMost = 8192, kCellsDefault = 2048;

json::value shown_figure(std::optional<double> value) {
  return value ? json::value(std::round(*value * 100) / 100) : json::value(nullptr);
}

json::object states_json(const TaskGrid& grid) {
  json::object out;
  const auto put = [&out](const char* name, const std::vector<std::uint32_t>& cells) {
    if (std::all_of(cells.begin(), cells.end(), [](std::uint32_t n) { return n == 0; })) return;
    json::array list;
    list.reserve(cells.size());
    for (const std::uint32_t n : cells) list.push_back(n);
    out[name] = std::move(list);
  };
  put("pending", grid.pending);
  put("running", grid.running);
  put("completed", grid.completed);
  put("failed", grid.failed);
  put("cancelled", grid.cancelled);
  put("blocked", grid.blocked);
  put("paused", grid.paused);
  return out;
}

json::object grid_json(const TaskGrid& grid) {
  return {{"total", grid.total},
          {"from", grid.from},
          {"to", grid.to},
          {"per_cell", grid.per_cell},
          {"states", states_json(grid)}};
}

// An ended job's cells, all from the store. On a reader's thread.
Result<TaskGrid> read_ended_grid(store::Reader& reader, const JobMeta& meta, std::uint32_t from, std::uint32_t to,
                                 std::uint32_t cells) {
  auto row = reader.job(meta.job);
  if (!row) return std::move(row).error();
  if (!row->has_value()) return no_such_job(meta.id);
  const store::JobRow& job = **row;
  store::OutcomeCellsOf of{.job = meta.job, .from = from, .to = std::min(to, job.count)};
  of.from = std::min(of.from, of.to);
  of.per_cell = grid_step(of.from, of.to, cells);
  // Without tasks that were dropped before they were handed out, what did not go wrong went well.
  if (job.counts.cancelled > 0 && job.next_index < job.count) of.late_from = job.next_index;
  auto outcomes = reader.outcome_cells(of);
  if (!outcomes) return std::move(outcomes).error();
  return fold_ended_grid(of, job.count, *outcomes);
}

}  // namespace

void Rest::get_overview(RestCallPtr call) {
  s_.overview->text([call](Result<std::shared_ptr<const std::string>> text) {
    if (!text) return call->fail(text.error());
    call->answer_text(200, "application/json", **text);
  });
}

void Rest::get_history(RestCallPtr call) {
  const std::string name = call->query("span").empty() ? "15m" : call->query("span");
  const auto span = History::span_named(name);
  if (!span) return call->fail({ErrorClass::invalid_argument, "\"span\" must be 15m, 6h or 7d."});
  std::uint64_t since = 0;
  if (!call->number("since", 0, INT64_MAX, 0, since)) return;
  json::array times, wait_p50, wait_p95;
  std::array<json::array, History::kFigures> figures;
  for (const History::Bucket& bucket : s_.overview->history().buckets(*span)) {
    if (bucket.at.ms < static_cast<std::int64_t>(since)) continue;
    times.push_back(bucket.at.ms);
    wait_p50.push_back(shown_figure(bucket.waits.percentile(0.5)));
    wait_p95.push_back(shown_figure(bucket.waits.percentile(0.95)));
    for (std::size_t f = 0; f < History::kFigures; ++f)
      figures[f].push_back(shown_figure(bucket.mean(static_cast<History::Figure>(f))));
  }
  call->answer(200,
               json::object{{"span", name},
                            {"step_ms", History::kSpans[*span].step.count()},
                            {"times_ms", std::move(times)},
                            {"series", json::object{{"completed", std::move(figures[History::completed])},
                                                    {"failed", std::move(figures[History::failed])},
                                                    {"submitted", std::move(figures[History::submitted])},
                                                    {"queued", std::move(figures[History::queued])},
                                                    {"running", std::move(figures[History::running])},
                                                    {"workers", std::move(figures[History::workers])},
                                                    {"wait_p50_ms", std::move(wait_p50)},
                                                    {"wait_p95_ms", std::move(wait_p95)},
                                                    {"cpu_percent", std::move(figures[History::cpu_percent])},
                                                    {"memory_used_bytes", std::move(figures[History::memory_used])},
                                                    {"gpu_percent", std::move(figures[History::gpu_percent])}}}});
}

void Rest::get_grid(RestCallPtr call) {
  std::uint64_t cells = 0, from = 0, to = 0;
  if (!call->number("cells", 1, kCellsMost, kCellsDefault, cells) || !call->number("from", 0, UINT32_MAX, 0, from) ||
      !call->number("to", 0, UINT32_MAX, UINT32_MAX, to)) {
    return;
  }
  const auto first = static_cast<std::uint32_t>(from), end = static_cast<std::uint32_t>(to),
             most = static_cast<std::uint32_t>(cells);
  s_.jobs->resolve(call->path["id"], [this, call, first, end, most](Result<JobMetaPtr> meta) {
    if (!meta) return call->fail(meta.error());
    s_.queue->inspect([this, call, meta = *meta, first, end, most, post = s_.post](const core::Farm& farm, Now) {
      auto live = std::make_shared<std::optional<core::JobGrid>>(farm.grid(meta->job, first, end, most));
      post([this, call, meta, live, first, end, most] {
        s_.readers->read<TaskGrid>(
            [meta, live, first, end, most](store::Reader& reader) -> Result<TaskGrid> {
              if (!*live) return read_ended_grid(reader, *meta, first, end, most);
              const core::JobGrid& seen = **live;
              auto outcomes =
                  reader.outcome_cells({.job = meta->job, .from = seen.from, .to = seen.to, .per_cell = seen.per_cell});
              if (!outcomes) return std::move(outcomes).error();
              return fold_grid(seen, *outcomes);
            },
            [call](Result<TaskGrid> grid) {
              if (!grid) return call->fail(grid.error());
              call->answer(200, grid_json(*grid));
            });
      });
    });
  });
}

void Rest::get_worker(RestCallPtr call) {
  const auto number = s_.workers->known(call->path["id"]);
  if (!number) return call->fail(number.error());
  struct Found {
    std::optional<store::WorkerRow> row;
    std::map<JobNo, store::JobRow> jobs;
    std::optional<core::WorkerView> view;
    std::vector<core::TaskView> held;
  };
  const auto found = std::make_shared<Found>();
  s_.queue->inspect([this, call, found, worker = *number, post = s_.post](const core::Farm& farm, Now) {
    found->view = farm.worker(worker);
    if (found->view) found->held = farm.held_by(worker);
    post([this, call, found, worker] {
      s_.readers->read<Unit>(
          [found, worker](store::Reader& reader) -> Result<> {
            auto rows = reader.workers();
            if (!rows) return std::move(rows).error();
            for (store::WorkerRow& row : *rows) {
              if (row.worker == worker && !row.forgotten) found->row = std::move(row);
            }
            for (const core::TaskView& task : found->held) {
              if (found->jobs.contains(task.task.job())) continue;
              auto job = reader.job(task.task.job());
              if (!job) return std::move(job).error();
              if (job->has_value()) found->jobs.emplace(task.task.job(), std::move(**job));
            }
            return {};
          },
          [this, call, found, worker](Result<> read) {
            if (!read) return call->fail(read.error());
            if (!found->row) {
              return call->fail({ErrorClass::not_found, "There is no worker \"" + cut_utf8(call->path["id"], 256) +
                                                            "\". List them with: grange workers"});
            }
            const WorkerChannel* channel = s_.workers->find(worker);
            json::object out =
                worker_json(*found->row, found->view,
                            channel == nullptr ? std::nullopt : std::optional(channel->figures()), s_.clock.now().wall);
            json::array tasks;
            for (const core::TaskView& task : found->held) {
              const auto job = found->jobs.find(task.task.job());
              if (job == found->jobs.end()) continue;
              const std::string& id = job->second.id;
              tasks.push_back(json::object{{"job_id", id.empty() ? std::to_string(job->first.value) : id},
                                           {"index", task.task.index()},
                                           {"name", job->second.name},
                                           {"attempt", task.attempt},
                                           {"state", core::name(task.state)},
                                           {"since", time_json(task.started)}});
            }
            out["tasks"] = std::move(tasks);
            call->answer(200, out);
          });
    });
  });
}

void Rest::get_worker_history(RestCallPtr call) {
  std::uint64_t samples = 0;
  if (!call->number("samples", 1, 180, 60, samples)) return;
  const std::string only = call->query("worker_id");
  json::object out;
  for (const auto& [worker, ring] : s_.overview->loads()) {
    const std::string& id = s_.workers->name_of(worker);
    if (id.empty() || (!only.empty() && id != only)) continue;
    json::array times, cpu, memory, in, sent, read, written, hot, gpu;
    const auto shown = [](const auto& value) { return value ? json::value(*value) : json::value(nullptr); };
    for (std::size_t i = ring.size() - std::min<std::size_t>(ring.size(), samples); i < ring.size(); ++i) {
      const LoadSample& one = ring[i];
      times.push_back(one.at.ms);
      cpu.push_back(shown_figure(one.cpu_percent));
      memory.push_back(one.memory_used);
      in.push_back(shown(one.load.network_in));
      sent.push_back(shown(one.load.network_out));
      read.push_back(shown(one.load.disk_read));
      written.push_back(shown(one.load.disk_write));
      hot.push_back(shown(one.load.temperature_c));
      std::optional<double> busiest;
      for (const GpuLook& g : one.load.gpus) {
        if (g.percent && (!busiest || *g.percent > *busiest)) busiest = g.percent;
      }
      gpu.push_back(shown(busiest));
    }
    out[id] = json::object{{"times_ms", std::move(times)},
                           {"cpu_percent", std::move(cpu)},
                           {"memory_used_bytes", std::move(memory)},
                           {"network_in_bytes_per_s", std::move(in)},
                           {"network_out_bytes_per_s", std::move(sent)},
                           {"disk_read_bytes_per_s", std::move(read)},
                           {"disk_write_bytes_per_s", std::move(written)},
                           {"temperature_c", std::move(hot)},
                           {"gpu_percent", std::move(gpu)}};
  }
  call->answer(200, out);
}

void Rest::get_join(RestCallPtr call) {
  const auto& headers = call->request().headers;
  const auto host = headers.find("host");
  const auto scheme = headers.find("x-forwarded-proto");
  const std::string url =
      fmt::format("{}://{}", scheme != headers.end() && scheme->second == "https" ? "https" : "http",
                  host == headers.end() ? "127.0.0.1" : cut_utf8(host->second, 256));
  const bool token = !s_.options.token.empty();
  std::string note =
      token ? "Make the machine a token of its own: grange tokens create NAME --role worker. Put it into the file "
              "grange.token there, readable by you alone: (umask 077; cat > grange.token), paste it, Ctrl-D."
            : "This server has no token, so it listens on this machine only, and only workers of this "
              "machine can join. To let others in, start it with --host 0.0.0.0 --token-file FILE.";
  const bool near = url.find("://127.") != std::string::npos || url.find("://localhost") != std::string::npos ||
                    url.find("://[::1]") != std::string::npos;
  if (token && near)
    note += " This address is this machine's own: for another machine write this one's name in its place.";
  json::object out{
      {"command", fmt::format("grange worker --server {}{}", url, token ? " --token-file grange.token" : "")},
      {"url", url},
      {"token_needed", token},
      {"note", std::move(note)}};
  // Who sent it has it. Others, admins too, make a token with a name, which can be taken back.
  if (token && call->who.kind == PrincipalKind::token) out["token"] = s_.options.token;
  call->answer(200, out);
}

void Rest::get_settings(RestCallPtr call) {
  json::array out;
  for (const Setting& one : s_.options.settings) {
    out.push_back(json::object{{"name", one.name}, {"value", one.value}, {"from", one.from}, {"help", one.help}});
  }
  call->answer(200, out);
}

std::vector<Route> overview_routes() {
  const RouteParam worker{"id", "string", "The worker's id"};
  return {
      {"GET",
       "/api/overview",
       Action::see_stats,
       "system",
       "The farm at a glance: figures, rates, waits, failures, use, and what needs attention",
       {},
       "",
       "Overview",
       &Rest::get_overview},
      {"GET",
       "/api/history",
       Action::see_stats,
       "system",
       "The farm over the last 15 minutes, 6 hours or 7 days",
       {{"span", "string", "15m, 6h or 7d"}, {"since", "integer", "Only what is not older than this time, in ms"}},
       "",
       "History",
       &Rest::get_history},
      {"GET",
       "/api/jobs/{id}/grid",
       Action::see_jobs,
       "jobs",
       "States of its tasks, as counts by cell",
       {{"id", "string", "The job's id or number"},
        {"cells", "integer", "At most so many cells, up to 8192; 2048 when left out"},
        {"from", "integer", "The first task"},
        {"to", "integer", "Behind the last"}},
       "",
       "TaskGrid",
       &Rest::get_grid},
      {"GET",
       "/api/workers/history",
       Action::see_workers,
       "workers",
       "Load of each machine over the last heartbeats",
       {{"samples", "integer", "At most so many of each, up to 180; 60 when left out"},
        {"worker_id", "string", "Only of this one"}},
       "",
       "WorkerHistory",
       &Rest::get_worker_history},
      {"GET",
       "/api/workers/{id}",
       Action::see_workers,
       "workers",
       "One worker, and the tasks that it holds",
       {worker},
       "",
       "WorkerLook",
       &Rest::get_worker},
      {"POST",
       "/api/workers/{id}/pause",
       Action::pause_worker,
       "workers",
       "Give it nothing new until it is resumed; what it runs goes on",
       {worker},
       "",
       "Done",
       &Rest::pause_worker},
      {"POST",
       "/api/workers/{id}/resume",
       Action::pause_worker,
       "workers",
       "Give it new work again",
       {worker},
       "",
       "Done",
       &Rest::resume_worker},
      {"DELETE",
       "/api/workers/{id}",
       Action::forget_worker,
       "workers",
       "Take one that is offline off the list; its failures stay in the history",
       {worker},
       "",
       "Done",
       &Rest::forget_worker},
      {"GET",
       "/api/join",
       Action::see_workers,
       "workers",
       "What to type on a new machine so that it joins",
       {},
       "",
       "Join",
       &Rest::get_join},
      {"GET",
       "/api/settings",
       Action::see_settings,
       "system",
       "The server's settings, and where each value comes from",
       {},
       "",
       "Setting[]",
       &Rest::get_settings},
  };
}

}  // namespace grange::server
