#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <fstream>

#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/race_view.hpp"
#include "cli/runs.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct RunsOptions {
  std::string id, kind, format = "html", out;
  std::vector<std::string> ids, with;
  int limit = 100;
};

std::string path_of(const std::string& id) {
  return "/api/runs/" + escape(id);
}

int ls(Context& context, const RunsOptions& options) {
  Rest rest(context);
  const json::value runs = rest.get(
      fmt::format("/api/runs?limit={}{}", options.limit, options.kind.empty() ? "" : "&kind=" + escape(options.kind)));
  if (context.json) {
    print_json(runs);
    return kOk;
  }
  const json::array rows = list(runs);
  if (rows.empty()) {
    fmt::print("No races yet. Start one with: grange race compute\n");
    return kOk;
  }
  Table table({"RUN", "KIND", "STATUS", "WHAT", "MACHINES", "WINNER", "STARTED"});
  table.colour_by_status(2);
  for (const json::value& row : rows) {
    const json::value* machines = field(row, "machines");
    std::string names;
    if (machines != nullptr && machines->is_array()) {
      for (const json::value& one : machines->get_array())
        names += (names.empty() ? "" : ", ") + (one.is_string() ? printable(one.get_string()) : std::string());
    }
    table.row({str(row, "run_id"), str(row, "kind"), str(row, "status"), printable(str(row, "what", str(row, "model"))),
               names, printable(str(row, "winner", "-")), ago(str(row, "started_at"), now_ms())});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int show(Context& context, const RunsOptions& options) {
  Rest rest(context);
  const json::value run = rest.get(path_of(options.id));
  if (context.json) {
    print_json(run);
    return kOk;
  }
  fmt::print("Race {}: {}, {}\n", str(run, "run_id"), str(run, "kind"), str(run, "status"));
  if (const std::string what = printable(str(run, "what", str(run, "model"))); !what.empty()) {
    std::string asked;
    if (const json::value* settings = field(run, "settings"); settings != nullptr && settings->is_object()) {
      for (const auto& [key, value] : settings->get_object()) {
        if (key != "op" && !value.is_structured())
          asked += fmt::format(", {} {}", std::string_view(key), to_json(value));
      }
    }
    fmt::print("{}{}\n", what, printable(asked));
  }
  if (const std::string prompt = printable(str(run, "prompt")); !prompt.empty())
    fmt::print("{}\n", shorten(prompt, 300));
  const json::value* summary = field(run, "summary");
  if (summary != nullptr)
    fmt::print("{}", race_table(*summary, is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int compare(Context& context, const RunsOptions& options) {
  Rest rest(context);
  std::string with;
  for (const std::string& one : options.with) with += (with.empty() ? "" : ",") + one;
  const json::value answer = rest.get(path_of(options.id) + "/compare" + (with.empty() ? "" : "?with=" + escape(with)));
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const json::value* others = field(answer, "compared_with");
  if (others == nullptr || list(*others).empty()) {
    fmt::print("There is no earlier race of the same settings; name one: grange runs compare {} OTHER\n", options.id);
    return kOk;
  }
  Table table({"RUN", "MACHINE", "METRIC", "NOW", "BEFORE", "VERDICT"});
  table.align_right(3);
  table.align_right(4);
  for (const json::value& other : list(*others)) {
    const json::value* machines = field(other, "machines");
    if (machines == nullptr || !machines->is_object()) continue;
    for (const auto& [name, metrics] : machines->get_object()) {
      if (!metrics.is_object()) continue;
      for (const auto& [metric, one] : metrics.get_object()) {
        table.row({str(other, "run_id"), printable(std::string_view(name)), printable(std::string_view(metric)),
                   fmt::format("{:.3f}", real(one, "now")), fmt::format("{:.3f}", real(one, "before")),
                   str(one, "verdict")});
      }
    }
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int rm(Context& context, const RunsOptions& options) {
  Rest rest(context);
  for (const std::string& id : options.ids) rest.remove(path_of(id));
  if (context.json) {
    json::array gone;
    for (const std::string& id : options.ids) gone.emplace_back(id);
    print_json(json::object{{"deleted", std::move(gone)}});
  } else {
    fmt::print("Deleted {}\n", plural(static_cast<std::int64_t>(options.ids.size()), "race"));
  }
  return kOk;
}

}  // namespace

void show_run(const Context& context, const json::value& run) {
  const json::value* found = field(run, "summary");
  json::value summary = found == nullptr ? json::value(json::object()) : *found;
  const std::string status = str(run, "status"), id = str(run, "run_id");
  if (context.json) {
    if (summary.is_object()) summary.get_object().erase("samples");  // `grange runs show ID --json` has each request
    print_json(summary);
  } else {
    fmt::print("{}Race {}: {}\n",
               race_table(summary, is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)), id, status);
  }
}

int verdict_of(const json::value& run) {
  const std::string status = str(run, "status"), id = str(run, "run_id");
  if (status == "completed") return kOk;
  if (status == "cancelled") throw Exit{kFailed, fmt::format("The race {} was cancelled.", id)};
  throw Exit{kFailed, fmt::format("The race {} did not go well on {}; see `grange runs show {}`.", id,
                                  status == "partial" ? "all machines" : "any machine", id)};
}

void save_export(Rest& rest, const std::string& id, const std::string& format, const std::string& file) {
  const std::string text = rest.text("GET", path_of(id) + "/export?format=" + format);
  if (file == "-") return write_all(STDOUT_FILENO, text);
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << text;
  if (!out.flush()) throw Exit{kFailed, fmt::format("{} cannot be written.", file)};
}

void add_runs(CLI::App& app, Context& context) {
  CLI::App* top = app.add_subcommand("runs", "Races that were run")->fallthrough();
  top->footer("Example:\n  grange runs\n  grange runs export 2024-01-15_143022_abc123 --out race.html");
  top->require_subcommand(0, 1);
  auto options = std::make_shared<RunsOptions>();
  CLI::App* listed = top->add_subcommand("ls", "List races, newest first")->alias("list")->fallthrough();
  listed->footer("Example:\n  grange runs ls --kind llm");
  listed->add_option("--kind", options->kind, "llm, compute or image");
  listed->add_option("--limit", options->limit, "At most so many (default 100)")
      ->check(CLI::Range(1, 1000).description(""))
      ->type_name("N");
  const auto one = [&](const char* name, const char* what, const char* footer,
                       int (*act)(Context&, const RunsOptions&)) {
    CLI::App* sub = top->add_subcommand(name, what)->fallthrough();
    sub->footer(footer);
    sub->callback(
        [&context, options, act] { context.action = [&context, options, act] { return act(context, *options); }; });
    return sub;
  };
  const char* id = "The race's id";
  one("show", "One race and what came of it", "Example:\n  grange runs show 2024-01-15_143022_abc123", show)
      ->add_option("ID", options->id, id)
      ->required();
  CLI::App* compared = one("compare", "Against earlier races of the same settings, or those that are named",
                           "Example:\n  grange runs compare 2024-01-15_143022_abc123", compare);
  compared->add_option("ID", options->id, id)->required();
  compared->add_option("WITH", options->with, "Other races");
  CLI::App* exported = top->add_subcommand("export", "A race as a report, a table or JSON")->fallthrough();
  exported->footer("Example:\n  grange runs export 2024-01-15_143022_abc123 --format csv > race.csv");
  exported->add_option("ID", options->id, id)->required();
  CLI::Option* format = exported->add_option("--format", options->format, "html (default), csv or json");
  format->check(CLI::IsMember({"html", "csv", "json"}).description(""));
  exported->add_option("--out", options->out, "The file (default: stdout)")->type_name("FILE");
  exported->callback([&context, options, format] {
    context.action = [&context, options, given = format->count() > 0] {
      std::string wanted = options->format;
      const auto dot = options->out.rfind('.');
      if (!given && dot != std::string::npos) {
        const std::string ending = options->out.substr(dot + 1);
        if (ending == "csv" || ending == "json") wanted = ending;
      }
      Rest rest(context);
      save_export(rest, options->id, wanted, options->out.empty() ? "-" : options->out);
      return static_cast<int>(kOk);
    };
  });
  one("rm", "Delete races that have ended, and their files", "Example:\n  grange runs rm 2024-01-15_143022_abc123", rm)
      ->add_option("ID", options->ids, "Their ids")
      ->required();
  top->callback([&context, options] {
    if (context.action == nullptr) context.action = [&context, options] { return ls(context, *options); };
  });
}

}  // namespace grange::cli
