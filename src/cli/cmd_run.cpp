#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <memory>

#include "base/limits.hpp"
#include "base/utf8.hpp"
#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/interrupt.hpp"
#include "cli/job_file.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"

namespace grange::cli {
namespace {

struct RunOptions {
  double cpus = -1, gpus = -1;
  std::string memory, name, timeout;
  std::vector<std::string> env, labels, shown, in, out;
  std::int64_t retries = 0;
  int priority = 0;
  bool detach = false, no_stdin = false;
};

// What is piped into us is the command's input; a terminal's and /dev/null's is not.
std::string piped_input() {
  struct stat status {};
  if (fstat(STDIN_FILENO, &status) != 0 || S_ISCHR(status.st_mode) || S_ISDIR(status.st_mode)) return "";
  const char* other = "use `--in FILE -- sh -c 'COMMAND < FILE'`, or --no-stdin.";
  std::string input;
  char buffer[64 * KiB];
  pollfd wait{STDIN_FILENO, POLLIN, 0};
  if (poll(&wait, 1, static_cast<int>(kPatience.count())) == 0)
    fmt::print(stderr, "grange: reading the command's input from stdin (--no-stdin leaves it alone)\n");
  while (true) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
      poll(&wait, 1, 1000);
      continue;
    }
    if (n <= 0) break;
    input.append(buffer, static_cast<std::size_t>(n));
    if (input.size() > limits::kInline)
      throw Exit{kUsage, fmt::format("stdin holds more than {}, too much for a job's input; {}",
                                     human_bytes(limits::kInline), other)};
  }
  if (!is_utf8(input) || input.find('\0') != std::string::npos)
    throw Exit{kUsage, fmt::format("stdin is not UTF-8 text, which a job's input has to be; {}", other)};
  return input;
}

json::object spec(const std::vector<std::string>& command, const RunOptions& options) {
  json::object job{{"engine", "command"}, {"retries", options.retries}};
  json::array argv;
  for (const std::string& word : command) argv.emplace_back(word);
  job["command"] = std::move(argv);
  job["name"] = options.name.empty() ? shorten(command.front(), 60) : options.name;
  if (options.cpus >= 0) job["cpus"] = options.cpus;
  if (options.gpus >= 0) job["gpus"] = options.gpus;
  if (!options.memory.empty()) job["memory"] = take(parse_memory(options.memory));
  if (!options.timeout.empty())
    job["timeout"] = static_cast<double>(take(parse_duration(options.timeout)).count()) / 1000;
  if (options.priority != 0) job["priority"] = options.priority;
  const auto settings = [](const std::vector<std::string>& from) {
    json::object out;
    for (const std::string& setting : from) {
      const auto [key, value] = take(parse_setting(setting));
      out[key] = value;
    }
    return out;
  };
  if (!options.env.empty()) job["env"] = settings(options.env);
  if (!options.labels.empty()) job["labels"] = settings(options.labels);
  const auto names = [](const std::vector<std::string>& from) {
    json::array out;
    for (const std::string& name : from) out.emplace_back(name);
    return out;
  };
  if (!options.in.empty()) job["files_in"] = names(options.in);
  for (const std::string& name : options.out) {
    if (!safe_path(name))
      throw Exit{kUsage, fmt::format("--out {} must be a relative path: the file's name in the command's folder, and "
                                     "then in this one.",
                                     name)};
  }
  if (!options.out.empty()) job["files_out"] = names(options.out);
  return job;
}

void ask_cancel(Rest& rest, const std::string& id) {
  try {
    rest.post(fmt::format("/api/jobs/{}/cancel", escape(id)), json::object{{"reason", "interrupted by its user"}});
  } catch (const Exit&) {
    // It may have ended in the same moment; what it says at its end counts.
  }
}

constexpr int kTimedOut = 124;  // as timeout(1) says it

// The command's own code; 128 + the signal when one killed it. Stores its files when all went well.
int code_of(Rest& rest, const std::string& id) {
  json::value result = nullptr;
  each_result(rest, id, [&](const json::value& one) { result = one; });
  const std::string status = str(result, "status"), failure = str(result, "failure");
  const std::int64_t code = num(result, "exit_code");
  if (status == "completed") {
    download_files(rest, result, "");
    return kOk;
  }
  if (failure == "exit_code" && code != 0) {
    if (code < 0) return static_cast<int>(128 - code);
    return static_cast<int>(code & 0xff);
  }
  const std::string message = str(result, "message");
  throw Exit{
      failure == "time_limit" ? kTimedOut : kFailed,
      message.empty() ? fmt::format("The command did not run to its end; see `grange jobs show {}`.", id) : message};
}

