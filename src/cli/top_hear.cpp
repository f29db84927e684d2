// What the server says, and what it is asked.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/term.hpp"
#include "cli/top_model.hpp"
#include "cli/waiting.hpp"

namespace grange::cli::top {
namespace {

constexpr std::size_t kHistory = 240;
constexpr double kRateSeconds = 5;
constexpr std::int64_t kMessage = 6'000, kLazy = 5;  // what is not looked at is asked for so much more seldom

void keep(State& state, const std::string& name, double value) {
  std::deque<double>& series = state.history[name];
  series.push_back(value);
  if (series.size() > kHistory) series.pop_front();
}

void say(State& state, Tone tone, std::string text, Clock now) {
  state.message = Message{tone, std::move(text), now.mono_ms + kMessage};
}

std::string message_of(const std::string& body) {
  boost::system::error_code ec;
  const json::value parsed = json::parse(body, ec);
  if (ec) return "";
  const json::value* error = field(parsed, "error");
  return error == nullptr ? "" : str(*error, "message");
}

// The next try comes later each time, up to 5 s.
void lose(State& state, std::string why, Clock now) {
  static constexpr std::int64_t kPauses[] = {1000, 2000, 4000, 5000};
  Link& link = state.link;
  if (link.state == Link::lost && !link.trying) return;  // another ask of the same loss
  link.retry_ms = now.mono_ms + kPauses[std::min<std::size_t>(static_cast<std::size_t>(link.tries), 3)];
  ++link.tries;
  link.state = Link::lost;
  link.trying = false;
  link.why = std::move(why);
  state.ended.clear();
  state.has_overview = true;  // it may come back newer
  for (auto& [name, slot] : state.slots) slot.busy = 0;
  for (const auto& [id, act] : state.acts) say(state, Tone::bad, act.what + ": the server did not answer.", now);
  state.acts.clear();
  state.outbox.clear();
}

void due_now(State& state, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto it = state.slots.find(name); it != state.slots.end()) it->second.due_ms = 0;
  }
}

Figures read_figures(const json::value& stats) {
  Figures f;
  f.version = str(stats, "version");
  f.policy = str(stats, "policy");
  f.uptime_s = real(stats, "uptime_seconds");
  f.jobs = num(stats, "total_jobs");
  f.live_jobs = num(stats, "pending_jobs");
  f.queued = num(stats, "queued_tasks");
  f.running = num(stats, "running_tasks");
  f.blocked = num(stats, "blocked_tasks");
  f.workers = num(stats, "connected_workers");
  f.slots = num(stats, "slots");
  f.completed = num(stats, "total_tasks_completed");
  f.failed = num(stats, "total_tasks_failed");
  f.paused = flag(stats, "paused");
  f.storage_full = flag(stats, "storage_full");
  return f;
}

// What an older server leaves to us: what all connected workers use together.
void sum_use(const std::vector<Worker>& workers, Figures& f) {
  f.cores_used = f.cores = f.memory_used = f.memory = f.gpus = f.gpus_used = 0;
  for (const Worker& worker : workers) {
    if (!worker.connected) continue;
    f.cores += worker.cpus;
    f.cores_used += worker.cpus * worker.cpu_percent.value_or(0) / 100;
    f.memory += static_cast<double>(worker.memory);
    f.memory_used += static_cast<double>(worker.memory_used.value_or(0));
    const json::value* gpus = field(worker.raw, "gpus");
    f.gpus += gpus != nullptr && gpus->is_array() ? static_cast<double>(gpus->get_array().size()) : 0;
  }
}

void find_attention(State& state) {
  const Figures& f = *state.figures;
  state.attention.clear();
  if (f.storage_full)
    state.attention.push_back({Tone::bad, "The disk of the server is full: new work is refused until there is room."});
  if (f.paused)
    state.attention.push_back({Tone::warn, "The queue is paused: nothing new starts until `grange resume --queue`."});
  if (f.workers == 0)
    state.attention.push_back(
        {Tone::bad, fmt::format("No worker is connected. Start one with: grange worker --server {}", state.url)});
  for (const Worker& worker : state.workers) {
    if (worker.status == "quarantined")
      state.attention.push_back(
          {Tone::warn, fmt::format("Worker {} is quarantined: {} in a row failed there.", worker.name,
                                   plural(num(worker.raw, "failed_in_a_row"), "attempt"))});
  }
}

