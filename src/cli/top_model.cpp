#include "cli/top_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/term.hpp"
#include "cli/top_rows.hpp"

namespace grange::cli::top {
namespace {

void tell(State& state, Tone tone, std::string text, Clock now) {
  state.message = Message{tone, std::move(text), now.mono_ms + 6'000};
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  return out;
}

// Every word of the filter stands somewhere.
bool passes(const std::string& filter, const std::string& text) {
  const std::string in = lower(text), words = lower(filter);
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find(' ', at), words.size());
    if (end > at && in.find(words.substr(at, end - at)) == std::string::npos) return false;
    at = end + 1;
  }
  return true;
}

std::vector<std::string> shown_ids(const State& state, Clock now) {
  std::vector<std::string> ids;
  if (state.tab == Tab::workers) {
    for (const Worker* worker : shown_workers(state, now)) ids.push_back(worker->id);
  } else {
    for (const Job* job : shown_jobs(state, now)) ids.push_back(job->id);
  }
  return ids;
}

// The row that is chosen stays so while rows move around it; when it goes, its place stays.
void move_to(State& state, std::int64_t by, Clock now) {
  const std::vector<std::string> ids = shown_ids(state, now);
  List& list = list_of(state);
  if (ids.empty()) return;
  const auto it = std::find(ids.begin(), ids.end(), list.chosen);
  const auto last = static_cast<std::int64_t>(ids.size()) - 1;
  const std::int64_t here = it != ids.end() ? it - ids.begin() : std::min(static_cast<std::int64_t>(list.place), last);
  const std::int64_t to = std::clamp<std::int64_t>(here + by, 0, last);
  list.place = static_cast<std::size_t>(to);
  list.chosen = ids[list.place];
}

const Job* chosen_job(const State& state, Clock now) {
  if (state.job_view) return state.job_view->job ? &*state.job_view->job : nullptr;
  if (state.worker_view || state.tab == Tab::workers) return nullptr;
  const std::vector<const Job*> jobs = shown_jobs(state, now);
  if (jobs.empty()) return nullptr;
  const List& list = list_of(state);
  const auto it = std::find_if(jobs.begin(), jobs.end(), [&](const Job* job) { return job->id == list.chosen; });
  return it != jobs.end() ? *it : jobs[std::min(list.place, jobs.size() - 1)];
}

const Worker* chosen_worker(const State& state, Clock now) {
  if (state.worker_view) {
    const auto it = std::find_if(state.workers.begin(), state.workers.end(),
                                 [&](const Worker& worker) { return worker.id == state.worker_view->id; });
    return it == state.workers.end() ? nullptr : &*it;
  }
  if (state.job_view || state.tab != Tab::workers) return nullptr;
  const std::vector<const Worker*> workers = shown_workers(state, now);
  if (workers.empty()) return nullptr;
  const List& list = list_of(state);
  const auto it =
      std::find_if(workers.begin(), workers.end(), [&](const Worker* worker) { return worker->id == list.chosen; });
  return it != workers.end() ? *it : workers[std::min(list.place, workers.size() - 1)];
}

void leave_views(State& state) {
  state.job_view.reset();
  state.worker_view.reset();
  std::erase_if(state.slots, [](const auto& one) {
    return one.first == "job" || one.first == "worker" || one.first.starts_with("job ");
  });
}

void go_to(State& state, Tab tab) {
  leave_views(state);
  state.tab = tab;
}

void open(State& state, Clock now) {
  if (state.job_view || state.worker_view) return;
  if (const Job* job = chosen_job(state, now)) {
    state.job_view = JobView{.id = job->id, .missing = {}, .job = *job, .why = {}, .tasks = {}, .log = {}};
    list_of(state).chosen = job->id;
  } else if (const Worker* worker = chosen_worker(state, now)) {
    state.worker_view = WorkerView{.id = worker->id, .tasks = {}, .task_ids = {}};
    list_of(state).chosen = worker->id;
  } else if (const std::string& filter = list_of(state).filter; state.tab != Tab::workers && is_an_id(filter)) {
    // Older than what is listed.
    state.job_view = JobView{.id = filter, .missing = {}, .job = {}, .why = {}, .tasks = {}, .log = {}};
  }
}

void act(State& state, Action action, Clock now) {
  if (state.link.state == Link::lost) return tell(state, Tone::bad, "Nothing was done: not connected.", now);
  const std::uint64_t id = ++state.last_id;
  state.outbox.push_back({id, "POST", action.path});
  state.acts.emplace(id, std::move(action));
}

std::string title(const Job& job) {
  return job.name.empty() ? "job " + job.id : fmt::format("job {} ({})", job.id, job.name);
}

void act_on_job(State& state, char32_t key, Clock now) {
  const Job* job = chosen_job(state, now);
  if (job == nullptr)
    return tell(state, Tone::warn,
                state.tab == Tab::workers ? "That goes with a job: 2 shows them." : "There is no job here.", now);
  const std::string path = "/api/jobs/" + escape(job->id);
  if (key == 'r') {
    if (job->failed + job->cancelled == 0)
      return tell(state, Tone::warn, fmt::format("Job {} has no failed or cancelled task to run again.", job->id), now);
    return act(state, {.question = {}, .path = path + "/retry", .what = "Retry of " + title(*job)}, now);
  }
  if (job->ended())
    return tell(state, Tone::warn, fmt::format("Job {} has ended: it is {}.", job->id, job->status), now);
  if (key == 'c') {
    const std::int64_t left = job->total - job->done();
    state.question = Action{.question = fmt::format("Cancel {}, {} that {} not ended? y/n", title(*job),
                                                    plural(left, "task"), left == 1 ? "has" : "have"),
                            .path = path + "/cancel",
                            .what = "Cancel of " + title(*job)};
  } else {
    act(state,
        {.question = {},
         .path = path + (job->paused ? "/resume" : "/pause"),
         .what = (job->paused ? "Resume of " : "Pause of ") + title(*job)},
        now);
  }
}

void act_on_worker(State& state, char32_t key, Clock now) {
  const Worker* worker = chosen_worker(state, now);
  if (worker == nullptr) return tell(state, Tone::warn, "That goes with a worker: 3 shows them.", now);
  const std::string path = "/api/workers/" + escape(worker->id),
                    name = worker->name.empty() ? worker->id : worker->name;
  if (!worker->connected) return tell(state, Tone::warn, fmt::format("Worker {} is {}.", name, worker->status), now);
  if (key == 'd') {
    if (worker->status == "draining")
      return tell(state, Tone::warn, fmt::format("Worker {} is draining already.", name), now);
    state.question =
        Action{.question = fmt::format("Drain worker {}: it finishes {}, gets nothing new, and leaves? y/n", name,
                                       plural(worker->running + worker->backlog, "task")),
               .path = path + "/drain",
               .what = "Drain of worker " + name};
  } else if (worker->paused) {
    act(state,
        {.question = {},
         .path = path + (*worker->paused ? "/resume" : "/pause"),
         .what = (*worker->paused ? "Resume of worker " : "Pause of worker ") + name},
        now);
  } else {
    tell(state, Tone::warn, "This server cannot pause a worker; d drains it.", now);
  }
}

void type_filter(State& state, const Key& key, Clock now) {
  std::string& filter = list_of(state).filter;
  switch (key.kind) {
    case Key::enter:
      state.typing = false;
      break;
    case Key::escape:
      state.typing = false;
      filter.clear();
      break;
    case Key::backspace:
      while (!filter.empty() && (static_cast<unsigned char>(filter.back()) & 0xC0) == 0x80) filter.pop_back();
      if (!filter.empty()) filter.pop_back();
      break;
    case Key::up:
      return move_to(state, -1, now);
    case Key::down:
      return move_to(state, 1, now);
    case Key::character:
      if (key.c == 0x15) {  // Ctrl-U
        filter.clear();
      } else if (key.c >= 0x20 && key.c != 0x7F && key.c < 0x110000 && filter.size() < 100) {
        if (key.c < 0x80) {
          filter += static_cast<char>(key.c);
        } else {
          const int more = key.c < 0x800 ? 1 : key.c < 0x10000 ? 2 : 3;
          static constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
          filter += static_cast<char>(kLead[more] | key.c >> (6 * more));
          for (int i = more - 1; i >= 0; --i) filter += static_cast<char>(0x80 | (key.c >> (6 * i) & 0x3F));
        }
      }
      break;
    default:
      break;
  }
  move_to(state, 0, now);
}

void scroll(State& state, std::int64_t by, Clock now) {
  if (state.job_view) {
    // The log is read from its end, tasks from their start.
    JobView& view = *state.job_view;
    const std::int64_t to = view.back + (view.pane == JobView::tasks_only ? by : -by);
    view.back = static_cast<int>(std::clamp<std::int64_t>(to, 0, most_scroll(state, now)));
  } else if (state.worker_view) {
    int& down = state.worker_view->down;
    down = static_cast<int>(std::clamp<std::int64_t>(down + by, 0, most_scroll(state, now)));
  } else {
    move_to(state, by, now);
  }
}

void sort_on(State& state, bool reverse) {
  if (state.job_view || state.worker_view) return;
  List& list = list_of(state);
  if (reverse) {
    list.reverse = !list.reverse;
    return;
  }
  const int columns = static_cast<int>((state.tab == Tab::workers ? worker_columns() : job_columns()).size());
  list.sort = list.sort + 1 >= columns ? -1 : list.sort + 1;
  list.reverse = false;
}

void back(State& state) {
  if (state.job_view || state.worker_view) {
    leave_views(state);
  } else {
    list_of(state).filter.clear();
  }
}

void press_character(State& state, char32_t c, Clock now) {
  switch (c) {
    case 'q':
    case 0x03:
      state.quit = true;
      break;
    case '?':
    case 'h':
      state.help = true;
      break;
    case '1':
      return go_to(state, Tab::overview);
    case '2':
      return go_to(state, Tab::jobs);
    case '3':
      return go_to(state, Tab::workers);
    case 'j':
      return scroll(state, 1, now);
    case 'k':
      return scroll(state, -1, now);
    case 'g':
      return scroll(state, -1'000'000, now);
    case 'G':
      return scroll(state, 1'000'000, now);
    case '/':
      if (!state.job_view && !state.worker_view) state.typing = true;
      break;
    case 's':
      return sort_on(state, false);
    case 'S':
      return sort_on(state, true);
    case 't':
      if (state.job_view) {
        state.job_view->pane = static_cast<JobView::Pane>((state.job_view->pane + 1) % 3);
        state.job_view->back = 0;
      }
      break;
    case 'c':
    case 'r':
      return act_on_job(state, c, now);
    case 'p':
      if (state.worker_view || (state.tab == Tab::workers && !state.job_view)) return act_on_worker(state, c, now);
      return act_on_job(state, c, now);
    case 'd':
      return act_on_worker(state, c, now);
    default:
      break;
  }
}

template <class Row, class Text>
void filter_rows(std::vector<const Row*>& rows, const std::string& filter, const Text& text) {
  if (!filter.empty()) std::erase_if(rows, [&](const Row* row) { return !passes(filter, text(*row)); });
}

}  // namespace

