#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/job_file.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"

namespace grange::cli {
namespace {

struct Options {
  std::string file, name, key, timeout, memory;
  std::vector<std::string> env;
  std::int64_t count = -1, retries = -1;
  int priority = 0;
  bool has_priority = false;
  double cpus = -1;
  bool wait = false, follow = false;
};

std::string read_file(const std::string& file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::error_code ec;
  if (std::filesystem::is_directory(file, ec))
    throw Exit{kUsage, fmt::format("{} is a folder; name a job file in TOML or JSON.", file)};
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw Exit{kUsage, fmt::format("The job file {} cannot be read: {}. Name a TOML or JSON file, or - for stdin.",
                                   file, std::strerror(errno))};
  }
  text << in.rdbuf();
  return text.str();
}

void override_with(json::object& job, const Options& options) {
  if (options.count >= 0) job["count"] = options.count;
  if (options.retries >= 0) job["retries"] = options.retries;
  if (options.has_priority) job["priority"] = options.priority;
  if (options.cpus >= 0) job["cpus"] = options.cpus;
  if (!options.name.empty()) job["name"] = options.name;
  if (!options.key.empty()) job["key"] = options.key;
  if (!options.timeout.empty())
    job["timeout"] = static_cast<double>(take(parse_duration(options.timeout)).count()) / 1000;
  if (!options.memory.empty()) job["memory"] = take(parse_memory(options.memory));
  if (!options.env.empty()) {
    json::value& env = job["env"];
    if (!env.is_object()) env = json::object{};
    for (const std::string& setting : options.env) {
      const auto [key, value] = take(parse_setting(setting));
      env.get_object()[key] = value;
    }
  }
}

int submit(Context& context, const Options& options) {
  json::object job = take(parse_job(read_file(options.file), options.file));
  const std::string folder = options.file == "-" ? "" : std::filesystem::path(options.file).parent_path().string();
  take(check_keys(job));
  take(read_args_file(job, folder));
  override_with(job, options);
  const std::vector<FileIn> files = take(files_in(job, folder));
  Rest rest(context);
  upload_files(rest, job, files);
  std::map<std::string, std::string> headers;
  if (!job.contains("key")) headers["Idempotency-Key"] = random_hex(16);
  json::value answer = rest.post("/api/jobs", job, headers);
  const std::string id = str(answer, "id");
  const bool stay = options.wait || options.follow;
  if (!context.json) {
    if (is_tty(STDOUT_FILENO)) {
      const auto n = num(answer, "total_tasks");
      fmt::print("{}\n", id);
      if (!stay)
        fmt::print(stderr, "{} task{} accepted. Next: grange wait {}, grange logs {} -f\n",
                   human_count(static_cast<std::uint64_t>(n)), n == 1 ? "" : "s", id, id);
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
  return stay ? tell_end(answer) : static_cast<int>(kOk);
}

constexpr const char* kHelp =
    R"(Keys of a job file: name, engine, command, script, count, args, args_file, env, files_in,
files_out, stdin, priority, retries, retry, timeout, cpus, memory, gpus, disk, labels, user,
key, fail_fast, builtin, python, model. In command and script, {} is the task's argument and
{index} its number; in a script {} is one word of the shell, quoted for you.

Example:
  printf 'command = ["echo", "{}"]\nargs = ["a", "b"]\n' | grange submit - --wait)";

}  // namespace

void add_submit(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("submit", "Submit a job file (TOML or JSON); prints the job's id")->fallthrough();
  sub->footer(kHelp);
  auto options = std::make_shared<Options>();
  sub->add_option("FILE", options->file, "The job file, or - for stdin")->required();
  sub->add_option("--count", options->count, "Number of tasks")
      ->check(between(std::int64_t{1}, std::int64_t{10'000'000}))
      ->type_name("N");
  sub->add_option("--name", options->name, "A name for people");
  CLI::Option* priority = sub->add_option("--priority", options->priority, "-1000 to 1000, higher first")
                              ->check(between(-1000, 1000))
                              ->type_name("N");
  sub->add_option("--retries", options->retries, "Tries after the first")
      ->check(between(std::int64_t{0}, std::int64_t{99}))
      ->type_name("N");
  sub->add_option("--timeout", options->timeout, "Time limit of one task")->type_name("DURATION");
  sub->add_option("--cpus", options->cpus, "Cores of one task")->check(above_zero())->type_name("N");
  sub->add_option("--memory", options->memory, "Memory of one task, such as 2GiB")->type_name("SIZE");
  sub->add_option("-e,--env", options->env, "NAME=VALUE, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("--key", options->key, "Idempotency key: a second submit with it answers with the first job");
  sub->add_flag("--wait", options->wait, "Wait until it has ended; 1 when it failed");
  sub->add_flag("--follow", options->follow, "Show its output as it comes, then as --wait");
  sub->callback([&context, options, priority] {
    options->has_priority = priority->count() > 0;
    context.action = [&context, options] { return submit(context, *options); };
  });
}

}  // namespace grange::cli
