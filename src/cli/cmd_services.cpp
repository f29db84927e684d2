#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/interrupt.hpp"
#include "cli/jobs.hpp"
#include "cli/models_look.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

using models::Machine;
using models::machines;
using models::shown_name;

constexpr Millis kFollowPause{500};
constexpr std::chrono::seconds kHint{5};

struct ServicesOptions {
  std::string worker, target;
  int lines = 200;
  bool follow = false, wait = true;
};

struct Target {
  Machine machine;
  std::string service, path;
};

// "WORKER/NAME"; a NAME alone where just one worker has it.
Target target_of(Rest& rest, const std::string& word) {
  const std::size_t slash = word.rfind('/');
  Target out;
  if (slash != std::string::npos) {
    if (slash == 0 || slash + 1 == word.size())
      throw Exit{kUsage, fmt::format("\"{}\" is no service: write WORKER/NAME, as `grange services` shows it.", word)};
    out.machine = machines(rest, {word.substr(0, slash)}).front();
    out.service = word.substr(slash + 1);
  } else {
    std::vector<Machine> have;
    for (Machine& one : machines(rest, {})) {
      for (const json::value& service : one.services) {
        if (str(service, "name") == word) have.push_back(one);
      }
    }
    if (have.empty())
      throw Exit{kNotFound, fmt::format("No connected worker has a service \"{}\"; see `grange services`.", word)};
    if (have.size() > 1)
      throw Exit{kUsage, fmt::format("{} workers have a service \"{}\"; write WORKER/{}.", have.size(), word, word)};
    out.machine = have.front();
    out.service = word;
  }
  out.path = fmt::format("/api/workers/{}/services/{}", escape(out.machine.id), escape(out.service));
  return out;
}

std::string usage_of(const json::value& service) {
  const json::value* cpu = field(service, "cpu_percent");
  return cpu != nullptr && cpu->is_number() ? fmt::format("{:.0f}%", cpu->to_number<double>()) : "-";
}

std::string memory_of(const json::value& service) {
  const std::int64_t bytes = num(service, "memory_bytes");
  return bytes > 0 ? human_bytes(static_cast<std::uint64_t>(bytes)) : "-";
}

