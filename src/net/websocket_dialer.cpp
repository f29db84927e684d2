#include <boost/beast/websocket/error.hpp>

#include "base/limits.hpp"
#include "net/connection_manager.hpp"
#include "net/dialing.hpp"
#include "net/sockets.hpp"
#include "net/websocket.hpp"

namespace grange::net {

namespace {

namespace ws = boost::beast::websocket;
using Done = std::function<void(Result<ConnectionPtr>)>;

struct Dial {
  Dial(Loop& l, std::string peer, Done d)
      : loop(l),
        socket(std::make_shared<WebSocket>(l, tcp::socket(l.context()),
                                           WebSocket::Setup{limits::kIdle, std::move(peer), nullptr})),
        done(std::move(d)),
        watchdog(l.context(), [this] {
          late = true;
          give_up();
        }) {}
  void give_up() {
    given_up = true;
    if (socket) socket->drop();
  }
  void answer(Result<ConnectionPtr> result) {
    watchdog.off();
    if (const auto tell = std::exchange(done, nullptr)) tell(std::move(result));
  }
  Loop& loop;
  std::shared_ptr<WebSocket> socket;
  Done done;
  Watchdog watchdog;
  bool late = false, given_up = false;
};

struct DialAttempt final : Dialer::Attempt {
  explicit DialAttempt(std::shared_ptr<Dial> d) : dial(std::move(d)) {}
  ~DialAttempt() override {
    dial->done = nullptr;
    if (!dial->given_up) dial->give_up();
  }
  std::shared_ptr<Dial> dial;
};

Error refusal(const Url& url, int status, const std::string& said) {
  const std::string where = host_port(url.host, url.port);
  const std::string quoted = said.empty() ? "" : " It said: " + said.substr(0, 500);
  switch (status) {
    case 401:
      return {ErrorClass::unauthenticated,
              fmt::format("The server at {} wants a token: set GRANGE_TOKEN, or give --token-file.{}", where, quoted)};
    case 403:
      return {ErrorClass::forbidden, fmt::format("The server at {} refused this connection.{}", where, quoted)};
    case 404:
      return {ErrorClass::not_found,
              fmt::format("{} has no WebSocket at {}. Check the URL.{}", where, url.target, quoted)};
    case 409:
      return {ErrorClass::conflict, fmt::format("The server at {} refused this connection.{}", where, quoted)};
    case 426:
      return {ErrorClass::version_mismatch, fmt::format("The server at {} speaks another version.{}", where, quoted)};
    default:
      return {ErrorClass::unavailable,
              fmt::format("{} answered {} instead of opening a WebSocket.{}", where, status, quoted)};
  }
}

Error dial_error(const Url& url, const WebSocket::Answer& answer) {
  static const auto& http_rules = http::make_error_code(http::error::bad_method).category();
  static const auto& websocket_rules = ws::make_error_code(ws::error::no_upgrade).category();
  const std::string where = host_port(url.host, url.port);
  if (answer.refused) return refusal(url, answer.status, answer.body);
  if (answer.ec.category() == websocket_rules) {
    return {ErrorClass::unavailable, fmt::format("{} answered the WebSocket handshake wrongly ({}). Check the URL.",
                                                 where, answer.ec.message())};
  }
  const bool left = answer.ec == http::error::end_of_stream || answer.ec == http::error::partial_message;
  if (answer.ec.category() == http_rules && !left) {
    return {ErrorClass::unavailable, fmt::format("What answers at {} does not speak HTTP. Check the port.", where)};
  }
  return {ErrorClass::unavailable,
          fmt::format("{} closed the connection before it was open: {}.", where, answer.ec.message())};
}

asio::awaitable<void> dial_once(std::shared_ptr<Dial> dial, std::shared_ptr<Scope> scope, Url url,
                                std::map<std::string, std::string> headers, std::shared_ptr<TlsContext> tls) {
  dial->watchdog.within(limits::kHandshake);
  Result<Unit> there = co_await connect(dial->socket->socket(), url);
  if (there && tls && !dial->given_up) there = co_await dial->socket->secure(std::move(tls), url);
  std::optional<Error> why;
  if (!there) {
    why = there.error();
  } else if (!dial->given_up) {
    std::string host = host_header(url);
    const WebSocket::Answer answer =
        co_await dial->socket->shake_hands(std::move(host), url.target, std::move(headers));
    if (answer.ec) why = dial_error(url, answer);
  }
  if (dial->late)
    why = Error{ErrorClass::timeout, fmt::format("{} did not open the connection in {} s.",
                                                 host_port(url.host, url.port), limits::kHandshake.count() / 1000)};
  if (dial->given_up && !dial->late) co_return;
  const auto socket = std::move(dial->socket);
  if (why) {
    socket->drop();
    dial->answer(std::move(*why));
    co_return;
  }
  dial->given_up = true;  // nothing is left to give up
  dial->answer(WebSocket::start(socket, scope));
}

class WebSocketDialer final : public Dialer {
 public:
  WebSocketDialer(Loop& loop, const std::string& url, std::map<std::string, std::string> headers, const TlsOptions& tls)
      : loop_(loop), scope_(std::make_shared<Scope>(loop)), url_(parse_url(url)), headers_(std::move(headers)) {
    if (!url_ || !secure(*url_)) return;
    if (auto made = tls_context(tls)) {
      tls_ = std::move(*made);
    } else {
      url_ = made.error();
    }
  }
  std::unique_ptr<Dialer::Attempt> dial(Done done) override {
    std::string peer = url_ ? host_port(url_->host, url_->port) : std::string();
    auto dial = std::make_shared<Dial>(loop_, std::move(peer), std::move(done));
    if (url_) {
      scope_->spawn(dial_once(dial, scope_, *url_, headers_, tls_), [dial] { dial->give_up(); });
    } else {
      loop_.post([dial, why = url_.error()] { dial->answer(why); });
    }
    return std::make_unique<DialAttempt>(dial);
  }

 private:
  Loop& loop_;
  std::shared_ptr<Scope> scope_;  // connections that it opened share it: they may outlive the dialer
  Result<Url> url_;
  std::map<std::string, std::string> headers_;
  std::shared_ptr<TlsContext> tls_;  // null: none is spoken
};

}  // namespace

std::unique_ptr<Dialer> websocket_dialer(Loop& loop, std::string url, std::map<std::string, std::string> headers) {
  return websocket_dialer(loop, std::move(url), std::move(headers), TlsOptions());
}

std::unique_ptr<Dialer> websocket_dialer(Loop& loop, std::string url, std::map<std::string, std::string> headers,
                                         const TlsOptions& tls) {
  return std::make_unique<WebSocketDialer>(loop, url, std::move(headers), tls);
}

}  // namespace grange::net
