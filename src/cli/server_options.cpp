#include "cli/server_options.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/logging.hpp"
#include "cli/parse.hpp"

namespace grange::cli {

std::string default_data_dir() {
  const char* xdg = std::getenv("XDG_DATA_HOME");
  if (xdg != nullptr && *xdg == '/') return std::string(xdg) + "/grange";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0')
    throw Exit{kUsage, "HOME is not set; name a folder for the data with --data DIR."};
  return std::string(home) + "/.local/share/grange";
}

void ServerFlags::add_to(CLI::App& sub) {
  sub_ = &sub;
  sub.add_option("--host", host, "Address to listen on (default 127.0.0.1; any other needs a token)");
  sub.add_option("--port", port, "Port of HTTP and WebSocket (default 8000; 0: a free one)")
      ->check(between(0, 65535))
      ->type_name("N");
  sub.add_option("--ws-port", ws_port, "One more port for WebSocket (default 9000; 0: none)")
      ->check(between(0, 65535))
      ->type_name("N");
  sub.add_option("--data", data, "Folder for all state (default: grange in the XDG data folder)")->type_name("DIR");
  sub.add_option("--policy", policy, "Which work goes first: priority, fifo, round_robin, least_loaded or performance");
  sub.add_option("--aging", aging, "A job that has waited so long counts as one priority higher (default: never)")
      ->type_name("DURATION");
  sub.add_option("--allow-host", allow_hosts, "A host name by which clients may call this server, any number of times")
      ->type_name("HOST")
      ->allow_extra_args(false);
  sub.add_option("--retain", retain, "Delete ended jobs after this long (default 7d)")->type_name("DURATION");
  sub.add_option("--keep-runs", keep_runs, "Races that ended: keep the newest so many (default 500)")
      ->check(between(0, 1'000'000))
      ->type_name("N");
  sub.add_option("--alert-webhook", alert_webhook,
                 "An address that is told of alerts: POST with JSON (default: GRANGE_ALERT_WEBHOOK, else none)")
      ->type_name("URL");
  sub.add_option("--log-format", log_format, "human or json (default human), on stderr");
  sub.add_option("--log-level", log_level, "trace, debug, info, warn, error or off");
}

server::ServerOptions ServerFlags::settle(const Context& context, const char* command) {
  log_to_stderr(log_format, log_level);
  data = std::filesystem::absolute(data.empty() ? default_data_dir() : data).string();
  server::ServerOptions options;
  options.host = host;
  options.port = port;
  options.ws_port = ws_port;
  options.data_dir = data;
  options.policy = policy;
  options.token = context.token();
  options.allowed_hosts = allow_hosts;
  if (options.token.empty() && host != "localhost" && host != "::1" && host.rfind("127.", 0) != 0) {
    throw Exit{kUsage,
               fmt::format("Listening on {} lets other machines in, so it needs a token. Make one that only you "
                           "can read, and start again:\n"
                           "  (umask 077; openssl rand -hex 32 > token)\n"
                           "  grange {} --host {} --token-file token",
                           host, command, host)};
  }
  if (!aging.empty()) options.aging = take(parse_duration(aging));
  options.retain_runs = static_cast<std::uint64_t>(keep_runs);
  options.alert_webhook = alert_webhook;
  if (const char* hook = std::getenv("GRANGE_ALERT_WEBHOOK"); hook != nullptr && alert_webhook.empty())
    options.alert_webhook = hook;
  if (!retain.empty()) options.retain = take(parse_duration(retain));
  options.settings = settings(context, options);
  return options;
}

// As people gave them, for whoever asks the running server. The token itself is nobody's business.
std::vector<server::Setting> ServerFlags::settings(const Context& context, const server::ServerOptions& settled) const {
  std::vector<server::Setting> out;
  const auto add = [&](const char* name, std::string value) {
    const CLI::Option* option = sub_->get_option_no_throw(std::string("--") + name);
    if (option == nullptr) return;
    out.push_back({.name = name,
                   .value = std::move(value),
                   .from = option->count() > 0 ? "command line" : "default",
                   .help = option->get_description()});
  };
  const auto or_never = [](const std::string& text) { return text.empty() ? std::string("never") : text; };
  std::string hosts;
  for (const std::string& one : allow_hosts) hosts += (hosts.empty() ? "" : ", ") + one;
  add("host", host);
  add("port", std::to_string(port));
  add("ws-port", std::to_string(ws_port));
  add("data", settled.data_dir);
  if (const char* xdg = std::getenv("XDG_DATA_HOME");
      !out.empty() && out.back().name == "data" && out.back().from == "default" && xdg != nullptr && *xdg == '/') {
    out.back().from = "environment";
  }
  add("policy", policy);
  add("aging", or_never(aging));
  add("allow-host", hosts.empty() ? "none" : hosts);
  add("retain", retain.empty() ? "7d" : retain);
  add("keep-runs", std::to_string(keep_runs));
  add("alert-webhook", settled.alert_webhook.empty() ? "none" : "set");  // its path may be a secret
  if (!settled.alert_webhook.empty() && alert_webhook.empty()) out.back().from = "environment";
  add("log-format", log_format);
  add("log-level", log_level);
  out.push_back({.name = "token",
                 .value = settled.token.empty() ? "none" : "set",
                 .from = settled.token.empty()        ? "default"
                         : context.token_file.empty() ? "environment"
                                                      : "file",
                 .help = "What clients and workers must send (--token-file, GRANGE_TOKEN)"});
  return out;
}

std::unique_ptr<server::Server> start_server(net::Loop& loop, const server::ServerOptions& options) {
  Result<std::unique_ptr<server::Server>> server = server::Server::start(loop, options);
  if (server.ok()) return std::move(server).value();
  const Error& error = server.error();
  // Nothing here is about another server that does not answer.
  const bool usage = error.cls == ErrorClass::invalid_argument || error.cls == ErrorClass::forbidden ||
                     error.cls == ErrorClass::unauthenticated;
  throw Exit{usage ? kUsage : kFailed, error.message};
}

bool stop_server(net::Loop& loop, std::unique_ptr<server::Server>& server) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable changed;
    int step = 0;
  };
  const auto wait = std::make_shared<Wait>();
  const auto reached = [wait](int step) {
    const std::lock_guard lock(wait->mutex);
    wait->step = step;
    wait->changed.notify_all();
  };
  const auto wait_until = [wait](int step) {
    std::unique_lock lock(wait->mutex);
    return wait->changed.wait_for(lock, limits::kShutdown + Millis{2000}, [&] { return wait->step >= step; });
  };
  loop.post([&] { server->stop([reached] { reached(1); }); });
  const bool clean = wait_until(1);
  loop.post([&server, reached] {
    server.reset();
    reached(2);
  });
  return wait_until(2) && clean;
}

namespace {
sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, number);
  return set;
}
}  // namespace

SignalQueue::SignalQueue() {
  const sigset_t set = our_signals();
  signal(SIGPIPE, SIG_IGN);
  GRANGE_ASSERT(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
}

int SignalQueue::next(int timeout_ms) const {
  const sigset_t set = our_signals();
  const timespec timeout{timeout_ms / 1000, (timeout_ms % 1000) * 1'000'000l};
  const int number = sigtimedwait(&set, nullptr, &timeout);
  return number > 0 ? number : 0;
}

void SignalQueue::restore_in_child() {
  const sigset_t set = our_signals();
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE}) signal(number, SIG_DFL);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace grange::cli
