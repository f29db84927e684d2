#include "server/client_sessions.hpp"

namespace grange::server {

void ClientSessions::hello(SocketPtr socket, const pb::Frame& frame) {
  const pb::Hello& hello = frame.hello();
  if (const auto it = sessions_.find(hello.session_id()); it != sessions_.end()) {
    const auto session = it->second;
    if (!same(session->principal(), socket->principal())) {
      socket->send(wire::encode(error_frame(not_your_session(), true)), true);
      return socket->close(close_code::policy, not_your_session().message);
    }
    if (session->can_resume(hello)) return session->resume(std::move(socket), hello);
    session->retire(close_code::normal, "");
  }
  if (sessions_.size() >= most_ && !make_room()) return socket->close(close_code::try_again, "too many sessions");
  const auto session = std::make_shared<ClientSession>(*this, s_, operations_, hello.session_id());
  sessions_[hello.session_id()] = session;
  session->begin(std::move(socket));
}

// Sessions outlive their connections by a lease. Who comes now is worth more than who went longest ago.
bool ClientSessions::make_room() {
  std::shared_ptr<ClientSession> oldest;
  for (const auto& [id, session] : sessions_) {
    if (!session->away()) continue;
    if (oldest == nullptr || session->away_since() < oldest->away_since() ||
        (session->away_since() == oldest->away_since() && id < oldest->session_id()))
      oldest = session;
  }
  if (oldest == nullptr) return false;
  oldest->retire(close_code::normal, "");
  return true;
}

void ClientSessions::deliver(const queue::Delivery& delivery) {
  if (followers_.empty()) return;
  std::vector<std::shared_ptr<ClientSession>> touched;
  JobNo job{};
  std::vector<std::shared_ptr<ClientSession>>* list = nullptr;
  const auto of = [&](JobNo wanted) {
    if (wanted == job) return list;
    job = wanted;
    const auto it = followers_.find(wanted);
    list = it == followers_.end() ? nullptr : &it->second;
    return list;
  };
  // Tasks that were added count before they end.
  for (const queue::JobChange& change : delivery.jobs) {
    const auto it = followers_.find(change.job);
    if (it == followers_.end()) continue;
    for (const auto& session : it->second) session->job_grew(change);
  }
  for (const queue::Ended& ended : delivery.ended) {
    if (of(ended.task.job()) == nullptr) continue;
    for (const auto& session : *list) {
      session->outcome(ended);
      if (!session->touched) {
        session->touched = true;
        touched.push_back(session);
      }
    }
  }
  for (const auto& session : touched) {
    session->touched = false;
    session->flush();
  }
  for (const queue::JobChange& change : delivery.jobs) {
    const auto it = followers_.find(change.job);
    if (it == followers_.end()) continue;
    const auto copy = it->second;  // finishing takes followers off the list
    for (const auto& session : copy) session->job_changed(change);
  }
}

void ClientSessions::tick(Now now) {
  std::vector<std::shared_ptr<ClientSession>> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  for (const auto& session : all) session->tick(now);
}

void ClientSessions::goodbye_all(const std::string& reason) {
  for (const auto& [id, session] : sessions_) session->say_goodbye(reason);
}

void ClientSessions::followed(JobNo job, const std::shared_ptr<ClientSession>& session) {
  followers_[job].push_back(session);
}

void ClientSessions::unfollowed(JobNo job, const ClientSession* session) {
  const auto it = followers_.find(job);
  if (it == followers_.end()) return;
  std::erase_if(it->second, [session](const auto& one) { return one.get() == session; });
  if (it->second.empty()) followers_.erase(it);
}

void ClientSessions::dropped(const ClientSession* session) {
  const auto it = sessions_.find(session->session_id());
  if (it != sessions_.end() && it->second.get() == session) sessions_.erase(it);
}

}  // namespace grange::server
