#include "net/http_client.hpp"

#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/limits.hpp"
#include "net/circuit_breaker.hpp"
#include "net/counts.hpp"
#include "net/dialing.hpp"
#include "net/files.hpp"
#include "net/http_parsing.hpp"
#include "net/scope.hpp"
#include "net/sockets.hpp"
#include "net/waiting.hpp"

namespace grange::net {

namespace {

constexpr std::size_t kStep = 256 * KiB;

Instant mono_now() {
  return {std::chrono::duration_cast<Micros>(std::chrono::steady_clock::now().time_since_epoch()).count()};
}

struct Conn {
  explicit Conn(asio::io_context& context) : socket(context) {}
  tcp::socket socket;
  ConnectionCounted counted;
  SteadyTime idle_since{};
  bool used = false;
  // A server may have closed it, or said something that nobody asked for.
  bool usable() {
    char byte = 0;
    return ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
  }
};
using ConnPtr = std::shared_ptr<Conn>;

struct Job {
  Job(Loop& loop, ClientRequest r, std::function<void(Result<ClientResponse>)> d)
      : request(std::move(r)), done(std::move(d)), turn(loop.context()), watchdog(loop.context(), [this] {
          timed_out = true;
          close();
        }) {}
  void close() {
    error_code ec;
    if (conn) conn->socket.close(ec);
  }
  void cancel() {
    cancelled = true;
    done = nullptr;
    close();
    turn.notify();
  }
  void touched() {
    if (request.idle.count() > 0) watchdog.within(request.idle);
  }
  ClientRequest request;
  std::function<void(Result<ClientResponse>)> done;
  Url url;
  ConnPtr conn;
  Signal turn;
  Watchdog watchdog;
  bool cancelled = false, timed_out = false;
};
using JobPtr = std::shared_ptr<Job>;

struct Peer {
  CircuitBreaker breaker;
  std::deque<ConnPtr> idle;
  std::deque<JobPtr> waiting;
  std::size_t in_use = 0;
};

struct Outcome {
  std::optional<Error> error;
  bool heard = false;  // a byte of an answer came
  bool keep = false;   // the connection can serve another request
  ClientResponse response;
};

Error io_error(const Job& job, std::string_view what, error_code ec) {
  const std::string where = host_port(job.url.host, job.url.port);
  if (job.timed_out)
    return {ErrorClass::timeout, fmt::format("{} was silent for {:.1f} s while {}.", where,
                                             static_cast<double>(job.request.idle.count()) / 1000, what)};
  return {ErrorClass::unavailable, fmt::format("The connection to {} broke while {}: {}.", where, what, ec.message())};
}

asio::awaitable<error_code> send_all(JobPtr job, std::string_view bytes) {
  error_code ec;
  while (!bytes.empty() && !ec) {
    job->touched();
    const std::size_t n = co_await job->conn->socket.async_write_some(
        asio::buffer(bytes.data(), std::min(bytes.size(), kStep)), into(ec));
    bytes.remove_prefix(n);
  }
  co_return ec;
}

// An answer that comes before all was sent is a refusal: no need to send the rest.
bool answered_early(Conn& conn) {
  error_code ec;
  return conn.socket.available(ec) > 0;
}

asio::awaitable<Outcome> send_request(JobPtr job) {
  Outcome out;
  ClientRequest& request = job->request;
  std::optional<InFile> file;
  if (!request.body_file.empty()) {
    auto opened = InFile::open(request.body_file);
    if (!opened) {
      out.error = opened.error();
      co_return out;
    }
    file.emplace(std::move(*opened));
  }
  std::map<std::string, std::string> headers = request.headers;
  headers["Host"] = host_port(job->url.host, job->url.port);
  const std::uint64_t length = file ? file->size() : request.body.size();
  if (length > 0 || request.method == "POST" || request.method == "PUT")
    headers["Content-Length"] = std::to_string(length);
  std::string head = request_text(request.method, job->url.target, headers);
  std::string_view rest = request.body;
  if (!file && rest.size() <= 16 * KiB) {
    head += rest;
    rest = {};
  }
  error_code ec = co_await send_all(job, head);
  while (!ec && !file && !rest.empty() && !answered_early(*job->conn)) {
    const auto piece = rest.substr(0, kStep);
    rest.remove_prefix(piece.size());
    ec = co_await send_all(job, piece);
  }
  if (file) {
    const std::unique_ptr<char[]> bytes(new char[kStep]);
    std::uint64_t at = 0;
    while (!ec && at < length && !answered_early(*job->conn)) {
      const std::size_t n =
          file->read(bytes.get(), static_cast<std::size_t>(std::min<std::uint64_t>(kStep, length - at)), at);
      if (n == 0) {
        out.error =
            Error{ErrorClass::io, "Cannot read all of " + request.body_file + ": it changed while it was sent."};
        co_return out;
      }
      ec = co_await send_all(job, std::string_view(bytes.get(), n));
      at += n;
    }
    out.keep = !ec && at == length;
  } else {
    out.keep = !ec && rest.empty();
  }
  // Even when sending failed there may be an answer that says why.
  if (ec) out.error = io_error(*job, "sending to it", ec);
  co_return out;
}

struct BodySink {  // where the body of an answer goes
  JobPtr job;
  ClientResponse* response = nullptr;
  bool good = false;
  std::optional<OutFile> file;
  std::optional<Error> error;

