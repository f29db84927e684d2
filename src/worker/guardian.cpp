#include "worker/guardian.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "worker/leftovers.hpp"

namespace grange::worker {

namespace {

constexpr int kGroups = 65'536;
std::int32_t g_groups[kGroups];  // in the guardian's copy of our memory; no allocation after the fork

constexpr int kLooks = 200;  // a task that forks on and on is not run after for ever

[[noreturn]] void guard(int pipe, const std::string& mark) {
  ::setsid();  // a signal to the worker's group or terminal is not for us
  ::prctl(PR_SET_NAME, "grange-guard");
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2})
    ::sigaction(signal, &ignore, nullptr);
  ::dup2(pipe, 3);
  for (const int fd : {0, 1, 2}) ::close(fd);  // a pipe of the worker's own parent must not stay open because of us
  if (::syscall(SYS_close_range, 4U, ~0U, 0U) != 0) {
    for (int fd = 4; fd < 4096; ++fd) ::close(fd);
  }
  int count = 0;
  GuardianNote note;
  for (;;) {
    const ssize_t n = ::read(3, &note, sizeof note);  // notes are written whole
    if (n < 0 && errno == EINTR) continue;
    if (n != static_cast<ssize_t>(sizeof note)) break;
    int at = 0;
    while (at < count && g_groups[at] != note.group) ++at;
    if (note.what == GuardianNote::kGuard && at == count && count < kGroups) g_groups[count++] = note.group;
    if (note.what == GuardianNote::kForget && at < count) g_groups[at] = g_groups[--count];
  }
  for (int i = 0; i < count; ++i) ::kill(-g_groups[i], SIGKILL);
  for (int look = 0; look < kLooks && !mark.empty() && kill_marked(mark) > 0; ++look) ::usleep(10'000);
  ::_exit(0);
}

}  // namespace

Result<Guardian> Guardian::start(const std::string& mark) {
  auto pipe = make_pipe();
  if (!pipe) return pipe.error();
  const pid_t pid = ::fork();
  if (pid < 0)
    return Error{ErrorClass::io, std::string("The guardian process could not be started: ") + std::strerror(errno)};
  if (pid == 0) guard(pipe->read.get(), mark);
  Guardian guardian;
  guardian.pipe_ = std::move(pipe->write);
  guardian.pid_ = pid;
  guardian.mark_ = mark;
  know_child(pid);
  return guardian;
}

Guardian::~Guardian() {
  pipe_.reset();
  if (pid_ > 0) {
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    forget_child(pid_);
  }
}

void Guardian::forget(pid_t group) const {
  const GuardianNote note{GuardianNote::kForget, group};
  if (pipe_ && ::write(pipe_.get(), &note, sizeof note) < 0)
    return;  // without it only a crash of ours is less well guarded
}

}  // namespace grange::worker
