// A WebSocket of either side: Beast's stream, with a queue before it.
#pragma once

#include <deque>

#include "net/channel.hpp"
#include "net/counts.hpp"
#include "net/http_parsing.hpp"
#include "net/scope.hpp"
#include "net/transport.hpp"
#include "net/waiting.hpp"

namespace grange::net {

class WebSocket final : public Connection, public std::enable_shared_from_this<WebSocket> {
 public:
  struct Setup {
    Millis idle;
    std::string peer;
    std::shared_ptr<void> keep;  // lives as long as the socket
  };
  WebSocket(Loop& loop, tcp::socket socket, Setup setup);
  ~WebSocket() override;

  // First a handshake, as a server or as a client; drop() ends it early.
  // `behind`: what was read behind the request.
  asio::awaitable<error_code> accept(const http::request<SinkBody>& request, std::string_view behind,
                                     std::string subprotocol);
  struct Answer {
    error_code ec;
    bool refused = false;  // by a whole HTTP answer: `status` and `body` say how
    int status = 0;
    std::string body;
  };
  asio::awaitable<Answer> shake_hands(std::string host, std::string target, std::map<std::string, std::string> headers);
  tcp::socket& socket();                                                               // a client's, to be connected
  asio::awaitable<Result<Unit>> secure(std::shared_ptr<TlsContext> context, Url url);  // between that and shake_hands
  void drop() { shut(); }
  // Then this. The handle that it returns closes the connection when the last copy is dropped.
  static ConnectionPtr start(const std::shared_ptr<WebSocket>& self, std::shared_ptr<Scope> scope);

  void set_events(ConnectionEvents events) override;
  bool send(std::string message, bool binary) override;
  void close(std::uint16_t code, std::string reason) override;
  void ping() override;
  void set_idle(Millis idle) override;
  bool open() const override { return state_ == State::open; }
  std::size_t unsent_bytes() const override { return unsent_; }
  std::string peer() const override { return setup_.peer; }
  ConnectionCounters counters() const override { return counters_; }

 private:
  enum class State { shaking_hands, open, closing, closed };
  struct Stream;
  struct Goodbye {
    std::uint16_t code;
    std::string reason;
  };
  static asio::awaitable<void> read(std::shared_ptr<WebSocket> self);
  bool heard(error_code ec);
  bool unheard(error_code ec);
  void control(bool goodbye);
  void tell_alive();
  void pump();
  void written(error_code ec);
  Error why(error_code ec);
  void give_up_on_reader();
  void close_within_time();
  void finish(Error why);
  void shut();     // the scope ends: no event follows
  void abandon();  // the last handle was dropped

  Loop& loop_;
  std::shared_ptr<Scope> scope_;
  Setup setup_;
  ConnectionCounted counted_;
  Watchdog stalled_;  // the peer does not read
  std::unique_ptr<Stream> stream_;
  boost::beast::flat_buffer in_;
  State state_ = State::shaking_hands;
  std::shared_ptr<ConnectionEvents> events_;
  Signal listening_;
  std::unique_ptr<Timer> close_timer_;
  std::optional<Error> closing_why_;
  std::optional<Goodbye> goodbye_;  // ours, to be said behind what still waits
  bool goodbye_heard_ = false, refusing_ = false, pinging_ = false;
  struct Message {
    std::string payload;
    bool binary;
  };
  std::deque<Message> queue_;  // the first is being written while `writing_`
  bool writing_ = false, held_back_ = false;
  std::size_t unsent_ = 0;
  ConnectionCounters counters_;
};

}  // namespace grange::net