State start(std::string url, std::int64_t interval_ms, bool utf8) {
  State state;
  state.url = std::move(url);
  state.interval_ms = interval_ms;
  state.utf8 = utf8;
  state.all_jobs.sort = 0;
  return state;
}

bool is_an_id(const std::string& filter) {
  return !filter.empty() && filter.find(' ') == std::string::npos;
}

List& list_of(State& state) {
  return state.tab == Tab::overview ? state.overview : state.tab == Tab::jobs ? state.all_jobs : state.all_workers;
}

const List& list_of(const State& state) {
  return state.tab == Tab::overview ? state.overview : state.tab == Tab::jobs ? state.all_jobs : state.all_workers;
}

std::vector<const Job*> shown_jobs(const State& state, Clock now) {
  const List& list = state.tab == Tab::jobs ? state.all_jobs : state.overview;
  std::vector<const Job*> rows;
  for (const Job& job : state.jobs) rows.push_back(&job);
  filter_rows(rows, list.filter, [](const Job& job) {
    return fmt::format("{} {} {} {} {}", job.id, clean(job.name, true), job.status, job.user, job.engine);
  });
  std::sort(rows.begin(), rows.end(), [&](const Job* a, const Job* b) {
    return list.reverse ? job_before(state, *b, *a, list.sort, now) : job_before(state, *a, *b, list.sort, now);
  });
  return rows;
}