void read_overview(State& state, const json::value& overview, Figures& f) {
  const json::value none = json::object();
  const auto part = [&](const json::value& of, std::string_view key) -> const json::value& {
    const json::value* value = field(of, key);
    return value == nullptr ? none : *value;
  };
  f.per_second =
      real(part(overview, "throughput"), "completed_per_s") + real(part(overview, "throughput"), "failed_per_s");
  if (const json::value* p50 = field(part(overview, "wait_ms"), "p50"); p50 != nullptr && p50->is_number())
    f.wait_p50_ms = p50->to_number<double>();
  const json::value& use = part(overview, "use");
  f.cores_used = real(part(use, "cores"), "used");
  f.cores = real(part(use, "cores"), "total");
  f.memory_used = real(part(use, "memory"), "used_bytes");
  f.memory = real(part(use, "memory"), "total_bytes");
  f.gpus_used = real(part(use, "gpus"), "used");
  f.gpus = real(part(use, "gpus"), "total");
  state.attention.clear();
  const json::value& attention = part(overview, "attention");
  if (!attention.is_array()) return;
  for (const json::value& one : attention.get_array()) {
    const std::string severity = str(one, "severity"), title = str(one, "title"), text = str(one, "text");
    state.attention.push_back({severity == "error"  ? Tone::bad
                               : severity == "warn" ? Tone::warn
                                                    : Tone::accent,
                               fmt::format("{}{}{}", title, title.empty() || text.empty() ? "" : ": ", text)});
  }
}

bool hear_stats(State& state, const json::value& answer, Clock now) {
  const json::value* inside = field(answer, "stats");
  const json::value& stats = inside == nullptr ? answer : *inside;
  if (field(stats, "total_jobs") == nullptr) {
    lose(state, "what answers is not a Grange server", now);
    return false;
  }
  const bool back = state.link.state == Link::lost;
  state.link = {};
  state.link.state = Link::up;
  if (back) {
    for (auto& [name, slot] : state.slots) slot.due_ms = 0;
  }
  Figures f = read_figures(stats);
  // Over some seconds, by the server's own clock, so that a slow answer is no slow farm.
  const std::int64_t ended = f.completed + f.failed;
  if (!state.ended.empty() && (f.uptime_s <= state.ended.back().first || ended < state.ended.back().second))
    state.ended.clear();  // another server, or an emptied one
  state.ended.emplace_back(f.uptime_s, ended);
  while (state.ended.size() > 2 && state.ended[1].first <= f.uptime_s - kRateSeconds) state.ended.pop_front();
  if (state.ended.size() > 1)
    f.per_second = static_cast<double>(ended - state.ended.front().second) / (f.uptime_s - state.ended.front().first);
  if (inside != nullptr) {
    read_overview(state, answer, f);
  } else {
    sum_use(state.workers, f);
  }
  state.figures = std::move(f);
  if (inside == nullptr) find_attention(state);
  const Figures& g = *state.figures;
  if (g.per_second) keep(state, "rate", *g.per_second);
  keep(state, "waiting", static_cast<double>(g.queued));
  keep(state, "running", static_cast<double>(g.running));
  keep(state, "workers", static_cast<double>(g.workers));
  keep(state, "cores", g.cores > 0 ? g.cores_used / g.cores : 0);
  keep(state, "memory", g.memory > 0 ? g.memory_used / g.memory : 0);
  keep(state, "gpus", g.gpus > 0 ? g.gpus_used / g.gpus : 0);
  return true;
}

