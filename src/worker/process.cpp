#include "worker/process.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

#include "base/limits.hpp"
#include "worker/leftovers.hpp"

namespace grange::worker {

namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {
constexpr int kLastReads = 64;  // a pipe holds less; whoever writes on and on is not waited for
}

struct Process::Impl : std::enable_shared_from_this<Process::Impl> {
  Impl(asio::io_context& context, const Guardian* guard, ProcessEvents e)
      : guardian(guard),
        events(std::move(e)),
        pidfd(context),
        in(context),
        pipes{Descriptor(context), Descriptor(context)} {}

  enum class Reading { more, nothing_now, end, held_back };

  void wait_exit() {
    pidfd.async_wait(Descriptor::wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->closed) self->exited();
    });
  }

  void exited() {
    // What it left behind goes too: first by name, and, not being reaped yet, its number is still ours, by its group.
    status.leftovers = end_leftovers();
    ::kill(-pid, SIGKILL);
    int raw = 0;
    struct rusage used = {};
    while (::wait4(pid, &raw, 0, &used) < 0 && errno == EINTR) {
    }
    reaped = true;
    forget_child(pid);
    if (guardian != nullptr) guardian->forget(pid);
    if (WIFSIGNALED(raw)) {
      status.signal = WTERMSIG(raw);
    } else {
      status.code = WEXITSTATUS(raw);
    }
    status.cpu = std::chrono::seconds(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 Micros(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    status.max_rss = static_cast<Bytes>(used.ru_maxrss) * KiB;
    boost::system::error_code ignored;
    pidfd.close(ignored);
    in.close(ignored);
    settle();
  }

  // After the end: reads what is still in the pipes, then tells. Someone who left the group may hold a pipe open for
  // ever; he is not waited for.
  void settle() {
    for (std::size_t i = 0; i < pipes.size(); ++i) {
      for (int left = kLastReads; !closed && pipes[i].is_open(); --left) {
        const Reading r = read_once(i);
        if (r == Reading::held_back) return;  // resume() comes back here
        if (r == Reading::more && left > 0) continue;
        boost::system::error_code ignored;
        pipes[i].close(ignored);
      }
    }
    if (closed) return;
    closed = true;
    const auto keep = shared_from_this();
    const auto tell = std::move(events.on_exit);
    if (tell) tell(status);
  }

  void wait_output(std::size_t i) {
    if (waiting[i] || !pipes[i].is_open()) return;
    waiting[i] = true;
    pipes[i].async_wait(Descriptor::wait_read, [self = shared_from_this(), i](const boost::system::error_code& error) {
      self->waiting[i] = false;
      if (error || self->closed || self->reaped) return;
      const Reading r = self->read_once(i);
      if (r == Reading::end) {
        boost::system::error_code ignored;
        self->pipes[i].close(ignored);
      } else if (!self->closed && r != Reading::held_back) {
        self->wait_output(i);
      }
    });
  }

  Reading read_once(std::size_t i, bool regardless = false) {
    if (held && !regardless) return Reading::held_back;
    std::array<char, limits::kLogChunk> buffer;
    const ssize_t n = ::read(pipes[i].native_handle(), buffer.data(), buffer.size());
    if (n == 0) return Reading::end;
    if (n < 0) return errno == EAGAIN || errno == EINTR ? Reading::nothing_now : Reading::end;
    const auto keep = shared_from_this();
    if (events.on_output && !events.on_output(static_cast<Output>(i), {buffer.data(), static_cast<std::size_t>(n)}))
      held = true;
    return Reading::more;
  }

  void feed() {
    while (fed < stdin_bytes.size()) {
      const ssize_t n = ::write(in.native_handle(), stdin_bytes.data() + fed, stdin_bytes.size() - fed);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) {
        in.async_wait(Descriptor::wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
          if (!error && !self->closed && !self->reaped) self->feed();
        });
        return;
      }
      if (n < 0) break;  // it does not read: its right
      fed += static_cast<std::size_t>(n);
    }
    boost::system::error_code ignored;
    in.close(ignored);
    stdin_bytes.clear();
  }

  void abandon() {
    closed = true;
    events = {};
    if (pid > 0 && !reaped) {
      signal_tree(pid, SIGKILL);
      while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      reaped = true;
      forget_child(pid);
      if (guardian != nullptr) guardian->forget(pid);
      end_leftovers();
    }
    boost::system::error_code ignored;
    pidfd.close(ignored);
    in.close(ignored);
    for (auto& pipe : pipes) pipe.close(ignored);
  }

  const Guardian* guardian;
  ProcessEvents events;
  Descriptor pidfd, in;
  std::array<Descriptor, 2> pipes;
  std::array<bool, 2> waiting{};
  pid_t pid = -1;
  bool reaped = false, closed = false, held = false;
  ExitStatus status;
  std::string stdin_bytes;
  std::size_t fed = 0;
};