  bool begin() {
    good = response->status >= 200 && response->status < 300;
    if (!good || job->request.to_file.empty()) return true;
    auto opened = OutFile::open(job->request.to_file, 0);
    if (opened) {
      file.emplace(std::move(*opened));
    } else {
      error = opened.error();
    }
    return !error;
  }
  bool take(std::string_view piece) {
    response->body_bytes += piece.size();
    if (response->body_bytes > job->request.limit) {
      error = Error{ErrorClass::too_large,
                    fmt::format("The answer has more than the {} bytes that are allowed.", job->request.limit)};
    } else if (file) {
      if (auto ok = file->write(piece); !ok) error = ok.error();
    } else if (good && job->request.on_chunk) {
      job->request.on_chunk(piece);
    } else {
      response->body.append(piece);
    }
    return !error && !job->cancelled;
  }
};

asio::awaitable<Outcome> receive_response(JobPtr job, bool was_sent) {
  Outcome out;
  boost::beast::flat_buffer in;
  error_code ec;
  for (bool interim = true; interim;) {
    ResponseParser parser;
    parser.header_limit(limits::kHttpHeader);
    parser.body_limit(boost::none);
    parser.skip(job->request.method == "HEAD");
    BodySink sink{job, &out.response, false, std::nullopt, std::nullopt};
    parser.get().body().sink = [&sink](std::string_view piece) { return sink.take(piece); };
    bool begun = false;
    while (!parser.is_done()) {
      if (in.size() > 0) {
        in.consume(parser.put(in.data(), ec));
        if (ec && ec != http::error::need_more) break;
        if (parser.is_header_done() && !begun) {
          begun = true;
          out.response.status = static_cast<int>(parser.get().result_int());
          copy_headers(parser.get(), out.response.headers);
          if (out.response.status >= 200 && !sink.begin()) break;
          continue;
        }
        if (!ec) continue;  // one part at a time
      }
      job->touched();
      const std::size_t n = co_await job->conn->socket.async_read_some(in.prepare(kStep), into(ec));
      in.commit(n);
      if (n > 0) out.heard = true;
      if (ec == asio::error::eof && parser.is_header_done()) {
        ec = {};
        parser.put_eof(ec);
      }
      if (ec) break;
    }
    if (sink.error) {
      out.error = sink.error;
      co_return out;
    }
    if (ec) {
      if (ec == http::error::header_limit) {
        out.error = Error{ErrorClass::too_large, "The answer's headers are too large."};
      } else {
        out.error = io_error(*job, "reading its answer", ec);
      }
      co_return out;
    }
    interim = out.response.status >= 100 && out.response.status < 200;
    out.keep = was_sent && parser.keep_alive() && in.size() == 0;
    if (interim) out.response = ClientResponse();
  }
  co_return out;
}

bool idempotent(const std::string& method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS";
}

}  // namespace

struct HttpClient::Impl : std::enable_shared_from_this<HttpClient::Impl> {
  Impl(Loop& l, Options o) : loop(l), options(o), scope(std::make_shared<Scope>(l)) {}

