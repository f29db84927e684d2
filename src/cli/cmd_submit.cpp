#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/job_input.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"

namespace grange::cli {
namespace {

struct SubmitOptions {
  std::string file;
  bool wait = false, follow = false;
};

int submit(Context& context, const SubmitOptions& options, const JobFlags& flags) {
  json::object job = read_job(options.file);
  apply(flags, job);
  const std::vector<FileIn> files = take(files_in(job, folder_of(options.file)));
  Rest rest(context);
  upload_files(rest, job, files);
  std::map<std::string, std::string> headers;
  if (!job.contains("key")) headers["Idempotency-Key"] = random_hex(16);
  json::value answer = rest.post("/api/jobs", job, headers);
  const std::string id = str(answer, "id");
  const bool stay = options.wait || options.follow;
  if (!context.json) {
    if (is_tty(STDOUT_FILENO)) {
      fmt::print("{}\n", id);
      if (!stay)
        fmt::print(stderr, "{} accepted. Next: grange wait {}, grange logs {} -f\n",
                   plural(num(answer, "total_tasks"), "task"), id, id);
    } else {
      fmt::print("{}\n", id);
    }
    std::fflush(stdout);
  }
  if (options.follow) {
    std::atomic<bool> heard{false};
    const Patience patience(rest, id, heard);
    LogWriter writer(num(answer, "total_tasks") > 1);
    FollowOptions where;
    where.job = id;
    answer = follow(rest, where, [&](const json::value& object, const LogChunk& chunk) {
      heard = true;
      if (!context.json) writer.write(object, chunk);
    });
    writer.flush();
  }
  if (stay) answer = wait_for(rest, id, Millis{0});
  if (context.json) print_json(answer);
  return stay ? tell_end(rest, answer) : static_cast<int>(kOk);
}

constexpr const char* kHelp =
    R"(Keys of a job file: name, engine, command, script, count, args, args_file, env, files_in,
files_out, stdin, user, key, unique, builtin, python, model, priority, weight, max_running,
cpus, memory, gpus, gpu_memory, disk, labels, pool, needs_model, context, min_life, any_of,
nodes, after, when, not_before, start_in, deadline, finish_in, open, timeout, grace, stages,
retries, retry, fail_fast, speculate, result_ttl. docs/jobs.md says what each means.
In command and script, {} is the task's argument and {index} its number; in a script {} is
one word of the shell, quoted for you.

Example:
  printf 'command = ["echo", "{}"]\nargs = ["a", "b"]\n' | grange submit - --wait)";

}  // namespace

void add_submit(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("submit", "Submit a job file (TOML or JSON); prints the job's id")->fallthrough();
  sub->footer(kHelp);
  auto options = std::make_shared<SubmitOptions>();
  sub->add_option("FILE", options->file, "The job file, or - for stdin")->required();
  const std::shared_ptr<JobFlags> flags = add_job_flags(*sub);
  sub->add_flag("--wait", options->wait, "Wait until it has ended; 1 when it failed");
  sub->add_flag("--follow", options->follow, "Show its output as it comes, then as --wait");
  sub->callback([&context, options, flags] {
    context.action = [&context, options, flags] { return submit(context, *options, *flags); };
  });
}

}  // namespace grange::cli
