#include "client.hpp"

#include <algorithm>

#include "core/farm.hpp"
#include "wire/frames.hpp"

namespace grange::sim {
namespace {

constexpr Micros kPatience{8'000'000};

bool try_later(const std::string& code) {
  return code == "storage_full" || code == "rate_limited" || code == "unavailable" || code == "io";
}

bool fits(const pb::Requirements& asks, const Machine& m) {
  if (std::max<std::uint32_t>(asks.cpus_milli(), 1) > m.slots * 1000 || asks.gpus_milli() > m.gpus * 1000 ||
      asks.memory_bytes() > m.memory)
    return false;
  for (const auto& [key, value] : asks.labels()) {
    if (value != "*" && value != m.zone) return false;
  }
  for (const auto& [key, value] : asks.not_labels()) {
    if (value == m.zone) return false;
  }
  return true;
}

}  // namespace

ClientActor::ClientActor(World& world, Net& net, Auditor& auditor, const Options& options, std::uint32_t number,
                         std::vector<Machine> machines)
    : world_(world),
      net_(net),
      auditor_(auditor),
      options_(options),
      host_(10'000 + number),
      machines_(std::move(machines)),
      dice_(options.seed, 2000 + number),
      ops_left_(options.ops) {}

void ClientActor::start() {
  dial();
  watch();
  next_op();
}

void ClientActor::dial() {
  if (dialing_ || conn_ != 0) return;
  dialing_ = true;
  auto place = std::make_shared<ConnId>(0);
  const auto mine = [this, place] { return *place != 0 && *place == conn_; };
  net_.dial(host_,
            {.message =
                 [this, mine](std::string bytes, Instant) {
                   if (mine()) message(std::move(bytes));
                 },
             .closed =
                 [this, mine] {
                   if (mine()) drop();
                 }},
            [this, place](ConnId conn) {
              dialing_ = false;
              if (conn == 0) {
                world_.after(dice_.skewed(ms(1500)), [this] { dial(); });
                return;
              }
              *place = conn_ = conn;
              last_heard_ = world_.mono();
              pb::Frame frame;
              frame.mutable_hello()->set_protocol(wire::kProtocol);
              frame.mutable_hello()->set_role(pb::ROLE_CLIENT);
              net_.send(conn_, true, wire::encode(frame));
              for (auto& [id, p] : pending_) {
                if (p.times > 0) GRANGE_MARK("request_asked_again");
                p.times += 1;
                p.sent = world_.mono();
                transmit(p.bytes);
              }
              for (auto& [key, job] : jobs_) {
                if (job.no.value != 0) follow(job);
              }
            });
}

void ClientActor::drop() {
  if (conn_ == 0) return;
  net_.close(conn_, false);
  conn_ = 0;
  world_.after(dice_.skewed(ms(500)), [this] { dial(); });
}

void ClientActor::transmit(const std::string& bytes) {
  if (conn_ != 0) net_.send(conn_, true, bytes);
}

void ClientActor::watch() {
  world_.after(ms(2000), [this] {
    const Instant now = world_.mono();
    bool waits = false;
    for (const auto& [id, p] : pending_) waits = waits || (p.sent.us != 0 && now - p.sent > kPatience);
    // Silence while an answer is due, or while jobs run: begin anew.
    const bool follows = std::any_of(jobs_.begin(), jobs_.end(),
                                     [](const auto& j) { return !j.second.ended && j.second.no.value != 0; });
    if (conn_ != 0 && (waits || (follows && now - last_heard_ > ms(20'000)))) {
      GRANGE_MARK("client_gave_up_a_connection");
      drop();
    }
    watch();
  });
}

void ClientActor::ask(std::function<std::string(std::uint64_t)> make, std::function<void(const pb::Response&)> done) {
  const std::uint64_t id = next_id_++;
  Pending& p = pending_[id];
  p.bytes = make(id);
  p.done = std::move(done);
  if (conn_ == 0) return;
  p.sent = world_.mono();
  p.times = 1;
  transmit(p.bytes);
}

void ClientActor::admin(const std::string& what) {
  ask([&](std::uint64_t id) { return fmt::format("A{} {}", id, what); }, [](const pb::Response&) {});
}

void ClientActor::storm() {
  if (pending_.empty()) return;
  GRANGE_MARK("retry_storm");
  for (auto& [id, p] : pending_) {
    for (int i = 0; i < 5; ++i) transmit(p.bytes);
  }
}

void ClientActor::message(std::string bytes) {
  last_heard_ = world_.mono();
  pb::Frame frame;
  if (!wire::decode(bytes, frame)) return drop();
  if (frame.has_response()) {
    const auto it = pending_.find(frame.response().id());
    if (it == pending_.end()) return;  // asked twice, answered twice
    const Pending p = std::move(it->second);
    pending_.erase(it);
    if (frame.response().has_error() && try_later(frame.response().error().code())) {
      GRANGE_MARK("client_told_to_try_later");
      world_.after(dice_.skewed(ms(3000)), [this, p, id = frame.response().id()] {
        if (pending_.contains(id)) return;
        Pending& again = pending_[id] = p;
        again.sent = conn_ != 0 ? world_.mono() : Instant{};
        again.times = 1;
        transmit(again.bytes);
      });
      return;
    }
    return p.done(frame.response());
  }
  if (frame.has_outcomes()) {
    const JobNo no{frame.outcomes().job()};
    for (const pb::Outcome& o : frame.outcomes().outcomes()) {
      world_.trace("client {}: outcome of {}/{}: {} attempt {}", host_ - 10'000, no.value, o.index(),
                   pb::TaskEnd_Name(o.end()), o.attempt());
      auditor_.outcome(no, o);
      const auto it = by_no_.find(no);
      if (it != by_no_.end()) jobs_[it->second].have[o.index()] = true;
    }
    if (frame.outcomes().has_ended()) {
      auditor_.job_ended(no, frame.outcomes().ended());
      const auto it = by_no_.find(no);
      if (it != by_no_.end()) jobs_[it->second].ended = true;
    }
  }
}

void ClientActor::follow(Job& job) {
  pb::Frame frame;
  pb::FollowRequest& f = *frame.mutable_request()->mutable_follow();
  f.set_job_id(std::to_string(job.no.value));
  if (!job.meddled) {
    for (const auto& [index, yes] : job.have) {
      f.add_have_first(index);
      f.add_have_end(index + 1);
    }
  }
  if (conn_ != 0) net_.send(conn_, true, wire::encode(frame));
}

void ClientActor::known(const std::string& key, JobNo no) {
  auditor_.submitted(key, no);
  Job& job = jobs_[key];
  job.no = no;
  by_no_[no] = key;
  follow(job);
}

// ---------------------------------------------------------------------------------------------------- operations

void ClientActor::next_op() {
  if (ops_left_ == 0) return;
  world_.after(dice_.skewed(options_.faulty / (options_.ops + 2)), [this] {
    if (settled_ || ops_left_ == 0) return;
    ops_left_ -= 1;
    op();
    next_op();
  });
}

Wanted ClientActor::draw_job(const std::string& suffix) {
  Wanted w;
  w.key = fmt::format("c{}k{}{}", host_ - 10'000, next_key_++, suffix);
  pb::JobSpec& s = w.spec;
  s.set_key(w.key);
  s.set_count(static_cast<std::uint32_t>(dice_.between(1, options_.tasks_most)));
  s.set_user(fmt::format("u{}", dice_.below(options_.users)));
  s.set_priority(static_cast<int>(dice_.between(-2, 2)));
  if (options_.command || dice_.chance(0.6)) {
    s.set_engine("command");
    s.mutable_command()->add_argv("run");
  } else {
    s.set_engine("builtin");
    constexpr const char* kOps[] = {"noop", "echo", "sleep", "sleep", "fail"};
    s.mutable_builtin()->set_op(kOps[dice_.below(5)]);
    s.mutable_builtin()->set_ms(static_cast<std::uint32_t>(dice_.skewed(options_.run_mean).count() / 1000));
  }
  s.set_name(fmt::format("d={} f={} x={}", dice_.skewed(options_.run_mean).count() / 1000,
                         static_cast<int>(options_.fails * 1000 * dice_.unit() * 2),
                         dice_.chance(0.1) ? static_cast<int>(options_.crashes_worker * 1000) : 0));
  if (dice_.chance(0.3))
    s.set_time_limit_ms(static_cast<std::uint32_t>(dice_.skewed(options_.run_mean * 4).count() / 1000));
  s.set_fail_fast(dice_.chance(0.1));
  s.mutable_retry()->set_max_attempts(static_cast<std::uint32_t>(dice_.between(1, 4)));
  s.mutable_retry()->set_base_ms(static_cast<std::uint32_t>(dice_.between(50, 3000)));
  s.mutable_retry()->set_cap_ms(8000);
  s.mutable_retry()->set_crash_limit(static_cast<std::uint32_t>(dice_.between(1, 5)));
  if (dice_.chance(0.15)) {
    pb::RetryRule& rule = *s.mutable_retry()->add_rules();
    rule.set_failure(pb::FAILURE_EXCEPTION);
    rule.set_max_attempts(static_cast<std::uint32_t>(dice_.between(1, 3)));
  }
  pb::Requirements& asks = *s.mutable_requirements();
  const Machine& m = machines_[dice_.below(machines_.size())];
  asks.set_cpus_milli(static_cast<std::uint32_t>(dice_.between(1, m.slots * 2) * 500));
  if (dice_.chance(0.2) && m.gpus > 0) asks.set_gpus_milli(dice_.chance(0.5) ? 500 : m.gpus * 1000);
  if (dice_.chance(0.2)) asks.set_memory_bytes(m.memory / 2);
  if (dice_.chance(0.15)) (*asks.mutable_labels())["zone"] = dice_.chance(0.3) ? "*" : m.zone;
  if (dice_.chance(0.1)) (*asks.mutable_not_labels())["zone"] = m.zone == "a" ? "b" : "a";
  if (options_.unsatisfiable && dice_.chance(0.15)) asks.set_cpus_milli(1'000'000);
  if (options_.alternatives && dice_.chance(0.4)) {
    *s.add_any_of() = asks;
    asks.set_cpus_milli(dice_.chance(0.5) ? 1'000'000 : options_.slots_most * 1000);
  }
  std::size_t able = 0;
  for (const Machine& one : machines_) {
    able += fits(asks, one) || (s.any_of_size() > 0 && fits(s.any_of(0), one)) ? 1 : 0;
  }
  if (options_.gangs && dice_.chance(0.3) && able >= 2 && s.any_of_size() == 0)
    s.set_nodes(static_cast<std::uint32_t>(dice_.between(2, static_cast<std::int64_t>(able))));
  w.satisfiable = able >= std::max<std::uint32_t>(1, s.nodes());
  if (!w.satisfiable) GRANGE_MARK("unsatisfiable_job");
  if (options_.speculation && s.nodes() <= 1 && dice_.chance(0.4)) {
    s.mutable_speculation()->set_on(true);
    s.mutable_speculation()->set_factor_milli(1500);
    s.mutable_speculation()->set_min_done(1);
  }
  if (options_.quotas && dice_.chance(0.3)) s.set_max_running(static_cast<std::uint32_t>(dice_.between(1, 3)));
  if (dice_.chance(0.2)) s.set_weight_milli(static_cast<std::uint32_t>(dice_.between(1, 40) * 100));
  const auto wall = static_cast<std::uint64_t>(world_.now().wall.ms);
  if (options_.deadlines && dice_.chance(0.25))
    s.set_deadline_ms(wall + static_cast<std::uint64_t>(dice_.between(1000, 60'000)));
  if (options_.deadlines && dice_.chance(0.2))
    s.set_not_before_ms(wall + static_cast<std::uint64_t>(dice_.between(100, 20'000)));
  if (options_.open_jobs && dice_.chance(0.3)) s.set_open(true);
  // Waits for jobs of this client that it knows.
  if (options_.graphs && dice_.chance(0.5)) {
    const auto parents = dice_.between(1, 3);
    for (std::int64_t i = 0; i < parents; ++i) {
      Job* p = some(false);
      if (p == nullptr || p->meddled) continue;
      const Wanted* of = auditor_.wanted(p->key);
      if (std::any_of(w.after.begin(), w.after.end(), [&](const Parent& other) { return other.key == p->key; }))
        continue;
      if (of->spec.open()) continue;
      pb::DependsOn& d = *s.add_depends_on();
      d.set_job_id(std::to_string(p->no.value));
      d.set_job(p->no.value);
      Parent parent{.key = p->key};
      if (of->spec.count() == s.count() && dice_.chance(0.5) && !s.open()) {
        d.set_each(true);
        parent.each = true;
      } else if (dice_.chance(0.3)) {
        d.set_one(true);
        d.set_index(static_cast<std::uint32_t>(dice_.below(of->spec.count())));
        parent.one = true;
        parent.index = d.index();
      }
      d.set_pass(dice_.chance(0.4));
      w.after.push_back(parent);
      w.satisfiable = w.satisfiable && of->satisfiable;
    }
    if (!w.after.empty()) s.set_when(static_cast<pb::DependsWhen>(dice_.below(3)));
    // Of several kinds of waiting only one kind a job: what `each` means is per task.
    if (std::any_of(w.after.begin(), w.after.end(), [](const Parent& p) { return p.each; }) && w.after.size() > 1) {
      s.clear_depends_on();
      w.after.clear();
    }
  }
  return w;
}

void ClientActor::submit(Wanted w) {
  auditor_.wants(w);
  Job& job = jobs_[w.key];
  job.key = w.key;
  job.count = w.spec.count();
  job.open = w.spec.open();
  ask(
      [&](std::uint64_t id) {
        pb::Frame frame;
        frame.mutable_request()->set_id(id);
        *frame.mutable_request()->mutable_submit()->mutable_spec() = w.spec;
        return wire::encode(frame);
      },
      [this, key = w.key](const pb::Response& r) {
        if (r.has_error()) {
          world_.trace("client: {} is refused: {}", key, r.error().message());
          if (r.error().code() == "conflict")
            violated("S2", "a submit that was said again with the same key is a conflict: " + key);
          GRANGE_MARK("submit_refused");
          jobs_[key].unwanted = true;
          return;
        }
        known(key, JobNo{r.job().job()});
      });
}

void ClientActor::submit_graph() {
  std::vector<Wanted> jobs;
  const auto size = dice_.between(2, 4);
  for (std::int64_t i = 0; i < size; ++i) {
    Wanted w = draw_job(fmt::format("g{}", i));
    w.spec.clear_open();
    w.spec.clear_depends_on();
    w.after.clear();
    if (i > 0) {
      const Wanted& parent = jobs[dice_.below(jobs.size())];
      pb::DependsOn& d = *w.spec.add_depends_on();
      d.set_job_id(parent.key);
      Parent p{.key = parent.key};
      if (dice_.chance(0.4)) {
        w.spec.set_count(parent.spec.count());
        d.set_each(true);
        p.each = true;
      }
      d.set_pass(dice_.chance(0.5));
      w.after.push_back(p);
      w.satisfiable = w.satisfiable && parent.satisfiable;
      w.spec.set_when(static_cast<pb::DependsWhen>(dice_.below(3)));
    }
    jobs.push_back(std::move(w));
  }
  for (const Wanted& w : jobs) {
    auditor_.wants(w);
    Job& job = jobs_[w.key];
    job.key = w.key;
    job.count = w.spec.count();
  }
  ask(
      [&](std::uint64_t id) {
        std::string out = fmt::format("G{:010}", id);
        for (const Wanted& w : jobs) {
          const std::string bytes = w.spec.SerializeAsString();
          out += fmt::format("{:08x}", bytes.size()) + bytes;
        }
        return out;
      },
      [this, jobs](const pb::Response& r) {
        if (r.has_error()) {
          world_.trace("client: a graph is refused: {}", r.error().message());
          if (r.error().code() == "conflict")
            violated("S2", "a graph that was said again with the same keys is a conflict");
          for (const Wanted& w : jobs) jobs_[w.key].unwanted = true;
          return;
        }
        GRANGE_MARK("graph_submitted");
        std::size_t i = 0;
        std::string all = r.job().state();
        for (std::size_t at = 0; at < all.size() && i < jobs.size(); ++i) {
          const auto end = all.find(' ', at);
          known(jobs[i].key, JobNo{static_cast<std::uint32_t>(std::stoul(all.substr(at, end - at)))});
          at = end + 1;
        }
      });
}

ClientActor::Job* ClientActor::some(bool live) {
  std::vector<Job*> all;
  for (auto& [key, job] : jobs_) {
    if (job.no.value != 0 && (!live || !job.ended)) all.push_back(&job);
  }
  return all.empty() ? nullptr : all[dice_.below(all.size())];
}

void ClientActor::cancel(Job& job, std::optional<std::uint32_t> index) {
  auditor_.wants_cancel(job.key, index);
  ask(
      [&](std::uint64_t id) {
        pb::Frame frame;
        frame.mutable_request()->set_id(id);
        pb::CancelRequest& c = *frame.mutable_request()->mutable_cancel();
        c.set_job_id(std::to_string(job.no.value));
        c.set_one_task(index.has_value());
        c.set_index(index.value_or(0));
        c.set_reason("not wanted");
        return wire::encode(frame);
      },
      [this, key = job.key, index](const pb::Response& r) {
        if (!r.has_error()) auditor_.cancelled(key, index);
      });
}

void ClientActor::race_cancel() {
  if (Job* job = some(true)) {
    GRANGE_MARK("cancel_against_result");
    cancel(*job, dice_.chance(0.7) ? std::optional(static_cast<std::uint32_t>(dice_.below(job->count))) : std::nullopt);
  }
}

void ClientActor::pause(Job& job, bool on, std::optional<std::uint32_t> index) {
  if (index) {
    on ? static_cast<void>(job.paused_tasks.insert(*index)) : static_cast<void>(job.paused_tasks.erase(*index));
  } else {
    job.paused = on;
    auditor_.wants_pause(job.key, on);
  }
  const bool freeze = dice_.chance(0.5);
  ask(
      [&](std::uint64_t id) {
        pb::Frame frame;
        frame.mutable_request()->set_id(id);
        pb::PauseRequest& p = *frame.mutable_request()->mutable_pause();
        p.set_job_id(std::to_string(job.no.value));
        p.set_one_task(index.has_value());
        p.set_index(index.value_or(0));
        p.set_how(!on ? pb::PAUSE_RESUME : freeze ? pb::PAUSE_FREEZE : pb::PAUSE_REQUEUE);
        return wire::encode(frame);
      },
      [this, key = job.key, on, index](const pb::Response& r) {
        if (!r.has_error() && on && !index) auditor_.paused(key);
      });
}

void ClientActor::extend(Job& job, std::uint32_t count, bool close) {
  auditor_.wants_more(job.key, count);
  job.count += count;
  if (close) job.open = false;
  ask(
      [&](std::uint64_t id) {
        pb::Frame frame;
        frame.mutable_request()->set_id(id);
        pb::ExtendRequest& e = *frame.mutable_request()->mutable_extend();
        e.set_job_id(std::to_string(job.no.value));
        e.set_count(count);
        e.set_close(close);
        e.set_key(std::to_string(id));  // the same bytes again are the same request
        return wire::encode(frame);
      },
      [](const pb::Response& r) {
        if (!r.has_error()) GRANGE_MARK("job_extended");
      });
}

void ClientActor::retry(Job& job) {
  job.ended = false;
  job.meddled = true;
  auditor_.wants_retry(job.key);
  ask(
      [&](std::uint64_t id) {
        pb::Frame frame;
        frame.mutable_request()->set_id(id);
        frame.mutable_request()->mutable_retry()->set_job_id(std::to_string(job.no.value));
        return wire::encode(frame);
      },
      [this, key = job.key](const pb::Response& r) {
        if (!r.has_error()) GRANGE_MARK("failed_tasks_run_again");
        follow(jobs_[key]);
      });
}

void ClientActor::op() {
  const auto pick = dice_.below(100);
  Job* job = some(true);
  if (pick < 45 || job == nullptr) {
    if (options_.graphs && dice_.chance(0.3)) return submit_graph();
    return submit(draw_job(""));
  }
  const auto index = static_cast<std::uint32_t>(dice_.below(job->count));
  if (pick < 55) {
    if (options_.cancels) return cancel(*job, dice_.chance(0.5) ? std::optional(index) : std::nullopt);
  } else if (pick < 68) {
    if (!options_.pauses) return;
    if (dice_.chance(0.4)) {
      const bool paused = job->paused_tasks.contains(index);
      return pause(*job, !paused, index);
    }
    return pause(*job, !job->paused, std::nullopt);
  } else if (pick < 78) {
    if (job->open) extend(*job, static_cast<std::uint32_t>(dice_.between(1, 5)), dice_.chance(0.3));
  } else if (pick < 85) {
    Job* ended = some(false);
    if (options_.retries && ended != nullptr && ended->ended) return retry(*ended);
  } else if (pick < 90) {
    if (options_.quotas) {
      return admin(fmt::format("user u{} {} {} {} {}", dice_.below(options_.users), dice_.between(1, 50) * 100,
                               dice_.between(0, 4), dice_.between(0, 50),
                               dice_.chance(0.3) ? dice_.between(10, 100) : 0));
    }
  } else if (pick < 93) {
    if (options_.pauses) {
      admin("queue pause");
      world_.after(dice_.skewed(ms(10'000)), [this] { admin("queue resume"); });
    }
  } else if (pick < 96) {
    const auto names = core::policy_names();
    return admin(fmt::format("policy {}", names[dice_.below(names.size())]));
  } else if (pick < 98) {
    const auto worker = 1 + dice_.below(options_.workers + options_.liars);
    if (dice_.chance(0.2)) return admin(fmt::format("forget {}", worker));
    if (options_.pauses) {
      admin(fmt::format("hold {}", worker));
      world_.after(dice_.skewed(ms(10'000)), [this, worker] { admin(fmt::format("unhold {}", worker)); });
    }
  }
  admin(fmt::format("explain {}", job->no.value));
}

void ClientActor::settle() {
  settled_ = true;
  ops_left_ = 0;
  if (pending_.empty()) {
    admin("queue resume");
    // An operator who sees all of his workers in quarantine lets them out.
    for (std::uint32_t n = 1; n <= options_.workers + options_.liars; ++n) {
      admin(fmt::format("release {}", n));
      admin(fmt::format("unhold {}", n));
    }
    for (std::uint32_t u = 0; u < options_.users; ++u) admin(fmt::format("user u{} 1000 0 0 0", u));
    for (auto& [key, job] : jobs_) {
      if (job.no.value == 0 || (job.ended && !job.meddled)) continue;
      pause(job, false, std::nullopt);
      // Whatever it remembers: a pause that was asked for twice may have come after the resume.
      if (options_.pauses) {
        for (std::uint32_t index = 0; index < job.count; ++index) pause(job, false, index);
      }
      if (job.open) extend(job, 0, true);
      follow(job);
    }
  }
  world_.after(ms(15'000), [this] { settle(); });
}

std::string ClientActor::state() const {
  std::string out = fmt::format("client {}: {} requests unanswered", host_ - 10'000, pending_.size());
  return out;
}

}  // namespace grange::sim
