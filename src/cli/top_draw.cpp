// The frames of `grange top`: its head and foot, the three tabs, help. The views of one job or worker: top_views.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/term.hpp"
#include "cli/top_rows.hpp"
#include "cli/top_views.hpp"

namespace grange::cli::top {
namespace {

constexpr int kLeastWidth = 40, kLeastHeight = 10;
constexpr Style kDim{.dim = true}, kBold{.bold = true};

// ------------------------------------------------------------------------------------------------------ head and foot

void draw_head(Frame& f, const State& state) {
  int x = f.put(1, 0, "grange", {.tone = Tone::accent, .bold = true});
  const int end = f.width() - 1;
  std::string right;
  if (state.figures) {
    const Figures& g = *state.figures;
    right = fmt::format("{}  up {}  {}", g.version, short_time(g.uptime_s), g.policy);
    if (g.paused) right += "  PAUSED";
  }
  const int room = end - x - 4 - width(clean(right, f.utf8()));
  if (room < 10) right = state.figures && state.figures->paused ? "PAUSED" : "";
  f.put(x + 2, 0, state.url, {}, std::max(8, end - x - 4 - width(clean(right, f.utf8()))));
  if (!right.empty()) f.put_right(end, 0, right, kDim);
  if (state.figures && state.figures->paused) f.put_right(end, 0, "PAUSED", {.tone = Tone::warn, .bold = true});
}

void draw_tabs(Frame& f, const State& state) {
  const bool in_view = state.job_view || state.worker_view;
  const auto count = [](std::int64_t n) { return short_count(static_cast<double>(n)); };
  const std::string names[] = {"1 Overview", "2 Jobs" + (state.figures ? " " + count(state.figures->jobs) : ""),
                               "3 Workers" + (state.figures ? " " + count(state.figures->workers) : "")};
  int x = 1;
  for (int i = 0; i < 3; ++i) {
    const bool here = static_cast<int>(state.tab) == i;
    x = f.put(x, 1, " " + names[i] + " ", here ? Style{.bold = true, .reverse = !in_view} : kDim);
    x = f.put(x, 1, " ");
  }
  if (state.job_view) f.put(x, 1, "Job " + state.job_view->id, {.bold = true, .reverse = true});
  if (state.worker_view) f.put(x, 1, "Worker", {.bold = true, .reverse = true});
}

// What is wrong with the connection; "" when nothing is.
std::string banner_of(const State& state, Clock now) {
  const Link& link = state.link;
  if (link.state == Link::lost) {
    const std::string when = link.trying
                                 ? "trying now"
                                 : fmt::format("trying again in {} s",
                                               std::max<std::int64_t>(1, (link.retry_ms - now.mono_ms + 999) / 1000));
    return fmt::format("not connected, {}{}", when, link.why.empty() ? "" : ": " + link.why);
  }
  const auto it = state.slots.find("stats");
  if (it == state.slots.end() || it->second.busy == 0) return "";
  const std::int64_t waited = now.mono_ms - it->second.asked_ms;
  if (waited < 3000) return link.state == Link::starting ? "connecting ..." : "";
  return fmt::format("the server has not answered for {} s", waited / 1000);
}

std::string rate_of(const Figures& g) {
  if (!g.per_second) return "-";
  return *g.per_second < 10 ? fmt::format("{:.1f}", *g.per_second) : short_count(*g.per_second);
}

// The figures in few words, on lines of at most `cells`.
std::vector<std::string> figure_lines(const Figures& g, int cells) {
  const auto n = [](std::int64_t value) { return short_count(static_cast<double>(value)); };
  std::vector<std::string> parts;
  if (g.per_second) parts.push_back(rate_of(g) + " tasks/s");
  parts.push_back(n(g.queued) + " waiting");
  parts.push_back(n(g.running) + " running");
  parts.push_back(plural(g.workers, "worker"));
  if (g.cores > 0) parts.push_back(fmt::format("cores {:.1f}/{:g}", g.cores_used, g.cores));
  if (g.memory > 0) parts.push_back("memory " + short_bytes(g.memory_used, g.memory));
  std::vector<std::string> out(1);
  for (const std::string& part : parts) {
    if (!out.back().empty() && width(out.back()) + 2 + width(part) > cells) out.emplace_back();
    out.back() += (out.back().empty() ? "" : "  ") + part;
  }
  return out;
}

void draw_foot(Frame& f, const State& state, Clock now) {
  const int y = f.height() - 1;
  if (state.question) {
    f.put(1, y, state.question->question, {.tone = Tone::warn, .bold = true});
  } else if (state.typing) {
    const int x = f.put(1, y, "/" + list_of(state).filter);
    f.put(x, y, " ", {.reverse = true});
  } else if (state.message && state.message->until_ms > now.mono_ms) {
    f.put(1, y, state.message->text, {.tone = state.message->tone});
  } else {
    const std::string keys = state.job_view      ? "Esc back  t tasks/log  c cancel  p pause  r retry  ? help  q quit"
                             : state.worker_view ? "Esc back  d drain  j/k scroll  ? help  q quit"
                             : state.tab == Tab::workers
                                 ? "Enter open  d drain  / filter  s sort  ? help  q quit"
                                 : "Enter open  c cancel  p pause  r retry  / filter  s sort  ? help  q quit";
    f.put(1, y, width(keys) <= f.width() - 2 ? keys : "Enter open  Esc back  ? help  q quit", kDim);
  }
}

// ------------------------------------------------------------------------------------------------------------- tables

struct Layout {
  std::vector<int> columns, widths;
};

// Which columns there is room for, and how wide they are; the second one takes what is left, and gives first.
Layout lay_out(const std::vector<Column>& columns, const std::vector<std::vector<Text>>& cells, int room, bool utf8) {
  std::vector<int> wide(columns.size());
  for (std::size_t c = 0; c < columns.size(); ++c) {
    wide[c] = width(columns[c].head) + 1;  // and the mark of the sorting
    for (const auto& row : cells) wide[c] = std::max(wide[c], width(clean(row[c].text, utf8)));
    if (c != 1) wide[c] = std::min(wide[c], 28);
  }
  Layout out;
  for (std::size_t c = 0; c < columns.size(); ++c) out.columns.push_back(static_cast<int>(c));
  const auto flexible = [&](int c) { return c == (columns[0].right ? 1 : 0); };
  const auto total = [&](int least) {
    int sum = 2 * (static_cast<int>(out.columns.size()) - 1);
    for (const int c : out.columns)
      sum += flexible(c) ? std::min(wide[static_cast<std::size_t>(c)], least) : wide[static_cast<std::size_t>(c)];
    return sum;
  };
  while (total(16) > room) {
    const auto worst = std::max_element(out.columns.begin(), out.columns.end(), [&](int a, int b) {
      return columns[static_cast<std::size_t>(a)].rank < columns[static_cast<std::size_t>(b)].rank;
    });
    if (columns[static_cast<std::size_t>(*worst)].rank == 0) break;
    out.columns.erase(worst);
  }
  const int spare = room - total(0);
  for (const int c : out.columns) {
    const int natural = wide[static_cast<std::size_t>(c)];
    out.widths.push_back(flexible(c) ? std::clamp(spare, 4, natural) : natural);
  }
  return out;
}

void draw_table(Frame& f, int y, const std::vector<Column>& columns, const std::vector<std::vector<Text>>& cells,
                const List& list, int chosen) {
  const Layout layout = lay_out(columns, cells, f.width() - 2, f.utf8());
  const auto line = [&](int at, auto&& text_of_column) {
    int x = 1;
    for (std::size_t i = 0; i < layout.columns.size(); ++i) {
      const Text text = text_of_column(layout.columns[i]);
      const int wide = layout.widths[i];
      const std::string shown = cut(clean(text.text, f.utf8()), wide, f.utf8());
      const bool right = columns[static_cast<std::size_t>(layout.columns[i])].right;
      f.put(right ? x + wide - width(shown) : x, at, shown, text.style, wide);
      x += wide + 2;
    }
  };
  line(y, [&](int c) {
    const bool sorted = c == list.sort;
    const char* mark = !sorted ? "" : list.reverse ? (f.utf8() ? "▲" : "^") : (f.utf8() ? "▼" : "v");
    return Text{columns[static_cast<std::size_t>(c)].head + std::string(mark), {.bold = true, .dim = !sorted}};
  });
  for (std::size_t r = 0; r < cells.size(); ++r) {
    const int at = y + 1 + static_cast<int>(r);
    line(at, [&](int c) { return cells[r][static_cast<std::size_t>(c)]; });
    if (static_cast<int>(r) == chosen) f.fill(at, {.bold = true, .reverse = true});
  }
}

// Rows of a table that has room for `room` of them, with the chosen one among them.
template <class Row, class CellOf>
void draw_rows(Frame& f, int y, int room, const std::vector<const Row*>& rows, const std::vector<Column>& columns,
               const List& list, bool choose, const CellOf& cell_of) {
  const auto it = std::find_if(rows.begin(), rows.end(), [&](const Row* row) { return row->id == list.chosen; });
  const std::size_t chosen = it != rows.end() ? static_cast<std::size_t>(it - rows.begin())
                                              : std::min(list.place, rows.empty() ? 0 : rows.size() - 1);
  const auto fit = static_cast<std::size_t>(std::max(0, room));
  const std::size_t from = rows.size() <= fit || chosen < fit / 2 ? 0 : std::min(chosen - fit / 2, rows.size() - fit);
  std::vector<std::vector<Text>> cells;
  for (std::size_t r = from; r < std::min(rows.size(), from + fit); ++r) {
    cells.emplace_back();
    for (std::size_t c = 0; c < columns.size(); ++c) cells.back().push_back(cell_of(*rows[r], static_cast<int>(c)));
  }
  draw_table(f, y, columns, cells, list, choose ? static_cast<int>(chosen - from) : -1);
}

std::string count_of(const State& state, const List& list, std::size_t shown, std::size_t all, const char* word) {
  if (!list.filter.empty() && !state.typing) return fmt::format("{} of {} {}: {}", shown, all, word, list.filter);
  return "";
}

void draw_jobs(Frame& f, const State& state, int y, int room, bool choose, Clock now) {
  const std::vector<const Job*> rows = shown_jobs(state, now);
  const List& list = list_of(state);
  if (rows.empty()) {
    const bool none = state.heard_jobs && list.filter.empty();
    f.put(1, y,
          none                  ? "No jobs yet. Try one: grange run -- echo hello"
          : list.filter.empty() ? ""
          : is_an_id(list.filter)
              ? fmt::format("None of the listed jobs. Enter opens job {}; Esc takes the filter away.", list.filter)
              : "No job passes the filter; Esc takes it away.",
          kDim);
    return;
  }
  draw_rows(f, y, room - 1, rows, job_columns(), list, choose,
            [&](const Job& job, int column) { return job_cell(state, job, column, now); });
}

void draw_workers(Frame& f, const State& state, int y, int room, bool choose, Clock now) {
  const std::vector<const Worker*> rows = shown_workers(state, now);
  const List& list = state.all_workers;
  if (rows.empty()) {
    f.put(1, y,
          !state.heard_workers  ? ""
          : list.filter.empty() ? fmt::format("No workers yet. Start one with: grange worker --server {}", state.url)
                                : "No worker passes the filter; Esc takes it away.",
          kDim);
    return;
  }
  draw_rows(f, y, room - 1, rows, worker_columns(), list, choose,
            [&](const Worker& worker, int column) { return worker_cell(state, worker, column, now); });
}

// ----------------------------------------------------------------------------------------------------------- overview

struct Figure {
  const char* name;
  std::string value;
  const char* series;
  double most;  // of its small bars; 0: their largest
};

int draw_figures(Frame& f, const State& state, int y, int room) {
  if (!state.figures) return y;
  const Figures& g = *state.figures;
  const auto n = [](std::int64_t value) { return short_count(static_cast<double>(value)); };
  std::vector<Figure> figures = {
      {"tasks/s", rate_of(g), "rate", 0},
      {"workers", fmt::format("{}, {} slots", n(g.workers), n(g.slots)), "workers", 0},
      {"waiting", n(g.queued) + (g.blocked > 0 ? fmt::format(" +{} blocked", n(g.blocked)) : ""), "waiting", 0},
      {"cores", fmt::format("{:.1f}/{:g}", g.cores_used, g.cores), "cores", 1},
      {"running", n(g.running), "running", 0},
      {"memory", short_bytes(g.memory_used, g.memory), "memory", 1}};
  if (g.gpus > 0) figures.push_back({"GPUs", fmt::format("{:.1f}/{:g}", g.gpus_used, g.gpus), "gpus", 1});
  if (g.wait_p50_ms) figures.push_back({"wait p50", human_duration(*g.wait_p50_ms / 1000), "", 0});
  const int across = f.width() >= 72 ? 2 : 1;
  const int cell = (f.width() - 2) / across;
  const int lines = (static_cast<int>(figures.size()) + across - 1) / across;
  if (lines > room) {  // no room for a line each
    int at = y;
    for (const std::string& line : figure_lines(g, f.width() - 2)) {
      if (at - y < room) f.put(1, at++, line);
    }
    return at;
  }
  for (int i = 0; i < static_cast<int>(figures.size()); ++i) {
    const Figure& one = figures[static_cast<std::size_t>(i)];
    const int x = 1 + i % across * cell, at = y + i / across;
    f.put(x, at, one.name, kDim);
    f.put(x + 9, at, one.value, kBold, cell - 10);
    const auto it = state.history.find(one.series);
    const int small = std::min(cell - 27, 60);
    if (it != state.history.end() && small >= 4)
      f.put(x + 26, at, spark(it->second, small, f.utf8(), one.most), {.tone = Tone::accent}, small);
  }
  return y + lines;
}

int draw_attention(Frame& f, const State& state, int y, int room) {
  const int fit = std::min(room, static_cast<int>(state.attention.size()));
  for (int i = 0; i < fit; ++i) {
    const Attention& one = state.attention[static_cast<std::size_t>(i)];
    const bool more = i + 1 == fit && fit < static_cast<int>(state.attention.size());
    f.put(1, y + i, "!", {.tone = one.tone, .bold = true});
    f.put(3, y + i, more ? fmt::format("and {} more", state.attention.size() - static_cast<std::size_t>(i)) : one.text,
          {.tone = one.tone});
  }
  return y + fit;
}

void draw_overview(Frame& f, const State& state, int y, Clock now) {
  const int end = f.height() - 1;
  y = draw_figures(f, state, y, std::max(1, (end - y) / 2 - 1));
  if (!state.attention.empty()) y = draw_attention(f, state, y, std::max(1, std::min(4, (end - y) / 4)));
  const int left = end - y;
  if (left > 6) ++y;
  // Jobs, and below them the workers where there is room for both.
  const int workers = static_cast<int>(state.workers.size());
  const int jobs = std::max(1, static_cast<int>(state.jobs.size()));
  int below = left >= 14 ? std::min(workers + 2, std::max((left - 1) / 3, left - 1 - jobs - 2)) : 0;
  if (workers == 0) below = 0;
  draw_jobs(f, state, y, end - y - below, true, now);
  if (below > 2) draw_workers(f, state, end - below + 1, below - 1, false, now);
}

void draw_help(Frame& f) {
  static constexpr std::pair<const char*, const char*> kKeys[] = {
      {"1 2 3, Tab", "overview, jobs, workers"},
      {"j k, arrows", "down and up; PgDn PgUp, g first, G last"},
      {"Enter, Esc", "open a job or a worker; back"},
      {"/", "show only what has these words; Esc takes it away"},
      {"s  S", "sort by the next column; the other way round"},
      {"c", "cancel the job (asks)"},
      {"p", "pause or resume the job, or the worker"},
      {"r", "run the job's failed and cancelled tasks again"},
      {"d", "drain the worker (asks)"},
      {"t", "in a job: tasks and log, tasks, log"},
      {"?  q", "this; quit"}};
  int y = 2;
  for (const auto& [keys, what] : kKeys) {
    if (y >= f.height() - 1) return;
    f.put(2, y, keys, kBold);
    f.put(16, y++, what);
  }
  f.put(1, f.height() - 1, "Any key goes back.", kDim);
}

}  // namespace

Frame draw(const State& state, Clock now) {
  Frame f(state.width, state.height, state.utf8);
  if (f.width() < kLeastWidth || f.height() < kLeastHeight) {
    f.put(0, f.height() / 2, fmt::format("too small: {}x{} is needed", kLeastWidth, kLeastHeight));
    return f;
  }
  draw_head(f, state);
  draw_tabs(f, state);
  if (state.help) {
    draw_help(f);
    return f;
  }
  const std::string banner = banner_of(state, now);
  const bool overview = state.tab == Tab::overview && !state.job_view && !state.worker_view;
  if (state.job_view) {
    draw_job(f, state, 3, now);
  } else if (state.worker_view) {
    draw_worker(f, state, 3, now);
  } else if (overview) {
    draw_overview(f, state, 3, now);
  } else if (state.tab == Tab::jobs) {
    draw_jobs(f, state, 3, f.height() - 4, true, now);
  } else {
    draw_workers(f, state, 3, f.height() - 4, true, now);
  }
  if (state.link.state == Link::lost) {
    // What is shown is old.
    f.dim();
    draw_head(f, state);
    draw_tabs(f, state);
  }
  if (!banner.empty()) {
    f.put(1, 2, banner, {.tone = state.link.state == Link::starting ? Tone::none : Tone::bad, .bold = true});
  } else if (!overview && state.figures) {
    const List& list = list_of(state);
    const bool in_view = state.job_view || state.worker_view;
    const std::string filter =
        in_view ? ""
        : state.tab == Tab::jobs
            ? count_of(state, list, shown_jobs(state, now).size(), state.jobs.size(), "jobs")
            : count_of(state, list, shown_workers(state, now).size(), state.workers.size(), "workers");
    f.put(1, 2, filter.empty() ? figure_lines(*state.figures, f.width() - 2).front() : filter,
          filter.empty() ? kDim : Style{.tone = Tone::accent});
  }
  draw_foot(f, state, now);
  return f;
}

std::vector<std::string> text_of(const State& state, int width, Clock now) {
  State all = state;
  all.tab = Tab::overview;
  const int rows =
      static_cast<int>(all.attention.size() + std::max<std::size_t>(1, all.jobs.size()) + all.workers.size());
  Frame f(std::max(width, kLeastWidth), rows + 16, all.utf8);
  draw_head(f, all);
  int y = draw_figures(f, all, 1, 8);
  y = draw_attention(f, all, y, static_cast<int>(all.attention.size())) + 1;
  draw_jobs(f, all, y, static_cast<int>(all.jobs.size()) + 1, false, now);
  y += static_cast<int>(std::max<std::size_t>(1, all.jobs.size())) + (all.jobs.empty() ? 1 : 2);
  draw_workers(f, all, y, static_cast<int>(all.workers.size()) + 1, false, now);
  std::vector<std::string> out;
  out.reserve(static_cast<std::size_t>(f.height()));
  for (int i = 0; i < f.height(); ++i) out.push_back(f.line(i));
  while (!out.empty() && out.back().empty()) out.pop_back();
  return out;
}

}  // namespace grange::cli::top