std::vector<const Worker*> shown_workers(const State& state, Clock) {
  const List& list = state.all_workers;
  std::vector<const Worker*> rows;
  for (const Worker& worker : state.workers) rows.push_back(&worker);
  filter_rows(rows, list.filter, [](const Worker& worker) {
    return fmt::format("{} {} {} {} {}", worker.id, clean(worker.name, true), worker.status, worker.host, worker.pool);
  });
  std::sort(rows.begin(), rows.end(), [&](const Worker* a, const Worker* b) {
    return list.reverse ? worker_before(*b, *a, list.sort) : worker_before(*a, *b, list.sort);
  });
  return rows;
}

std::optional<double> pace_of(const State& state, const Job& job, Clock now) {
  const auto it = state.paces.find(job.id);
  if (it != state.paces.end() && it->second.seen.size() > 1) {
    const auto& [from, before] = it->second.seen.front();
    const auto& [to, done] = it->second.seen.back();
    if (to - from >= 2'000 && done > before)
      return 1000 * static_cast<double>(done - before) / static_cast<double>(to - from);
  }
  // Longer than is remembered here: the mean since its start.
  if (job.started_ms < 0 || job.done() == 0 || now.wall_ms - job.started_ms < 1'000) return std::nullopt;
  return 1000 * static_cast<double>(job.done()) / static_cast<double>(now.wall_ms - job.started_ms);
}

std::optional<double> left_of(const State& state, const Job& job, Clock now) {
  if (job.ended() || job.open || job.paused || job.running + job.assigned == 0) return std::nullopt;
  const auto pace = pace_of(state, job, now);
  if (!pace || *pace <= 0) return std::nullopt;
  return static_cast<double>(job.total - job.done()) / *pace;
}

void press(State& state, const Key& key, Clock now) {
  if (key.kind == Key::character && key.c == 0x03) {
    state.quit = true;
    return;
  }
  if (state.help) {
    state.help = false;
    return;
  }
  if (state.question) {
    const Action action = *std::exchange(state.question, std::nullopt);
    if (key.kind == Key::character && (key.c == 'y' || key.c == 'Y')) return act(state, action, now);
    return tell(state, Tone::none, "Nothing was done.", now);
  }
  if (state.typing) return type_filter(state, key, now);
  const int page = std::max(1, state.height - 8);
  switch (key.kind) {
    case Key::character:
      return press_character(state, key.c, now);
    case Key::up:
      return scroll(state, -1, now);
    case Key::down:
      return scroll(state, 1, now);
    case Key::page_up:
      return scroll(state, -page, now);
    case Key::page_down:
      return scroll(state, page, now);
    case Key::home:
      return scroll(state, -1'000'000, now);
    case Key::end:
      return scroll(state, 1'000'000, now);
    case Key::tab:
      return go_to(state, static_cast<Tab>((static_cast<int>(state.tab) + 1) % 3));
    case Key::back_tab:
      return go_to(state, static_cast<Tab>((static_cast<int>(state.tab) + 2) % 3));
    case Key::enter:
    case Key::right:
      return open(state, now);
    case Key::escape:
    case Key::left:
    case Key::backspace:
      return back(state);
  }
}

}  // namespace grange::cli::top
