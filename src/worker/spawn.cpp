#include "worker/spawn.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "worker/guardian.hpp"
#include "worker/leftovers.hpp"

namespace grange::worker {

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) {
    return Error{ErrorClass::io,
                 std::string("No pipe for a child process: ") + std::strerror(errno) + " (see `ulimit -n`)."};
  }
  return Pipe{Fd(fds[0]), Fd(fds[1])};
}

void set_nonblocking(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

namespace {

// All that the child needs, made before the fork: the child shares our memory and may call async-signal-safe functions
// only.
struct Launch {
  const char* program;
  char* const* argv;
  char* const* env;
  const char* folder;
  int fds[4];
  int guardian_fd;
  rlim_t files;
  pid_t parent;
  int error = 0;
};

[[noreturn]] void give_up(Launch* launch) {
  launch->error = errno;
  ::_exit(127);
}

[[noreturn]] __attribute__((noinline)) void become(Launch* launch) {
  if (::setpgid(0, 0) != 0) give_up(launch);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launch->parent) ::_exit(127);  // it died before we could ask to be told
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);               // its descendants stay below it: see leftovers.hpp
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up(launch);
  if (launch->guardian_fd >= 0) {
    const GuardianNote note{GuardianNote::kGuard, ::getpid()};
    if (::write(launch->guardian_fd, &note, sizeof note) != static_cast<ssize_t>(sizeof note)) give_up(launch);
  }
  const struct rlimit none = {0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  struct rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max = launch->files < files.rlim_max ? launch->files : files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  if (launch->folder != nullptr && ::chdir(launch->folder) != 0) give_up(launch);
  const int last = launch->fds[3] >= 0 ? 3 : 2;
  // First out of the way of 0..3, then into place.
  for (int i = 0; i <= last; ++i) {
    const int from = launch->fds[i] >= 0 ? launch->fds[i] : ::open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY);
    if (from < 0) give_up(launch);
    launch->fds[i] = ::fcntl(from, F_DUPFD_CLOEXEC, 10);
    if (launch->fds[i] < 0) give_up(launch);
  }
  for (int i = 0; i <= last; ++i) {
    if (::dup2(launch->fds[i], i) < 0) give_up(launch);
  }
  if (::syscall(SYS_close_range, last + 1, ~0U, 0U) != 0) {
    for (int fd = last + 1; fd < 4096; ++fd) ::close(fd);  // a kernel before 5.9; all of ours close on exec besides
  }
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &plain, nullptr);
  sigset_t empty;
  ::sigemptyset(&empty);
  ::sigprocmask(SIG_SETMASK, &empty, nullptr);
  ::execve(launch->program, launch->argv, launch->env);
  give_up(launch);
}

__attribute__((noinline)) pid_t launch_child(Launch* launch) {
  const pid_t pid = ::vfork();
  if (pid == 0) become(launch);
  return pid;
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  out.reserve(words.size() + 1);
  for (const std::string& word : words) out.push_back(const_cast<char*>(word.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

Result<Child> spawn(const ChildSpec& spec) {
  const std::vector<char*> argv = pointers(spec.argv), env = pointers(spec.env);
  Launch launch{spec.program.c_str(),
                argv.data(),
                env.data(),
                spec.folder.empty() ? nullptr : spec.folder.c_str(),
                {spec.stdin_fd, spec.stdout_fd, spec.stderr_fd, spec.extra_fd},
                spec.guardian_fd,
                spec.files,
                ::getpid()};
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of ours may run in the child
  const pid_t pid = launch_child(&launch);
  const int fork_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    return Error{ErrorClass::io,
                 std::string("No process could be started: ") + std::strerror(fork_error) + " (see `ulimit -u`)."};
  }
  if (launch.error != 0) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    const ErrorClass cls = launch.error == ENOENT || launch.error == ENOTDIR   ? ErrorClass::not_found
                           : launch.error == EACCES || launch.error == ENOEXEC ? ErrorClass::forbidden
                                                                               : ErrorClass::io;
    return Error{cls, spec.program + " could not be started: " + std::strerror(launch.error)};
  }
  know_child(pid);
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int error = errno;
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    forget_child(pid);
    return Error{ErrorClass::io, std::string("No pidfd (Linux 5.3 or newer is needed): ") + std::strerror(error)};
  }
  return Child{pid, std::move(pidfd)};
}

Result<std::string> find_program(std::string_view name, std::string_view path, const std::string& folder) {
  const auto runnable = [](const std::string& file) {
    struct stat info;
    return ::stat(file.c_str(), &info) == 0 && S_ISREG(info.st_mode) && ::access(file.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string_view::npos) {
    const std::string file =
        name.front() == '/' || folder.empty() ? std::string(name) : folder + "/" + std::string(name);
    if (runnable(file)) return file;
    if (::access(file.c_str(), F_OK) == 0)
      return Error{ErrorClass::forbidden, std::string(name) + ": not an executable file"};
    return Error{ErrorClass::not_found, std::string(name) + ": command not found"};
  }
  std::size_t from = 0;
  while (from <= path.size()) {
    const std::size_t to = std::min(path.find(':', from), path.size());
    if (to > from) {
      std::string file = std::string(path.substr(from, to - from)) + "/" + std::string(name);
      if (runnable(file)) return file;
    }
    from = to + 1;
  }
  return Error{ErrorClass::not_found, std::string(name) + ": command not found"};
}

Result<BoundedOutput> run_bounded(const ChildSpec& asked, Millis limit) {
  auto out = make_pipe(), err = make_pipe();
  if (!out) return out.error();
  if (!err) return err.error();
  ChildSpec spec = asked;
  spec.stdout_fd = out->write.get();
  spec.stderr_fd = err->write.get();
  auto child = spawn(spec);
  if (!child) return child.error();
  out->write.reset();
  err->write.reset();
  set_nonblocking(out->read.get());
  set_nonblocking(err->read.get());
  BoundedOutput answer;
  const auto deadline = std::chrono::steady_clock::now() + limit;
  const auto read_all = [](int fd, std::string& into) {
    std::array<char, 4096> buffer;
    ssize_t n = 0;
    while ((n = ::read(fd, buffer.data(), buffer.size())) > 0) {
      if (into.size() < MiB) into.append(buffer.data(), static_cast<std::size_t>(n));
    }
    return n == 0;  // end
  };
  bool out_open = true, err_open = true;
  for (;;) {
    const auto left = std::chrono::duration_cast<Millis>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) break;
    std::array<pollfd, 3> waits{pollfd{child->pidfd.get(), POLLIN, 0},
                                pollfd{out_open ? out->read.get() : -1, POLLIN, 0},
                                pollfd{err_open ? err->read.get() : -1, POLLIN, 0}};
    ::poll(waits.data(), waits.size(), static_cast<int>(left));
    if (out_open) out_open = !read_all(out->read.get(), answer.out);
    if (err_open) err_open = !read_all(err->read.get(), answer.err);
    if ((waits[0].revents & POLLIN) != 0) {
      answer.ended = true;
      break;
    }
  }
  ::kill(-child->pid, SIGKILL);
  int status = 0;
  while (::waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
  }
  forget_child(child->pid);
  if (out_open) read_all(out->read.get(), answer.out);
  if (err_open) read_all(err->read.get(), answer.err);
  if (answer.ended) answer.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return answer;
}

}  // namespace grange::worker
