#include "worker.hpp"

#include <algorithm>
#include <cstdio>

namespace grange::sim {
namespace {
constexpr Bytes kReport = 1 * MiB;
constexpr Micros kWatch{1'000'000};
Fence fence_of(const pb::Fence& f) {
  return {{f.task()}, f.attempt(), f.epoch()};
}
}  // namespace

WorkerActor::WorkerActor(World& world, Net& net, Auditor& auditor, const Options& options, Rumours& rumours,
                         std::uint32_t number, bool liar)
    : world_(world),
      net_(net),
      auditor_(auditor),
      options_(options),
      rumours_(rumours),
      number_(number),
      liar_(liar),
      dice_(options.seed, 1000 + number),
      id_(fmt::format("w{}", number)) {
  machine_.slots = static_cast<std::uint32_t>(dice_.between(1, options.slots_most));
  machine_.gpus = dice_.chance(0.3) ? static_cast<std::uint32_t>(dice_.between(1, 2)) : 0;
  machine_.memory = static_cast<Bytes>(dice_.between(1, 8)) * GiB;
  machine_.zone = dice_.chance(0.5) ? "a" : "b";
}

void WorkerActor::start() {
  life_ += 1;
  worker::CoreOptions o;
  o.total = {.slots = machine_.slots,
             .cpus_milli = machine_.slots * 1000,
             .gpus_milli = machine_.gpus * 1000,
             .memory = machine_.memory,
             .disk = 100 * GiB};
  o.gpus.assign(machine_.gpus, 8 * GiB);
  core_ = std::make_unique<worker::WorkerCore>(std::move(o));
  effects_ = {};
  session_.reset();
  session_id_ = fmt::format("s{}-{}", number_, ++sessions_);
  conn_ = 0;
  welcomed_ = dialing_ = flush_posted_ = leaving_ = false;
  tries_ = 0;
  wake_at_ = Instant::never();
  executors_.clear();
  world_.trace("{}: starts with {} slots, {} gpus, zone {}{}", id_, machine_.slots, machine_.gpus, machine_.zone,
               liar_ ? ", a liar" : "");
  dial();
  watch();
  if (liar_) later(dice_.skewed(ms(2000)), [this] { lie(); });
}

void WorkerActor::now_or_later(std::function<void()> f) {
  if (paused_until_ <= world_.mono()) return f();
  world_.at(paused_until_, [this, life = life_, f = std::move(f)]() mutable {
    if (life == life_ && core_) now_or_later(std::move(f));
  });
}

void WorkerActor::later(Micros wait, std::function<void()> f) {
  world_.after(wait, [this, life = life_, f = std::move(f)]() mutable {
    if (life == life_ && core_) now_or_later(std::move(f));
  });
}

// ---------------------------------------------------------------------------------------------------- connections

void WorkerActor::dial() {
  if (dialing_ || conn_ != 0) return;
  dialing_ = true;
  // The peer knows its connection only once it is up: it is told through a shared place.
  auto place = std::make_shared<ConnId>(0);
  const auto mine = [this, life = life_, place] { return life == life_ && core_ && *place != 0 && *place == conn_; };
  net_.dial(number_,
            {.message =
                 [this, mine, place](std::string bytes, Instant sent) {
                   if (!mine()) return;
                   now_or_later([this, place, bytes = std::move(bytes), sent] {
                     if (*place == conn_) message(*place, bytes, sent);
                   });
                 },
             .closed =
                 [this, mine, place] {
                   if (!mine()) return;
                   now_or_later([this, place] {
                     if (*place == conn_) drop("closed by the server");
                   });
                 }},
            [this, life = life_, place](ConnId conn) {
              if (life != life_ || !core_) {
                if (conn != 0) net_.close(conn, false);
                return;
              }
              dialing_ = false;
              if (conn == 0) {
                tries_ += 1;
                const Micros wait = std::min(ms(1000) * (1 << std::min<std::uint32_t>(tries_, 4)), ms(15'000));
                return later(dice_.skewed(wait), [this] { dial(); });
              }
              *place = conn;
              up(conn);
            });
}

void WorkerActor::up(ConnId conn) {
  conn_ = conn;
  welcomed_ = false;
  last_heard_ = connected_at_ = world_.mono();
  auditor_.disturbed(number_);
  pb::Frame frame;
  pb::Hello& hello = *frame.mutable_hello();
  hello.set_protocol(strange_hellos_ > 0 ? (dice_.chance(0.5) ? 2 : 0) : wire::kProtocol);
  if (strange_hellos_ > 0) strange_hellos_ -= 1;
  hello.set_role(pb::ROLE_WORKER);
  hello.set_session_id(session_id_);
  hello.set_received(session_.received());
  pb::WorkerHello& me = *hello.mutable_worker();
  me.set_worker_id(id_);
  me.set_name(id_);
  me.set_window(core_->window());
  me.set_draining(core_->draining());
  fill(*me.mutable_manifest());
  model_said_ = has_model();
  core_->list_held(*me.mutable_held());
  // A liar claims what no server before this one gave out.
  for (std::size_t i = 0; liar_ && i < 6 && !rumours_.fences.empty(); ++i) {
    Fence f = rumours_.fences[dice_.below(rumours_.fences.size())];
    f.epoch += std::uint64_t{9} << 40;
    claimed_.push_back(f);
    pb::Held& h = *me.add_held();
    h.set_task(f.task.packed);
    h.set_attempt(f.attempt);
    h.set_epoch(f.epoch);
    h.set_running(true);
  }
  transmit(session_.unnumbered(frame));
}

// A model comes and goes, which nothing here needs.
void WorkerActor::fill(pb::Manifest& m) const {
  m.set_hostname(id_);
  m.set_slots(machine_.slots);
  m.set_cpus_milli(machine_.slots * 1000);
  m.set_memory_bytes(machine_.memory);
  m.set_disk_bytes(100 * GiB);
  for (std::uint32_t i = 0; i < machine_.gpus; ++i) m.add_gpus()->set_memory_bytes(8 * GiB);
  for (const char* engine : {"builtin", "command"}) m.add_engines(engine);
  (*m.mutable_labels())["zone"] = machine_.zone;
  if (has_model()) m.add_models("m");
}

void WorkerActor::transmit(std::string bytes) {
  if (conn_ == 0) return;
  if (unknown_fields_) bytes += "\xb8\x3e\x01";  // field 999, a varint: of a newer version
  net_.send(conn_, true, std::move(bytes));
}

void WorkerActor::drop(std::string_view why) {
  if (conn_ == 0) return;
  world_.trace("{}: drops its connection: {}", id_, why);
  net_.close(conn_, false);
  conn_ = 0;
  welcomed_ = false;
  auditor_.disturbed(number_);
  later(dice_.skewed(ms(1000)), [this] { dial(); });
}

void WorkerActor::second_connection() {
  if (conn_ == 0 || !core_) return;
  // The old one is left as it is: what it carries still arrives.
  auditor_.disturbed(number_);
  conn_ = 0;
  welcomed_ = false;
  dial();
}

void WorkerActor::message(ConnId, std::string bytes, Instant sent) {
  last_heard_ = world_.mono();
  pb::Frame frame;
  if (!wire::decode(bytes, frame)) return drop("an unreadable frame");
  if (frame.has_welcome()) return welcome(frame.welcome());
  if (frame.has_error()) {
    if (frame.error().fatal()) drop(frame.error().code());
    return;
  }
  if (!welcomed_) return drop("the server spoke before its Welcome");
  const auto verdict = session_.arrived(frame);
  if (verdict == wire::Session::Verdict::gap) return drop("a frame is missing");
  if (verdict == wire::Session::Verdict::fresh && frame.has_orders()) orders(*frame.mutable_orders(), sent);
  if (frame.has_goodbye()) return drop("goodbye");
  if (session_.owes_ack()) flush_soon();
}

void WorkerActor::welcome(const pb::Welcome& welcome) {
  if (welcomed_) return drop("a second Welcome");
  heartbeat_ = ms(std::clamp<std::uint32_t>(welcome.heartbeat_ms(), 10, 600'000));
  lease_ = ms(std::clamp<std::uint32_t>(welcome.lease_ms(), 100, 3'600'000));
  std::vector<std::string> again;
  if (!welcome.resumed()) {
    session_.reset();
  } else if (!session_.resend(welcome.received(), again)) {
    GRANGE_MARK("worker_starts_new_session");
    session_id_ += session_id_.size() < 60 ? "x" : "";
    session_.reset();
    return drop("the session cannot be resumed");
  }
  welcomed_ = true;
  tries_ = 0;
  last_beat_ = world_.mono();
  world_.trace("{}: welcome{}, {} refused", id_, welcome.resumed() ? ", resumed" : "", welcome.refused_size());
  if (!again.empty()) GRANGE_MARK("reports_sent_again_after_resume");
  for (std::string& bytes : again) transmit(std::move(bytes));
  for (const pb::Held& h : welcome.refused()) auditor_.given_up(number_, {{h.task()}, h.attempt(), h.epoch()});
  core_->step(worker::Welcomed{&welcome}, world_.mono(), effects_);
  act();
  flush_soon();
}

void WorkerActor::orders(pb::WorkerOrders& in, Instant sent) {
  for (const pb::SpecOrder& spec : in.specs()) auditor_.spec(number_, spec);
  for (const pb::Assignment& a : in.assign()) {
    const Fence fence{{a.task()}, a.attempt(), a.epoch()};
    world_.trace("{}: is given {} attempt {} epoch {:x}", id_, label(fence.task), fence.attempt, fence.epoch);
    rumours_.heard(fence);
    auditor_.assigned(number_, fence, sent);
  }
  for (const pb::ResultAck& ack : in.acks()) {
    world_.trace("{}: result of {} attempt {} {}", id_, label({ack.task()}), ack.attempt(),
                 ack.verdict() == pb::VERDICT_ACCEPTED ? "accepted" : "stale");
    auditor_.acknowledged(number_, ack);
  }
  for (const pb::CancelOrder& c : in.cancel()) {
    world_.trace("{}: is to stop {} attempt {}", id_, label({c.task()}), c.attempt());
    auditor_.given_up(number_, {{c.task()}, c.attempt(), 0});
    GRANGE_MARK("cancel_order_arrived");
  }
  for (const pb::PauseOrder& p : in.pause()) {
    world_.trace("{}: pause order {} for {}", id_, pb::PauseHow_Name(p.how()), label({p.task()}));
    GRANGE_MARK("pause_order_arrived");
  }
  core_->step(worker::OrdersArrived{&in}, world_.mono(), effects_);
  act();
}

void WorkerActor::watch() {
  later(kWatch, [this] {
    const Instant now = world_.mono();
    if (conn_ != 0) {
      if (!welcomed_ && now - connected_at_ > std::chrono::duration_cast<Micros>(limits::kHandshake)) {
        drop("no Welcome in time");
      } else if (now - last_heard_ > lease_) {
        GRANGE_MARK("worker_found_server_silent");
        drop("the server is silent");
      } else if (welcomed_ && now - last_beat_ >= heartbeat_ - kWatch / 2) {
        last_beat_ = now;
        pb::Frame frame;
        pb::Heartbeat& beat = *frame.mutable_heartbeat();
        beat.set_running(core_->running());
        beat.set_window(core_->window());
        transmit(session_.unnumbered(frame));
        if (has_model() != model_said_ && !session_.full()) {
          pb::Frame news;
          fill(*news.mutable_report()->mutable_manifest());
          model_said_ = has_model();
          transmit(session_.number(news));
        }
      }
    }
    core_->check_invariants();
    watch();
  });
}

// ---------------------------------------------------------------------------------------------------- what it does

void WorkerActor::wake() {
  const Instant at = core_->next_wake();
  if (at == Instant::never() || at >= wake_at_) return;
  wake_at_ = at;
  later(std::max(at - world_.mono(), Micros{0}), [this, at] {
    if (wake_at_ != at) return;
    wake_at_ = Instant::never();
    core_->step(worker::Ticked{}, world_.mono(), effects_);
    act();
  });
}

void WorkerActor::act() {
  while (!effects_.start.empty() || !effects_.stop.empty() || !effects_.freeze.empty()) {
    worker::Effects now = std::move(effects_);
    effects_ = {};
    effects_.report = now.report;
    effects_.drained = now.drained;
    for (worker::Run& one : now.start) {
      run(one);
      if (!core_) return;
    }
    for (const auto& f : now.freeze) {
      for (auto& [no, e] : executors_) {
        if (e.fence.task != f.task || e.fence.attempt != f.attempt || e.frozen == f.on) continue;
        e.frozen = f.on;
        GRANGE_MARK("executor_frozen_or_thawed");
        if (f.on) {
          e.left = std::max(e.ends - world_.mono(), Micros{0});
        } else {
          e.ends = world_.mono() + e.left;
          later(e.left, [this, n = no] { finish(n); });
        }
      }
    }
    for (const auto& s : now.stop) {
      for (auto& [no, e] : executors_) {
        if (e.fence.task != s.task || e.fence.attempt != s.attempt) continue;
        // Polite: some mind it soon, some never. Hard: at once. A frozen one is thawed by the signal.
        const bool hard = s.how == worker::StopHow::hard;
        if (!hard && dice_.chance(0.3)) continue;
        e.stopped = true;
        e.frozen = false;
        e.ends = world_.mono() + (hard ? ms(10) : dice_.skewed(ms(400)));
        later(e.ends - world_.mono(), [this, n = no] { finish(n); });
      }
    }
  }
  if (effects_.report) flush_soon();
  if (effects_.drained) leaving_ = true;
  effects_.report = effects_.drained = false;
  wake();
}

WorkerActor::Script WorkerActor::script(const pb::JobSpec& spec) const {
  Script s;
  long mean = 0;
  int fails = 0, kills = 0;
  if (std::sscanf(spec.name().c_str(), "d=%ld f=%d x=%d", &mean, &fails, &kills) == 3) {
    s.mean = ms(mean);
    s.fails = fails / 1000.0;
    s.kills = kills / 1000.0;
  }
  return s;
}

void WorkerActor::run(worker::Run& run) {
  const Script s = script(run.job->spec);
  auditor_.started(number_, run.fence);
  if (s.kills > 0 && dice_.chance(s.kills)) {
    GRANGE_MARK("task_killed_its_worker");
    later(dice_.skewed(ms(200)), [this] { crash(dice_.skewed(ms(4000))); });
  }
  const std::uint64_t no = next_executor_++;
  Executor& e = executors_[no];
  e.fence = run.fence;
  e.key = run.job->spec.key();
  e.no = no;
  e.ends = world_.mono() + dice_.skewed(s.mean) * slowness_;
  later(e.ends - world_.mono(), [this, no] { finish(no); });
  if (options_.checkpoints && dice_.chance(0.3)) {
    later(dice_.skewed(s.mean / 2), [this, fence = run.fence] {
      const Fence* now = core_->running_fence(fence.task, fence.attempt);
      if (now == nullptr || !welcomed_) return;
      pb::Frame frame;
      pb::Checkpoint& c = *frame.mutable_report()->add_checkpoints();
      c.set_task(now->task.packed);
      c.set_attempt(now->attempt);
      c.set_epoch(now->epoch);
      c.set_data("half");
      transmit(session_.number(frame));
    });
  }
}

void WorkerActor::finish(std::uint64_t no) {
  const auto it = executors_.find(no);
  if (it == executors_.end() || it->second.frozen || it->second.ends > world_.mono()) return;
  const Executor e = it->second;
  executors_.erase(it);
  const Wanted* wanted = auditor_.wanted(e.key);
  const Script s = wanted != nullptr ? script(wanted->spec) : Script{};
  pb::TaskResult result;
  const bool fails = e.stopped || dice_.chance(s.fails);
  result.set_ok(!fails);
  if (fails) {
    constexpr pb::FailureClass kHow[] = {pb::FAILURE_EXCEPTION, pb::FAILURE_EXIT_CODE, pb::FAILURE_OUT_OF_MEMORY,
                                         pb::FAILURE_ENGINE};
    result.set_failure(e.stopped ? pb::FAILURE_EXIT_CODE : kHow[dice_.below(4)]);
    if (result.failure() == pb::FAILURE_EXCEPTION) result.set_exception("ValueError");
    if (unknown_fields_ && !e.stopped && dice_.chance(0.5)) {
      GRANGE_MARK("failure_class_of_another_version");
      result.set_failure(static_cast<pb::FailureClass>(77));
    }
    result.set_message("it went wrong");
    result.set_permanent(!e.stopped && dice_.chance(0.1));
  } else {
    result.set_value(fmt::format("{}/{}/{}/w{}/{}", e.key, e.fence.task.index(), e.fence.attempt, number_, ++value_));
  }
  core_->step(worker::AttemptEnded{e.fence.task, e.fence.attempt, &result}, world_.mono(), effects_);
  act();
}

void WorkerActor::flush_soon() {
  if (flush_posted_) return;
  flush_posted_ = true;
  later(Micros{0}, [this] {
    flush_posted_ = false;
    flush();
  });
}

void WorkerActor::flush() {
  if (!welcomed_ || conn_ == 0) return;
  bool more = true, said = false;
  while (more && !session_.full()) {
    pb::Frame frame;
    pb::WorkerReport& report = *frame.mutable_report();
    more = core_->take_report(report, kReport);
    if (report.ByteSizeLong() == 0) break;
    for (const pb::TaskResult& r : report.results()) {
      world_.trace("{}: says {} attempt {} {}", id_, label({r.task()}), r.attempt(),
                   r.ok() ? "ok" : pb::FailureClass_Name(r.failure()));
      auditor_.result(number_, r);
    }
    for (const pb::Fence& f : report.started()) auditor_.started(number_, fence_of(f));
    for (const pb::Fence& f : report.returned()) auditor_.given_up(number_, fence_of(f));
    for (const pb::Fence& f : report.preempted()) auditor_.given_up(number_, fence_of(f));
    if (report.preempted_size() > 0) GRANGE_MARK("preempted_for_a_pause");
    if (report.returned_size() > 0) GRANGE_MARK("attempt_returned");
    std::string bytes = session_.number(frame);
    if (liar_ && dice_.chance(0.2)) transmit(bytes);  // twice: the session sees to it
    if (liar_ && dice_.chance(0.02)) transmit("\xff\xff no frame");
    if (liar_ && dice_.chance(0.02)) continue;  // numbered and never sent: a gap
    transmit(std::move(bytes));
    said = true;
  }
  if (!said && session_.owes_ack()) {
    pb::Frame frame;
    frame.mutable_only_ack();
    transmit(session_.unnumbered(frame));
  }
  if (leaving_ && core_->drained() && session_.waiting() == 0) {
    GRANGE_MARK("drained");
    pb::Frame frame;
    frame.mutable_goodbye()->set_reason("drained");
    transmit(session_.unnumbered(frame));
    const Micros away = dice_.skewed(ms(8000));
    world_.trace("{}: drained, leaves", id_);
    net_.close(conn_, false);
    core_.reset();
    life_ += 1;
    auditor_.disturbed(number_);
    world_.after(away, [this, life = life_] {
      if (life == life_) start();
    });
  } else if (leaving_) {
    later(ms(200), [this] { flush_soon(); });
  }
}

// ---------------------------------------------------------------------------------------------------- faults

void WorkerActor::crash(Micros away) {
  if (!core_) return;
  world_.trace("{}: crashes", id_);
  GRANGE_MARK("worker_crashed");
  google::protobuf::RepeatedPtrField<pb::Held> held;
  core_->list_held(held);
  for (const pb::Held& h : held) auditor_.given_up(number_, {{h.task()}, h.attempt(), h.epoch()});
  auditor_.disturbed(number_);
  net_.cut(number_, dice_.chance(0.3));
  core_.reset();
  executors_.clear();
  conn_ = 0;
  welcomed_ = false;
  life_ += 1;
  world_.after(away, [this, life = life_] {
    if (life == life_) start();
  });
}

void WorkerActor::pause(Micros how_long) {
  world_.trace("{}: stands still for {} ms", id_, how_long.count() / 1000);
  paused_until_ = std::max(paused_until_, world_.mono() + how_long);
  auditor_.disturbed(number_);
  // Disturbed until it is back, too.
  world_.at(paused_until_, [this] { auditor_.disturbed(number_); });
}

void WorkerActor::drain() {
  if (!core_) return;
  now_or_later([this] {
    auditor_.disturbed(number_);
    core_->step(worker::DrainAsked{}, world_.mono(), effects_);
    act();
  });
}

void WorkerActor::change(const Machine& machine) {
  machine_ = machine;
}

void WorkerActor::heal() {
  slowness_ = 1;
  strange_hellos_ = 0;
  unknown_fields_ = false;
  liar_ = false;
}

// What only a broken or hostile worker says. Its session is in order: the fence alone protects.
void WorkerActor::lie() {
  if (!liar_) return;
  if (welcomed_ && conn_ != 0 && !rumours_.fences.empty()) {
    pb::Frame frame;
    pb::WorkerReport& report = *frame.mutable_report();
    const auto lies = 1 + dice_.below(4);
    for (std::uint64_t i = 0; i < lies; ++i) {
      Fence f = rumours_.fences[dice_.below(rumours_.fences.size())];
      if (!claimed_.empty() && dice_.chance(0.4))
        f = claimed_[claimed_.size() - 1 - dice_.below(std::min<std::size_t>(6, claimed_.size()))];
      switch (dice_.below(6)) {
        case 0:
          f.attempt += 1;
          break;
        case 1:
          f.attempt -= f.attempt > 0 ? 1 : 0;
          break;
        case 2:
          f.epoch += 1;
          break;
        case 3:
          f.task.packed += 1;
          break;
        default:
          break;  // the true fence of another worker, or an old one of its own
      }
      const auto fill = [&](pb::Fence& out) {
        out.set_task(f.task.packed);
        out.set_attempt(f.attempt);
        out.set_epoch(f.epoch);
      };
      switch (dice_.below(6)) {
        case 0:
          fill(*report.add_started());
          break;
        case 1:
          fill(*report.add_returned());
          auditor_.given_up(number_, f);
          break;
        case 2:
          fill(*report.add_preempted());
          auditor_.given_up(number_, f);
          break;
        case 3:
          fill(*report.add_paused());
          break;
        default: {
          pb::TaskResult& r = *report.add_results();
          r.set_task(f.task.packed);
          r.set_attempt(f.attempt);
          r.set_epoch(f.epoch);
          r.set_ok(dice_.chance(0.7));
          r.set_value(fmt::format("a lie {}", ++value_));
          if (!r.ok()) r.set_failure(pb::FAILURE_EXCEPTION);
          auditor_.result(number_, r);
          if (dice_.chance(0.3)) *report.add_results() = r;
        }
      }
    }
    world_.fault(static_cast<std::size_t>(Fault::worker_lies));
    GRANGE_MARK("lies_told");
    transmit(session_.number(frame));
  }
  later(dice_.skewed(ms(3000)), [this] { lie(); });
}

}  // namespace grange::sim
