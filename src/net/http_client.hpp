// One HTTP client for the whole program: a pool of kept-alive connections and a circuit breaker per host.
#pragma once

#include "net/listener.hpp"

namespace grange::net {

// Of https:// and wss://. The system's authorities are trusted, or those of SSL_CERT_FILE.
struct TlsOptions {
  std::string ca_file = {};  // these too
  bool insecure = false;     // anybody is: only for tests of somebody's own
};

struct ClientRequest {
  std::string method = "GET";
  std::string url = {};  // http://host:port/path?query, or https://
  std::map<std::string, std::string> headers = {};
  std::string body = {};
  std::string body_file = {};  // instead of body: streamed from disk
  std::string to_file = {};    // a 2xx body goes to this file instead of memory
  // Before any of the body: status and headers (names in lower case).
  std::function<void(int status, const std::map<std::string, std::string>& headers)> on_head = {};
  // A 2xx body is handed over as it arrives; with on_head, the body of any answer.
  std::function<void(std::string_view)> on_chunk = {};
  Millis idle{30'000};  // without a byte in either direction; 0: none
  Bytes limit = 1 * GiB;
};
struct ClientResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::uint64_t body_bytes = 0;
};

class HttpClient {
 public:
  struct Options {
    std::size_t per_host = 8;  // connections at once; more requests wait
    Millis connect{5'000};
    Millis keep_alive{30'000};
    TlsOptions tls = {};
  };
  explicit HttpClient(Loop& loop);
  HttpClient(Loop& loop, Options options);
  ~HttpClient();  // cancels what runs
  struct Call {   // destroyed: cancelled, nothing is called any more
    virtual ~Call() = default;
    // While paused nothing is read and nothing is handed over, and silence is not counted; the peer is held back by
    // TCP.
    virtual void pause() {}
    virtual void resume() {}
  };
  // A status of 4xx or 5xx is a response, not an error. Nothing is called before this returns. Errors: unavailable (not
  // there, circuit open), timeout, too_large, io.
  [[nodiscard]] std::unique_ptr<Call> send(ClientRequest request, std::function<void(Result<ClientResponse>)> done);
  // Blocking form for command-line tools: from any thread but the Loop's.
  Result<ClientResponse> fetch(ClientRequest request);

  struct Counters {
    std::uint64_t requests = 0, reused = 0, failed = 0;
    std::size_t open = 0;
  };
  Counters counters() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace grange::net
