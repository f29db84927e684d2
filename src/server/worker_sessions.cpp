#include "server/worker_sessions.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "server/api/validate.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Micros kAnswer{5'000'000};  // how long an old session has to show that it lives

Error taken(const std::string& worker_id) {
  return Error{ErrorClass::conflict,
               "The worker id \"" + worker_id +
                   "\" is already connected. Give each worker its own --data folder, or stop the other one."};
}

void refuse(const SocketPtr& socket, const Error& error) {
  socket->send(wire::encode(error_frame(error, true)), true);
  socket->close(close_code::policy, error.message.substr(0, 120));
}

}  // namespace

void WorkerSessions::hello(SocketPtr socket, pb::Frame frame) {
  const pb::Hello& hello = frame.hello();
  const std::string& id = hello.worker().worker_id();
  if (auto may = authorize_message(frame_rules(), socket->principal(), "hello.worker", {"worker", id}); !may)
    return refuse(socket, may.error());
  if (!valid_name(id)) {
    return refuse(socket,
                  {ErrorClass::invalid_argument,
                   fmt::format("A worker id has 1 to {} bytes, and none that cannot be seen.", limits::kNameBytes)});
  }
  if (auto capacity = to_capacity(hello.worker().manifest()); !capacity) return refuse(socket, capacity.error());
  if (static_cast<std::uint32_t>(hello.worker().held_size()) > 2 * limits::kWindow) {
    return refuse(socket, {ErrorClass::too_large, fmt::format("A worker may hold {} attempts.", limits::kWindow)});
  }
  if (const auto it = sessions_.find(id); it != sessions_.end() && it->second->session_id() == hello.session_id()) {
    const auto session = it->second;
    if (!same(session->principal(), socket->principal())) return refuse(socket, not_your_session());
    if (session->can_resume(hello)) return session->resume(std::move(socket), hello);
    // The session is the same, but its numbers do not fit (or the lease ended): begin anew, with what the worker says
    // it holds.
    session->retire(close_code::normal, "");
  }
  if (full()) {
    return refuse(socket, {ErrorClass::rate_limited, fmt::format("This server takes {} workers.", limits::kWorkers)});
  }
  auto held_frame = std::make_shared<pb::Frame>(std::move(frame));
  claim(id, [this, socket, held_frame](Result<> granted) {
    if (!granted) return refuse(socket, granted.error());
    if (!socket->open()) return;
    const pb::Hello& h = held_frame->hello();
    const auto session = std::make_shared<WorkerSession>(*this, s_, output_, h.worker().worker_id(), h.session_id());
    sessions_[h.worker().worker_id()] = session;
    session->begin(socket, h);
  });
}

void WorkerSessions::claim(const std::string& worker_id, std::function<void(Result<>)> done) {
  if (json_ids_.contains(worker_id)) return done(taken(worker_id));
  const auto it = sessions_.find(worker_id);
  if (it == sessions_.end()) return done({});
  const auto old = it->second;
  if (!old->connected()) {
    old->retire(close_code::normal, "");
    return done({});
  }
  const Instant now = s_.clock.now().mono;
  const Micros silence = std::chrono::duration_cast<Micros>(s_.options.heartbeat) * 3 / 2;
  old->challenge();
  claims_.emplace_back(
      worker_id,
      Claim{
          .old = old, .asked = now, .until = std::max(now + kAnswer, old->seen() + silence), .done = std::move(done)});
}

void WorkerSessions::tick(Now now) {
  std::vector<std::shared_ptr<WorkerSession>> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  for (const auto& session : all) session->tick(now);
  auto claims = std::move(claims_);
  claims_.clear();
  for (auto& [id, claim] : claims) {
    const auto old = claim.old.lock();
    if (old == nullptr || old->retired() || !old->connected()) {
      if (old != nullptr && !old->retired()) old->retire(close_code::normal, "");
      claim.done(json_ids_.contains(id) || sessions_.contains(id) ? Result<>(taken(id)) : Result<>());
    } else if (old->seen() > claim.asked) {
      claim.done(taken(id));
    } else if (now.mono >= claim.until) {
      old->retire(close_code::policy, "another worker with this id took over");
      claim.done(sessions_.contains(id) ? Result<>(taken(id)) : Result<>());
    } else {
      claims_.emplace_back(id, std::move(claim));
    }
  }
}

void WorkerSessions::goodbye_all(const std::string& reason) {
  for (const auto& [id, session] : sessions_) session->say_goodbye(reason);
}

void WorkerSessions::dropped(const std::string& worker_id, const WorkerSession* session) {
  const auto it = sessions_.find(worker_id);
  if (it != sessions_.end() && it->second.get() == session) sessions_.erase(it);
}

}  // namespace grange::server
