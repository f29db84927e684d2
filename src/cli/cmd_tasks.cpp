#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct TasksOptions {
  std::string id, status;
  int limit = 100;
  std::int64_t after = -1;
};

int list_tasks(Context& context, const TasksOptions& options) {
  const TaskRef ref = take(parse_task(options.id));
  Rest rest(context);
  std::string path = fmt::format("/api/jobs/{}/tasks?limit={}", escape(ref.job), options.limit);
  if (!options.status.empty()) path += "&status=" + options.status;
  if (options.after >= 0) path += fmt::format("&after={}", options.after);
  const json::value tasks = ref.index ? json::value(json::array{get_task(rest, ref)}) : rest.get(path);
  if (context.json) {
    print_json(tasks);
    return kOk;
  }
  const json::array rows = list(tasks);
  if (rows.empty()) {
    fmt::print("No tasks{}.\n", options.status.empty() ? "" : " in this state");
    return kOk;
  }
  Table table({"TASK", "STATUS", "ATTEMPT", "WORKER", "TOOK", "ENDED", "FAULT", "MESSAGE"});
  table.colour_by_status(1);
  table.align_right(2);
  for (const json::value& task : rows) {
    const double ms = str(task, "ended_at").empty() ? -1 : real(task, "run_ms", -1);
    std::string fault = str(task, "fault"), where = str(task, "stage");
    if (fault.empty() || fault == "none") fault = "-";
    if (fault != "-" && !where.empty() && where != "none") fault += ", " + where;
    table.row({str(task, "id"), str(task, "status"), std::to_string(num(task, "attempt")), str(task, "worker_id", "-"),
               ms < 0 ? "-" : human_duration(ms / 1000), ago(str(task, "ended_at"), now_ms()), fault, task_word(task)});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  if (!ref.index && rows.size() == static_cast<std::size_t>(options.limit)) {
    fmt::print(stderr, "grange: more with: grange tasks ls {} --after {}\n", options.id, num(rows.back(), "index"));
  }
  return kOk;
}

}  // namespace

void add_tasks(CLI::App& app, Context& context) {
  CLI::App* tasks = app.add_subcommand("tasks", "List a job's tasks")->fallthrough();
  tasks->footer("Example:\n  grange tasks ls 7 --status failed\n  grange tasks 7         the same, of any status");
  tasks->require_subcommand(1);
  CLI::App* ls = tasks->add_subcommand("ls", "List a job's tasks")->fallthrough();
  ls->footer("Example:\n  grange tasks ls 7 --status failed");
  auto options = std::make_shared<TasksOptions>();
  ls->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)")->required();
  ls->add_option("--status", options->status, "Only those in this state")
      ->check(
          CLI::IsMember({"pending", "blocked", "paused", "assigned", "running", "completed", "failed", "cancelled"}));
  ls->add_option("--limit", options->limit, "How many (default 100)")->check(between(1, 1000))->type_name("N");
  ls->add_option("--after", options->after, "Go on after this index")->type_name("INDEX");
  ls->callback([&context, options] { context.action = [&context, options] { return list_tasks(context, *options); }; });
}

}  // namespace grange::cli
