#include "net/connection_manager.hpp"

#include <algorithm>
#include <cmath>

#include "base/assert.hpp"
#include "net/mono_now.hpp"

namespace grange::net {

std::string_view name(LinkState s) {
  switch (s) {
    case LinkState::disconnected:
      return "disconnected";
    case LinkState::connecting:
      return "connecting";
    case LinkState::connected:
      return "connected";
    case LinkState::reconnecting:
      return "reconnecting";
    case LinkState::failed:
      return "failed";
  }
  return "?";
}

Millis backoff(int n, Millis first, Millis last, double jitter, Prng& prng) {
  const double base = static_cast<double>(first.count()) * std::pow(2.0, std::clamp(n, 0, 62));
  const double capped = std::min(base, static_cast<double>(last.count()));
  const double factor = 1.0 + jitter * (2.0 * prng.unit() - 1.0);
  return Millis(static_cast<std::int64_t>(std::llround(std::max(0.0, capped * factor))));
}

struct ConnectionManager::Impl {
  class Link;
  // Outlives the manager for as long as one of its callbacks runs.
  struct Core : std::enable_shared_from_this<Core> {
    Core(Loop& l, std::unique_ptr<Dialer> d, LinkOptions o, LinkEvents e, std::uint64_t seed)
        : loop(l), dialer(std::move(d)), options(o), events(std::move(e)), prng(seed), breaker(o.breaker) {}

    Loop& loop;
    std::unique_ptr<Dialer> dialer;
    LinkOptions options;
    LinkEvents events;
    Prng prng;
    CircuitBreaker breaker;
    LinkState state = LinkState::disconnected;
    LinkCounters counters;
    std::unique_ptr<Dialer::Attempt> attempt;
    std::unique_ptr<Timer> retry, watch;
    std::shared_ptr<Link> connection;
    std::uint64_t generation = 0;  // of `connection`; what an older one says is late
    int failures = 0;              // in a row
    Millis delay{0};
    Instant up_since, heard_at, pinged_at;
    bool gone = false;

    void become(LinkState next) {
      if (state == next) return;
      state = next;
      if (const auto tell = events.on_state) tell(next);
    }

    void dial() {
      retry.reset();
      delay = Millis{0};
      if (!breaker.allow(mono_now())) {
        const auto wait = std::chrono::ceil<Millis>(breaker.opens_at() - mono_now());
        return try_again_in(std::max(wait, Millis{1}));
      }
      ++counters.dials;
      attempt = dialer->dial([weak = weak_from_this()](Result<ConnectionPtr> result) {
        const auto self = weak.lock();
        if (!self || self->gone) return;
        const auto finished = std::move(self->attempt);
        result ? self->up(std::move(*result)) : self->dial_failed(std::move(result.error()));
      });
    }

    void try_again_in(Millis wait) {
      delay = wait;
      retry = loop.after(wait, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->dial();
      });
    }

    void dial_failed(Error why) {
      ++counters.failed;
      breaker.failed(mono_now());
      const bool refused = why.cls == ErrorClass::unauthenticated || why.cls == ErrorClass::forbidden;
      const int n = failures++;
      const bool over = options.attempts != 0 && (refused || failures >= options.attempts);
      if (over) {
        become(LinkState::failed);
      } else {
        // A server that refuses us will hardly change its mind soon.
        try_again_in(backoff(refused ? 62 : n, options.first, options.last, options.jitter, prng));
        become(LinkState::reconnecting);
      }
      if (const auto tell = events.on_down; tell && !gone) tell(why);
    }

    void up(ConnectionPtr open);
    void watch_silence();

    void lost(Error why);
    void stop();
  };

  // What the owner gets: the connection, with the manager listening along.
  class Link final : public Connection {
   public:
    Link(ConnectionPtr inner, std::weak_ptr<Core> core, std::uint64_t generation)
        : inner_(std::move(inner)), core_(std::move(core)), generation_(generation) {}
    void set_events(ConnectionEvents events) override {
      const auto current = [core = core_, generation = generation_]() -> std::shared_ptr<Core> {
        auto here = core.lock();
        return here && !here->gone && here->generation == generation ? here : nullptr;
      };
      owner_closed_ = events.on_closed;
      events.on_alive = [current, owner = std::move(events.on_alive)] {
        if (const auto here = current()) here->heard_at = mono_now();
        if (owner) owner();
      };
      events.on_closed = [current, owner = std::move(events.on_closed)](Error why) {
        // The owner first: it may have to put away what it did not send before the next connection comes.
        if (owner) owner(why);
        if (const auto here = current()) here->lost(std::move(why));
      };
      inner_->set_events(std::move(events));
    }
    bool send(std::string message, bool binary) override { return inner_->send(std::move(message), binary); }
    void close(std::uint16_t code, std::string reason) override { inner_->close(code, std::move(reason)); }
    void ping() override { inner_->ping(); }
    bool open() const override { return inner_->open(); }
    std::size_t unsent_bytes() const override { return inner_->unsent_bytes(); }
    std::string peer() const override { return inner_->peer(); }
    ConnectionCounters counters() const override { return inner_->counters(); }

