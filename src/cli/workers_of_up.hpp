// The worker processes of `grange up`: started, watched, started again with back-off, ended.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace grange::cli {

class WorkerProcesses {
 public:
  using Clock = std::chrono::steady_clock;
  // `arguments` of each worker, after the program's name. `token` reaches it through a file in memory.
  WorkerProcesses(std::vector<std::vector<std::string>> arguments, const std::string& token);
  ~WorkerProcesses();  // kills those left

  void start_due();                      // starts those whose time has come
  void reap();                           // after SIGCHLD: notes who ended, and when it starts again; never after code 0
  int next_start_ms(int at_most) const;  // until start_due has something to do
  void signal_all(int number) const;
  bool none_left() const;
  std::vector<pid_t> pids() const;
  void no_restarts() { restarts_ = false; }

 private:
  struct One {
    std::vector<std::string> arguments;
    pid_t pid = -1;
    Clock::time_point started{}, start_at{};
    int failures = 0;
    bool left = false;  // drained: it ended by itself, with 0
  };
  void start(One& one);
  std::vector<One> all_;
  int token_fd_ = -1;  // in memory; each worker reads it as its --token-file
  bool restarts_ = true;
};

}  // namespace grange::cli
