#include "worker/python_executor.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>

#include "base/limits.hpp"

namespace grange::worker {

using Descriptor = boost::asio::posix::stream_descriptor;

struct PythonExecutor::Impl : std::enable_shared_from_this<PythonExecutor::Impl> {
  explicit Impl(net::Loop& loop) : socket(loop.context()) {}

  void wait_read() {
    socket.async_wait(Descriptor::wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
      if (error || self->closed) return;
      if (self->read_all() && !self->held) self->wait_read();
    });
  }

  // Hands over what is whole. False: it makes no sense, or the owner has closed us.
  bool tell() {
    while (!held) {
      auto message = reader.next();
      if (!message) {
        process->signal(SIGKILL);
        return false;
      }
      if (!message->has_value()) return true;
      if (events.on_message) events.on_message(std::move(**message));
      if (closed) return false;
    }
    return true;
  }

  // False: the socket ended, or what came makes no sense.
  bool read_all() {
    if (scratch.empty()) scratch.resize(256 * KiB);
    for (int turns = 0; turns < 64; ++turns) {  // then others get their turn
      const ssize_t n = ::recv(socket.native_handle(), scratch.data(), scratch.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
      if (n <= 0) return false;
      reader.feed({scratch.data(), static_cast<std::size_t>(n)});
      if (!tell()) return false;
      if (held) return true;
      if (static_cast<std::size_t>(n) < scratch.size()) return true;
    }
    return true;
  }

  void write_some() {
    while (written < out.size()) {
      const ssize_t n = ::send(socket.native_handle(), out.data() + written, out.size() - written, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (waiting_write) return;
        waiting_write = true;
        socket.async_wait(Descriptor::wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
          self->waiting_write = false;
          if (!error && !self->closed) self->write_some();
        });
        return;
      }
      if (n < 0) break;  // its end will be told by the process
      written += static_cast<std::size_t>(n);
    }
    out.clear();
    written = 0;
  }

  void close() {
    closed = true;
    events = {};
    boost::system::error_code ignored;
    socket.close(ignored);
  }

  Descriptor socket;
  std::unique_ptr<Process> process;
  PythonEvents events;
  executor::Reader reader;
  std::string out, scratch;
  std::size_t written = 0;
  bool waiting_write = false, closed = false, held = false;
};

Result<std::unique_ptr<PythonExecutor>> PythonExecutor::start(net::Loop& loop, const Guardian* guardian,
                                                              ProcessSpec spec, PythonEvents events) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return Error{ErrorClass::io, std::string("No socket for an executor: ") + std::strerror(errno)};
  }
  Fd ours(pair[0]), theirs(pair[1]);
  spec.extra_fd = theirs.get();
  auto impl = std::make_shared<Impl>(loop);
  impl->events = std::move(events);
  const std::weak_ptr<Impl> weak = impl;
  auto process = Process::start(loop, guardian, spec,
                                {[weak](Output from, std::string_view data) {
                                   const auto self = weak.lock();
                                   return !self || !self->events.on_output || self->events.on_output(from, data);
                                 },
                                 [weak](const ExitStatus& status) {
                                   const auto self = weak.lock();
                                   if (!self || self->closed) return;
                                   self->held = false;
                                   if (self->tell()) self->read_all();  // a result may have come just before the end
                                   if (self->closed) return;
                                   const auto gone = std::move(self->events.on_gone);
                                   self->close();
                                   if (gone) gone(status);
                                 }});
  if (!process) return process.error();
  impl->process = std::move(*process);
  set_nonblocking(ours.get());
  impl->socket.assign(ours.release());
  impl->wait_read();
  return std::unique_ptr<PythonExecutor>(new PythonExecutor(std::move(impl)));
}

PythonExecutor::~PythonExecutor() {
  impl_->close();
  impl_->process.reset();
}

void PythonExecutor::send(std::string bytes) {
  if (impl_->closed) return;
  if (impl_->out.empty()) {
    impl_->out = std::move(bytes);
  } else {
    impl_->out += bytes;
  }
  if (!impl_->waiting_write) impl_->write_some();
}

void PythonExecutor::hold() {
  impl_->held = true;
}

void PythonExecutor::resume() {
  const auto keep = impl_;
  keep->process->resume();
  if (!keep->held || keep->closed) return;
  keep->held = false;
  if (keep->tell() && !keep->held) keep->wait_read();
}

Process& PythonExecutor::process() {
  return *impl_->process;
}

}  // namespace grange::worker
