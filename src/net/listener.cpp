#include "net/listener.hpp"

#include <sys/resource.h>

#include "base/limits.hpp"
#include "net/http_session.hpp"
#include "net/sockets.hpp"

namespace grange::net {

namespace {

class TcpListener final : public Listener {
 public:
  TcpListener(std::shared_ptr<ListenerCore> core, std::shared_ptr<tcp::acceptor> acceptor, std::uint16_t port)
      : core_(std::move(core)), acceptor_(std::move(acceptor)), port_(port) {}
  ~TcpListener() override {
    core_->loop.call([core = core_, acceptor = acceptor_] {
      core->closing = true;
      error_code ec;
      acceptor->close(ec);
    });
    core_->scope->cancel();
    core_->scope->join();
  }
  std::uint16_t port() const override { return port_; }
  void stop_accepting() override {
    error_code ec;
    acceptor_->close(ec);
  }
  std::size_t connections() const override { return core_->connections; }

 private:
  std::shared_ptr<ListenerCore> core_;
  std::shared_ptr<tcp::acceptor> acceptor_;
  std::uint16_t port_;
};

std::shared_ptr<void> take_place(const std::shared_ptr<ListenerCore>& core) {
  ++core->connections;
  return std::shared_ptr<void>(core.get(), [core](void*) { --core->connections; });
}

void turn_away(tcp::socket& socket) {
  const auto response = HttpResponse::error(
      {ErrorClass::unavailable, "The server has as many connections as it can hold. Try again later."});
  const std::string text = head_text(503, {{"Content-Length", std::to_string(response.body.size())},
                                           {"Content-Type", "application/json"},
                                           {"Connection", "close"},
                                           {"Retry-After", "5"}}) +
                           response.body;
  error_code ec;
  socket.write_some(asio::buffer(text), ec);
}

// Each connection takes a descriptor, and what a login gives is often no more than 1024.
void raise_open_files() {
  rlimit open{};
  if (::getrlimit(RLIMIT_NOFILE, &open) != 0) return;
  const rlim_t wanted = std::min<rlim_t>(open.rlim_max, limits::kOpenFiles);
  if (open.rlim_cur >= wanted) return;
  open.rlim_cur = wanted;
  if (::setrlimit(RLIMIT_NOFILE, &open) != 0) spdlog::warn("cannot raise the number of open files to {}", wanted);
}

asio::awaitable<void> accept(std::shared_ptr<ListenerCore> core, std::shared_ptr<tcp::acceptor> acceptor) {
  asio::steady_timer pause(core->loop.context());
  SteadyTime warn_again = SteadyTime::min();
  while (acceptor->is_open()) {
    error_code ec;
    tcp::socket socket = co_await acceptor->async_accept(into(ec));
    if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) break;
    if (ec) {  // no more descriptors, perhaps: let some be given back
      if (const auto now = std::chrono::steady_clock::now(); now >= warn_again) {
        spdlog::warn(
            "cannot accept a connection: {}. Those that wait are taken when others have ended; raise the limit "
            "of open files (ulimit -n) if this goes on.",
            ec.message());
        warn_again = now + limits::kAcceptWarning;
      }
      pause.expires_after(limits::kAcceptPause);
      co_await pause.async_wait(into(ec));
      continue;
    }
    prepare(socket);
    if (core->connections >= limits::kConnections) {
      turn_away(socket);
      continue;
    }
    const auto session = std::make_shared<HttpSession>(core, std::move(socket), take_place(core));
    core->scope->spawn(HttpSession::run(session), [session] { session->shut(); });
  }
}

Error cannot_listen(const ListenerOptions& options, error_code ec) {
  const std::string where = host_port(options.host, options.port);
  if (ec == asio::error::address_in_use) {
    return {ErrorClass::unavailable,
            fmt::format("Port {} is in use on {}. Choose another with --port, or stop the program that has it.",
                        options.port, options.host)};
  }
  if (ec == asio::error::access_denied) {
    return {ErrorClass::forbidden,
            fmt::format("This user may not listen on {}. Choose a port above 1023 with --port.", where)};
  }
  if (ec == boost::system::errc::address_not_available) {
    return {ErrorClass::invalid_argument,
            fmt::format("{} is not an address of this machine. Use 127.0.0.1, or 0.0.0.0 for all of its addresses.",
                        options.host)};
  }
  return {ErrorClass::unavailable, fmt::format("Cannot listen on {}: {}.", where, ec.message())};
}

Result<tcp::endpoint> address_of(Loop& loop, const ListenerOptions& options) {
  error_code ec;
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  const auto address = asio::ip::make_address(host, ec);
  if (!ec) return tcp::endpoint(address, options.port);
  tcp::resolver resolver(loop.context());
  const auto found = resolver.resolve(host, std::to_string(options.port), tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return Error{ErrorClass::invalid_argument,
                 fmt::format("There is no host \"{}\" to listen on. Use an address of this machine, such as 127.0.0.1.",
                             options.host)};
  }
  return found.begin()->endpoint();
}

}  // namespace

Result<std::unique_ptr<Listener>> listen(Loop& loop, ListenerOptions options, ListenerHandlers handlers) {
  raise_open_files();
  const auto at = address_of(loop, options);
  if (!at) return at.error();
  const auto acceptor = std::make_shared<tcp::acceptor>(loop.context());
  error_code ec;
  acceptor->open(at->protocol(), ec);
  if (!ec) acceptor->set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) close_on_exec(acceptor->native_handle());
  if (!ec) acceptor->bind(*at, ec);
  if (!ec) acceptor->listen(1024, ec);
  if (ec) return cannot_listen(options, ec);
  const std::uint16_t port = acceptor->local_endpoint(ec).port();
  auto core = std::make_shared<ListenerCore>(loop, std::move(options), std::move(handlers));
  loop.call([core, acceptor] {
    core->scope->spawn(accept(core, acceptor), [acceptor] {
      error_code ignored;
      acceptor->close(ignored);
    });
  });
  return std::unique_ptr<Listener>(std::make_unique<TcpListener>(std::move(core), acceptor, port));
}

}  // namespace grange::net
