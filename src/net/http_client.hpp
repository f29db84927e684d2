// One HTTP client for the whole program: a pool of kept-alive connections and a circuit breaker per host.
#pragma once

#include "net/listener.hpp"

namespace grange::net {

struct ClientRequest {
  std::string method = "GET";
  std::string url = {};  // http://host:port/path?query
  std::map<std::string, std::string> headers = {};
  std::string body = {};
  std::string body_file = {};                           // instead of body: streamed from disk
  std::string to_file = {};                             // a 2xx body goes to this file instead of memory
  std::function<void(std::string_view)> on_chunk = {};  // or is handed over as it arrives
  Millis idle{30'000};                                  // without a byte in either direction; 0: none
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
  };
  explicit HttpClient(Loop& loop);
  HttpClient(Loop& loop, Options options);
  ~HttpClient();  // cancels what runs
  struct Call {   // destroyed: cancelled, `done` is not called
    virtual ~Call() = default;
  };
  // A status of 4xx or 5xx is a response, not an error. Errors: unavailable (not there, circuit open), timeout,
  // too_large, io.
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
