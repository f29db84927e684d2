#include "net/http_client.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>

#include "net/circuit_breaker.hpp"
#include "net/dialing.hpp"
#include "net/http_transfer.hpp"
#include "net/mono_now.hpp"
#include "net/scope.hpp"
#include "net/sockets.hpp"

namespace grange::net {

namespace {

using JobPtr = std::shared_ptr<Transfer>;
using ConnPtr = std::shared_ptr<ClientConn>;

struct Peer {
  CircuitBreaker breaker;
  std::string last_error;
  std::deque<ConnPtr> idle;
  std::deque<JobPtr> waiting;
  std::size_t in_use = 0;
};

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
  std::optional<Result<std::shared_ptr<TlsContext>>> tls;  // made when it is first needed: it reads many files

  struct Handle final : Call {
    explicit Handle(JobPtr j) : job(std::move(j)) {}
    ~Handle() override { job->cancel(); }
    void pause() override { job->pause(true); }
    void resume() override { job->pause(false); }
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

  Result<std::shared_ptr<TlsContext>> trusted() {
    if (!tls) tls = tls_context(options.tls);
    return *tls;
  }

  static asio::awaitable<Result<Unit>> open(std::shared_ptr<Impl> self, JobPtr job) {
    job->conn = std::make_shared<ClientConn>(self->loop.context());
    job->watchdog.within(self->options.connect);
    Result<Unit> there = co_await connect(job->conn->socket(), job->url);
    if (there && secure(job->url)) {
      if (const auto context = self->trusted()) {
        there = co_await job->conn->channel.secure(*context, job->url);
      } else {
        there = context.error();
      }
    }
    job->watchdog.off();
    if (job->timed_out)
      co_return Error{ErrorClass::timeout, fmt::format("{} did not answer within {:.1f} s.", job->where(),
                                                       static_cast<double>(self->options.connect.count()) / 1000)};
    co_return there;
  }

  static asio::awaitable<Outcome> once(std::shared_ptr<Impl> self, JobPtr job) {
    if (!job->conn) {
      if (const Result<Unit> there = co_await open(self, job); !there) {
        Outcome out;
        out.error = there.error();
        co_return out;
      }
    }
    co_return co_await exchange(job);
  }

  static asio::awaitable<void> run(std::shared_ptr<Impl> self, JobPtr job) {
    std::optional<Result<ClientResponse>> answer;
    {
      Peer& peer = self->peers[(secure(job->url) ? "https://" : "http://") + job->where()];
      while (peer.in_use >= self->options.per_host && !job->cancelled) {
        peer.waiting.push_back(job);
        co_await job->turn.wait();
        std::erase(peer.waiting, job);
      }
      const Place place(peer);
      if (job->cancelled) co_return;
      if (!peer.breaker.allow(mono_now())) {
        answer =
            Error{ErrorClass::unavailable,
                  fmt::format("{} failed several times in a row; it is tried again in a few seconds. The last time: {}",
                              job->where(), peer.last_error)};
      } else {
        Outcome out;
        job->conn = take_idle(peer);
        for (bool again = true; again;) {
          const bool reused = job->conn != nullptr;
          out = co_await once(self, job);
          // A kept connection may end just when it is used again. What may have been done is not asked for twice.
          again = reused && out.error && !out.heard && !job->timed_out && !job->cancelled &&
                  (!out.sent || idempotent(job->request.method)) && out.error->cls == ErrorClass::unavailable;
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
          if (out.error) peer.last_error = out.error->message;
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
  const auto job = std::make_shared<Transfer>(impl_->loop, std::move(request), std::move(done));
  ++impl_->counters.requests;
  auto url = parse_url(job->request.url);
  if (url && url->scheme != "http" && url->scheme != "https")
    url = Error{ErrorClass::invalid_argument, "\"" + job->request.url + "\" is no http:// or https:// URL."};
  if (!url) {
    impl_->loop.post([job, why = url.error()] {
      if (const auto tell = std::exchange(job->done, nullptr)) tell(why);
    });
  } else {
    job->url = std::move(*url);
    // In a turn of its own: nothing is called before this returns.
    impl_->loop.post([impl = impl_, job] { impl->scope->spawn(Impl::run(impl, job), [job] { job->cancel(); }); });
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
