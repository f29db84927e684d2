#include "cli/workers_of_up.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/exit.hpp"
#include "cli/server_options.hpp"

extern char** environ;

namespace grange::cli {

WorkerProcesses::WorkerProcesses(std::vector<std::vector<std::string>> arguments, const std::string& token) {
  if (!token.empty()) {
    token_fd_ = memfd_create("grange-token", MFD_CLOEXEC);
    if (token_fd_ < 0 || write(token_fd_, token.data(), token.size()) != static_cast<ssize_t>(token.size())) {
      throw Exit{kFailed, fmt::format("The token could not be handed to the workers: {}", std::strerror(errno))};
    }
  }
  for (auto& one : arguments) {
    if (token_fd_ >= 0) one.insert(one.end(), {"--token-file", fmt::format("/proc/self/fd/{}", token_fd_)});
    all_.emplace_back();
    all_.back().arguments = std::move(one);
  }
}

WorkerProcesses::~WorkerProcesses() {
  signal_all(SIGKILL);
  for (const One& one : all_) {
    if (one.pid > 0) waitpid(one.pid, nullptr, 0);
  }
  if (token_fd_ >= 0) close(token_fd_);
}

void WorkerProcesses::start(One& one) {
  // The token never goes by environment: /proc shows that to every process of the user.
  std::vector<std::string> environment;
  for (char** at = environ; *at != nullptr; ++at) {
    if (!std::string_view(*at).starts_with("GRANGE_TOKEN=")) environment.emplace_back(*at);
  }
  const auto pointers = [](std::vector<std::string>& from) {
    std::vector<char*> out;
    for (std::string& text : from) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
  };
  std::vector<std::string> arguments{"grange"};
  arguments.insert(arguments.end(), one.arguments.begin(), one.arguments.end());
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = getpid();
  one.started = Clock::now();
  one.pid = fork();
  if (one.pid == 0) {  // only calls that are safe after fork from here on
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);  // it died before we asked to be told
    setpgid(0, 0);                      // Ctrl-C is for `up`, which ends us in order
    dup2(STDERR_FILENO, STDOUT_FILENO);
    // The server's sockets are not the worker's: a port must be free once the server is gone.
    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    if (token_fd_ >= 0) fcntl(token_fd_, F_SETFD, 0);
    SignalQueue::restore_in_child();
    execve("/proc/self/exe", argv.data(), envp.data());
    _exit(127);
  }
  if (one.pid < 0) {
    spdlog::error("A worker could not be started: {}", std::strerror(errno));
    one.start_at = one.started + std::chrono::seconds(5);
  }
}

void WorkerProcesses::start_due() {
  const auto now = Clock::now();
  for (One& one : all_) {
    if (one.pid <= 0 && !one.left && restarts_ && now >= one.start_at) start(one);
  }
}

void WorkerProcesses::reap() {
  const auto now = Clock::now();
  for (One& one : all_) {
    int status = 0;
    if (one.pid <= 0 || waitpid(one.pid, &status, WNOHANG) != one.pid) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      one.left = true;
      if (restarts_) spdlog::info("Worker process {} was drained and has left; it is not started again", one.pid);
      one.pid = -1;
      continue;
    }
    // A worker that ran for a minute was well: its next failure is its first.
    one.failures = now - one.started > std::chrono::minutes(1) ? 1 : one.failures + 1;
    const auto pause = std::chrono::seconds(std::min(30, 1 << std::min(one.failures - 1, 5)));
    one.start_at = now + pause;
    if (restarts_) {
      spdlog::warn("Worker process {} ended ({} {}); it is started again in {} s", one.pid,
                   WIFSIGNALED(status) ? "signal" : "code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), pause.count());
    }
    one.pid = -1;
  }
}

int WorkerProcesses::next_start_ms(int at_most) const {
  const auto now = Clock::now();
  for (const One& one : all_) {
    if (one.pid > 0 || one.left || !restarts_) continue;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(one.start_at - now).count() + 1;
    at_most = std::clamp(static_cast<int>(left), 1, at_most);
  }
  return at_most;
}

void WorkerProcesses::signal_all(int number) const {
  for (const One& one : all_) {
    if (one.pid > 0) kill(one.pid, number);
  }
}

bool WorkerProcesses::none_left() const {
  return std::all_of(all_.begin(), all_.end(), [](const One& one) { return one.pid <= 0; });
}

std::vector<pid_t> WorkerProcesses::pids() const {
  std::vector<pid_t> out;
  for (const One& one : all_) {
    if (one.pid > 0) out.push_back(one.pid);
  }
  return out;
}

}  // namespace grange::cli
