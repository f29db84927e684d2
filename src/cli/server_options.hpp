// The options that `up` and `server` share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/context.hpp"
#include "server/server.hpp"

namespace grange::cli {

struct ServerFlags {
  std::string host = "127.0.0.1", data, policy = "priority", retain, aging, log_format = "human", log_level = "info";
  std::string alert_webhook;
  std::uint16_t port = 8000, ws_port = 9000;
  int keep_runs = 500;
  std::vector<std::string> allow_hosts;

  void add_to(CLI::App& sub);
  // Fills `data`; throws Exit. `command`: what was typed, for what to type instead.
  server::ServerOptions settle(const Context& context, const char* command);

 private:
  std::vector<server::Setting> settings(const Context& context, const server::ServerOptions& settled) const;
  CLI::App* sub_ = nullptr;
};

// $XDG_DATA_HOME/grange, or ~/.local/share/grange.
std::string default_data_dir();

// Starts the server, or throws what it says, with what to type for a port in use.
std::unique_ptr<server::Server> start_server(net::Loop& loop, const server::ServerOptions& options);
// Blocks until it has stopped; the loop runs on a thread of its own. False: it did not within the limit.
bool stop_server(net::Loop& loop, std::unique_ptr<server::Server>& server);

// Signals of this program as a queue, for its main thread. Make it before any other thread.
class SignalQueue {
 public:
  SignalQueue();                   // SIGINT, SIGTERM, SIGHUP, SIGCHLD
  int next(int timeout_ms) const;  // 0: none came in time
  static void restore_in_child();  // between fork and exec
};

}  // namespace grange::cli
