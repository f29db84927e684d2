// One address for the models of all workers: HTTP requests go to the service that fits best, over its worker's own
// session, and the answer comes back byte for byte, as it comes. Nothing here is durable: a stream ends with its client
// or with its worker.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "server/gateway/dialect.hpp"
#include "server/gateway/meter.hpp"
#include "server/gateway/routing.hpp"
#include "server/gateway/translate.hpp"
#include "server/services.hpp"

namespace grange::server::gateway {

struct Limits {
  std::size_t waiting = 4096;            // requests without a place, in all
  std::size_t waiting_per_model = 2048;  // and of one model
  std::size_t waiting_per_principal = 1024;
  Millis wait{60'000};       // then 503; a client may ask for less with "Prefer: wait=SECONDS"
  Millis wait_away{20'000};  // for a service that is down, or a worker that left
  Millis idle{600'000};      // without a byte of the answer
  Millis cool{1'000};        // a service that said that it is busy gets nothing for so long
};

inline constexpr Bytes kCredit = 256 * KiB;       // of an answer that may be on its way here
inline constexpr Bytes kRequestBody = 15 * MiB;   // it goes in one frame
inline constexpr Bytes kErrorBody = 64 * KiB;     // of an upstream's error that is held back for another try
inline constexpr Bytes kEmbeddingBody = 4 * MiB;  // of an answer that is converted
inline constexpr Bytes kTranslated = 16 * MiB;    // of an answer told in the other dialect: the whole, or a piece
inline constexpr Bytes kComments = 64 * KiB;      // before the first event of a stream
inline constexpr Bytes kCollected = 64 * MiB;     // of all answers that are held back
inline constexpr std::uint32_t kTries = 4;        // of one request

// The loop's thread only.
class Gateway {
 public:
  explicit Gateway(Services& services, Limits limits = {});
  ~Gateway();

  // One of `passed`; the caller has authorized it.
  void serve(const net::HttpExchangePtr& exchange, const Principal& who, const Passed& route);

  // What worker sessions tell.
  void offers(WorkerNo worker, const std::string& worker_id, const ServiceList& services);
  void heard(WorkerNo worker, pb::Relay& relay);  // of unknown streams: nothing
  void gone(WorkerNo worker);                     // its connection
  void drains(WorkerNo worker);
  void writable(WorkerNo worker);

  // The newest lines that a service wrote which the worker keeps running, over the worker's session. `done` once,
  // later. service_log.cpp
  struct ServiceLog {
    std::string text;
    std::string end;  // ask for what came after it
  };
  void service_log(WorkerNo worker, const std::string& service, std::uint32_t lines, const std::string& after,
                   std::function<void(Result<ServiceLog>)> done);

  void tick(Now now);
  void stop();  // ends what runs, and says so

  // Of the store: workers that were here before, and what they had.
  struct Known {
    std::string worker_id, manifest;
    WallMs first_seen{}, last_seen{};
  };
  void remember(const std::vector<Known>& workers);
  void forget(const std::string& worker_id);

  const Board& board() const { return board_; }
  boost::json::object figures() const;
  Meter& meter() { return meter_; }
  std::size_t active() const { return streams_.size(); }

 private:
  struct Stream;
  using StreamId = std::uint64_t;

  // gateway.cpp: who gets a place, and when
  void place(Stream& stream);
  void open(Stream& stream, const Place& place);
  void wait(Stream& stream, const Choice& why);
  void stop_waiting(const Stream& stream);
  void pump();
  void leave_place(Stream& stream, bool cancel);
  void try_elsewhere(Stream& stream, Fault fault);
  void wait_over(Stream& stream);
  Fault no_place(const Stream& stream, const Choice& choice) const;
  void refuse(Stream& stream, const Fault& fault);
  void finish(Stream& stream, End end, const Fault* fault);
  bool translate(Stream& stream, const Place& place, std::string& path, std::string& body);
  void answer_here(Stream& stream, std::string_view type, std::string body);
  Instant now() const { return s_.clock.now().mono; }

  // service_log.cpp
  struct LogAsked {
    WorkerNo worker{};
    int status = 0;
    ServiceLog so_far = {};
    Instant until{};
    std::function<void(Result<ServiceLog>)> done = {};
  };
  void log_heard(std::uint64_t number, LogAsked& asked, pb::Relay& relay);
  void log_over(std::uint64_t number, Result<ServiceLog> answer);
  void logs_over(const Error& why, const std::function<bool(const LogAsked&)>& of);

  // gateway_stream.cpp: the answer
  void head(Stream& stream, pb::RelayHead& head);
  void body(Stream& stream, std::string bytes);
  void end(Stream& stream, const pb::RelayEnd& end);
  void pass(Stream& stream, std::string bytes);
  void told(Stream& stream, OllamaAnswer::Piece piece);
  void told_all(Stream& stream);
  void start_answer(Stream& stream);
  void upstream_refused(Stream& stream);
  void answered_whole(Stream& stream);
  void broken(Stream& stream, Fault fault);
  void grant(Stream& stream);
  void collects(Stream& stream, Bytes now);
  std::map<std::string, std::string> answer_headers(const Stream& stream) const;
  bool send(const Stream& stream, pb::Relay& relay);

  Services& s_;
  Limits limits_;
  Board board_;
  std::unordered_map<std::string, WallMs> first_seen_;  // workers
  Meter meter_;
  StreamId last_stream_ = 0;
  std::uint64_t last_relay_ = 0;
  std::unordered_map<StreamId, std::unique_ptr<Stream>> streams_;
  std::unordered_map<std::uint64_t, LogAsked> logs_;     // by the number on the wire
  std::unordered_map<std::uint64_t, Stream*> relays_;    // by the number on the wire: a new one for each try
  std::map<std::string, std::deque<StreamId>> waiting_;  // by dialect and model, in the order of arrival
  std::size_t waiting_count_ = 0;
  std::unordered_map<std::string, std::size_t> waiting_of_;  // by principal
  Bytes collected_ = 0;
  Instant looked_{};
  bool stopping_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace grange::server::gateway
