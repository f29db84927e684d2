#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/interrupt.hpp"
#include "cli/job_file.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct Options {
  double cpus = -1, gpus = -1;
  std::string memory, name, timeout;
  std::vector<std::string> env, labels, shown;
  std::int64_t retries = 0;
  int priority = 0;
  bool detach = false;
};

json::object spec(const std::vector<std::string>& command, const Options& options) {
  json::object job{{"engine", "command"}, {"retries", options.retries}};
  json::array argv;
  for (const std::string& word : command) argv.emplace_back(word);
  job["command"] = std::move(argv);
  job["name"] = options.name.empty() ? shorten(command.front(), 60) : options.name;
  if (options.cpus >= 0) job["cpus"] = options.cpus;
  if (options.gpus >= 0) job["gpus"] = options.gpus;
  if (!options.memory.empty()) job["memory"] = take(parse_size(options.memory));
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
  return job;
}

void ask_cancel(Rest& rest, const std::string& id) {
  try {
    rest.post(fmt::format("/api/jobs/{}/cancel", escape(id)), json::object{{"reason", "interrupted by its user"}});
  } catch (const Exit&) {
    // It may have ended in the same moment; what it says at its end counts.
  }
}

// The command's own code; 128 + the signal when one killed it.
int code_of(Rest& rest, const std::string& id) {
  json::value result = nullptr;
  each_result(rest, id, [&](const json::value& one) { result = one; });
  const std::string status = str(result, "status"), failure = str(result, "failure");
  const std::int64_t code = num(result, "exit_code");
  if (status == "completed") return kOk;
  if (failure == "exit_code" && code != 0) {
    if (code < 0) return static_cast<int>(128 - code);
    return static_cast<int>(code & 0xff);
  }
  const std::string message = str(result, "message");
  throw Exit{kFailed, message.empty()
                          ? fmt::format("The command did not run to its end; see `grange jobs show {}`.", id)
                          : message};
}

int run_command(Context& context, const Options& options) {
  if (context.command.empty())
    throw Exit{kUsage, "What should run? Put the command after two dashes: grange run -- echo hello"};
  const json::object job = spec(context.command, options);
  Rest rest(context);
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

  // Says what it waits for, when the first byte takes its time.
  std::atomic<bool> heard{false}, over{false};
  std::thread patience([&] {
    if (!is_tty(STDERR_FILENO)) return;
    for (int i = 0; i < 40; ++i) {
      if (heard || over || interrupts() > 0) return;
      std::this_thread::sleep_for(Millis{50});
    }
    try {
      if (str(get_job(rest, id), "status") == "pending" && !heard && !over) {
        fmt::print(stderr, "grange: waiting for a worker ... (see `grange workers`; Ctrl-C gives up)\n");
      }
    } catch (const Exit&) {  // the server is away, and follow() says so
    }
  });
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
  const auto stop_waiting = [&] {
    over = true;
    patience.join();
  };
  try {
    follow(rest, where, [&](const json::value& object, const LogChunk& chunk) {
      heard = true;
      writer.write(object, chunk);
    });
  } catch (...) {
    stop_waiting();
    throw;
  }
  stop_waiting();
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
  sub->footer("Example:\n  grange run --cpus 2 -- ffmpeg -i in.mp4 out.webm");
  auto options = std::make_shared<Options>();
  // For --help only: app.cpp takes the command away before CLI11 could look for options in it.
  sub->add_option("COMMAND", options->shown, "The command and its arguments, best after two dashes");
  sub->add_option("--cpus", options->cpus, "Cores")
      ->check(CLI::Validator(CLI::PositiveNumber).description(""))
      ->type_name("N");
  sub->add_option("--memory", options->memory, "Memory, such as 2GiB")->type_name("SIZE");
  sub->add_option("--gpus", options->gpus, "GPUs")
      ->check(CLI::Validator(CLI::NonNegativeNumber).description(""))
      ->type_name("N");
  sub->add_option("-e,--env", options->env, "NAME=VALUE, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("--label", options->labels, "NAME=VALUE that the worker must have, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("-n,--name", options->name, "A name for people");
  sub->add_option("--timeout", options->timeout, "Time limit")->type_name("DURATION");
  sub->add_option("--retries", options->retries, "Tries after the first (default 0)")
      ->check(between(std::int64_t{0}, std::int64_t{99}))
      ->type_name("N");
  sub->add_option("--priority", options->priority, "-1000 to 1000, higher first")
      ->check(between(-1000, 1000))
      ->type_name("N");
  sub->add_flag("-d,--detach", options->detach, "Print the job's id and return at once");
  sub->callback(
      [&context, options] { context.action = [&context, options] { return run_command(context, *options); }; });
}

}  // namespace grange::cli
