// One accepted connection: requests one after another, or the upgrade to a WebSocket.
#pragma once

#include "net/counts.hpp"
#include "net/http_exchange.hpp"
#include "net/http_parsing.hpp"
#include "net/scope.hpp"
#include "net/waiting.hpp"

namespace grange::net {

class WebSocket;

// What all sessions of one listener share.
struct ListenerCore {
  ListenerCore(Loop& l, ListenerOptions o, ListenerHandlers h)
      : loop(l),
        options(std::move(o)),
        handlers(std::move(h)),
        guard(options.host, options.allowed_hosts),
        scope(std::make_shared<Scope>(l)) {}
  Loop& loop;
  ListenerOptions options;
  ListenerHandlers handlers;
  HostGuard guard;
  std::shared_ptr<Scope> scope;
  std::size_t connections = 0;
  std::shared_ptr<std::atomic<Bytes>> body_bytes = std::make_shared<std::atomic<Bytes>>(0);  // in memory now
  bool closing = false;
};

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  // `place` lives as long as the connection.
  HttpSession(std::shared_ptr<ListenerCore> core, tcp::socket socket, std::shared_ptr<void> place);
  static asio::awaitable<void> run(std::shared_ptr<HttpSession> self);
  void shut();

 private:
  enum class Next { again, close, upgraded };
  asio::awaitable<Next> one_request();
  asio::awaitable<bool> wait_for_request();
  asio::awaitable<error_code> read_head();
  asio::awaitable<Next> refuse_malformed(error_code why);
  asio::awaitable<Next> refuse(Error why, const HttpRequest* of = nullptr);  // and as `refusal_` says
  asio::awaitable<bool> upgrade(HttpRequest head);
  asio::awaitable<error_code> read_body(Bytes limit, std::function<bool(std::string_view)> sink);
  asio::awaitable<std::optional<Next>> body_to_memory();  // the end of it, if it was refused
  asio::awaitable<void> body_to_file();
  asio::awaitable<Next> exchange();
  asio::awaitable<bool> send_whole(HttpResponse response);
  asio::awaitable<bool> send_file();
  asio::awaitable<bool> send_stream();
  asio::awaitable<void> linger();
  asio::awaitable<error_code> read_some(std::size_t room);
  asio::awaitable<bool> write(std::string_view head, std::string_view body);
  void finish_headers(HttpResponse& response);
  bool not_modified(const HttpResponse& response) const;
  void watch_peer();
  void peer_left();

  std::shared_ptr<ListenerCore> core_;
  tcp::socket socket_;
  std::shared_ptr<void> place_;
  ConnectionCounted counted_;
  std::string peer_, local_;
  boost::beast::flat_buffer in_;
  Watchdog watchdog_;
  Signal signal_;
  bool timed_out_ = false, left_ = false, watching_ = false, shut_ = false;
  // of the request that is served
  std::optional<RequestParser> parser_;
  std::shared_ptr<ExchangeState> now_;
  std::shared_ptr<WebSocket> upgrading_;
  struct Refusal {
    int status = 0;  // 0: that of the error's class
    std::map<std::string, std::string> headers;
  };
  Refusal refusal_;
  bool keep_alive_ = false, head_only_ = false, http10_ = false;
};

}  // namespace grange::net