void merge_jobs(State& state, Clock now) {
  std::map<std::int64_t, const Job*, std::greater<>> by_number;
  for (const auto& [page, jobs] : state.job_pages)
    for (const Job& job : jobs) by_number.emplace(job.number, &job);
  state.jobs.clear();
  std::map<std::string, Pace> paces;
  for (const auto& [number, job] : by_number) {
    state.jobs.push_back(*job);
    if (job->ended()) continue;
    Pace& pace = paces[job->id] = std::move(state.paces[job->id]);
    if (!pace.seen.empty() && job->done() < pace.seen.back().second) pace.seen.clear();  // some run again
    pace.seen.emplace_back(now.mono_ms, job->done());
    while (pace.seen.size() > 2 && pace.seen[1].first < now.mono_ms - 30'000) pace.seen.pop_front();
  }
  state.paces = std::move(paces);
}

void hear_workers(State& state, const json::array& all) {
  std::map<std::string, std::deque<double>> history;
  state.workers.clear();
  for (const json::value& one : all) {
    Worker worker = read_worker(one);
    if (worker.cpu_percent) keep(state, "cpu " + worker.id, *worker.cpu_percent);
    if (worker.memory_used && worker.memory > 0)
      keep(state, "mem " + worker.id,
           100 * static_cast<double>(*worker.memory_used) / static_cast<double>(worker.memory));
    for (const char* kind : {"cpu ", "mem "}) {
      if (auto it = state.history.find(kind + worker.id); it != state.history.end()) history.insert(*it);
    }
    state.workers.push_back(std::move(worker));
  }
  // Without those of workers that are gone.
  std::erase_if(state.history,
                [](const auto& one) { return one.first.starts_with("cpu ") || one.first.starts_with("mem "); });
  state.history.merge(history);
  state.heard_workers = true;
}

std::string word_of_task(const json::value& task) {
  if (std::string message = str(task, "message", str(task, "failure")); !message.empty()) return message;
  const json::value* progress = field(task, "progress");
  if (progress == nullptr || !progress->is_object()) return "";
  const double done = real(*progress, "done"), total = real(*progress, "total");
  const std::string text = str(*progress, "text");
  return (total > 0 ? fmt::format("{:g}/{:g} ({:.0f}%)", done, total, 100 * done / total) : fmt::format("{:g}", done)) +
         (text.empty() ? "" : " " + text);
}

Task read_task(const json::value& task) {
  return {.index = num(task, "index"),
          .attempt = num(task, "attempt"),
          .status = str(task, "status"),
          .worker = str(task, "worker_id"),
          .failure = str(task, "failure"),
          .word = word_of_task(task)};
}

void hear_job(State& state, const std::string& name, const json::value& answer) {
  JobView& view = *state.job_view;
  if (name == "job") {
    view.job = read_job(answer);
    view.missing.clear();
    const bool over = view.job->ended();
    for (auto& [slot_name, slot] : state.slots) {
      if (slot_name == "job" || slot_name.starts_with("job ")) slot.every_ms = state.interval_ms * (over ? kLazy : 1);
    }
    if (over || view.job->running > 0) view.why.clear();
  } else if (name == "job explain") {
    const bool waits = view.job && !view.job->ended() && view.job->running + view.job->assigned == 0;
    view.why = waits ? why_it_waits(answer) : "";
  } else if (name.starts_with("job tasks ")) {
    if (!answer.is_array()) return;
    std::vector<Task>& tasks = view.tasks[name.substr(10)];
    tasks.clear();
    for (const json::value& task : answer.get_array()) tasks.push_back(read_task(task));
  }
}

void hear_act(State& state, const Action& act, const Answer& answer, Clock now) {
  boost::system::error_code ec;
  const json::value body = json::parse(answer.body, ec);
  if (answer.status >= 400) {
    const std::string message = message_of(answer.body);
    return say(state, Tone::bad,
               message.empty() ? fmt::format("{}: the server answered with HTTP status {}.", act.what, answer.status)
                               : act.what + ": " + message,
               now);
  }
  std::string more;
  if (!ec && field(body, "cancelled") != nullptr) more = ": " + plural(num(body, "cancelled"), "task") + " cancelled";
  if (!ec && field(body, "retried") != nullptr) more = ": " + plural(num(body, "retried"), "task") + " to run again";
  say(state, Tone::good, act.what + more + ".", now);
  due_now(state, {"stats", "jobs newest", "jobs running", "jobs pending", "workers", "job", "job explain", "worker"});
}

void refuse(State& state, const Answer& answer) {
  const std::string message = message_of(answer.body);
  state.refused = answer.status == 401
                      ? fmt::format(
                            "The server at {} wants a token, and this is not one that it takes; name a file "
                            "with --token-file, or set GRANGE_TOKEN.",
                            state.url)
                  : message.empty() ? fmt::format("The server at {} does not let you see its jobs.", state.url)
                                    : message;
}

void hear_missing(State& state, const std::string& name, const Answer& answer) {
  if (name == "job" && state.job_view)
    state.job_view->missing = answer.status == 404
                                  ? state.job_view->job ? "This job is not there any more." : "There is no such job."
                                  : message_of(answer.body);
  if (name == "worker" && state.worker_view) state.worker_view->tasks.reset();
}

// How often each is asked for depends on what is looked at.
void settle_slots(State& state) {
  const bool in_view = state.job_view || state.worker_view;
  const auto want = [&](const char* name, std::string path, bool seen) {
    Slot& slot = state.slots[name];
    slot.path = std::move(path);
    const std::int64_t every = state.interval_ms * (seen ? 1 : kLazy);
    if (every < slot.every_ms) slot.due_ms = std::min(slot.due_ms, slot.asked_ms + every);
    slot.every_ms = every;
  };
  const bool jobs = state.tab != Tab::workers && !in_view;
  const int many = state.tab == Tab::jobs ? 500 : 100;
  want("stats", state.has_overview ? "/api/overview" : "/api/stats", true);
  want("jobs newest", fmt::format("/api/jobs?limit={}", many), jobs);
  want("jobs running", fmt::format("/api/jobs?state=running&limit={}", many), jobs);
  want("jobs pending", fmt::format("/api/jobs?state=pending&limit={}", many), jobs);
  want("workers", "/api/workers", state.tab != Tab::jobs && !state.job_view);
  if (!state.job_view) std::erase_if(state.slots, [](const auto& one) { return one.first.starts_with("job "); });
  if (!state.job_view) state.slots.erase("job");
  if (!state.worker_view) state.slots.erase("worker");
  if (state.job_view) {
    const std::string path = "/api/jobs/" + escape(state.job_view->id);
    const auto add = [&](const std::string& name, const std::string& what) {
      Slot& slot = state.slots[name];
      if (slot.path.empty()) slot.every_ms = state.interval_ms;
      slot.path = what;
    };
    add("job", path);
    const std::optional<Job>& job = state.job_view->job;
    if (job && !job->ended() && job->running + job->assigned == 0) add("job explain", path + "/explain");
    if (job) {
      const std::pair<const char*, std::int64_t> states[] = {{"running", job->running},
                                                             {"failed", job->failed},
                                                             {"paused", job->paused_tasks},
                                                             {"assigned", job->assigned}};
      for (const auto& [status, count] : states) {
        if (count > 0) {
          add(std::string("job tasks ") + status, fmt::format("{}/tasks?status={}&limit=50", path, status));
        } else {
          state.job_view->tasks.erase(status);
          state.slots.erase(std::string("job tasks ") + status);
        }
      }
    }
    add("job log", fmt::format("{}/logs?limit={}&after={}", path, LogTail::kPage, state.job_view->log.asks_after()));
  }
  if (state.worker_view) want("worker", "/api/workers/" + escape(state.worker_view->id), true);
}

}  // namespace

