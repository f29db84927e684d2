#include "sessions.hpp"

#include <algorithm>

#include "server/api/validate.hpp"
#include "server/worker_codec.hpp"

namespace grange::sim {
namespace {

constexpr Micros kTick{1'000'000};
constexpr Micros kAnswer{5'000'000};  // as in worker_sessions.cpp
constexpr Micros kIdle = std::chrono::duration_cast<Micros>(limits::kIdle);

}  // namespace

Sessions::Sessions(Server& server) : server_(server), dice_(server.options().seed, 100 + server.life()) {}

void Sessions::listen() {
  server_.net().listen([this](ConnId conn, std::uint32_t host) {
    conns_[conn] = {.host = host, .worker = {}, .seen = now()};
    const auto mine = [this, life = server_.life()] { return server_.life() == life && server_.up(); };
    return Peer{.message =
                    [this, mine, conn](std::string bytes, Instant) {
                      if (mine()) server_.guarded([&] { message(conn, std::move(bytes)); });
                    },
                .closed =
                    [this, mine, conn] {
                      if (mine()) server_.guarded([&] { closed(conn); });
                    }};
  });
  tick();
}

void Sessions::tick() {
  const Instant t = now();
  const auto all = by_id_;
  for (const auto& [id, session] : all) session->tick(t);
  for (const auto& [id, conn] : std::map(conns_)) {
    if (t - conn.seen > kIdle) {
      GRANGE_MARK("idle_connection_closed");
      server_.net().close(id, true);
      closed(id);
    }
  }
  auto claims = std::move(claims_);
  claims_.clear();
  for (auto& [id, claim] : claims) {
    const auto old = claim.old.lock();
    if (old == nullptr || old->retired() || !old->connected()) {
      if (old != nullptr && !old->retired()) old->retire("replaced");
      by_id_.contains(id) ? refuse(claim.conn, {ErrorClass::conflict, "taken"}) : granted(claim.conn, claim.hello);
    } else if (old->seen() > claim.asked) {
      GRANGE_MARK("worker_id_taken");
      refuse(claim.conn, {ErrorClass::conflict, "taken"});
    } else if (t >= claim.until) {
      GRANGE_MARK("silent_session_replaced");
      old->retire("another worker with this id took over");
      granted(claim.conn, claim.hello);
    } else {
      claims_.emplace_back(id, std::move(claim));
    }
  }
  server_.world().after(kTick, [this, life = server_.life(), &server = server_] {
    if (server.life() == life && server.up()) server.guarded([this] { tick(); });
  });
}

void Sessions::message(ConnId id, std::string bytes) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  it->second.seen = now();
  if (!bytes.empty() && bytes[0] == 'G' && it->second.client) return graph(id, std::string_view(bytes).substr(1));
  if (!bytes.empty() && bytes[0] == 'A' && it->second.client) return admin(id, std::string_view(bytes).substr(1));
  const auto worker = it->second.worker.lock();
  if (worker && worker->conn() == id) worker->alive();
  pb::Frame frame;
  if (auto read = wire::decode(bytes, frame); !read) {
    GRANGE_MARK("frame_refused");
    pb::Frame error;
    error.mutable_error()->set_code(std::string(code(read.error().cls)));
    send(id, wire::encode(error));
    return;
  }
  if (frame.has_hello()) return hello(id, frame);
  if (frame.has_request()) {
    it->second.client = true;
    return request(id, *frame.mutable_request());
  }
  if (worker) worker->message(id, frame);
}

void Sessions::refuse(ConnId conn, const Error& error) {
  pb::Frame frame;
  frame.mutable_error()->set_code(std::string(code(error.cls)));
  frame.mutable_error()->set_message(error.message);
  frame.mutable_error()->set_fatal(true);
  send(conn, wire::encode(frame));
  server_.net().close(conn, true);
}

void Sessions::hello(ConnId conn, pb::Frame& frame) {
  const pb::Hello& hello = frame.hello();
  if (hello.protocol() != wire::kProtocol) {
    GRANGE_MARK("hello_of_other_version");
    return refuse(conn,
                  {ErrorClass::version_mismatch, fmt::format("This server speaks protocol {}.", wire::kProtocol)});
  }
  if (hello.role() == pb::ROLE_CLIENT) {
    conns_[conn].client = true;
    return;
  }
  const std::string& id = hello.worker().worker_id();
  if (!server::valid_name(id) || !wire::valid_session_id(hello.session_id()))
    return refuse(conn, {ErrorClass::invalid_argument, "That is not a worker."});
  if (auto capacity = server::to_capacity(hello.worker().manifest()); !capacity) return refuse(conn, capacity.error());
  if (const auto it = by_id_.find(id); it != by_id_.end() && it->second->session_id() == hello.session_id()) {
    const auto session = it->second;
    if (session->can_resume(hello)) {
      conns_[conn].worker = session;
      return session->resume(conn, hello);
    }
    GRANGE_MARK("session_cannot_resume");
    session->retire("its numbers do not fit");
  }
  claim(conn, hello);
}

