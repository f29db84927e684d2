#include "cli/farm_client.hpp"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/limits.hpp"
#include "base/range_set.hpp"
#include "cli/job_file.hpp"
#include "cli/version.hpp"
#include "net/connection_manager.hpp"
#include "wire/session.hpp"

namespace grange::cli {
namespace {
// The server keeps what we have not acknowledged: say so well before its outbox is full, and when nothing else goes out
// anyway.
constexpr std::size_t kAckBytes = 4 * MiB;
constexpr int kAckFrames = 256;
constexpr Millis kAckDelay{50};
}  // namespace

// Lives on the loop's thread; `mutex` guards only what connect() waits for.
struct FarmClient::Impl : std::enable_shared_from_this<FarmClient::Impl> {
  struct Asked {
    pb::Request request;
    std::function<void(const pb::Response&)> done;
    bool follows = false;
    bool sent = false;  // in this session
  };
  struct Followed {
    RangeSet have;
  };

  net::Loop& loop;
  FarmClientOptions options;
  Events events;
  std::string session_id = random_hex(16);
  wire::Session session;
  std::unique_ptr<net::ConnectionManager> manager;
  net::ConnectionPtr connection;
  bool welcomed = false;
  bool ever_welcomed = false;
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, Asked> asked;
  std::unordered_map<std::string, Followed> followed;
  std::atomic<std::uint64_t> repeats{0};
  std::vector<char> arena_block;
  std::size_t unacked_bytes = 0;
  int unacked_frames = 0;
  std::unique_ptr<net::Timer> ack_timer, heartbeat;

  std::mutex mutex;
  std::condition_variable changed;
  bool ready = false;
  std::optional<Error> failed;

  Impl(net::Loop& l, FarmClientOptions o, Events e) : loop(l), options(std::move(o)), events(std::move(e)) {}

  void start() {
    std::map<std::string, std::string> headers;
    if (!options.token.empty()) headers["Authorization"] = "Bearer " + options.token;
    net::LinkOptions link;
    link.first = Millis{100};
    link.last = Millis{5000};
    link.attempts = options.attempts;
    net::LinkEvents link_events;
    link_events.on_up = [this](net::ConnectionPtr up) { on_up(std::move(up)); };
    link_events.on_down = [this](const Error& why) { on_down(why); };
    link_events.on_state = [this](net::LinkState state) {
      if (state == net::LinkState::failed && events.on_lost)
        events.on_lost({ErrorClass::unavailable, "The server stayed away."});
    };
    manager = std::make_unique<net::ConnectionManager>(loop, net::websocket_dialer(loop, options.url, headers), link,
                                                       link_events, std::hash<std::string>{}(session_id));
    manager->start();
    heartbeat = loop.every(limits::kHeartbeat, [this] {
      if (!welcomed) return;
      pb::Frame frame;
      frame.mutable_heartbeat();
      connection->send(session.unnumbered(frame), true);
    });
  }

  void stop() {
    heartbeat.reset();
    ack_timer.reset();
    if (welcomed) {
      pb::Frame frame;
      frame.mutable_goodbye()->set_reason("done");
      connection->send(session.unnumbered(frame), true);
      connection->close(1000, "done");
    }
    welcomed = false;
    connection.reset();
    manager.reset();
    asked.clear();
    events = {};
  }

  void on_up(net::ConnectionPtr up) {
    connection = std::move(up);
    welcomed = false;
    net::ConnectionEvents on;
    const net::Connection* self = connection.get();
    on.on_message = [this](std::string message, bool binary) { on_message(message, binary); };
    on.on_closed = [this, self](Error why) {
      if (connection.get() != self) return;
      welcomed = false;
      manager->lost(std::move(why));
    };
    connection->set_events(std::move(on));
    pb::Frame frame;
    pb::Hello* hello = frame.mutable_hello();
    hello->set_protocol(wire::kProtocol);
    hello->set_role(pb::ROLE_CLIENT);
    hello->set_version(version());
    hello->set_session_id(session_id);
    hello->set_received(session.received());
    connection->send(session.unnumbered(frame), true);
  }

  void on_down(const Error& why) {
    welcomed = false;
    if (ever_welcomed) return;
    const std::lock_guard lock(mutex);
    failed = why;
    changed.notify_all();
  }

