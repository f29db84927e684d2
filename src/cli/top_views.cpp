#include "cli/top_views.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/term.hpp"
#include "cli/top_rows.hpp"

namespace grange::cli::top {
namespace {

constexpr Style kFaint{.dim = true}, kStrong{.bold = true};

using Line = std::vector<Text>;

std::string name_of(const State& state, const std::string& worker) {
  const auto it =
      std::find_if(state.workers.begin(), state.workers.end(), [&](const Worker& one) { return one.id == worker; });
  return it == state.workers.end() || it->name.empty() ? worker : it->name;
}

int put_line(Frame& f, int y, const Line& line) {
  int x = 1;
  for (const Text& text : line) x = f.put(x, y, text.text, text.style);
  return y + 1;
}

void rule(Frame& f, int y, const std::string& title) {
  const int x = f.put(1, y, title + " ", kStrong);
  std::string dashes;
  for (int i = x; i < f.width() - 1; ++i) dashes += f.utf8() ? "─" : "-";
  f.put(x, y, dashes, kFaint);
}

Line counts_of(const Job& job) {
  Line out;
  const auto add = [&](std::int64_t n, const char* name, Tone tone, bool always) {
    if (n == 0 && !always) return;
    out.push_back({fmt::format("{}{}", out.empty() ? "" : "  ", short_count(static_cast<double>(n))),
                   n > 0 ? Style{.tone = tone, .bold = true} : kFaint});
    out.push_back({fmt::format(" {}", name), kFaint});
  };
  add(job.completed, "completed", Tone::good, true);
  add(job.failed, "failed", Tone::bad, true);
  add(job.running, "running", Tone::busy, true);
  add(job.pending, "waiting", Tone::none, true);
  add(job.assigned, "with workers", Tone::busy, false);
  add(job.blocked, "blocked", Tone::none, false);
  add(job.paused_tasks, "paused", Tone::warn, false);
  add(job.cancelled, "cancelled", Tone::warn, false);
  return out;
}

std::string progress_words(const State& state, const Job& job, Clock now) {
  std::string out = fmt::format("{} of {}", short_count(static_cast<double>(job.done())), plural(job.total, "task"));
  if (job.ended()) {
    if (job.started_ms >= 0 && job.ended_ms >= job.started_ms)
      out += fmt::format(", took {}", human_duration(static_cast<double>(job.ended_ms - job.started_ms) / 1000));
    return out;
  }
  if (const auto pace = pace_of(state, job, now)) out += fmt::format(", {:.3g}/s", *pace);
  if (const auto left = left_of(state, job, now)) out += ", about " + human_duration(*left) + " left";
  if (job.open) out += ", open for more";
  return out;
}

// Failures of the tasks that are known, by class.
std::string classes_of(const std::vector<Task>& failed) {
  std::map<std::string, int> classes;
  for (const Task& task : failed) ++classes[task.failure.empty() ? "failed" : task.failure];
  std::string out;
  for (const auto& [name, n] : classes) out += fmt::format("{}{} of {}", out.empty() ? "" : ", ", n, name);
  return out;
}

std::vector<Line> task_lines(const State& state, const JobView& view) {
  std::vector<Line> out;
  const auto rows = [&](const char* status) {
    const auto it = view.tasks.find(status);
    if (it == view.tasks.end()) return;
    for (const Task& task : it->second) {
      Line line = {{fmt::format("{:>7} ", task.index), {}},
                   {fmt::format("{:<10}", task.status), {tone_of(task.status)}},
                   {fmt::format("{} ", task.attempt > 1 ? fmt::format("attempt {}", task.attempt) : ""), kFaint},
                   {name_of(state, task.worker) + "  ", kFaint},
                   {task.word, {task.status == "failed" ? Tone::bad : Tone::none}}};
      out.push_back(std::move(line));
    }
  };
  for (const char* status : {"running", "failed", "paused", "assigned"}) rows(status);
  return out;
}

std::vector<Line> log_lines(const JobView& view, int width, bool utf8) {
  std::vector<Line> out;
  const bool several = view.job && view.job->total > 1;
  if (view.log.left_out) out.push_back({{"... what is older: grange logs " + view.id, kFaint}});
  for (const LogLine& line : view.log.lines) {
    const std::string head = several ? fmt::format("[{}] ", line.index) : line.stream == "system" ? "grange: " : "";
    const Style style = line.stream == "stderr" ? Style{Tone::warn} : line.stream == "system" ? kFaint : Style{};
    const std::vector<std::string> parts =
        wrap(clean(plain_line(line.text), utf8), std::max(8, width - top::width(head)));
    for (const std::string& part : parts) {
      const bool first = &part == &parts.front();
      out.push_back(
          {{first ? head : std::string(static_cast<std::size_t>(top::width(head)), ' '), kFaint}, {part, style}});
    }
  }
  return out;
}

struct JobPanes {
  std::vector<Line> head, tasks, log;
  int task_room = 0, log_room = 0;
};

JobPanes panes_of(const State& state, int y, Clock now) {
  const JobView& view = *state.job_view;
  JobPanes out;
  const int wide = state.width - 2;
  if (view.job) {
    const Job& job = *view.job;
    out.head.push_back(
        {{job.name.empty() ? "job " + job.id : job.name, kStrong},
         {"  " + job.status, {.tone = tone_of(job.status), .bold = true}},
         {fmt::format("  {}{}, priority {}", job.user.empty() ? "" : job.user + ", ", job.engine, job.priority),
          kFaint}});
    const double share = job.total == 0 ? 0 : static_cast<double>(job.done()) / static_cast<double>(job.total);
    const int cells = std::clamp(wide / 3, 8, 40);
    out.head.push_back({{bar(share, cells, state.utf8), {.tone = job.failed > 0 ? Tone::warn : Tone::good}},
                        {fmt::format(" {:.0f}%  ", 100 * share), kStrong},
                        {progress_words(state, job, now), {}}});
    out.head.push_back(counts_of(job));
    if (!view.why.empty()) {
      for (const std::string& part : wrap(clean(view.why, state.utf8), wide)) {
        if (out.head.size() < 6) out.head.push_back({{part, {Tone::warn}}});
      }
    }
  }
  if (!view.missing.empty()) out.head.push_back({{view.missing, {Tone::bad}}});
  out.tasks = task_lines(state, view);
  out.log = log_lines(view, wide, state.utf8);
  const int room = std::max(0, state.height - 1 - y - static_cast<int>(out.head.size()));
  const int tasks = static_cast<int>(out.tasks.size());
  if (view.pane == JobView::tasks_only) {
    out.task_room = std::max(0, room - 1);
  } else if (view.pane == JobView::log_only || tasks == 0 || room < 6) {
    out.log_room = std::max(0, room - 1);
  } else {
    const int log = static_cast<int>(out.log.size());
    out.task_room = std::min(tasks, std::max((room - 2) / 2, room - 2 - log));
    out.log_room = room - 2 - out.task_room;
  }
  return out;
}

std::vector<Line> worker_lines(const State& state, Clock now) {
  const WorkerView& view = *state.worker_view;
  const auto it =
      std::find_if(state.workers.begin(), state.workers.end(), [&](const Worker& one) { return one.id == view.id; });
  std::vector<Line> out;
  if (it == state.workers.end()) {
    out.push_back({{"This worker is not there any more.", {Tone::bad}}});
    return out;
  }
  const Worker& w = *it;
  const json::value& raw = w.raw;
  const int wide = state.width - 2;
  out.push_back({{w.name.empty() ? w.id : w.name, kStrong},
                 {"  " + w.status, {.tone = tone_of(w.status), .bold = true}},
                 {w.paused.value_or(false) && w.status != "paused" ? "  paused" : "", {Tone::warn}},
                 {fmt::format("  {}, seen {}", w.id, ago(str(raw, "last_seen"), now.wall_ms)), kFaint}});
  const auto fact = [&](const char* name, const std::string& value, Style style = {}) {
    if (value.empty()) return;
    bool first = true;
    for (const std::string& part : wrap(clean(value, state.utf8), std::max(8, wide - 11))) {
      out.push_back({{fmt::format("{:<11}", std::exchange(first, false) ? name : ""), kFaint}, {part, style}});
    }
  };
  const auto load = [&](const char* name, const std::string& value, const std::string& series) {
    Line line = {{fmt::format("{:<11}", name), kFaint}, {fmt::format("{:<16}", value), kStrong}};
    const auto history = state.history.find(series);
    if (history != state.history.end() && wide > 40)
      line.push_back({spark(history->second, std::min(wide - 28, 60), state.utf8, 100), {Tone::accent}});
    out.push_back(std::move(line));
  };
  fact("tasks", fmt::format("{} running on {}, {} held; {} completed, {} failed in all", w.running,
                            plural(w.slots, "slot"), w.backlog, human_count(static_cast<std::uint64_t>(w.completed)),
                            human_count(static_cast<std::uint64_t>(w.failed))));
  if (w.status == "quarantined")
    fact("",
         fmt::format("{} in a row failed here; one task on trial {}. `grange workers release {}` ends it now.",
                     plural(num(raw, "failed_in_a_row"), "attempt"), until(str(raw, "quarantined_until"), now.wall_ms),
                     w.name),
         {Tone::bad});
  if (w.cpu_percent) load("CPU", fmt::format("{:.0f}% of {:g}", *w.cpu_percent, w.cpus), "cpu " + w.id);
  if (w.memory_used)
    load("memory", short_bytes(static_cast<double>(*w.memory_used), static_cast<double>(w.memory)), "mem " + w.id);
  const json::value* measured = field(raw, "load");
  const json::value nothing = json::object();
  const json::value& more = measured == nullptr ? nothing : *measured;
  const auto has = [&](const char* key) { return field(more, key) != nullptr && field(more, key)->is_number(); };
  const auto flow = [&](const char* name, const char* a, const char* a_word, const char* b, const char* b_word) {
    if (has(a) && has(b))
      fact(name, fmt::format("{}/s {}, {}/s {}", human_bytes(static_cast<std::uint64_t>(std::max(0.0, real(more, a)))),
                             a_word, human_bytes(static_cast<std::uint64_t>(std::max(0.0, real(more, b)))), b_word));
  };
  flow("network", "network_in_bytes_per_s", "in", "network_out_bytes_per_s", "out");
  flow("disk", "disk_read_bytes_per_s", "read", "disk_write_bytes_per_s", "written");
  if (has("temperature_c")) fact("warmth", fmt::format("{:.0f} C", real(more, "temperature_c")));
  const auto each = [](const json::value& of, const char* key, auto&& call) {
    const json::value* all = field(of, key);
    if (all != nullptr && all->is_array())
      for (const json::value& one : all->get_array()) call(one);
  };
  std::vector<const json::value*> loads;
  each(more, "gpus", [&](const json::value& one) { loads.push_back(&one); });
  std::size_t gpu = 0;
  each(raw, "gpus", [&](const json::value& one) {
    std::string text =
        fmt::format("{}, {}", str(one, "name"), human_bytes(static_cast<std::uint64_t>(num(one, "memory_bytes"))));
    if (const json::value* busy = gpu < loads.size() ? field(*loads[gpu], "percent") : nullptr;
        busy != nullptr && busy->is_number())
      text += fmt::format(", {:.0f}% busy", real(*loads[gpu], "percent"));
    fact(fmt::format("GPU {}", gpu++).c_str(), text);
  });
  const auto joined = [&](const char* key) {
    std::string text;
    each(raw, key, [&](const json::value& one) {
      const std::string word = one.is_string()
                                   ? std::string(one.get_string())
                                   : str(one, "name") + (str(one, "state").empty() ? "" : " " + str(one, "state"));
      text += (text.empty() ? "" : ", ") + word;
    });
    return text;
  };
  fact("host", fmt::format("{}, {}", w.host, str(raw, "os")));
  fact("processor", fmt::format("{}, {:g} cores", str(raw, "cpu_model"), w.cpus));
  fact("engines", joined("engines"));
  fact("services", joined("services"));
  fact("models", joined("models"));
  std::string labels;
  if (const json::value* all = field(raw, "labels"); all != nullptr && all->is_object()) {
    for (const auto& [key, value] : all->get_object())
      labels += fmt::format("{}{}={}", labels.empty() ? "" : ", ", std::string(key),
                            value.is_string() ? std::string(value.get_string()) : json::serialize(value));
  }
  fact("labels", labels);
  fact("pool", w.pool);
  fact("version", fmt::format("{}, Python {}", str(raw, "version"), str(raw, "python_version", "-")));
  fact("notes", joined("notes"), {Tone::warn});
  if (view.tasks) {
    out.push_back({});
    out.push_back({{view.tasks->empty() ? "It holds no task now." : "What it runs", kStrong}});
    for (std::size_t i = 0; i < view.tasks->size(); ++i) {
      const Task& task = (*view.tasks)[i];
      out.push_back({{fmt::format("{:<12} ", view.task_ids[i]), {Tone::busy}},
                     {task.word, {}},
                     {task.attempt > 1 ? fmt::format("  attempt {}", task.attempt) : "", kFaint}});
    }
  }
  return out;
}

}  // namespace

int most_scroll(const State& state, Clock now) {
  if (state.job_view) {
    const JobPanes panes = panes_of(state, 3, now);
    const bool tasks = state.job_view->pane == JobView::tasks_only;
    const int all = static_cast<int>(tasks ? panes.tasks.size() : panes.log.size());
    return std::max(0, all - (tasks ? panes.task_room : panes.log_room));
  }
  if (state.worker_view) return std::max(0, static_cast<int>(worker_lines(state, now).size()) - (state.height - 4));
  return 0;
}

void draw_job(Frame& f, const State& state, int y, Clock now) {
  const JobView& view = *state.job_view;
  const JobPanes panes = panes_of(state, y, now);
  const int end = f.height() - 1;
  for (const Line& line : panes.head) {
    if (y < end) y = put_line(f, y, line);
  }
  if (panes.task_room > 0 && y < end) {
    const auto failed = view.tasks.find("failed");
    const std::string classes = failed == view.tasks.end() ? "" : classes_of(failed->second);
    rule(f, y++, "Tasks" + (classes.empty() ? "" : " (" + classes + ")"));
    const int from = view.pane == JobView::tasks_only
                         ? std::clamp(view.back, 0, std::max(0, static_cast<int>(panes.tasks.size()) - panes.task_room))
                         : 0;
    const int behind = std::min(from + panes.task_room, static_cast<int>(panes.tasks.size()));
    for (int i = from; i < behind; ++i) y = put_line(f, y, panes.tasks[static_cast<std::size_t>(i)]);
  }
  if (panes.log_room > 0 && y < end) {
    const int all = static_cast<int>(panes.log.size());
    const int back = std::clamp(view.back, 0, std::max(0, all - panes.log_room));
    rule(f, y++, back > 0 ? fmt::format("Log ({} below)", plural(back, "line")) : "Log");
    if (all == 0) f.put(1, y, "Nothing written yet.", kFaint);
    for (int i = std::max(0, all - panes.log_room - back); i < all - back && y < end; ++i)
      y = put_line(f, y, panes.log[static_cast<std::size_t>(i)]);
  }
}

void draw_worker(Frame& f, const State& state, int y, Clock now) {
  const std::vector<Line> lines = worker_lines(state, now);
  const int end = f.height() - 1;
  const int all = static_cast<int>(lines.size());
  for (int i = std::clamp(state.worker_view->down, 0, std::max(0, all - (end - y))); i < all && y < end; ++i)
    y = put_line(f, y, lines[static_cast<std::size_t>(i)]);
}

}  // namespace grange::cli::top
