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

double took(const json::value& job) {
  const std::int64_t from = parse_iso_ms(str(job, "started_at")), to = parse_iso_ms(str(job, "completed_at"));
  return from < 0 ? -1 : static_cast<double>((to < 0 ? now_ms() : to) - from) / 1000;
}

int list_jobs(Context& context, int limit, const std::string& state) {
  Rest rest(context);
  std::string path = fmt::format("/api/jobs?limit={}", limit);
  if (!state.empty()) path += "&state=" + escape(state);
  const json::value jobs = rest.get(path);
  if (context.json) {
    print_json(jobs);
    return kOk;
  }
  const json::array rows = list(jobs);
  if (rows.empty()) {
    fmt::print("No jobs{}. Try one: grange run -- echo hello\n", state.empty() ? " yet" : " in this state");
    return kOk;
  }
  Table table({"JOB", "NAME", "STATUS", "DONE", "FAILED", "CREATED", "TOOK"});
  table.colour_by_status(2);
  table.align_right(3);
  table.align_right(4);
  for (const json::value& job : rows) {
    const double seconds = took(job);
    table.row({str(job, "id"), str(job, "name"), str(job, "status"),
               fmt::format("{}/{}", num(job, "completed_tasks"), num(job, "total_tasks")),
               std::to_string(num(job, "failed_tasks")), ago(str(job, "created_at"), now_ms()),
               seconds < 0 ? "-" : human_duration(seconds)});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int show_job(Context& context, const std::string& id) {
  Rest rest(context);
  const json::value job = get_job(rest, id);
  if (context.json) {
    print_json(job);
    return kOk;
  }
  const bool colour = colours(STDOUT_FILENO);
  const auto line = [](const char* name, const std::string& value) { fmt::print("{:<10} {}\n", name, value); };
  const std::string status = str(job, "status");
  line("job", str(job, "id"));
  if (!str(job, "name").empty()) line("name", printable(str(job, "name")));
  line("status", paint(status, status_colour(status), colour));
  line("engine", str(job, "engine"));
  line("tasks", fmt::format("{} total: {} completed, {} failed, {} cancelled, {} running, {} pending",
                            human_count(static_cast<std::uint64_t>(num(job, "total_tasks"))),
                            num(job, "completed_tasks"), num(job, "failed_tasks"), num(job, "cancelled_tasks"),
                            num(job, "running_tasks"), num(job, "pending_tasks")));
  line("priority", std::to_string(num(job, "priority")));
  line("created", ago(str(job, "created_at"), now_ms()));
  if (const double seconds = took(job); seconds >= 0) line("took", human_duration(seconds));
  if (num(job, "failed_tasks") > 0) {
    fmt::print("\nfailed tasks\n");
    for (const json::value& task :
         list(rest.get(fmt::format("/api/jobs/{}/tasks?status=failed&limit=10", escape(id))))) {
      fmt::print("  {}  {}\n", str(task, "id"), printable(shorten(str(task, "message"), 200)));
    }
    fmt::print("\nSee its output with: grange logs {}\n", id);
  }
  return kOk;
}

}  // namespace

json::value get_job(Rest& rest, const std::string& id) {
  return rest.get("/api/jobs/" + escape(id));
}

bool job_ended(const json::value& job) {
  const std::string status = str(job, "status");
  return status == "completed" || status == "failed" || status == "cancelled";
}

void add_jobs(CLI::App& app, Context& context) {
  CLI::App* jobs = app.add_subcommand("jobs", "List jobs, or show one")->fallthrough();
  jobs->footer("Example:\n  grange jobs ls --state running\n  grange jobs show 7");
  struct Options {
    int limit = 20;
    std::string state, id;
  };
  auto options = std::make_shared<Options>();
  const auto list_options = [options](CLI::App* sub) {
    sub->add_option("--limit", options->limit, "How many, newest first (default 20)")
        ->check(between(1, 1000))
        ->type_name("N");
    sub->add_option("--state", options->state, "Only those in this state")
        ->check(CLI::IsMember({"pending", "running", "completed", "failed", "cancelled"}));
  };
  list_options(jobs);
  CLI::App* ls = jobs->add_subcommand("ls", "List jobs, newest first")->fallthrough();
  ls->footer("Example:\n  grange jobs ls --limit 100");
  CLI::App* show = jobs->add_subcommand("show", "Show one job")->fallthrough();
  show->footer("Example:\n  grange jobs show 7");
  show->add_option("ID", options->id, "The job's id")->required();
  jobs->require_subcommand(0, 1);
  show->callback(
      [&context, options] { context.action = [&context, options] { return show_job(context, options->id); }; });
  jobs->callback([&context, options, show] {
    if (!show->parsed())
      context.action = [&context, options] { return list_jobs(context, options->limit, options->state); };
  });
}

}  // namespace grange::cli