  void on_message(const std::string& message, bool binary) {
    if (!binary) return;
    google::protobuf::Arena arena(
        arena_options());  // thousands of small outcomes in a frame: one allocation, not thousands
    pb::Frame& frame = *google::protobuf::Arena::CreateMessage<pb::Frame>(&arena);
    if (!wire::decode(message, frame).ok()) return;
    if (frame.has_welcome()) {
      on_welcome(frame.welcome());
      return;
    }
    switch (session.arrived(frame)) {
      case wire::Session::Verdict::repeat:
        return;
      case wire::Session::Verdict::gap:
        connection->close(1002, "gap in the session");
        return;
      case wire::Session::Verdict::fresh:
        break;
    }
    if (frame.has_error() && frame.error().fatal()) {
      // Not a loss: the server will say the same next time.
      if (events.on_lost) events.on_lost({ErrorClass::invalid_argument, frame.error().message()});
      const std::lock_guard lock(mutex);
      failed = Error{ErrorClass::invalid_argument, frame.error().message()};
      changed.notify_all();
      return;
    }
    if (frame.has_response()) on_response(frame.response());
    if (frame.has_outcomes()) on_outcomes(frame.mutable_outcomes());
    owe_ack(message.size());
  }

  google::protobuf::ArenaOptions arena_options() {
    if (arena_block.empty()) arena_block.resize(256 * KiB);
    google::protobuf::ArenaOptions arena;
    arena.initial_block = arena_block.data();
    arena.initial_block_size = arena_block.size();
    return arena;
  }

  void on_welcome(const pb::Welcome& welcome) {
    welcomed = true;
    ever_welcomed = true;
    std::vector<std::string> again;
    if (welcome.resumed() && session.resend(welcome.received(), again)) {
      for (std::string& bytes : again) connection->send(std::move(bytes), true);
      for (auto& [id, one] : asked) {
        if (!one.sent) send(one);  // asked while there was no connection
      }
    } else {
      session.reset();
      // The server knows nothing of us: ask again what was not answered, and say what we have of what we follow.
      for (auto& [id, one] : asked) {
        if (one.request.has_follow()) fill_have(*one.request.mutable_follow());
        send(one);
      }
      for (const auto& [job, one] : followed) {
        const bool pending = std::any_of(asked.begin(), asked.end(), [&, &name = job](const auto& entry) {
          return entry.second.request.has_follow() && entry.second.request.follow().job_id() == name;
        });
        if (!pending) ask_follow(job, {});
      }
    }
    const std::lock_guard lock(mutex);
    ready = true;
    changed.notify_all();
  }

  void fill_have(pb::FollowRequest& follow) {
    follow.clear_have_first();
    follow.clear_have_end();
    const auto it = followed.find(follow.job_id());
    if (it == followed.end()) return;
    for (const auto& [first, end] : it->second.have.ranges()) {
      follow.add_have_first(first);
      follow.add_have_end(end);
    }
  }

  void ask_follow(const std::string& job_id, std::function<void(const pb::Response&)> done) {
    followed.try_emplace(job_id);
    pb::Request request;
    request.mutable_follow()->set_job_id(job_id);
    fill_have(*request.mutable_follow());
    ask(std::move(request), std::move(done), false);
  }

  void ask(pb::Request request, std::function<void(const pb::Response&)> done, bool follows) {
    const std::uint64_t id = next_id++;
    request.set_id(id);
    const auto [it, fresh] = asked.emplace(id, Asked{std::move(request), std::move(done), follows});
    if (welcomed) send(it->second);  // else with the welcome
  }

  void send(Asked& one) {
    one.sent = true;
    pb::Frame frame;
    *frame.mutable_request() = one.request;
    connection->send(session.number(frame), true);
    unacked_bytes = 0;
    unacked_frames = 0;
  }

  void on_response(const pb::Response& response) {
    const auto it = asked.find(response.id());
    if (it == asked.end()) return;
    const Asked one = std::move(it->second);
    asked.erase(it);
    if (!response.has_error() && one.follows) followed.try_emplace(response.job().job_id());
    if (one.done) one.done(response);
  }