  Loop& loop;
  Options options;
  std::shared_ptr<Scope> scope;
  std::map<std::string, Peer> peers;
  Counters counters;
  std::unique_ptr<Timer> sweeper;
  bool closing = false;

  struct Handle final : Call {
    explicit Handle(JobPtr j) : job(std::move(j)) {}
    ~Handle() override { job->cancel(); }
    JobPtr job;
  };

  // Holds one of a peer's places.
  struct Place {
    explicit Place(Peer& p) : peer(p) { ++peer.in_use; }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() {
      --peer.in_use;
      if (peer.waiting.empty()) return;
      const auto next = peer.waiting.front();
      peer.waiting.pop_front();
      next->turn.notify();
    }
    Peer& peer;
  };

  void close_idle(bool all) {
    const auto now = std::chrono::steady_clock::now();
    for (auto& [where, peer] : peers) {
      while (!peer.idle.empty() && (all || now - peer.idle.front()->idle_since > options.keep_alive))
        peer.idle.pop_front();
    }
  }

  static ConnPtr take_idle(Peer& peer) {
    while (!peer.idle.empty()) {
      ConnPtr conn = std::move(peer.idle.back());
      peer.idle.pop_back();
      if (conn->usable()) return conn;
    }
    return nullptr;
  }

  static asio::awaitable<Outcome> once(std::shared_ptr<Impl> self, JobPtr job) {
    if (!job->conn) {
      job->conn = std::make_shared<Conn>(self->loop.context());
      job->watchdog.within(self->options.connect);
      const Result<Unit> there = co_await connect(job->conn->socket, job->url);
      job->watchdog.off();
      if (!there) {
        Outcome out;
        out.error = there.error();
        if (job->timed_out)
          out.error = Error{ErrorClass::timeout,
                            fmt::format("{} did not answer within {:.1f} s.", host_port(job->url.host, job->url.port),
                                        static_cast<double>(self->options.connect.count()) / 1000)};
        co_return out;
      }
    }
    Outcome sent = co_await send_request(job);
    if (sent.error && (sent.error->cls != ErrorClass::unavailable || job->timed_out)) co_return sent;
    Outcome got = co_await receive_response(job, sent.keep);
    job->watchdog.off();
    if (sent.error && got.error) got.error = sent.error;
    co_return got;
  }

