// One request on its way through the gateway.
#pragma once

#include "server/gateway/gateway.hpp"
#include "server/gateway/translate.hpp"

namespace grange::server::gateway {

struct Gateway::Stream {
  StreamId id = 0;
  net::HttpExchangePtr exchange;
  const Passed* route = nullptr;
  Asked asked;
  std::string body;
  std::map<std::string, std::string> headers;  // for upstream
  Record record;
  Instant arrived{}, deadline{};

  // while it waits
  std::string queue = {};  // its key; "": it does not
  Instant wait_until{};
  Choice::Why waits_for{};

  // while a service works on it
  PlaceId place = 0;
  WorkerNo worker{};
  std::uint64_t relay = 0;  // 0: none
  std::string kind = {};    // of the service
  Instant opened{};
  std::vector<PlaceId> tried = {};
  std::unique_ptr<OllamaAnswer> translated = {};  // where it does not speak the client's dialect
  std::uint32_t failures = 0;
  bool again = false;  // the same service had a second chance

  // the answer
  struct Answer {
    int status = 0;  // 0: no head yet
    std::map<std::string, std::string> headers = {};
    Framing framing = Framing::whole;
    bool collects = false;  // to decide, or to convert, at its end
    std::string held = {};
  };
  Answer answer = {};
  Bytes collected = 0;                 // of what it holds, in the sum of all streams
  std::optional<Fault> fault = {};     // of the last try
  std::optional<Answer> refusal = {};  // and what the service said, when its own words are the best there are
  bool started = false;                // bytes went out: no other service can take over
  Tail tail = {};
  std::int64_t allowed = 0;  // that the worker may still send; below 0: it sent more
  Bytes taken = 0;           // and that it has not heard of
  bool held_back = false;
};

}  // namespace grange::server::gateway
