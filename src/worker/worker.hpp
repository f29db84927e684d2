// The daemon on a machine: offers its resources to a server, runs tasks, and says how they went.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/loop.hpp"
#include "net/transport.hpp"
#include "worker/services/care_spec.hpp"

namespace grange::worker {

struct WorkerOptions {
  std::string server_url = "http://127.0.0.1:8000";
  std::string token;
  std::string name;         // "": the host's
  std::uint32_t slots = 0;  // tasks that run at once; 0: the cores
  int health_port = 9090;   // 0: none; when taken, a free one
  std::string health_host = "127.0.0.1";
  std::string data_dir;
  std::string python;  // interpreter; "": $GRANGE_PYTHON, the .venv beside the binary, python3. "none": not offered
  std::string python_path;  // PYTHONPATH of the executors, for a package that is not installed
  std::map<std::string, std::string> labels;
  std::string pool;                     // the class of workers it belongs to; "": standard
  std::vector<std::string> models;      // that it has ready
  std::vector<std::string> services;    // "kind=url" or "name:kind=url": beside those found by probing
  std::vector<CareSpec> kept_services;  // checked; the worker starts them, and keeps them running
  bool probe = true;                    // look for services at their usual ports
  Millis life{0};                       // the machine is lent for so long; then it drains. 0: no end known
  std::uint32_t drain_seconds = 8;      // how long tasks may go on after the first signal
  std::uint32_t recycle_tasks = 0;      // a Python executor is replaced after so many tasks; 0: never
  std::uint64_t recycle_rss_bytes = 0;  // or when it keeps more than this; 0: its share of the machine's memory
};

struct WorkerStatus {
  std::string state;  // healthy | restarting | reconnecting | recovering | draining | failed
  std::string worker_id;
  bool online = false;
  std::uint32_t running = 0, backlog = 0, window = 0, executors_ready = 0;
  std::size_t held = 0;  // results not yet acknowledged included
  std::uint64_t ended = 0, failed = 0;
  std::uint16_t health_port = 0;
};

// The Loop's thread only. start() blocks for a moment: it looks at the machine and asks the Python interpreter; call it
// before the loop runs.
class Worker {
 public:
  Worker(net::Loop& loop, WorkerOptions options);
  Worker(net::Loop& loop, WorkerOptions options, std::unique_ptr<net::Dialer> dialer);  // for tests
  ~Worker();                                                                            // kills what still runs
  Result<> start();
  // Returns what waits, lets the rest finish for at most drain_seconds, then says goodbye and stops.
  void drain(std::function<void()> done);
  void stop(std::function<void()> done);  // at once
  // It ended by itself: drained by the server (no error), or the server will never take it.
  void on_ended(std::function<void(const Error*)> ended);
  WorkerStatus status() const;
  std::string status_json() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// A worker until a signal or the server ends it. The exit code of the process: 0, or 1 when it could not start or was
// refused.
int run_worker(WorkerOptions options);

}  // namespace grange::worker