  static asio::awaitable<void> run(std::shared_ptr<Impl> self, JobPtr job) {
    std::optional<Result<ClientResponse>> answer;
    {
      Peer& peer = self->peers[host_port(job->url.host, job->url.port)];
      while (peer.in_use >= self->options.per_host && !job->cancelled) {
        peer.waiting.push_back(job);
        co_await job->turn.wait();
        std::erase(peer.waiting, job);
      }
      const Place place(peer);
      if (job->cancelled) co_return;
      if (!peer.breaker.allow(mono_now())) {
        answer = Error{ErrorClass::unavailable,
                       fmt::format("{} failed several times in a row; it is tried again in a few seconds.",
                                   host_port(job->url.host, job->url.port))};
      } else {
        Outcome out;
        job->conn = take_idle(peer);
        for (bool again = true; again;) {
          const bool reused = job->conn != nullptr;
          out = co_await once(self, job);
          // A kept connection may end just when it is used again.
          again = reused && out.error && !out.heard && !job->timed_out && !job->cancelled &&
                  idempotent(job->request.method) && out.error->cls == ErrorClass::unavailable;
          if (again) job->conn = nullptr;
          if (reused && !again) ++self->counters.reused;
        }
        const bool reached = !out.error || out.heard;
        const bool ours =
            out.error && out.error->cls != ErrorClass::unavailable && out.error->cls != ErrorClass::timeout;
        if (reached || (ours && !job->cancelled)) {
          peer.breaker.succeeded();
        } else if (!job->cancelled || peer.breaker.state() == CircuitBreaker::State::half_open) {
          peer.breaker.failed(mono_now());
        }
        if (!out.error && out.keep && !self->closing && !job->cancelled) {
          job->conn->idle_since = std::chrono::steady_clock::now();
          peer.idle.push_back(job->conn);
        }
        job->conn = nullptr;
        if (out.error) ++self->counters.failed;
        answer =
            out.error ? Result<ClientResponse>(std::move(*out.error)) : Result<ClientResponse>(std::move(out.response));
      }
    }
    const auto done = std::exchange(job->done, nullptr);
    if (done && !self->closing) done(std::move(*answer));
  }
};

HttpClient::HttpClient(Loop& loop) : HttpClient(loop, Options()) {}

HttpClient::HttpClient(Loop& loop, Options options) : impl_(std::make_shared<Impl>(loop, options)) {
  loop.call([impl = impl_] {
    impl->sweeper =
        impl->loop.every(std::max<Millis>(impl->options.keep_alive / 2, Millis{10}), [weak = std::weak_ptr(impl)] {
          if (const auto here = weak.lock()) here->close_idle(false);
        });
  });
}

HttpClient::~HttpClient() {
  impl_->loop.call([impl = impl_] {
    impl->closing = true;
    impl->sweeper.reset();
    impl->close_idle(true);
  });
  impl_->scope->cancel();
  impl_->scope->join();
}

std::unique_ptr<HttpClient::Call> HttpClient::send(ClientRequest request,
                                                   std::function<void(Result<ClientResponse>)> done) {
  const auto job = std::make_shared<Job>(impl_->loop, std::move(request), std::move(done));
  ++impl_->counters.requests;
  auto url = parse_url(job->request.url);
  if (url && url->scheme != "http") {
    url = Error{ErrorClass::invalid_argument,
                "\"" + job->request.url + "\": only http:// URLs can be fetched by this version."};
  }
  if (!url) {
    impl_->loop.post([job, why = url.error()] {
      if (const auto tell = std::exchange(job->done, nullptr)) tell(why);
    });
  } else {
    job->url = std::move(*url);
    impl_->scope->spawn(Impl::run(impl_, job), [job] { job->cancel(); });
  }
  return std::make_unique<Impl::Handle>(job);
}

Result<ClientResponse> HttpClient::fetch(ClientRequest request) {
  GRANGE_ASSERT(!impl_->loop.on_thread());
  struct Waiting {
    std::mutex mutex;
    std::condition_variable done;
    std::optional<Result<ClientResponse>> answer;
    std::unique_ptr<Call> call;  // the loop's
  };
  const auto waiting = std::make_shared<Waiting>();
  impl_->loop.post([this, waiting, request = std::move(request)]() mutable {
    waiting->call = send(std::move(request), [waiting](Result<ClientResponse> answer) {
      const auto over = std::move(waiting->call);
      std::lock_guard lock(waiting->mutex);
      waiting->answer = std::move(answer);
      waiting->done.notify_all();
    });
  });
  std::unique_lock lock(waiting->mutex);
  while (!waiting->answer) {
    waiting->done.wait_for(lock, Millis{50});
    if (!waiting->answer && !impl_->loop.running()) return Error{ErrorClass::cancelled, "The program is stopping."};
  }
  return std::move(*waiting->answer);
}

HttpClient::Counters HttpClient::counters() const {
  Counters now;
  impl_->loop.call([impl = impl_, &now] {
    now = impl->counters;
    for (const auto& [where, peer] : impl->peers) now.open += peer.idle.size() + peer.in_use;
  });
  return now;
}

}  // namespace grange::net