void Sessions::claim(ConnId conn, const pb::Hello& hello) {
  const std::string& id = hello.worker().worker_id();
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return granted(conn, hello);
  const auto old = it->second;
  if (!old->connected()) {
    old->retire("replaced");
    return granted(conn, hello);
  }
  GRANGE_MARK("worker_id_claimed");
  old->challenge();
  const Micros silence = server_.heartbeat() * 3 / 2;
  claims_.emplace_back(id, Claim{.old = old,
                                 .asked = now(),
                                 .until = std::max(now() + kAnswer, old->seen() + silence),
                                 .conn = conn,
                                 .hello = hello});
}

void Sessions::granted(ConnId conn, const pb::Hello& hello) {
  if (!server_.net().open(conn, true)) return;
  const std::string& id = hello.worker().worker_id();
  const auto session = std::make_shared<WorkerSession>(*this, id, hello.session_id());
  by_id_[id] = session;
  conns_[conn].worker = session;
  session->begin(conn, hello);
}

void Sessions::closed(ConnId id) {
  const auto it = conns_.find(id);
  if (it == conns_.end()) return;
  const auto worker = it->second.worker.lock();
  conns_.erase(it);
  if (worker) worker->closed(id);
  for (auto f = following_.begin(); f != following_.end();)
    f = f->first.second == id ? following_.erase(f) : std::next(f);
}

void Sessions::bind(WorkerNo worker, std::shared_ptr<WorkerSession> session) {
  by_no_[worker] = std::move(session);
}

void Sessions::unbind(WorkerNo worker, const WorkerSession* session) {
  const auto it = by_no_.find(worker);
  if (it != by_no_.end() && it->second.get() == session) by_no_.erase(it);
}

void Sessions::dropped(const std::string& worker_id, const WorkerSession* session) {
  const auto it = by_id_.find(worker_id);
  if (it != by_id_.end() && it->second.get() == session) by_id_.erase(it);
}

std::shared_ptr<const pb::JobSpec> Sessions::spec(JobNo job) {
  if (const auto it = specs_.find(job); it != specs_.end()) return it->second;
  auto bytes = server_.reader().spec(job);
  if (!bytes) return nullptr;
  auto spec = std::make_shared<pb::JobSpec>();
  if (!spec->ParseFromString(*bytes)) violated("S1", fmt::format("the spec of job {} cannot be read", job.value));
  return specs_[job] = std::move(spec);
}

void Sessions::deliver(queue::Delivery d) {
  std::vector<std::shared_ptr<WorkerSession>> touched;
  const auto at = [&](WorkerNo worker) -> WorkerSession* {
    const auto it = by_no_.find(worker);
    if (it == by_no_.end()) return nullptr;
    if (std::find(touched.begin(), touched.end(), it->second) == touched.end()) touched.push_back(it->second);
    return it->second.get();
  };
  for (const queue::WorkerChange& change : d.workers) {
    if (change.kind == queue::WorkerChangeKind::quarantined) {
      GRANGE_MARK("worker_quarantined");
      server_.world().trace("server: worker {} is in quarantine", change.worker.value);
    }
    if (change.kind != queue::WorkerChangeKind::lost) continue;
    if (WorkerSession* to = at(change.worker)) to->lost();
  }
  for (queue::Assign& assign : d.assign) {
    if (WorkerSession* to = at(assign.worker)) to->assign(assign);
  }
  for (const queue::Order& order : d.cancel) {
    if (WorkerSession* to = at(order.worker)) to->cancel(order);
  }
  for (const queue::PauseOrder& order : d.pause) {
    if (WorkerSession* to = at(order.worker)) to->pause(order);
  }
  for (const queue::Order& order : d.take_back) {
    if (WorkerSession* to = at(order.worker)) to->take_back(order);
  }
  for (const queue::AckOrder& ack : d.acks) {
    if (!ack.accepted) GRANGE_MARK("late_result_refused");
    if (WorkerSession* to = at(ack.worker)) to->acknowledge(ack);
  }
  for (const auto& session : touched) session->flush();

  for (auto& [where, f] : following_) {
    pb::Frame frame;
    pb::Outcomes& out = *frame.mutable_outcomes();
    out.set_job(where.first.value);
    for (const queue::Ended& e : d.ended) {
      if (e.task.job() != where.first) continue;
      f.sent[e.task.index()] = {e.attempt, static_cast<int>(e.end)};
      pb::Outcome& o = *out.add_outcomes();
      o.set_index(e.task.index());
      o.set_end(static_cast<pb::TaskEnd>(e.end));
      o.set_failure(static_cast<pb::FailureClass>(e.failure));
      o.set_attempt(e.attempt);
      if (e.body) o.set_value(e.body->value);
    }
    if (out.outcomes_size() > 0) send(where.second, wire::encode(frame));
    for (const queue::JobChange& change : d.jobs) {
      if (change.job != where.first) continue;
      if (!core::ended(change.state)) {
        f.end_told = false;
      } else if (!f.end_told) {
        sweep(where.second, where.first, f);
      }
    }
  }
}

}  // namespace grange::sim
