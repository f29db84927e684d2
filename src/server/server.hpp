// The control plane as one object: queue, sessions, REST, events, and the first page.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.hpp"
#include "base/result.hpp"
#include "net/loop.hpp"

namespace grange::server {

// How a value of the options came to be, for people.
struct Setting {
  std::string name, value;
  std::string from;  // default | environment | command line | file
  std::string help;
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;     // 0: a free one
  std::uint16_t ws_port = 9000;  // WebSocket at any path; 0: none
  std::string data_dir;
  std::string policy = "priority";
  Millis aging{0};    // a job that waited so long is one priority higher; 0: never
  std::string token;  // empty: none, and then loopback only
  std::vector<std::string> allowed_hosts;
  Millis lease = limits::kLease;
  Millis heartbeat = limits::kHeartbeat;
  Millis retain{7ll * 24 * 3600 * 1000};  // ended jobs older than this are deleted
  std::uint64_t retain_jobs = 100'000;    // and those beyond the newest so many
  std::uint64_t retain_runs = 500;        // races that ended: the newest so many are kept
  std::string alert_webhook = {};         // http:// or https://, told of alerts; "": nobody
  std::vector<Setting> settings = {};     // of these, as they were given; no secrets
};

class Server {
 public:
  // Opens the store, rebuilds the core, listens. Call before the loop runs, or from its thread. The errors tell a
  // person what to do: beyond loopback without a token, port in use, folder in use or not writable, file newer or
  // damaged, unknown policy.
  static Result<std::unique_ptr<Server>> start(net::Loop& loop, ServerOptions options);
  virtual ~Server() = default;
  virtual std::string url() const = 0;     // "http://127.0.0.1:8000"
  virtual std::string ws_url() const = 0;  // "ws://127.0.0.1:9000", or the main port's /ws
  // Refuses new work, tells sessions, commits what is in flight, closes. Ends within limits::kShutdown. Then `done`, on
  // the loop.
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace grange::server