Job read_job(const json::value& object) {
  Job job;
  job.id = str(object, "id");
  job.number = num(object, "job");
  job.name = str(object, "name");
  job.status = str(object, "status");
  job.user = str(object, "user");
  job.engine = str(object, "engine");
  job.total = num(object, "total_tasks");
  job.completed = num(object, "completed_tasks");
  job.failed = num(object, "failed_tasks");
  job.cancelled = num(object, "cancelled_tasks");
  job.running = num(object, "running_tasks");
  job.assigned = num(object, "assigned_tasks");
  job.pending = num(object, "pending_tasks");
  job.blocked = num(object, "blocked_tasks");
  job.paused_tasks = num(object, "paused_tasks");
  job.priority = num(object, "priority");
  job.paused = flag(object, "paused");
  job.open = flag(object, "open");
  job.created_ms = parse_iso_ms(str(object, "created_at"));
  job.started_ms = parse_iso_ms(str(object, "started_at"));
  job.ended_ms = parse_iso_ms(str(object, "completed_at"));
  if (job.paused && !job.ended()) job.status = "paused";
  return job;
}

Worker read_worker(const json::value& object) {
  Worker worker;
  worker.id = str(object, "id");
  worker.name = str(object, "name");
  worker.status = str(object, "status");
  worker.host = str(object, "hostname");
  worker.pool = str(object, "pool", "standard");
  worker.slots = num(object, "slots");
  worker.running = num(object, "running");
  worker.backlog = num(object, "backlog");
  worker.completed = num(object, "tasks_completed");
  worker.failed = num(object, "tasks_failed");
  worker.memory = num(object, "memory_bytes");
  worker.cpus = real(object, "cpus");
  worker.seen_ms = parse_iso_ms(str(object, "last_seen"));
  worker.connected = flag(object, "connected");
  const json::value* cpu = field(object, "cpu_percent");
  if (cpu != nullptr && cpu->is_number()) worker.cpu_percent = cpu->to_number<double>();
  const json::value* used = field(object, "memory_used_bytes");
  if (used != nullptr && used->is_number()) worker.memory_used = num(object, "memory_used_bytes");
  if (const json::value* load = field(object, "load")) {
    const json::value* gpus = field(*load, "gpus");
    if (gpus != nullptr && gpus->is_array()) {
      for (const json::value& gpu : gpus->get_array())
        if (const json::value* busy = field(gpu, "percent"); busy != nullptr && busy->is_number())
          worker.gpu_percent = std::max(worker.gpu_percent.value_or(0), real(gpu, "percent"));
    }
  }
  if (field(object, "paused") != nullptr) worker.paused = flag(object, "paused");
  worker.raw = object;
  return worker;
}

