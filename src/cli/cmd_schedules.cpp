#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/job_input.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct SchedulesOptions {
  std::string name, cron, file;
  bool no_overlap = false, catch_up = false, paused = false;
};

int list_schedules(Context& context) {
  Rest rest(context);
  const json::value schedules = rest.get("/api/schedules");
  if (context.json) {
    print_json(schedules);
    return kOk;
  }
  const json::array rows = list(schedules);
  if (rows.empty()) {
    fmt::print("No schedules. Make one with: grange schedules add nightly --cron \"0 3 * * *\" job.toml\n");
    return kOk;
  }
  Table table({"SCHEDULE", "CRON (UTC)", "NEXT", "LAST", "LAST JOB", "RUNS", "LEFT OUT", "TROUBLE"});
  table.align_right(5);
  table.align_right(6);
  for (const json::value& row : rows) {
    table.row({printable(str(row, "name")), printable(str(row, "cron")),
               flag(row, "paused") ? "paused" : until(str(row, "next"), now_ms()), ago(str(row, "last"), now_ms()),
               printable(str(row, "last_job", "-")), std::to_string(num(row, "runs")),
               std::to_string(num(row, "left_out")), printable(str(row, "last_error"))});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int add(Context& context, const SchedulesOptions& options) {
  json::object job = read_job(options.file);
  Rest rest(context);
  upload_job(rest, job, folder_of(options.file));
  json::object body{{"cron", options.cron}, {"job", std::move(job)}};
  if (options.no_overlap) body["overlap"] = false;
  if (options.catch_up) body["catch_up"] = true;
  if (options.paused) body["paused"] = true;
  const json::value answer = rest.put("/api/schedules/" + escape(options.name), body);
  if (context.json) {
    print_json(answer);
  } else {
    fmt::print("Schedule {} is set; it runs {}\n", options.name,
               options.paused ? "after `grange schedules resume`" : until(str(answer, "next"), now_ms()));
  }
  return kOk;
}

int act(Context& context, const std::string& name, const std::string& what) {
  Rest rest(context);
  const std::string path = "/api/schedules/" + escape(name);
  const json::value answer = what == "remove" ? rest.remove(path) : rest.post(path + "/" + what);
  if (context.json) {
    print_json(answer);
  } else if (what == "run") {
    fmt::print("{}\n", str(answer, "job_id"));
  } else if (what == "remove") {
    fmt::print("Schedule {} is gone; jobs that it submitted stay\n", name);
  } else {
    fmt::print("Schedule {} {}\n", name, what == "pause" ? "is paused" : "goes on");
  }
  return kOk;
}

}  // namespace

void add_schedules(CLI::App& app, Context& context) {
  CLI::App* top = app.add_subcommand("schedules", "Jobs that are submitted again and again")->fallthrough();
  top->footer("Example:\n  grange schedules\n  grange schedules add nightly --cron \"0 3 * * *\" job.toml");
  top->require_subcommand(0, 1);
  top->add_subcommand("list", "List schedules")
      ->alias("ls")
      ->fallthrough()
      ->footer("Example:\n  grange schedules list");
  auto options = std::make_shared<SchedulesOptions>();
  CLI::App* set = top->add_subcommand("add", "Make a schedule, or replace it")->fallthrough();
  set->footer(
      "The five fields are minute, hour, day of the month, month and day of the week, in UTC.\n\n"
      "Example:\n  grange schedules add nightly --cron \"0 3 * * *\" job.toml\n"
      "  grange schedules add poll --cron \"*/10 * * * mon-fri\" --no-overlap poll.toml");
  set->add_option("NAME", options->name, "Its name")->required();
  set->add_option("FILE", options->file, "The job file, or - for stdin")->required();
  set->add_option("--cron", options->cron, "When: five fields, or @hourly, @daily, @weekly, @monthly, @yearly")
      ->required()
      ->type_name("FIELDS");
  set->add_flag("--no-overlap", options->no_overlap, "Leave a run out while the one before has not ended");
  set->add_flag("--catch-up", options->catch_up, "One run for the time in which the server was down");
  set->add_flag("--paused", options->paused, "Do not run yet");
  struct Word {
    const char *name, *what;
  };
  for (const Word word :
       {Word{"remove", "Remove a schedule"}, Word{"pause", "Leave its runs out until resume"},
        Word{"resume", "Let a paused schedule go on"}, Word{"run", "Run it now, once; prints the job"}}) {
    CLI::App* sub = top->add_subcommand(word.name, word.what)->fallthrough();
    sub->footer(fmt::format("Example:\n  grange schedules {} nightly", word.name));
    sub->add_option("NAME", options->name, "Its name")->required();
    sub->callback([&context, options, what = std::string(word.name)] {
      context.action = [&context, options, what] { return act(context, options->name, what); };
    });
  }
  set->callback([&context, options] { context.action = [&context, options] { return add(context, *options); }; });
  top->callback([&context] {
    if (context.action == nullptr) context.action = [&context] { return list_schedules(context); };
  });
}

}  // namespace grange::cli