    // Ends it without another event, and tells the owner here and now when `why` is given.
    void cut(const Error* why) {
      const auto owner = std::exchange(owner_closed_, nullptr);
      const bool was_open = inner_->open();
      inner_->set_events({});
      inner_->close(1001, {});
      if (why != nullptr && was_open && owner) owner(*why);
    }

   private:
    ConnectionPtr inner_;
    std::weak_ptr<Core> core_;
    std::uint64_t generation_;
    std::function<void(Error)> owner_closed_;
  };

  std::shared_ptr<Core> core;
};

void ConnectionManager::Impl::Core::up(ConnectionPtr open) {
  breaker.succeeded();
  ++counters.connected;
  up_since = heard_at = pinged_at = mono_now();
  const auto link = std::make_shared<Link>(std::move(open), weak_from_this(), ++generation);
  connection = link;
  watch_silence();
  become(LinkState::connected);
  if (const auto tell = events.on_up; tell && !gone && connection == link) tell(link);
}

void ConnectionManager::Impl::Core::lost(Error why) {
  if (!connection) return;
  const auto old = std::move(connection);
  connection = nullptr;
  ++generation;
  watch.reset();
  old->cut(nullptr);
  ++counters.lost;
  // One that did not stay up for long counts as another failure, so that a peer that drops us at once is not hammered.
  const bool stayed = mono_now() - up_since > backoff(failures, options.first, options.last, 0, prng);
  if (stayed) failures = 0;
  try_again_in(backoff(failures++, options.first, options.last, options.jitter, prng));
  become(LinkState::reconnecting);
  if (const auto tell = events.on_down; tell && !gone) tell(why);
}

void ConnectionManager::Impl::Core::stop() {
  retry.reset();
  watch.reset();
  attempt.reset();
  delay = Millis{0};
  ++generation;
  const auto old = std::move(connection);
  connection = nullptr;
  if (!old) return;
  if (gone) return old->cut(nullptr);
  old->close(1000, {});
}

void ConnectionManager::Impl::Core::watch_silence() {
  watch = loop.every(std::max<Millis>(options.idle / 8, Millis{5}), [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || !self->connection) return;
    const Instant now = mono_now();
    if (now - self->heard_at > self->options.idle) {
      const Error why{ErrorClass::timeout, "the server gave no sign of life for " +
                                               std::to_string(self->options.idle.count() / 1000) + " s"};
      const auto of = self->generation;
      const auto link = self->connection;
      link->cut(&why);
      if (self->generation == of) self->lost(why);
      return;
    }
    if (now - self->heard_at > self->options.idle / 3 && now - self->pinged_at > self->options.idle / 3) {
      self->pinged_at = now;
      self->connection->ping();
    }
  });
}

ConnectionManager::ConnectionManager(Loop& loop, std::unique_ptr<Dialer> dialer, LinkOptions options, LinkEvents events,
                                     std::uint64_t seed)
    : impl_(std::make_unique<Impl>()) {
  impl_->core = std::make_shared<Impl::Core>(loop, std::move(dialer), options, std::move(events), seed);
}

ConnectionManager::~ConnectionManager() {
  impl_->core->loop.call([core = impl_->core] {
    core->gone = true;
    core->stop();
  });
}

void ConnectionManager::start() {
  auto& core = *impl_->core;
  if (core.state != LinkState::disconnected && core.state != LinkState::failed) return;
  core.failures = 0;
  core.become(LinkState::connecting);
  core.dial();
}

void ConnectionManager::stop() {
  const auto core = impl_->core;
  core->stop();
  core->become(LinkState::disconnected);
}

void ConnectionManager::lost(Error why) {
  const auto core = impl_->core;
  core->lost(std::move(why));
}

LinkState ConnectionManager::state() const {
  return impl_->core->state;
}
LinkCounters ConnectionManager::counters() const {
  return impl_->core->counters;
}
Millis ConnectionManager::next_delay() const {
  return impl_->core->delay;
}

}  // namespace grange::net