bool complete(const State& state) {
  return state.figures && state.heard_workers && state.job_pages.size() == 3;
}

std::vector<Ask> asks(State& state, Clock now) {
  std::vector<Ask> out;
  if (state.link.state == Link::lost && !state.link.trying) {
    if (now.mono_ms < state.link.retry_ms) return out;
    state.link.trying = true;
    state.slots["stats"].due_ms = 0;
  }
  settle_slots(state);
  for (const Ask& ask : std::exchange(state.outbox, {})) out.push_back(ask);
  for (auto& [name, slot] : state.slots) {
    if (slot.busy != 0 || slot.due_ms > now.mono_ms) continue;
    if (state.link.trying && name != "stats") continue;
    slot.busy = ++state.last_id;
    slot.asked_ms = now.mono_ms;
    slot.due_ms = now.mono_ms + slot.every_ms;
    out.push_back({slot.busy, "GET", slot.path});
  }
  return out;
}

std::int64_t rests(const State& state, Clock now) {
  std::int64_t wait = 1000;
  if (state.link.state == Link::lost) return std::clamp<std::int64_t>(state.link.retry_ms - now.mono_ms, 50, 500);
  for (const auto& [name, slot] : state.slots) {
    if (slot.busy == 0) wait = std::min(wait, slot.due_ms - now.mono_ms);
  }
  return std::max<std::int64_t>(wait, 0);
}

void hear(State& state, const Answer& answer, Clock now) {
  if (const auto it = state.acts.find(answer.id); it != state.acts.end()) {
    const Action act = it->second;
    if (answer.status == 0) return lose(state, answer.body, now);
    state.acts.erase(it);
    return hear_act(state, act, answer, now);
  }
  const auto it = std::find_if(state.slots.begin(), state.slots.end(),
                               [&](const auto& one) { return one.second.busy != 0 && one.second.busy == answer.id; });
  if (it == state.slots.end()) return;  // of a view that was left, or of a lost connection
  const std::string name = it->first;
  it->second.busy = 0;
  if (answer.status == 0) return lose(state, answer.body, now);
  if (answer.status >= 400) {
    if (name == "stats" && (answer.status == 404 || answer.status == 405) && state.has_overview) {
      state.has_overview = false;
      it->second.due_ms = 0;
    } else if (answer.status == 401 || (name == "stats" && answer.status == 403)) {
      refuse(state, answer);
    } else if (name == "stats" || answer.status >= 500) {
      const std::string message = message_of(answer.body);
      lose(state, message.empty() ? fmt::format("HTTP status {}", answer.status) : message, now);
    } else {
      hear_missing(state, name, answer);
    }
    return;
  }
  boost::system::error_code ec;
  const json::value body = json::parse(answer.body, ec);
  if (ec) return lose(state, "what answers is not a Grange server", now);
  if (name == "stats") {
    hear_stats(state, body, now);
  } else if (name.starts_with("jobs ")) {
    if (!body.is_array()) return;
    std::vector<Job>& page = state.job_pages[name.substr(5)];
    page.clear();
    for (const json::value& job : body.get_array()) page.push_back(read_job(job));
    merge_jobs(state, now);
    state.heard_jobs = state.job_pages.size() == 3;
  } else if (name == "workers") {
    if (body.is_array()) hear_workers(state, body.get_array());
  } else if (name == "job log") {
    if (state.job_view && body.is_array() && state.job_view->log.take(body.get_array())) it->second.due_ms = 0;
  } else if (name.starts_with("job") && state.job_view) {
    hear_job(state, name, body);
  } else if (name == "worker" && state.worker_view) {
    WorkerView& view = *state.worker_view;
    const json::value* tasks = field(body, "tasks");
    view.tasks.reset();
    view.task_ids.clear();
    if (tasks == nullptr || !tasks->is_array()) return;
    view.tasks.emplace();
    for (const json::value& task : tasks->get_array()) {
      view.tasks->push_back(read_task(task));
      view.tasks->back().word = str(task, "name");
      view.task_ids.push_back(fmt::format("{}/{}", str(task, "job_id"), num(task, "index")));
    }
  }
}

}  // namespace grange::cli::top