int list_services(Context& context, const ServicesOptions& options) {
  Rest rest(context);
  const auto chosen = machines(rest, options.worker.empty() ? std::vector<std::string>() : std::vector{options.worker});
  json::array out;
  Table table({"WORKER", "SERVICE", "KIND", "STATE", "FOR", "PID", "RESTARTS", "CPU", "MEMORY", "KEPT"});
  table.colour_by_status(3);
  for (const std::size_t column : {5, 6, 7, 8}) table.align_right(column);
  std::vector<std::string> notes;
  for (const Machine& machine : chosen) {
    for (const json::value& service : machine.services) {
      if (str(service, "kind") == "files") continue;
      json::object row = service.as_object();
      row.erase("models");
      row["worker"] = machine.id;
      row["worker_name"] = machine.name;
      out.push_back(std::move(row));
      const bool managed = flag(service, "managed");
      const std::int64_t since = num(service, "since_ms"), pid = num(service, "pid");
      const std::string state = str(service, "state"), name = printable(str(service, "name"));
      table.row(
          {shown_name(machine), name, printable(str(service, "kind")), state,
           since > 0 ? human_duration(static_cast<double>(std::max<std::int64_t>(0, now_ms() - since)) / 1000) : "-",
           pid > 0 ? std::to_string(pid) : "-", managed ? std::to_string(num(service, "restarts")) : "-",
           usage_of(service), memory_of(service), managed ? "yes" : "-"});
      if (const std::string note = str(service, "note"); state != "ready" && !note.empty())
        notes.push_back(fmt::format("{}/{}: {}", shown_name(machine), name, printable(note)));
      if (const std::string error = str(service, "last_error"); state != "ready" && !error.empty())
        notes.push_back(fmt::format("{}/{}: {}", shown_name(machine), name, printable(error)));
    }
  }
  if (context.json) {
    print_json(out);
    return kOk;
  }
  if (out.empty()) {
    fmt::print(
        "No worker has an AI service. One finds them at their usual ports, or keeps those running that stand in "
        "its services file: grange worker --services-file FILE\n");
    return kOk;
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  for (const std::string& note : notes) fmt::print("{}\n", note);
  return kOk;
}

int change_service(Context& context, const ServicesOptions& options, const std::string& op) {
  Rest rest(context);
  const Target target = target_of(rest, options.target);
  const json::value sent = rest.post(target.path + "/" + op);
  const std::string job = str(sent, "job_id");
  const std::string name = fmt::format("{}/{}", shown_name(target.machine), printable(target.service));
  if (!options.wait) {
    if (context.json) print_json(sent);
    if (!context.json) fmt::print("Job {}: {} {}\n", job, op, name);
    return kOk;
  }
  json::value task;
  std::string status;
  const auto began = std::chrono::steady_clock::now();
  auto alive = began;
  for (bool told = context.json;;) {
    try {
      task = get_task(rest, {job, 0});
      alive = std::chrono::steady_clock::now();
    } catch (const Exit& exit) {
      // A server that is started again is worth waiting for.
      if (exit.code != kUnreachable || std::chrono::steady_clock::now() - alive > std::chrono::minutes(2)) throw;
    }
    status = str(task, "status");
    if (status == "completed" || status == "failed" || status == "cancelled") break;
    if (!told && status != "running" && std::chrono::steady_clock::now() - began > kHint) {
      told = true;
      fmt::print(stderr, "It waits until its worker has room for it; see: grange explain {}\n", job);
    }
    std::this_thread::sleep_for(Millis{200});
  }
  json::value result = nullptr;
  each_result(rest, job, [&](const json::value& one) {
    if (const json::value* value = field(one, "value")) result = *value;
  });
  if (context.json) {
    print_json(
        json::object{{"worker", target.machine.id},
                     {"worker_name", target.machine.name},
                     {"service", target.service},
                     {"job_id", job},
                     {"status", status},
                     {"message", status == "completed" ? json::value(nullptr) : json::value(str(task, "message"))},
                     {"result", result}});
  }
  if (status != "completed") throw Exit{kFailed, fmt::format("{}: {}", name, printable(str(task, "message")))};
  if (!context.json) {
    if (op == "stop") {
      fmt::print("{} is stopped\n", name);
    } else {
      fmt::print("{} is ready after {}\n", name, human_duration(real(result, "ready_ms") / 1000));
    }
  }
  return kOk;
}

// The text, and where to go on.
std::string read_service_log(Rest& rest, const std::string& token, const Target& target, int lines, std::string& end) {
  net::ClientRequest request;
  request.url = fmt::format("{}{}/log?lines={}", rest.url(), target.path, lines);
  if (!end.empty()) request.url += "&after=" + end;
  if (!token.empty()) request.headers["Authorization"] = "Bearer " + token;
  auto answer = rest.call(std::move(request));
  if (!answer) rest.fail_with(answer.error());
  if (answer->status != 200) rest.fail_with(*answer);
  if (const auto it = answer->headers.find("x-log-end"); it != answer->headers.end()) end = it->second;
  return std::move(answer->body);
}

int show_log(Context& context, const ServicesOptions& options) {
  Rest rest(context);
  const Target target = target_of(rest, options.target);
  const std::string token = context.token();
  std::string end;
  const auto write = [&](const std::string& text) {
    for (std::string_view left = text; !left.empty();) {
      const std::size_t line_end = std::min(left.find('\n'), left.size());
      const std::string_view line = left.substr(0, line_end);
      if (context.json) {
        print_json(
            json::object{{"worker", target.machine.id}, {"service", target.service}, {"text", std::string(line)}});
      } else {
        // A worker takes out what a terminal would obey; one that is not ours may not.
        fmt::print("{}\n", printable(line));
      }
      left.remove_prefix(std::min(left.size(), line_end + 1));
    }
    std::fflush(stdout);
  };
  write(read_service_log(rest, token, target, options.lines, end));
  auto alive = std::chrono::steady_clock::now();
  while (options.follow) {
    std::this_thread::sleep_for(kFollowPause);
    try {
      write(read_service_log(rest, token, target, 5'000, end));
      alive = std::chrono::steady_clock::now();
    } catch (const Exit&) {
      // A worker or a server that is started again is worth waiting for.
      if (std::chrono::steady_clock::now() - alive > std::chrono::minutes(2)) throw;
    }
  }
  return kOk;
}

}  // namespace

void add_services(CLI::App& app, Context& context) {
  CLI::App* services =
      app.add_subcommand("services", "AI services of workers: how they are, start, stop, what they wrote")
          ->fallthrough();
  services->footer(
      "Example:\n  grange services\n  grange services restart big-box/ollama\n  grange services logs ollama -f");
  services->require_subcommand(0, 1);
  auto options = std::make_shared<ServicesOptions>();
  const auto act = [&context](CLI::App* sub, auto work) { sub->callback([&context, work] { context.action = work; }); };

  CLI::App* ls = services->add_subcommand("ls", "List the services of all workers")->fallthrough();
  ls->footer("Example:\n  grange services ls --worker laptop-1");
  ls->add_option("--worker", options->worker, "Of one worker, by id or name")->type_name("W");
  act(ls, [&context, options] { return list_services(context, *options); });

  const auto add = [&](const std::string& op, const char* about) {
    CLI::App* sub = services->add_subcommand(op, about)->fallthrough();
    sub->footer(fmt::format("Example:\n  grange services {} big-box/ollama", op));
    sub->add_option("SERVICE", options->target, "WORKER/NAME; NAME alone where one worker has it")->required();
    sub->add_flag("!--no-wait", options->wait, "Do not wait until it is done");
    act(sub, [&context, options, op] { return change_service(context, *options, op); });
  };
  add("start", "Start a service that its worker keeps running, and wait until it is ready");
  add("stop", "Stop one; it stays down until it is started, or its worker is");
  add("restart", "End one and start it again");

  CLI::App* logs = services->add_subcommand("logs", "Show the newest lines that a service wrote")->fallthrough();
  logs->footer("Example:\n  grange services logs big-box/ollama -n 50 -f");
  logs->add_option("SERVICE", options->target, "WORKER/NAME; NAME alone where one worker has it")->required();
  logs->add_option("-n,--lines", options->lines, "How many (default 200, at most 5,000)")
      ->check(between(1, 5'000))
      ->type_name("N");
  logs->add_flag("-f,--follow", options->follow, "Go on with what it writes, until Ctrl-C");
  act(logs, [&context, options] { return show_log(context, *options); });

  services->callback([&context, options] {
    if (!context.action) context.action = [&context, options] { return list_services(context, *options); };
  });
}

}  // namespace grange::cli
