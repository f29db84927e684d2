#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/server_options.hpp"

namespace grange::cli {
namespace {

int serve(Context& context, ServerFlags& flags) {
  const server::ServerOptions options = flags.settle(context, "server");
  const SignalQueue signals;
  net::Loop loop;
  std::unique_ptr<server::Server> server = start_server(loop, options);
  loop.start_thread();
  if (context.json) {
    print_json(json::object{{"url", server->url()}, {"ws_url", server->ws_url()}, {"pid", getpid()}});
  } else {
    fmt::print("Grange server at {}\n  data      {}\n  workers   grange worker --server {}\n", server->url(),
               flags.data, server->url());
  }
  std::fflush(stdout);
  for (int number = 0; number == 0 || number == SIGCHLD;) number = signals.next(60'000);
  // The second Ctrl-C ends it at once; what was acknowledged is on disk.
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

}  // namespace

void add_server(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("server", "Start a server without workers")->fallthrough();
  sub->footer("Example:\n  grange server --data /srv/grange --host 0.0.0.0 --token-file token");
  auto flags = std::make_shared<ServerFlags>();
  flags->add_to(*sub);
  sub->callback([&context, flags] { context.action = [&context, flags] { return serve(context, *flags); }; });
}

}  // namespace grange::cli