Result<std::unique_ptr<Process>> Process::start(net::Loop& loop, const Guardian* guardian, const ProcessSpec& spec,
                                                ProcessEvents events) {
  static const bool once =
      ::signal(SIGPIPE, SIG_IGN) != SIG_ERR;  // a child that closes its stdin early must not end us
  GRANGE_ASSERT(once);
  auto out = make_pipe(), err = make_pipe();
  if (!out) return out.error();
  if (!err) return err.error();
  Pipe in;
  if (spec.feeds_stdin) {
    auto made = make_pipe();
    if (!made) return made.error();
    in = std::move(*made);
  }
  ChildSpec child_spec;
  child_spec.program = spec.program;
  child_spec.argv = spec.argv;
  child_spec.env = spec.env;
  child_spec.folder = spec.folder;
  child_spec.stdin_fd = in.read.get();
  child_spec.stdout_fd = out->write.get();
  child_spec.stderr_fd = err->write.get();
  child_spec.extra_fd = spec.extra_fd;
  child_spec.guardian_fd = guardian != nullptr ? guardian->fd() : -1;
  auto child = spawn(child_spec);
  if (!child) return child.error();

  auto impl = std::make_shared<Impl>(loop.context(), guardian, std::move(events));
  impl->pid = child->pid;
  set_nonblocking(out->read.get());
  set_nonblocking(err->read.get());
  impl->pidfd.assign(child->pidfd.release());
  impl->pipes[0].assign(out->read.release());
  impl->pipes[1].assign(err->read.release());
  impl->wait_exit();
  impl->wait_output(0);
  impl->wait_output(1);
  if (spec.feeds_stdin) {
    set_nonblocking(in.write.get());
    impl->in.assign(in.write.release());
    impl->stdin_bytes = spec.stdin_bytes;
    impl->feed();
  }
  return std::unique_ptr<Process>(new Process(std::move(impl)));
}

Process::~Process() {
  impl_->abandon();
}

pid_t Process::pid() const {
  return impl_->pid;
}

void Process::signal(int number) {
  if (!impl_->reaped) ::kill(-impl_->pid, number);
}

void Process::signal_leader(int number) {
  if (!impl_->reaped) ::kill(impl_->pid, number);
}

void Process::signal_all(int number) {
  if (!impl_->reaped) signal_tree(impl_->pid, number);
}

Bytes Process::memory(bool exact) const {
  return impl_->reaped ? 0 : tree_memory(impl_->pid, exact);
}

void Process::resume() {
  if (!impl_->held || impl_->closed) return;
  impl_->held = false;
  const auto keep = impl_;
  if (keep->reaped) {
    keep->settle();
  } else {
    keep->wait_output(0);
    keep->wait_output(1);
  }
}

void Process::drain() {
  const auto keep = impl_;
  for (std::size_t i = 0; i < 2; ++i) {
    for (int left = kLastReads; left > 0; --left) {
      if (keep->closed || !keep->pipes[i].is_open() || keep->read_once(i, true) != Impl::Reading::more) break;
    }
  }
}

bool Process::ended() const {
  return impl_->reaped;
}

}  // namespace grange::worker
