#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/server_options.hpp"
#include "cli/services_file.hpp"
#include "cli/term.hpp"
#include "cli/version.hpp"
#include "cli/workers_of_up.hpp"
#include "worker/services/service_config.hpp"

namespace grange::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct UpOptions {
  ServerFlags server;
  int workers = 1;
  int slots = 0;
  int health_port = -1;  // not given
  std::string name, python, pool, life, services_file;
  std::vector<std::string> models, services;
  bool no_probe = false;
};

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "worker";
}

std::vector<std::vector<std::string>> worker_arguments(const UpOptions& options, const std::string& url) {
  // A farm on a free port is one of several on this machine: none of them takes the well-known health port unasked.
  const int health_port = options.health_port >= 0 ? options.health_port : options.server.port == 0 ? 0 : 9090;
  std::vector<std::vector<std::string>> out;
  for (int i = 0; i < options.workers; ++i) {
    std::vector<std::string> one{"worker",
                                 "--server",
                                 url,
                                 "--data",
                                 fmt::format("{}/workers/{}", options.server.data, i),
                                 "--health-port",
                                 std::to_string(i == 0 ? health_port : 0),
                                 "--drain",
                                 "3s",
                                 "--log-format",
                                 options.server.log_format,
                                 "--log-level",
                                 options.server.log_level};
    if (options.slots > 0) one.insert(one.end(), {"--slots", std::to_string(options.slots)});
    if (!options.python.empty()) one.insert(one.end(), {"--python", options.python});
    if (!options.pool.empty()) one.insert(one.end(), {"--pool", options.pool});
    for (const std::string& model : options.models) one.insert(one.end(), {"--model", model});
    for (const std::string& service : options.services) one.insert(one.end(), {"--service", service});
    // The machine has them once, however many workers are on it.
    const std::string kept = i == 0 ? services_file(options.services_file, options.server.data) : "";
    if (!kept.empty()) one.insert(one.end(), {"--services-file", kept});
    if (options.no_probe) one.push_back("--no-probe");
    if (!options.life.empty()) one.insert(one.end(), {"--life", options.life});
    if (!options.name.empty() || options.workers > 1) {
      const std::string name = options.name.empty() ? host_name() : options.name;
      one.insert(one.end(), {"--name", options.workers == 1 ? name : fmt::format("{}-{}", name, i + 1)});
    }
    out.push_back(std::move(one));
  }
  return out;
}

int connected(Rest& rest) {
  try {
    int n = 0;
    for (const json::value& worker : list(rest.get("/api/workers", Millis{2000})))
      n += flag(worker, "connected") ? 1 : 0;
    return n;
  } catch (const Exit&) {
    return 0;
  }
}

// True: stop was asked for.
bool wait_for_workers(Rest& rest, WorkerProcesses& workers, const SignalQueue& signals, int wanted) {
  const auto until = Clock::now() + std::chrono::seconds(15);
  while (connected(rest) < wanted) {
    if (Clock::now() > until) {
      spdlog::warn("Not all of {} workers have connected within 15 s; see their messages above, and `grange workers`",
                   wanted);
      return false;
    }
    const int number = signals.next(20);
    if (number != 0 && number != SIGCHLD) return true;
    workers.reap();
    workers.start_due();
  }
  return false;
}

void banner(const UpOptions& options, const server::Server& server) {
  const bool colour = colours(STDOUT_FILENO);
  fmt::print("Grange {} is up at {}\n", version(), paint(server.url(), Colour::bold, colour));
  fmt::print("  data      {}\n  workers   {} on this machine\n", options.server.data, options.workers);
  const std::string url = server.url() == kDefaultUrl ? "" : fmt::format(" --url {}", server.url());
  fmt::print("  try       grange run{} -- echo hello\n            grange workers{}\n", url, url);
  fmt::print("Ctrl-C stops it.\n");
}

