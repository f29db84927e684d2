// What clients ask of the server: frames as in wire.proto, and what REST has beside them as one line of words.
#include <algorithm>
#include <charconv>

#include "server/api/validate.hpp"
#include "sessions.hpp"

namespace grange::sim {
namespace {

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}
std::uint32_t number(const std::string& text) {
  std::uint32_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

core::Request request_of(const pb::Requirements& asks, const std::string& engine) {
  core::Request out;
  if (asks.cpus_milli() != 0) out.cpus_milli = asks.cpus_milli();
  out.memory = asks.memory_bytes();
  out.gpus_milli = asks.gpus_milli();
  out.engine = engine;
  for (const auto& [key, value] : asks.labels()) out.labels.push_back({key, value, false});
  for (const auto& [key, value] : asks.not_labels()) out.labels.push_back({key, value, true});
  std::sort(out.labels.begin(), out.labels.end());
  out.pool = asks.pool();
  out.model = asks.model();
  return out;
}

}  // namespace

core::JobHeader header_of(const pb::JobSpec& spec, const std::map<std::string, std::uint32_t>& siblings) {
  core::JobHeader h;
  h.count = spec.count();
  h.request = request_of(spec.requirements(), spec.engine());
  for (const auto& other : spec.any_of()) h.alternatives.push_back(request_of(other, spec.engine()));
  h.priority = spec.priority();
  const pb::Retry& retry = spec.retry();
  if (retry.max_attempts() != 0) h.retry.max_attempts = retry.max_attempts();
  if (retry.base_ms() != 0) h.retry.base = Millis{retry.base_ms()};
  if (retry.cap_ms() != 0) h.retry.cap = Millis{retry.cap_ms()};
  if (retry.crash_limit() != 0) h.retry.crash_limit = retry.crash_limit();
  for (const pb::RetryRule& rule : retry.rules())
    h.retry.rules.push_back({static_cast<core::FailureClass>(rule.failure()), rule.exception(), rule.max_attempts(),
                             h.retry.base, h.retry.cap});
  h.fail_fast = spec.fail_fast();
  h.open = spec.open();
  h.user = spec.user();
  h.kind = spec.engine();
  if (spec.weight_milli() != 0) h.weight_milli = spec.weight_milli();
  h.max_running = spec.max_running();
  h.nodes = std::max<std::uint32_t>(1, spec.nodes());
  h.not_before = WallMs{static_cast<std::int64_t>(spec.not_before_ms())};
  h.deadline = WallMs{static_cast<std::int64_t>(spec.deadline_ms())};
  for (const pb::DependsOn& d : spec.depends_on()) {
    core::Dependency dep;
    if (const auto it = siblings.find(d.job_id()); it != siblings.end()) {
      dep.job = JobNo{queue::kSibling + it->second};
    } else {
      dep.job = JobNo{d.job() != 0 ? d.job() : number(d.job_id())};
    }
    if (d.one()) dep.index = d.index();
    dep.each = d.each();
    dep.pass = d.pass();
    h.after.push_back(dep);
  }
  h.when = static_cast<core::When>(spec.when());
  h.speculation.on = spec.speculation().on();
  if (spec.speculation().factor_milli() != 0) h.speculation.factor_milli = spec.speculation().factor_milli();
  if (spec.speculation().min_done() != 0) h.speculation.min_done = spec.speculation().min_done();
  return h;
}

namespace {
core::JobBody body_of(const pb::JobSpec& spec) {
  core::JobBody body;
  body.key = spec.key();
  body.name = spec.name();
  body.user = spec.user();
  body.engine = spec.engine();
  body.spec = spec.SerializeAsString();
  body.digest = server::job_digest(spec, {});
  return body;
}
}  // namespace

void Sessions::respond(ConnId conn, std::uint64_t id, const Result<std::uint32_t>& result, bool existed) {
  pb::Frame frame;
  pb::Response& out = *frame.mutable_response();
  out.set_id(id);
  if (result) {
    out.mutable_job()->set_job(*result);
    out.set_existed(existed);
  } else {
    out.mutable_error()->set_code(std::string(code(result.error().cls)));
    out.mutable_error()->set_message(result.error().message);
  }
  send(conn, wire::encode(frame));
}

void Sessions::submit(ConnId conn, std::uint64_t id, pb::SubmitJob& in) {
  if (auto room = server_.room(); !room) {
    GRANGE_MARK("submit_refused_storage_full");
    return respond(conn, id, room.error());
  }
  queue::SubmitCall call;
  call.header = header_of(in.spec(), {});
  call.body = body_of(in.spec());
  if (GRANGE_MUTANT("no_dedupe_of_submits")) call.body.key.clear();
  call.done = answer<queue::SubmitCall::Answer>([this, conn, id](Result<queue::SubmitCall::Answer> r) {
    if (!r) return respond(conn, id, r.error());
    if (r->existed) GRANGE_MARK("submit_known_already");
    respond(conn, id, r->job.value, r->existed);
  });
  put(std::move(call));
}

// 'G' id, then SubmitJob after SubmitJob: [length as 8 hex digits][bytes].
void Sessions::graph(ConnId conn, std::string_view text) {
  const std::uint64_t id = number(std::string(text.substr(0, 10)));
  text.remove_prefix(10);
  queue::GraphCall call;
  std::map<std::string, std::uint32_t> places;
  while (text.size() > 8) {
    std::uint32_t size = 0;
    std::from_chars(text.data(), text.data() + 8, size, 16);
    pb::JobSpec spec;
    if (!spec.ParseFromArray(text.data() + 8, static_cast<int>(size))) return;
    text.remove_prefix(8 + size);
    call.jobs.emplace_back(header_of(spec, places), body_of(spec));
    places[spec.key()] = static_cast<std::uint32_t>(call.jobs.size() - 1);
  }
  call.done = answer<std::vector<queue::SubmitCall::Answer>>(
      [this, conn, id](Result<std::vector<queue::SubmitCall::Answer>> r) {
        if (!r) return respond(conn, id, r.error());
        pb::Frame frame;
        pb::Response& out = *frame.mutable_response();
        out.set_id(id);
        std::string all;
        for (const auto& one : *r) all += std::to_string(one.job.value) + " ";
        out.mutable_job()->set_state(all);
        send(conn, wire::encode(frame));
      });
  put(std::move(call));
}

void Sessions::request(ConnId conn, pb::Request& in) {
  const std::uint64_t id = in.id();
  const auto count = [this, conn, id](Result<std::uint32_t> r) { respond(conn, id, r); };
  switch (in.op_case()) {
    case pb::Request::kSubmit:
      return submit(conn, id, *in.mutable_submit());
    case pb::Request::kCancel: {
      const auto& c = in.cancel();
      queue::CancelCall call{JobNo{number(c.job_id())}, std::nullopt, c.reason(), answer<std::uint32_t>(count)};
      if (c.one_task()) call.index = c.index();
      if (GRANGE_MUTANT("cancel_acked_and_forgotten")) return respond(conn, id, 1u);
      return put(std::move(call));
    }
    case pb::Request::kRetry: {
      // REST's filters, drawn here: the frame has none.
      queue::RetryFilter filter;
      if (dice_.chance(0.3)) filter.classes = {core::FailureClass::exception, core::FailureClass::cancelled};
      return put(queue::RetryCall{JobNo{number(in.retry().job_id())}, filter, answer<std::uint32_t>(count)});
    }
    case pb::Request::kPause: {
      const auto& p = in.pause();
      queue::PauseCall call;
      call.job = JobNo{number(p.job_id())};
      if (p.one_task()) call.index = p.index();
      call.pause = p.how() != pb::PAUSE_RESUME;
      call.freeze = !p.one_task() && p.how() == pb::PAUSE_FREEZE;
      call.requeue = p.one_task() && p.how() == pb::PAUSE_REQUEUE;
      call.done = answer<std::uint32_t>(count);
      return put(std::move(call));
    }
    case pb::Request::kExtend: {
      queue::ExtendCall call;
      call.job = JobNo{number(in.extend().job_id())};
      call.count = in.extend().count();
      call.close = in.extend().close();
      call.key = in.extend().key();
      call.done = answer<std::uint32_t>(count);
      return put(std::move(call));
    }
    case pb::Request::kFollow:
      return follow(conn, in.follow());
    default:
      return respond(conn, id, Error{ErrorClass::invalid_argument, "There is no such request."});
  }
}

void Sessions::admin(ConnId conn, std::string_view text) {
  const auto w = words(text);
  const std::uint64_t id = number(w.at(0));
  const auto done = answer<Unit>([this, conn, id](Result<> r) {
    respond(conn, id, r ? Result<std::uint32_t>(0u) : Result<std::uint32_t>(r.error()));
  });
  if (w.at(1) == "queue") return put(queue::PauseFarmCall{w.at(2) == "pause", done});
  if (w.at(1) == "hold") return put(queue::PauseWorkerCall{WorkerNo{number(w.at(2))}, true, done});
  if (w.at(1) == "unhold") return put(queue::PauseWorkerCall{WorkerNo{number(w.at(2))}, false, done});
  if (w.at(1) == "forget") return put(queue::ForgetWorkerCall{WorkerNo{number(w.at(2))}, done});
  if (w.at(1) == "release") return put(queue::ReleaseWorkerCall{WorkerNo{number(w.at(2))}, done});
  if (w.at(1) == "policy") return put(queue::SetPolicyCall{w.at(2), done});
  if (w.at(1) == "user") {
    queue::SetUserCall call;
    call.user = w.at(2);
    call.limits.weight_milli = number(w.at(3));
    call.limits.max_running = number(w.at(4));
    call.limits.max_queued = number(w.at(5));
    call.limits.starts_per_minute = number(w.at(6));
    call.done = done;
    return put(std::move(call));
  }
  if (w.at(1) == "explain") {
    const JobNo job{number(w.at(2))};
    return put(queue::InspectCall{[this, life = server_.life(), conn, id, job](const core::Farm& farm, Now t) {
      if (life != server_.life()) return;
      const auto why = farm.explain(job, core::Dependency::kAll, t);
      if (why && why->summary.empty())
        violated("L1", fmt::format("job {} waits, and explain has nothing to say", job.value));
      respond(conn, id, 0u);
    }});
  }
}

void Sessions::follow(ConnId conn, const pb::FollowRequest& in) {
  const JobNo job{number(in.job_id())};
  Following& f = following_[{job, conn}];
  f = {};
  for (int i = 0; i < std::min(in.have_first_size(), in.have_end_size()); ++i) {
    for (std::uint32_t at = in.have_first(i); at < in.have_end(i) && at < 100'000; ++at) f.sent[at] = {0, -1};
  }
  sweep(conn, job, f);
}

void Sessions::sweep(ConnId conn, JobNo job, Following& f) {
  auto row = server_.reader().job(job);
  if (!row || !*row) return;
  auto rows = server_.reader().outcomes(job, 0, limits::kPage, true);
  if (!rows) return;
  pb::Frame frame;
  pb::Outcomes& out = *frame.mutable_outcomes();
  out.set_job(job.value);
  std::vector<bool> has((*row)->count, false);
  for (auto& r : *rows) {
    const std::uint32_t index = r.task.index();
    if (index < has.size()) has[index] = true;
    const auto known = f.sent.find(index);
    if (known != f.sent.end() &&
        (known->second.second == -1 || known->second == std::pair(r.attempt, static_cast<int>(r.end))))
      continue;
    f.sent[index] = {r.attempt, static_cast<int>(r.end)};
    pb::Outcome& o = *out.add_outcomes();
    o.set_index(index);
    o.set_end(static_cast<pb::TaskEnd>(r.end));
    o.set_failure(static_cast<pb::FailureClass>(r.failure));
    o.set_attempt(r.attempt);
    o.set_value(std::move(r.body.value));
  }
  const store::JobRow& j = **row;
  if (core::ended(j.state)) {
    // What has no outcome ended with its job before it was ever handed out.
    for (std::uint32_t i = 0; i < j.count; ++i) {
      if (has[i]) continue;
      pb::Outcome& o = *out.add_outcomes();
      o.set_index(i);
      o.set_end(pb::TASK_CANCELLED);
    }
    pb::JobStatus& end = *out.mutable_ended();
    end.set_job(job.value);
    end.set_state(std::string(core::name(j.state)));
    end.set_count(j.count);
    end.set_completed(j.counts.completed);
    end.set_failed(j.counts.failed);
    end.set_cancelled(j.counts.cancelled);
    f.end_told = true;
  }
  if (out.outcomes_size() > 0 || out.has_ended()) send(conn, wire::encode(frame));
}

}  // namespace grange::sim
