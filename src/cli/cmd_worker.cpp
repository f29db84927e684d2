#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/logging.hpp"
#include "cli/parse.hpp"
#include "cli/server_options.hpp"
#include "cli/services_file.hpp"
#include "worker/services/service_config.hpp"
#include "worker/worker.hpp"

namespace grange::cli {
namespace {

struct WorkerOptions {
  std::string name, data, python, log_format = "human", log_level = "info", drain = "8s";
  std::uint32_t slots = 0;
  int health_port = 9090;
  std::vector<std::string> labels, models, services;
  bool no_probe = false;
  std::string pool, life, services_file;
};

int work(const Context& context, const WorkerOptions& options) {
  log_to_stderr(options.log_format, options.log_level);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0);  // the tasks of this user cannot look into us, where the token is
  worker::WorkerOptions out;
  out.server_url = context.url;
  out.token = context.token();
  out.name = options.name;
  out.slots = options.slots;
  out.health_port = options.health_port;
  out.data_dir = options.data.empty() ? default_data_dir() + "/worker" : options.data;
  out.python = options.python;
  out.drain_seconds = static_cast<std::uint32_t>((take(parse_duration(options.drain)).count() + 999) / 1000);
  for (const std::string& label : options.labels) out.labels.insert(take(parse_setting(label)));
  out.pool = options.pool;
  out.models = options.models;
  for (const std::string& service : options.services) take(worker::parse_service(service));
  out.services = options.services;
  out.kept_services = read_services_file(options.services_file, out.data_dir);
  out.probe = !options.no_probe;
  if (!options.life.empty()) out.life = take(parse_duration(options.life));
  return worker::run_worker(std::move(out));
}

}  // namespace

void add_worker(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("worker", "Offer this machine to a server")->fallthrough();
  sub->footer("Example:\n  grange worker --server http://big-box:8000 --token-file token");
  auto options = std::make_shared<WorkerOptions>();
  sub->add_option("--name", options->name, "A name for people (default: the host's)");
  sub->add_option("--slots", options->slots, "Tasks that run at once (default: the cores)")
      ->check(between(1, 4096))
      ->type_name("N");
  sub->add_option("--health-port", options->health_port, "Port of its health server (default 9090; 0: none)")
      ->check(between(0, 65535))
      ->type_name("N");
  sub->add_option("--data", options->data, "Folder for its state (default: grange/worker in the XDG data folder)")
      ->type_name("DIR");
  sub->add_option("--python", options->python, "Interpreter for Python tasks; none: offer no Python")
      ->type_name("PATH");
  sub->add_option("--label", options->labels, "NAME=VALUE that jobs can ask for, any number of times")
      ->type_name("K=V")
      ->allow_extra_args(false);
  sub->add_option("--pool", options->pool, "The class of workers that it belongs to (default: standard)")
      ->type_name("NAME");
  sub->add_option("--model", options->models, "A model that it has ready, any number of times")
      ->type_name("NAME")
      ->allow_extra_args(false);
  sub->add_option(
         "--service", options->services,
         "An AI service as KIND=URL or NAME:KIND=URL (ollama, llamacpp, openai, comfyui), any number of times; "
         "GRANGE_SERVICES adds to them")
      ->type_name("KIND=URL")
      ->allow_extra_args(false);
  sub->add_option("--services-file", options->services_file,
                  "TOML file of services to start and keep running (default: services.toml in its folder)")
      ->type_name("FILE");
  sub->add_flag("--no-probe", options->no_probe, "Do not look for AI services at their usual ports");
  sub->add_option("--life", options->life, "How long this machine is lent; then it drains (default: no end)")
      ->type_name("DURATION");
  sub->add_option("--drain", options->drain, "How long tasks may finish after Ctrl-C (default 8s)")
      ->type_name("DURATION");
  sub->add_option("--log-format", options->log_format, "human or json (default human), on stderr");
  sub->add_option("--log-level", options->log_level, "trace, debug, info, warn, error or off");
  sub->callback([&context, options] { context.action = [&context, options] { return work(context, *options); }; });
}

}  // namespace grange::cli