// Workers first, so that the server still hears what they finish. A second Ctrl-C ends all at once.
int stop(net::Loop& loop, std::unique_ptr<server::Server>& server, WorkerProcesses& workers, const SignalQueue& signals,
         Millis services, bool quiet) {
  if (!quiet) fmt::print(stderr, "Stopping ... (Ctrl-C again: at once)\n");
  workers.no_restarts();
  workers.signal_all(SIGTERM);
  const auto until = Clock::now() + std::chrono::seconds(6) + services;  // they drain for 3
  while (!workers.none_left() && Clock::now() < until) {
    const int number = signals.next(100);
    if (number == SIGINT || number == SIGTERM) {
      workers.signal_all(SIGKILL);
      _exit(kInterrupted);
    }
    workers.reap();
  }
  workers.signal_all(SIGKILL);
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  signal(SIGINT, [](int) { _exit(130); });
  pthread_sigmask(SIG_UNBLOCK, &interrupt, nullptr);
  const bool clean = stop_server(loop, server);
  loop.stop();
  if (!clean) throw Exit{kFailed, "The server did not close within its limit; what it had acknowledged is on disk."};
  return kOk;
}

int up(Context& context, UpOptions& options) {
  for (const std::string& service : options.services) take(worker::parse_service(service));
  const server::ServerOptions server_options = options.server.settle(context, "up");
  Millis services_end{0};  // how long the slowest may take to end
  for (const worker::CareSpec& one : read_services_file(options.services_file, options.server.data))
    services_end = std::max(services_end, one.stop_timeout);
  const SignalQueue signals;
  net::Loop loop;
  std::unique_ptr<server::Server> server = start_server(loop, server_options);
  loop.start_thread();

  WorkerProcesses workers(worker_arguments(options, server->url()), server_options.token);
  workers.start_due();
  bool stopping = false;
  {
    Rest rest(server->url(), server_options.token);
    stopping = wait_for_workers(rest, workers, signals, options.workers);
  }
  if (!stopping) {
    if (context.json) {
      json::array pids;
      for (const pid_t pid : workers.pids()) pids.emplace_back(pid);
      print_json(
          json::object{{"url", server->url()}, {"ws_url", server->ws_url()}, {"pid", getpid()}, {"workers", pids}});
    } else {
      banner(options, *server);
    }
    std::fflush(stdout);
  }
  while (!stopping) {
    const int number = signals.next(workers.next_start_ms(1000));
    stopping = number != 0 && number != SIGCHLD;
    workers.reap();
    workers.start_due();
  }
  return stop(loop, server, workers, signals, services_end, context.json);
}

}  // namespace

void add_up(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("up", "Start a farm on this machine: a server and its workers")->fallthrough();
  sub->footer("Example:\n  grange up --workers 2 --slots 4");
  auto options = std::make_shared<UpOptions>();
  options->server.add_to(*sub);
  sub->add_option("--workers", options->workers, "Worker processes (default 1)")
      ->check(between(0, 1000))
      ->type_name("N");
  sub->add_option("--slots", options->slots, "Tasks that each worker runs at once (default: its cores)")
      ->check(between(1, 4096))
      ->type_name("N");
  sub->add_option("--name", options->name, "Name of the worker, for people");
  sub->add_option("--python", options->python, "Interpreter for Python tasks")->type_name("PATH");
  sub->add_option("--pool", options->pool, "The class of workers that they belong to (default: standard)")
      ->type_name("NAME");
  sub->add_option("--model", options->models, "A model that they have ready, any number of times")
      ->type_name("NAME")
      ->allow_extra_args(false);
  sub->add_option(
         "--service", options->services,
         "An AI service of theirs as KIND=URL or NAME:KIND=URL (ollama, llamacpp, openai, comfyui), any number "
         "of times; GRANGE_SERVICES adds to them")
      ->type_name("KIND=URL")
      ->allow_extra_args(false);
  sub->add_option("--services-file", options->services_file,
                  "TOML file of services that the first worker starts and keeps running (default: services.toml in "
                  "the data folder)")
      ->type_name("FILE");
  sub->add_flag("--no-probe", options->no_probe, "Do not look for AI services at their usual ports");
  sub->add_option("--life", options->life, "How long the workers are lent; then they drain (default: no end)")
      ->type_name("DURATION");
  sub->add_option("--health-port", options->health_port,
                  "Health port of the first worker (default 9090, none with --port 0; 0: none)")
      ->check(between(0, 65535))
      ->type_name("N");
  sub->callback([&context, options] { context.action = [&context, options] { return up(context, *options); }; });
}

}  // namespace grange::cli
