// One listener speaks HTTP/1.1 and WebSocket on the same port. Routes and rights are its caller's business; Host,
// Origin, sizes, idle time-outs and the number of connections are checked here, before anything of ours sees a byte.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "base/limits.hpp"
#include "net/loop.hpp"
#include "net/transport.hpp"

namespace grange::net {

struct HttpRequest {
  std::string method;                          // "GET"
  std::string path;                            // "/api/jobs/7", percent-decoded, no query
  std::map<std::string, std::string> query;    // decoded; the last of equal names wins
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // whole, unless streamed to a file
  std::string peer;                            // "127.0.0.1:5123"
};
bool announces_body(const HttpRequest& head);

struct HttpResponse {
  int status = 200;
  std::map<std::string, std::string> headers;  // Content-Length, Date and Content-Encoding are added
  std::string body;
  static HttpResponse json(int status, std::string body);
  static HttpResponse error(const Error& error);  // {"error":{"code","message","details"}} with the status of its class
};

// One request and its one answer. May be kept and answered later, from the Loop's thread. Dropped unanswered: 500.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual HttpRequest& request() = 0;
  virtual void respond(HttpResponse response) = 0;  // gzip by Accept-Encoding, 304 by ETag
  // Sends `length` bytes of a file from `offset`.
  virtual void respond_file(HttpResponse head, std::string file, std::uint64_t offset, std::uint64_t length) = 0;
  // Chunked answer that stays open (SSE, log follow). write(): false = the peer is behind, hold back until on_writable.
  virtual void start_stream(HttpResponse head) = 0;
  virtual bool write(std::string chunk) = 0;
  virtual void end_stream() = 0;
  virtual void on_closed(std::function<void()> gone) = 0;  // the peer left before the answer was complete
  virtual void on_writable(std::function<void()> ready) = 0;
  // It is to be over: an answer that was not given yet is this error, one that streams is cut short, and on_closed is
  // called either way. A whole answer that is on its way arrives.
  virtual void cut(const Error&) {}
  // For a route for which `streams_body` said yes: nothing of the body was read yet. Writes it to `file` (created,
  // truncated at `offset`), then calls done with the number of bytes written.
  virtual void read_body_to_file(std::string file, std::uint64_t offset, Bytes limit,
                                 std::function<void(Result<std::uint64_t>)> done) = 0;
};
using HttpExchangePtr = std::shared_ptr<HttpExchange>;

struct ListenerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;  // 0: a free one
  // Beyond loopback names and `host`: names by which the server may be called, and whose web pages may use it: those at
  // any port of "farm.lan", only at that one of "farm.lan:3000". Other pages must come from this very port.
  std::vector<std::string> allowed_hosts = {};
  bool websocket_only = false;                 // the alias on 9000: WebSocket at any path
  std::vector<std::string> subprotocols = {};  // of WebSocket: the first of ours that a client names is its answer
  Millis idle{60'000};
  Millis body_window = limits::kBodyWindow;
  Bytes body_budget = limits::kBodiesInFlight;
};

struct ListenerHandlers {
  std::function<void(HttpExchangePtr)> on_http;
  std::function<bool(const HttpRequest& head)> streams_body = {};
  // Before any byte of a body is read: an error refuses the request with its HTTP status.
  std::function<Result<Unit>(const HttpRequest& head)> authorize_http = {};
  // The body of a refusal, where it is not to be the usual one.
  std::function<std::optional<std::string>(const HttpRequest& head, const Error& why)> refusal = {};
  // Before the upgrade: an error refuses it with its HTTP status. `head` has path, query and headers.
  std::function<Result<Unit>(const HttpRequest& head)> authorize_websocket = {};
  std::function<void(ConnectionPtr, const HttpRequest& head)> on_websocket = {};
};

class Listener {
 public:
  virtual ~Listener() = default;  // closes everything it accepted
  virtual std::uint16_t port() const = 0;
  virtual void stop_accepting() = 0;
  virtual std::size_t connections() const = 0;
};

// Any thread. The error says who holds the port, or what to type.
Result<std::unique_ptr<Listener>> listen(Loop& loop, ListenerOptions options, ListenerHandlers handlers);

}  // namespace grange::net