  void on_outcomes(pb::Outcomes* outcomes) {
    // A follow after a restart can repeat what was on its way: each index is handed out once.
    RangeSet& have = followed[outcomes->job_id()].have;
    const int count = outcomes->outcomes_size();
    std::vector<int> repeated;
    for (int i = 0; i < count;) {  // by runs of neighbours, which is how they come
      const int at = i;
      const std::uint32_t first = outcomes->outcomes(i).index();
      std::uint32_t end = first + 1;
      for (++i; i < count && outcomes->outcomes(i).index() == end; ++i) ++end;
      const auto news = have.gaps(first, end);
      if (news.size() != 1 || news[0] != std::pair{first, end}) {
        for (int k = at; k < i; ++k) {
          if (have.contains(outcomes->outcomes(k).index())) repeated.push_back(k);
        }
      }
      have.add(first, end);
    }
    repeats += repeated.size();
    for (auto k = repeated.rbegin(); k != repeated.rend(); ++k) outcomes->mutable_outcomes()->DeleteSubrange(*k, 1);
    if (outcomes->has_ended()) followed.erase(outcomes->job_id());
    if (events.on_outcomes) events.on_outcomes(*outcomes);
  }

  void owe_ack(std::size_t bytes) {
    if (!session.owes_ack()) return;
    unacked_bytes += bytes;
    if (++unacked_frames >= kAckFrames || unacked_bytes >= kAckBytes) {
      acknowledge();
    } else if (!ack_timer) {
      ack_timer = loop.after(kAckDelay, [this] {
        ack_timer.reset();
        if (welcomed && session.owes_ack()) acknowledge();
      });
    }
  }

  void acknowledge() {
    unacked_bytes = 0;
    unacked_frames = 0;
    if (!welcomed) return;
    pb::Frame frame;
    frame.mutable_only_ack();
    connection->send(session.unnumbered(frame), true);
  }
};

FarmClient::FarmClient(net::Loop& loop, FarmClientOptions options, Events events)
    : impl_(std::make_shared<Impl>(loop, std::move(options), std::move(events))) {
  loop.post([impl = impl_] { impl->start(); });
}

FarmClient::~FarmClient() {
  impl_->loop.post([impl = impl_] {
    impl->stop();
    const std::lock_guard lock(impl->mutex);
    impl->ready = false;
    impl->failed = Error{ErrorClass::cancelled, "closed"};
    impl->changed.notify_all();
  });
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return impl_->failed && impl_->failed->cls == ErrorClass::cancelled; });
}

Result<> FarmClient::connect(Millis limit) {
  std::unique_lock lock(impl_->mutex);
  if (!impl_->changed.wait_for(lock, limit, [&] { return impl_->ready || impl_->failed.has_value(); })) {
    return Error{ErrorClass::unavailable, "No Grange server answers at " + impl_->options.url + " in time."};
  }
  if (!impl_->ready) return *impl_->failed;
  return {};
}

void FarmClient::submit(pb::JobSpec spec, std::vector<pb::Payload> payloads, bool follow,
                        std::function<void(const pb::Response&)> done) {
  if (spec.key().empty()) spec.set_key(random_hex(16));
  auto request = std::make_shared<pb::Request>();
  pb::SubmitJob* submit = request->mutable_submit();
  *submit->mutable_spec() = std::move(spec);
  for (pb::Payload& payload : payloads) *submit->add_payloads() = std::move(payload);
  submit->set_follow(follow);
  impl_->loop.post(
      [impl = impl_, request, follow, done = std::move(done)] { impl->ask(std::move(*request), done, follow); });
}

void FarmClient::cancel(std::string job_id, std::function<void(const pb::Response&)> done) {
  pb::Request request;
  request.mutable_cancel()->set_job_id(std::move(job_id));
  impl_->loop.post([impl = impl_, request, done = std::move(done)] { impl->ask(request, done, false); });
}

void FarmClient::follow(std::string job_id, std::function<void(const pb::Response&)> done) {
  impl_->loop.post(
      [impl = impl_, job_id = std::move(job_id), done = std::move(done)] { impl->ask_follow(job_id, done); });
}

std::uint64_t FarmClient::repeats() const {
  return impl_->repeats;
}

}  // namespace grange::cli
