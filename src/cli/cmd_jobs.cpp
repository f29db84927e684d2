#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"

namespace grange::cli {
namespace {

double took(const json::value& job) {
  const std::int64_t from = parse_iso_ms(str(job, "started_at")), to = parse_iso_ms(str(job, "completed_at"));
  return from < 0 ? -1 : static_cast<double>((to < 0 ? now_ms() : to) - from) / 1000;
}

// "paused" where that is what a person should know first.
std::string status_of(const json::value& job) {
  return flag(job, "paused") && !job_ended(job) ? "paused" : str(job, "status");
}

// A paused job is pending or running as well; the server lists by these.
json::array paused_jobs(Rest& rest, int limit) {
  json::array out;
  for (const char* state : {"pending", "running"}) {
    std::string before;
    for (bool more = true; more;) {
      const json::array page = list(rest.get(fmt::format("/api/jobs?limit=1000&state={}{}", state, before)));
      more = page.size() == 1000;
      if (more) before = fmt::format("&before={}", num(page.back(), "job"));
      for (const json::value& job : page) {
        if (flag(job, "paused") && !job_ended(job)) out.push_back(job);
      }
    }
  }
  std::sort(out.begin(), out.end(),
            [](const json::value& a, const json::value& b) { return num(a, "job") > num(b, "job"); });
  if (out.size() > static_cast<std::size_t>(limit)) out.resize(static_cast<std::size_t>(limit));
  return out;
}

int list_jobs(Context& context, int limit, const std::string& state) {
  Rest rest(context);
  std::string path = fmt::format("/api/jobs?limit={}", limit);
  if (!state.empty()) path += "&state=" + escape(state);
  const json::value jobs = state == "paused" ? json::value(paused_jobs(rest, limit)) : rest.get(path);
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
    table.row({str(job, "id"), str(job, "name"), status_of(job),
               fmt::format("{}/{}", num(job, "completed_tasks"), num(job, "total_tasks")),
               std::to_string(num(job, "failed_tasks")), ago(str(job, "created_at"), now_ms()),
               seconds < 0 ? "-" : human_duration(seconds)});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

// What a task says of itself: why it failed, or how far it is.
std::string word_of(const json::value& task) {
  if (const std::string message = str(task, "message", str(task, "failure")); !message.empty()) return message;
  const json::value* progress = field(task, "progress");
  if (progress == nullptr || !progress->is_object()) return "";
  const double done = real(*progress, "done"), total = real(*progress, "total");
  std::string out =
      total > 0 ? fmt::format("{:g}/{:g} ({:.0f}%)", done, total, 100 * done / total) : fmt::format("{:g}", done);
  if (const std::string text = str(*progress, "text"); !text.empty()) out += " " + text;
  return out;
}

int show_task(Context& context, const TaskRef& ref) {
  Rest rest(context);
  const json::value task = get_task(rest, ref);
  if (context.json) {
    print_json(task);
    return kOk;
  }
  const auto line = [](const char* name, const std::string& value) {
    if (!value.empty() && value != "-") fmt::print("{:<10} {}\n", name, value);
  };
  const std::string status = str(task, "status");
  line("task", str(task, "id"));
  line("status", paint(status, status_colour(status), colours(STDOUT_FILENO)));
  line("attempt", std::to_string(num(task, "attempt")));
  line("worker", printable(str(task, "worker_id")));
  line("second", printable(str(task, "second_worker_id")));
  line("failure", str(task, "failure"));
  if (const std::string fault = str(task, "fault"); !fault.empty() && fault != "none")
    line("fault", fault == "job" ? "the job's own" : "the system's");
  if (const std::string stage = str(task, "stage"); stage != "none") line("stage", stage);
  if (const json::value* code = field(task, "exit_code"); code != nullptr && code->is_number())
    line("exit code", std::to_string(num(task, "exit_code")));
  line("message", printable(str(task, "message")));
  if (status == "running") line("progress", printable(word_of(task)));
  if (!str(task, "ended_at").empty()) line("took", human_duration(real(task, "run_ms") / 1000));
  line("ended", ago(str(task, "ended_at"), now_ms()));
  if (status == "pending" || status == "blocked" || status == "paused" || status == "delayed")
    fmt::print("\nSee why it waits with: grange explain {}/{}\n", ref.job, *ref.index);
  else
    fmt::print("\nSee its output with: grange logs {}/{}\n", ref.job, *ref.index);
  return kOk;
}

int show_job(Context& context, const std::string& what) {
  const TaskRef ref = take(parse_task(what));
  if (ref.index) return show_task(context, ref);
  const std::string& id = ref.job;
  Rest rest(context);
  const json::value job = get_job(rest, id);
  if (context.json) {
    print_json(job);
    return kOk;
  }
  const bool colour = colours(STDOUT_FILENO);
  const auto line = [](const char* name, const std::string& value) { fmt::print("{:<10} {}\n", name, value); };
  const std::string status = status_of(job);
  line("job", str(job, "id"));
  if (!str(job, "name").empty()) line("name", printable(str(job, "name")));
  line("status", paint(status, status_colour(status), colour));
  if (flag(job, "open") && !job_ended(job)) line("open", fmt::format("until `grange close {}`", id));
  if (!str(job, "user").empty()) line("user", printable(str(job, "user")));
  line("engine", str(job, "engine"));
  line("tasks", fmt::format("{} total: {} completed, {} failed, {} cancelled, {} running, {} pending",
                            human_count(static_cast<std::uint64_t>(num(job, "total_tasks"))),
                            num(job, "completed_tasks"), num(job, "failed_tasks"), num(job, "cancelled_tasks"),
                            num(job, "running_tasks"), num(job, "pending_tasks")));
  if (const std::int64_t n = num(job, "blocked_tasks"); n > 0)
    line("blocked", plural(n, "task") + " until others have ended");
  if (const std::int64_t n = num(job, "paused_tasks"); n > 0) line("paused", plural(n, "task"));
  line("priority", std::to_string(num(job, "priority")));
  line("created", ago(str(job, "created_at"), now_ms()));
  if (const double seconds = took(job); seconds >= 0) line("took", human_duration(seconds));
  if (const std::string why = why_it_waits(rest, job); !why.empty())
    line("waits", fmt::format("{} (`grange explain {}` says more)", printable(why), id));
  const auto some = [&](const char* state, auto&& each) {
    for (const json::value& task :
         list(rest.get(fmt::format("/api/jobs/{}/tasks?status={}&limit=10", escape(id), state)))) {
      each(task);
    }
  };
  if (num(job, "running_tasks") > 0) {
    bool head = false;
    some("running", [&](const json::value& task) {
      const std::string word = word_of(task);
      if (word.empty()) return;
      if (!std::exchange(head, true)) fmt::print("\nrunning tasks\n");
      fmt::print("  {}  {}\n", str(task, "id"), printable(shorten(word, 200)));
    });
  }
  if (const std::int64_t failed = num(job, "failed_tasks"); failed > 0) {
    fmt::print("\nfailed tasks\n");
    some("failed", [&](const json::value& task) {
      fmt::print("  {}  {}\n", str(task, "id"), printable(shorten(word_of(task), 200)));
    });
    if (failed > 10) fmt::print("  ... all {}: grange tasks ls {} --status failed\n", failed, id);
    fmt::print("\nSee its output with: grange logs {}\n", id);
  }
  return kOk;
}

}  // namespace

json::value get_task(Rest& rest, const TaskRef& ref) {
  const json::array found =
      list(rest.get(fmt::format("/api/jobs/{}/tasks?skip={}&limit=1", escape(ref.job), *ref.index)));
  if (found.empty()) {
    throw Exit{kNotFound,
               fmt::format("Job {} has no task {}; see `grange tasks ls {}`.", ref.job, *ref.index, ref.job)};
  }
  return found.front();
}

std::string task_word(const json::value& task) {
  return word_of(task);
}

std::string whole_job(const std::string& name, const char* command) {
  const TaskRef ref = take(parse_task(name));
  if (ref.index)
    throw Exit{kUsage, fmt::format("{} takes a job: {} ({} is one of its tasks).", command, ref.job, name)};
  return ref.job;
}

json::value get_job(Rest& rest, const std::string& id) {
  return rest.get("/api/jobs/" + escape(id));
}

bool job_ended(const json::value& job) {
  const std::string status = str(job, "status");
  return status == "completed" || status == "failed" || status == "cancelled";
}

void add_jobs(CLI::App& app, Context& context) {
  CLI::App* jobs = app.add_subcommand("jobs", "List jobs, or show one")->fallthrough();
  jobs->footer("Example:\n  grange jobs ls --state running\n  grange jobs show 7\n  grange jobs 7          the same");
  struct JobsOptions {
    int limit = 20;
    std::string state, id;
  };
  auto options = std::make_shared<JobsOptions>();
  const auto list_options = [options](CLI::App* sub) {
    sub->add_option("--limit", options->limit, "How many, newest first (default 20)")
        ->check(between(1, 1000))
        ->type_name("N");
    sub->add_option("--state", options->state, "Only those in this state")
        ->check(CLI::IsMember({"pending", "running", "paused", "completed", "failed", "cancelled"}));
  };
  list_options(jobs);
  CLI::App* ls = jobs->add_subcommand("ls", "List jobs, newest first")->fallthrough();
  ls->footer("Example:\n  grange jobs ls --limit 100");
  CLI::App* show = jobs->add_subcommand("show", "Show one job, or one task")->fallthrough();
  show->footer("Example:\n  grange jobs show 7");
  show->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)")->required();
  jobs->require_subcommand(0, 1);
  show->callback(
      [&context, options] { context.action = [&context, options] { return show_job(context, options->id); }; });
  jobs->callback([&context, options, show] {
    if (!show->parsed())
      context.action = [&context, options] { return list_jobs(context, options->limit, options->state); };
  });
}

}  // namespace grange::cli