int run_command(Context& context, const RunOptions& options) {
  if (context.command.empty())
    throw Exit{kUsage, "What should run? Put the command after two dashes: grange run -- echo hello"};
  json::object job = spec(context.command, options);
  const std::vector<FileIn> files = take(files_in(job, ""));
  if (!options.no_stdin) {
    if (std::string input = piped_input(); !input.empty()) job["stdin"] = std::move(input);
  }
  Rest rest(context);
  upload_files(rest, job, files);
  if (!options.detach) count_interrupts();
  const json::value answer = rest.post("/api/jobs", job, {{"Idempotency-Key", random_hex(16)}});
  const std::string id = str(answer, "id");
  if (options.detach) {
    if (context.json) {
      print_json(answer);
    } else {
      fmt::print("{}\n", id);
    }
    return kOk;
  }

  std::atomic<bool> heard{false};
  auto patience = std::make_unique<Patience>(rest, id, heard);
  LogWriter writer(false);
  FollowOptions where;
  where.job = id;
  std::optional<std::chrono::steady_clock::time_point> cancelled_at;
  where.stop = [&] {
    if (interrupts() == 0) return false;
    const auto now = std::chrono::steady_clock::now();
    if (!cancelled_at) {
      cancelled_at = now;
      ask_cancel(rest, id);
    }
    // Its last output may still come, and the worker needs a moment to end it.
    return now - *cancelled_at > std::chrono::seconds(10);
  };
  follow(rest, where, [&](const json::value& object, const LogChunk& chunk) {
    heard = true;
    writer.write(object, chunk);
  });
  patience.reset();
  if (interrupts() > 0) return kInterrupted;
  const json::value ended = wait_for(rest, id, Millis{5000});
  if (context.json) write_all(STDERR_FILENO, json::serialize(ended) + "\n");  // stdout is the command's
  if (str(ended, "status") == "cancelled") throw Exit{kFailed, fmt::format("Job {} was cancelled.", id)};
  return code_of(rest, id);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("run", "Run one command on the farm: live output, its exit code, Ctrl-C cancels it")
          ->fallthrough();
  sub->footer(
      "The command starts in an empty folder of its own, on whatever machine has room: name the files that it reads\n"
      "with --in, and those that it should bring back with --out. What is piped in is its stdin (at most 256 KiB).\n\n"
      "Example:\n  grange run --in a.mp4 --out a.webm -- ffmpeg -i a.mp4 a.webm");
  auto options = std::make_shared<RunOptions>();
  // For --help only: app.cpp takes the command away before CLI11 could look for options in it.
  sub->add_option("COMMAND", options->shown, "The command and its arguments, best after two dashes");
  sub->add_option("--in", options->in, "A file to put into the command's folder, any number of times")
      ->type_name("FILE")
      ->allow_extra_args(false);
  sub->add_option("--out", options->out, "A file that it makes, stored here when it succeeds, any number of times")
      ->type_name("FILE")
      ->allow_extra_args(false);
  sub->add_option("--cpus", options->cpus, "Cores")->check(above_zero())->type_name("N");
  sub->add_option("--memory", options->memory, "Memory, such as 2GiB")->type_name("SIZE");
  sub->add_option("--gpus", options->gpus, "GPUs")->check(not_negative())->type_name("N");
  sub->add_option("-e,--env", options->env, "NAME=VALUE, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("--label", options->labels, "NAME=VALUE that the worker must have, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("-n,--name", options->name, "A name for people");
  sub->add_option("--timeout", options->timeout, "Time limit; then 124 is the exit code")->type_name("DURATION");
  sub->add_option("--retries", options->retries, "Tries after the first (default 0)")
      ->check(between(std::int64_t{0}, std::int64_t{99}))
      ->type_name("N");
  sub->add_option("--priority", options->priority, "-1000 to 1000, higher first")
      ->check(between(-1000, 1000))
      ->type_name("N");
  sub->add_flag("--no-stdin", options->no_stdin, "Leave stdin alone");
  sub->add_flag("-d,--detach", options->detach, "Print the job's id and return at once");
  sub->callback(
      [&context, options] { context.action = [&context, options] { return run_command(context, *options); }; });
}

}  // namespace grange::cli
