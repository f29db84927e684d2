// What the store should hold, kept the plain way, and random batches of records that a core could have written. Tests
// only. Model and store are compared as text: `describe` writes all that either can be asked.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "base/prng.hpp"
#include "store/store.hpp"

namespace grange::store::testing {

class Scratch {
 public:
  Scratch() {
    std::string name = ::testing::TempDir() + "grange-store-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// By value: a range-for over `*call()` would run over a dead temporary.
template <class T>
T take(Result<T> r) {
  return std::move(r).value();
}

struct Batch {
  std::vector<core::Record> records;
  core::Bodies bodies;
  core::BodyRef add(core::Body body) {
    bodies.push_back(std::move(body));
    return static_cast<core::BodyRef>(bodies.size() - 1);
  }
};

inline std::string fake_sha(std::uint64_t n) {
  return fmt::format("{:064x}", n);
}
inline constexpr std::uint64_t kShas = 24;
inline constexpr std::uint64_t kWords = 3;

class Model {
 public:
  struct Outcome {
    core::TaskEnded ended;
    core::ResultBody body;
  };
  struct Job {
    core::JobHeader header;
    core::JobBody body;
    core::JobProgressed progress;
    WallMs submitted;
    std::map<std::uint32_t, Outcome> outcomes;
    std::map<std::uint32_t, core::TaskKept> kept;
    std::map<std::uint32_t, core::CheckpointBody> checkpoints;
    std::map<std::string, std::uint32_t> extends;
    std::string reason;
    std::vector<std::uint32_t> open() const { return without_outcome(0, progress.next_index); }
    std::vector<std::uint32_t> ahead() const { return without_outcome(progress.next_index, header.count); }
    std::vector<std::uint32_t> skipped() const {
      std::vector<std::uint32_t> out;
      for (auto it = outcomes.lower_bound(progress.next_index); it != outcomes.end(); ++it) out.push_back(it->first);
      return out;
    }
    WallMs expires() const {
      return {core::ended(progress.state) && header.result_ttl.count() > 0
                  ? progress.ended.ms + header.result_ttl.count()
                  : 0};
    }

   private:
    std::vector<std::uint32_t> without_outcome(std::uint32_t from, std::uint32_t to) const {
      std::vector<std::uint32_t> out;
      for (std::uint32_t i = from; i < to; ++i) {
        if (!outcomes.contains(i)) out.push_back(i);
      }
      return out;
    }
  };
  struct Worker {
    core::WorkerBody body;
    bool connected = false;
    WallMs first, last;
    std::uint64_t completed = 0, failed = 0, run_us = 0;
    core::WorkerQuarantined quarantine;
    bool paused = false, forgotten = false;
  };
  struct Failure {
    core::AttemptFailed record;
    std::string message;
  };
  std::map<std::uint32_t, Job> jobs;
  std::map<std::uint32_t, Worker> workers;
  std::vector<Failure> failures;
  std::map<std::pair<std::uint32_t, int>, std::uint64_t> stats;
  std::map<std::string, core::UserLimits> users;
  core::FarmSet farm;
  std::int64_t clock = 1'700'000'000'000;

  // One random batch; the model is as after it.
  Batch random_batch(Prng& prng) {
    Batch b;
    std::set<std::uint32_t> touched;
    const auto ops = 1 + prng.below(12);
    for (std::uint64_t i = 0; i < ops; ++i) {
      clock += static_cast<std::int64_t>(prng.below(5));
      switch (prng.below(14)) {
        case 11:
          extend(b, prng, touched);
          break;
        case 12:
          pause(prng, touched);
          break;
        case 13:
          set_up(b, prng);
          break;
        case 0:
          add_job(b, prng);
          break;
        case 1:
          see_worker(b, prng);
          break;
        case 2:
        case 3:
          hand_out(prng, touched);
          break;
        case 4:
          keep(b, prng, touched);
          break;
        case 5:
          checkpoint(b, prng, touched);
          break;
        case 6:
          reopen(b, prng, touched);
          break;
        case 7:
          if (prng.below(4) == 0) cancel(b, prng, touched);
          break;
        default:
          end_one(b, prng, touched);
      }
    }
    for (const auto no : touched) b.records.emplace_back(settle(no));
    if (b.records.empty()) add_job(b, prng);
    return b;
  }

 private:
  static std::string bytes(Prng& prng, std::uint64_t below) {
    std::string out(prng.below(below), '\0');
    for (char& c : out) c = static_cast<char>(prng.below(256));
    return out;
  }
  core::ResultBody result(Prng& prng) {
    core::ResultBody r;
    if (prng.below(2) == 0) r.value = bytes(prng, prng.below(10) == 0 ? 20'000 : 40);
    if (prng.below(4) == 0) r.message = bytes(prng, 50);
    if (prng.below(6) == 0) r.traceback = bytes(prng, 3000);
    if (prng.below(4) == 0) r.exit_code = static_cast<std::int32_t>(prng.below(600)) - 300;
    if (prng.below(6) == 0) r.files = bytes(prng, 60);
    if (prng.below(4) == 0) r.exception = "ValueError";
    if (prng.below(4) == 0) r.stage = static_cast<core::Stage>(prng.below(6));
    if (prng.below(6) == 0) r.value_sha256 = fake_sha(prng.below(kShas));
    while (prng.below(6) == 0) r.blobs.push_back(fake_sha(prng.below(kShas)));
    if (prng.below(3) == 0)
      r.queued_us = prng.next() >> 20, r.cpu_us = prng.below(1000), r.max_rss_bytes = prng.next() >> 1;
    return r;
  }
  Job* pick(Prng& prng, bool ended) {
    std::vector<Job*> found;
    for (auto& [no, job] : jobs) {
      if (core::ended(job.progress.state) == ended) found.push_back(&job);
    }
    return found.empty() ? nullptr : found[prng.below(found.size())];
  }
  WorkerNo some_worker(Prng& prng) const {
    return {workers.empty() ? 0 : static_cast<std::uint32_t>(prng.below(workers.size() + 1))};
  }

  void add_job(Batch& b, Prng& prng) {
    const auto no = static_cast<std::uint32_t>(jobs.size() + 1);
    Job job;
    core::JobHeader& h = job.header;
    h = header(prng, no);
    core::JobBody& body = job.body;
    if (prng.below(2) == 0) body.id = fmt::format("job-{}", no);
    if (prng.below(2) == 0) body.key = fmt::format("key {}", no);
    body.digest = fake_sha(no);
    body.name = "name'; --", body.user = h.user, body.engine = "python", body.spec = bytes(prng, 300);
    if (prng.below(3) == 0) {
      body.unique = fmt::format("word {}", prng.below(kWords));
      body.unique_for = Millis{prng.below(2) * 1000};
    }
    body.pages = pages(prng, 0, h.count);
    while (prng.below(3) == 0) body.blobs.push_back(fake_sha(prng.below(kShas)));
    job.progress.job = {no};
    job.progress.count = h.count;
    job.progress.open = h.open;
    job.progress.opened = h.after.empty();
    job.submitted = {clock};
    b.records.emplace_back(core::JobAdded{{no}, b.add(body), h, {clock}});
    jobs[no] = std::move(job);
  }
  static std::vector<core::ArgumentPage> pages(Prng& prng, std::uint32_t first, std::uint32_t end) {
    std::vector<core::ArgumentPage> out;
    while (first < end) {
      core::ArgumentPage page{first, {}, {}};
      for (auto n = 1 + prng.below(8); n > 0 && first < end; --n, ++first) {
        const bool blob = prng.below(5) == 0;
        page.sizes.push_back(blob ? core::ArgumentPage::kBlobSize : static_cast<std::uint32_t>(prng.below(3)));
        page.bytes += blob ? fake_sha(prng.below(kShas)) : std::string(page.sizes.back(), 'a');
      }
      out.push_back(std::move(page));
    }
    return out;
  }
  core::Request request(Prng& prng) {
    core::Request r{.cpus_milli = static_cast<std::uint32_t>(prng.below(5000)),
                    .gpus_milli = static_cast<std::uint32_t>(prng.below(3000)),
                    .memory = prng.next() >> 10,
                    .disk = prng.below(100),
                    .engine = "python"};
    if (prng.below(3) == 0) r.labels = {{"room", bytes(prng, 9), prng.below(2) == 0}, {"zone", "", prng.below(2) == 0}};
    if (prng.below(3) == 0) r.gpu_memory = prng.next();
    if (prng.below(3) == 0) r.model = bytes(prng, 9);
    if (prng.below(3) == 0) r.pool = "fast";
    if (prng.below(3) == 0) r.min_life = Millis{prng.below(90'000)};
    if (prng.below(3) == 0) r.context = static_cast<std::uint32_t>(prng.next());
    return r;
  }
  core::JobHeader header(Prng& prng, std::uint32_t no) {
    core::JobHeader h;
    const auto number = [&](std::uint64_t below) { return static_cast<std::uint32_t>(prng.below(below)); };
    const auto seldom = [&] { return prng.below(4) == 0; };
    h.open = seldom();
    h.count = number(20) + (h.open ? 0 : 1);
    h.request = request(prng);
    h.priority = static_cast<int>(prng.below(2001)) - 1000;
    h.retry = {1 + number(9), Millis{prng.below(5000)}, Millis{prng.below(90'000)}, number(9), {}};
    h.fail_fast = prng.below(2) == 0;
    h.user = prng.below(2) == 0 ? "u" : "";
    while (seldom()) h.alternatives.push_back(request(prng));
    while (seldom()) {
      h.retry.rules.push_back({static_cast<core::FailureClass>(1 + prng.below(7)), seldom() ? bytes(prng, 9) : "",
                               1 + number(9), Millis{prng.below(5000)}, Millis{prng.below(90'000)}});
    }
    if (prng.below(2) == 0) h.kind = "python f";
    if (seldom()) h.weight_milli = 1 + number(9000);
    if (seldom()) h.max_running = number(9000);
    if (seldom()) h.nodes = 1 + number(9);
    if (seldom()) h.not_before = {clock + 5};
    if (seldom()) h.deadline = {static_cast<std::int64_t>(prng.next())};
    while (no > 1 && prng.below(2) == 0) {
      h.after.push_back(
          {{1 + number(no - 1)}, seldom() ? number(UINT32_MAX) : core::Dependency::kAll, seldom(), prng.below(2) == 0});
    }
    h.when = static_cast<core::When>(prng.below(3));
    if (seldom()) h.speculation = {prng.below(2) == 0, number(9000), number(9)};
    if (seldom()) h.result_ttl = Millis{prng.below(50)};
    return h;
  }
  void extend(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    Job* job = pick(prng, false);
    if (job == nullptr || !job->header.open) return;
    const std::uint32_t first = job->header.count;
    const auto count = static_cast<std::uint32_t>(prng.below(9));
    const std::string key = prng.below(2) == 0 ? fmt::format("add {}", job->extends.size()) : "";
    if (!key.empty()) job->extends[key] = first + count;
    if (count > 0 || !key.empty()) {
      core::JobBody more;
      more.pages = pages(prng, first, first + count);
      while (prng.below(3) == 0) more.blobs.push_back(fake_sha(prng.below(kShas)));
      job->body.pages.insert(job->body.pages.end(), more.pages.begin(), more.pages.end());
      job->body.blobs.insert(job->body.blobs.end(), more.blobs.begin(), more.blobs.end());
      job->header.count += count;
      b.records.emplace_back(core::JobExtended{job->progress.job, first, count, b.add(std::move(more)), key});
    }
    job->header.open = prng.below(3) != 0;
    touched.insert(job->progress.job.value);
  }
  void pause(Prng& prng, std::set<std::uint32_t>& touched) {
    Job* job = pick(prng, false);
    if (job == nullptr) return;
    job->progress.paused = prng.below(2) == 0;
    job->progress.opened |= prng.below(2) == 0;
    touched.insert(job->progress.job.value);
  }
  void set_up(Batch& b, Prng& prng) {
    if (prng.below(2) == 0) {
      farm.paused = !farm.paused;
      if (prng.below(2) == 0) farm.policy = bytes(prng, 9), farm.policy_over = "fair";
      b.records.emplace_back(farm);
      return;
    }
    const std::string user = prng.below(2) == 0 ? "" : bytes(prng, 3);
    const auto number = [&] { return static_cast<std::uint32_t>(prng.next()); };
    core::UserLimits limits;
    if (prng.below(3) != 0) limits = {number(), number(), number(), number(), prng.next(), number(), number()};
    b.records.emplace_back(core::UserSet{user, limits});
    limits == core::UserLimits{} ? void(users.erase(user)) : void(users[user] = limits);
  }
  void see_worker(Batch& b, Prng& prng) {
    const auto no = 1 + static_cast<std::uint32_t>(prng.below(workers.size() + 1));
    const bool fresh = !workers.contains(no);
    Worker& w = workers[no];
    w.connected = prng.below(2) == 0;
    w.last = {clock};
    if (fresh) w.first = {clock};
    core::BodyRef ref = core::kNoBody;
    if (fresh || prng.below(2) == 0) {
      w.body = {fmt::format("worker-{}", no), bytes(prng, 9), bytes(prng, 99)};
      ref = b.add(w.body);
      w.forgotten = false;
    }
    b.records.emplace_back(core::WorkerSeen{{no}, w.connected, ref, {clock}});
    if (prng.below(4) == 0) {
      w.paused = prng.below(2) == 0;
      const bool forget = !w.paused && !w.connected && prng.below(2) == 0;
      w.forgotten = w.forgotten || forget;  // a mark alone does not bring it back
      b.records.emplace_back(core::WorkerMarked{{no}, w.paused, forget});
    }
    if (prng.below(4) != 0) return;
    w.quarantine = {
        {no}, {static_cast<std::int64_t>(prng.below(2)) * clock}, static_cast<std::uint32_t>(prng.below(9))};
    b.records.emplace_back(w.quarantine);
  }
  void hand_out(Prng& prng, std::set<std::uint32_t>& touched) {
    Job* job = pick(prng, false);
    if (job == nullptr) return;
    auto& p = job->progress;
    p.next_index += static_cast<std::uint32_t>(prng.below(job->header.count - p.next_index + 1));
    if (p.next_index == 0) return;
    if (p.state == core::JobState::pending) p.started = {clock};
    p.state = core::JobState::running;
    touched.insert(p.job.value);
  }
  void end_task(Batch& b, Prng& prng, Job& job, std::uint32_t index, core::TaskEnd end) {
    Outcome o;
    o.ended = {TaskId::of(job.progress.job, index),
               end,
               core::FailureClass::none,
               1 + static_cast<Attempt>(prng.below(3)),
               some_worker(prng),
               core::kNoBody,
               {clock},
               prng.below(1'000'000)};
    if (end == core::TaskEnd::failed) o.ended.failure = static_cast<core::FailureClass>(1 + prng.below(10));
    if (prng.below(3) != 0) {
      o.body = result(prng);
      o.ended.body = b.add(o.body);
    }
    if (auto w = workers.find(o.ended.worker.value); w != workers.end()) {
      if (end == core::TaskEnd::completed) ++w->second.completed;
      w->second.run_us += o.ended.run_us;
    }
    b.records.emplace_back(o.ended);
    job.outcomes[index] = o;
    job.kept.erase(index);
    job.checkpoints.erase(index);
    auto& c = job.progress.counts;
    ++(end == core::TaskEnd::completed ? c.completed : end == core::TaskEnd::failed ? c.failed : c.cancelled);
  }
  Job* pick_open(Prng& prng, std::uint32_t& index) {
    Job* job = pick(prng, false);
    if (job == nullptr) return nullptr;
    const auto open = prng.below(4) == 0 ? job->ahead() : job->open();
    if (open.empty()) return nullptr;
    job->progress.state = core::JobState::running;
    index = open[prng.below(open.size())];
    return job;
  }
  void end_one(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    std::uint32_t index = 0;
    Job* job = pick_open(prng, index);
    if (job == nullptr) return;
    end_task(b, prng, *job, index, static_cast<core::TaskEnd>(1 + prng.below(3)));
    touched.insert(job->progress.job.value);
  }
  void keep(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    std::uint32_t index = 0;
    Job* job = pick_open(prng, index);
    if (job == nullptr) return;
    const TaskId task = TaskId::of(job->progress.job, index);
    Failure f;
    f.record = {.task = task,
                .attempt = 1,
                .worker = some_worker(prng),
                .failure = static_cast<core::FailureClass>(1 + prng.below(7)),
                .stage = static_cast<core::Stage>(prng.below(6)),
                .at = {clock}};
    if (prng.below(2) == 0) {
      core::ResultBody body;
      body.message = f.message = bytes(prng, 30);
      f.record.body = b.add(body);
    }
    b.records.emplace_back(f.record);
    if (auto w = workers.find(f.record.worker.value); w != workers.end()) ++w->second.failed;
    if (f.record.worker.value != 0) ++stats[{f.record.worker.value, static_cast<int>(f.record.failure)}];
    failures.push_back(f);
    core::TaskKept kept{.task = task,
                        .attempt = 1 + static_cast<Attempt>(prng.below(5)),
                        .parked = prng.below(3) == 0,
                        .ready_at = {clock + 7}};
    kept.requeue = kept.parked && prng.below(2) == 0;
    for (auto& n : kept.failures) n = static_cast<std::uint8_t>(prng.below(4) == 0 ? prng.below(256) : 0);
    b.records.emplace_back(kept);
    job->kept[index] = kept;
    touched.insert(job->progress.job.value);
  }
  void checkpoint(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    std::uint32_t index = 0;
    Job* job = pick_open(prng, index);
    if (job == nullptr) return;
    core::CheckpointBody body{bytes(prng, 100), {}};
    if (prng.below(2) == 0) body = {{}, fake_sha(prng.below(kShas))};
    b.records.emplace_back(core::CheckpointKept{TaskId::of(job->progress.job, index), 1, b.add(body)});
    job->checkpoints[index] = body;
    touched.insert(job->progress.job.value);
  }
  void reopen(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    Job* job = pick(prng, prng.below(2) == 0);
    if (job == nullptr || job->progress.state == core::JobState::cancelled ||
        job->progress.state == core::JobState::pending)
      return;
    std::vector<std::uint32_t> failed;
    for (const auto& [index, o] : job->outcomes) {
      if (o.ended.end == core::TaskEnd::failed) failed.push_back(index);
    }
    for (const auto index : failed) {
      const TaskId task = TaskId::of(job->progress.job, index);
      b.records.emplace_back(core::TaskReopened{task});
      const core::TaskKept kept{.task = task, .attempt = 9};
      b.records.emplace_back(kept);
      job->outcomes.erase(index);
      job->kept[index] = kept;
      --job->progress.counts.failed;
    }
    if (failed.empty()) return;
    job->progress.state = core::JobState::running;
    job->progress.ended = {};
    touched.insert(job->progress.job.value);
  }
  void cancel(Batch& b, Prng& prng, std::set<std::uint32_t>& touched) {
    Job* job = pick(prng, false);
    if (job == nullptr) return;
    for (const auto index : job->open()) end_task(b, prng, *job, index, core::TaskEnd::cancelled);
    while (!job->kept.empty()) end_task(b, prng, *job, job->kept.begin()->first, core::TaskEnd::cancelled);
    while (!job->checkpoints.empty())
      end_task(b, prng, *job, job->checkpoints.begin()->first, core::TaskEnd::cancelled);
    job->progress.counts.cancelled += static_cast<std::uint32_t>(job->ahead().size());
    if (prng.below(2) == 0) {
      core::ResultBody why;
      why.message = job->reason = prng.below(3) == 0 ? "" : "it's enough";
      b.records.emplace_back(core::JobCancelled{job->progress.job, b.add(std::move(why))});
    }
    job->header.open = false;
    job->progress.state = core::JobState::cancelled;
    job->progress.ended = {clock};
    touched.insert(job->progress.job.value);
  }
  core::JobProgressed settle(std::uint32_t no) {
    Job& job = jobs.at(no);
    auto& p = job.progress;
    p.count = job.header.count;
    p.open = job.header.open;
    if (p.state == core::JobState::running && !p.open && p.counts.ended() == p.count) {
      p.state = p.counts.failed != 0 ? core::JobState::failed : core::JobState::completed;
      p.ended = {clock};
    }
    return p;
  }
};

inline std::string describe_request(const core::Request& r) {
  std::string out = fmt::format("{} {} {} {} {} {} {:?} {} {} {}", r.cpus_milli, r.gpus_milli, r.memory, r.disk,
                                r.gpu_memory, r.engine, fmt::join(r.model, ","), r.context, r.pool, r.min_life.count());
  for (const auto& l : r.labels) out += fmt::format(" {}{}={}", l.negate ? "not " : "", l.key, l.value);
  return out;
}
inline std::string describe_header(const core::JobHeader& h) {
  std::string out =
      fmt::format("{} {} {} {} {} {} {} {}", h.count, describe_request(h.request), h.priority, h.retry.max_attempts,
                  h.retry.base.count(), h.retry.cap.count(), h.retry.crash_limit, h.fail_fast);
  for (const auto& r : h.alternatives) out += " or " + describe_request(r);
  for (const auto& r : h.retry.rules) {
    out += fmt::format(" on {} {} {} {} {}", static_cast<int>(r.failure), r.exception, r.max_attempts, r.base.count(),
                       r.cap.count());
  }
  out += fmt::format(" | {} {} {} {} {} {} {} {}", h.open, h.user, h.kind, h.weight_milli, h.max_running, h.nodes,
                     h.not_before.ms, h.deadline.ms);
  for (const auto& d : h.after) out += fmt::format(" after {} {} {} {}", d.job.value, d.index, d.each, d.pass);
  out += fmt::format(" | {} {} {} {} {}", static_cast<int>(h.when), h.speculation.on, h.speculation.factor_milli,
                     h.speculation.min_done, h.result_ttl.count());
  return out;
}
inline std::string describe_progress(const core::JobProgressed& p) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {}", static_cast<int>(p.state), p.next_index, p.counts.completed,
                     p.counts.failed, p.counts.cancelled, p.started.ms, p.ended.ms, p.count, p.open, p.opened,
                     p.paused);
}
inline std::string describe_user(const std::string& name, const core::UserLimits& l) {
  return fmt::format("user {:?} {} {} {} {} {} {} {}", fmt::join(name, ","), l.weight_milli, l.max_running,
                     l.max_cpus_milli, l.max_gpus_milli, l.max_queued, l.starts_per_minute, l.submits_per_minute);
}
inline std::string describe_body(const core::ResultBody& b) {
  return fmt::format("{} {} {:?} {} {:?} {:?} {} {:?} {} {} {} {}", b.exception, static_cast<int>(b.stage),
                     fmt::join(b.value, ","), b.value_sha256, fmt::join(b.message, ","), fmt::join(b.traceback, ","),
                     b.exit_code, fmt::join(b.files, ","), fmt::join(b.blobs, " "), b.queued_us, b.cpu_us,
                     b.max_rss_bytes);
}
inline std::string describe_kept(const core::TaskKept& k) {
  return fmt::format("{} {} {} {} {} {}", k.task.packed, k.attempt, k.failures, k.parked, k.requeue, k.ready_at.ms);
}

inline constexpr std::int64_t kSince[] = {0, 1'700'000'000'500, INT64_MAX};

inline std::string describe(const Model& m) {
  std::string out;
  const auto say = [&](auto format, const auto&... args) { out += fmt::format(fmt::runtime(format), args...) + "\n"; };
  Totals t;
  std::set<std::string> held;
  std::vector<std::string> loaded, dead;
  for (const auto& [no, job] : m.jobs) {
    const auto& p = job.progress;
    say("job {} {} {} {} {} [{}] [{}] {} {}", no, job.body.id.empty() ? std::to_string(no) : job.body.id, job.body.name,
        job.body.user, job.body.engine, describe_header(job.header), describe_progress(p), job.submitted.ms,
        job.expires().ms);
    if (!job.body.key.empty()) say("key {} {}", job.body.key, job.body.digest);
    say("spec {}", job.body.spec);
    for (const auto& page : job.body.pages) say("page {} {} {}", page.first, fmt::join(page.sizes, ","), page.bytes);
    if (!core::ended(p.state)) {
      say("open {} skipped {}", fmt::join(job.open(), ","), fmt::join(job.skipped(), ","));
      for (const auto& [index, k] : job.kept) loaded.push_back("loaded " + describe_kept(k));
    }
    std::string unhappy;
    for (const auto& [index, o] : job.outcomes) {
      const auto& e = o.ended;
      say("outcome {} {} {} {} {} {} {} {}", index, static_cast<int>(e.end), static_cast<int>(e.failure), e.attempt,
          e.worker.value, e.at.ms, e.run_us, describe_body(o.body));
      if (e.end == core::TaskEnd::failed)
        dead.insert(dead.begin(), fmt::format("dead {} {}", e.task.packed, o.body.message));
      if (e.end != core::TaskEnd::completed) {
        unhappy += fmt::format(" {}:{}:{}:{}", index, static_cast<int>(e.end), static_cast<int>(e.failure), e.attempt);
      }
      held.insert(o.body.blobs.begin(), o.body.blobs.end());
      held.insert(o.body.value_sha256);
    }
    say("unhappy{}", unhappy);
    say("reason {}", job.reason);
    for (const auto& [key, total] : job.extends) say("{} {}", key, total);
    for (const auto& [index, k] : job.kept) say("kept {}", describe_kept(k));
    for (const auto& [index, c] : job.checkpoints) {
      say("checkpoint {} {} {}", index, c.data, c.data_sha256);
      held.insert(c.data_sha256);
    }
    held.insert(job.body.blobs.begin(), job.body.blobs.end());
    ++t.jobs;
    std::uint64_t* by_state[] = {&t.jobs_pending, &t.jobs_running, &t.jobs_completed, &t.jobs_failed,
                                 &t.jobs_cancelled};
    ++*by_state[static_cast<int>(p.state)];
    t.tasks_submitted += job.header.count;
    t.tasks_completed += p.counts.completed;
    t.tasks_failed += p.counts.failed;
    t.tasks_cancelled += p.counts.cancelled;
  }
  for (auto it = m.failures.rbegin(); it != m.failures.rend(); ++it) {
    say("failure {} {} {} {} {} {} {}", it->record.task.packed, it->record.attempt, it->record.worker.value,
        static_cast<int>(it->record.failure), static_cast<int>(it->record.stage), it->message, it->record.at.ms);
  }
  for (const auto& line : loaded) say("{}", line);
  for (const auto& line : dead) say("{}", line);
  for (const auto& [name, limits] : m.users) say("{}", describe_user(name, limits));
  say("paused {} {} {}", m.farm.paused, fmt::join(m.farm.policy, ","), m.farm.policy_over);
  for (const std::int64_t since : kSince) {
    for (std::uint64_t w = 0; w < kWords; ++w) {
      std::uint32_t newest = 0;
      for (const auto& [no, job] : m.jobs) {
        if (job.body.unique != fmt::format("word {}", w)) continue;
        if (!core::ended(job.progress.state) || job.submitted.ms >= since) newest = no;
      }
      say("unique {} {}", w, newest);
    }
  }
  for (const auto& [key, n] : m.stats) say("stat {} {} {}", key.first, key.second, n);
  for (const auto& [no, w] : m.workers) {
    say("marked {} {} {}", no, w.paused, w.forgotten);
    say("worker {} {} {} {} {} {} {} {} {} {}", no, w.body.id, w.body.name, w.body.manifest, w.connected, w.first.ms,
        w.last.ms, w.completed, w.failed, w.run_us);
    say("quarantine {} {} {}", no, w.quarantine.until.ms, w.quarantine.times);
  }
  say("totals {} {} {} {} {} {} {} {} {} {}", t.jobs, t.jobs_pending, t.jobs_running, t.jobs_completed, t.jobs_failed,
      t.jobs_cancelled, t.tasks_submitted, t.tasks_completed, t.tasks_failed, t.tasks_cancelled);
  for (std::uint64_t n = 0; n < kShas; ++n) say("held {} {}", n, held.contains(fake_sha(n)));
  return out;
}

// The same of what a store says after a start: from `loaded` what it has, the rest from the reader.
inline std::string describe(const Loaded& loaded, Reader& r) {
  std::string out;
  const auto say = [&](auto format, const auto&... args) { out += fmt::format(fmt::runtime(format), args...) + "\n"; };
  JobFilter all;
  all.limit = 100'000;
  auto rows = *r.jobs(all);
  std::reverse(rows.begin(), rows.end());
  std::map<std::uint32_t, const Loaded::Job*> live;
  for (const auto& job : loaded.jobs) live[job.job.value] = &job;
  std::size_t used = 0;
  for (const JobRow& row : rows) {
    const auto no = row.job;
    const core::JobProgressed progress{no,        row.state, row.next_index, row.counts, row.started,
                                       row.ended, row.count, row.open,       row.opened, row.paused};
    const auto header = *r.header(no);
    say("job {} {} {} {} {} [{}] [{}] {} {}", no.value, row.id, row.name, row.user, row.engine,
        header ? describe_header(*header) : "none", describe_progress(progress), row.submitted.ms, row.expires.ms);
    if (*r.find_job(row.id) != no) say("not found by id");
    if (header->count != row.count || header->priority != row.priority) say("row and header differ");
    if (const auto key = *r.find_key(fmt::format("key {}", no.value)))
      say("key key {} {}", key->first.value, key->second);
    say("spec {}", *r.spec(no));
    for (std::uint32_t at = 0; at < row.count;) {
      const auto page = *r.page(no, at);
      if (!page) {
        say("no page at {}", at);
        break;
      }
      say("page {} {} {}", page->first, fmt::join(page->sizes, ","), page->bytes);
      at = page->first + static_cast<std::uint32_t>(page->sizes.size());
    }
    if (const auto it = live.find(no.value); it != live.end()) {
      ++used;
      if (describe_header(it->second->header) != describe_header(*header) ||
          describe_progress(it->second->progress) != describe_progress(progress) || it->second->id != row.id) {
        say("loaded and read differ");
      }
      say("open {} skipped {}", fmt::join(it->second->open, ","), fmt::join(it->second->skipped, ","));
    }
    for (const auto& o : take(r.outcomes(no, 0, 100'000, true))) {
      say("outcome {} {} {} {} {} {} {} {}", o.task.index(), static_cast<int>(o.end), static_cast<int>(o.failure),
          o.attempt, o.worker.value, o.at.ms, o.run_us, describe_body(o.body));
    }
    std::string unhappy;
    for (const auto& o : take(r.unhappy(no))) {
      unhappy +=
          fmt::format(" {}:{}:{}:{}", o.task.index(), static_cast<int>(o.end), static_cast<int>(o.failure), o.attempt);
    }
    say("unhappy{}", unhappy);
    say("reason {}", row.reason);
    for (std::size_t n = 0;; ++n) {
      const std::string key = fmt::format("add {}", n);
      const auto total = *r.find_extend(no, key);
      if (!total) break;
      say("{} {}", key, *total);
    }
    for (const auto& k : take(r.kept(no))) say("kept {}", describe_kept(k));
    for (std::uint32_t i = 0; i < row.count; ++i) {
      if (const auto c = *r.checkpoint(TaskId::of(no, i))) say("checkpoint {} {} {}", i, c->data, c->data_sha256);
    }
  }
  if (used != loaded.jobs.size()) say("loaded jobs that are not listed");
  for (const auto& f : take(r.failures({}, {}, 0, 0, 100'000))) {
    say("failure {} {} {} {} {} {} {}", f.task.packed, f.attempt, f.worker.value, static_cast<int>(f.failure),
        static_cast<int>(f.stage), f.message, f.at.ms);
  }
  for (const auto& k : loaded.tasks) say("loaded {}", describe_kept(k));
  DeadFilter filter;
  filter.limit = 3;
  for (auto page = take(r.dead(filter)); !page.empty(); page = take(r.dead(filter))) {
    for (const auto& o : page) say("dead {} {}", o.task.packed, o.body.message);
    filter.before = page.back().task;
  }
  for (const auto& user : loaded.users) say("{}", describe_user(user.user, user.limits));
  say("paused {} {} {}", loaded.farm.paused, fmt::join(loaded.farm.policy, ","), loaded.farm.policy_over);
  for (const std::int64_t since : kSince) {
    for (std::uint64_t w = 0; w < kWords; ++w) {
      say("unique {} {}", w, take(r.find_unique(fmt::format("word {}", w), {since})).value_or(JobNo{}).value);
    }
  }
  for (const auto& [worker, classes] : take(r.failure_stats())) {
    for (const auto& [cls, n] : classes) say("stat {} {} {}", worker.value, static_cast<int>(cls), n);
  }
  for (const auto& w : take(r.workers())) {
    say("marked {} {} {}", w.worker.value, w.paused, w.forgotten);
    say("worker {} {} {} {} {} {} {} {} {} {}", w.worker.value, w.id, w.name, w.manifest, w.connected, w.first_seen.ms,
        w.last_seen.ms, w.completed, w.failed, w.run_us);
    for (const auto& l : loaded.workers) {
      if (l.worker == w.worker) say("quarantine {} {} {}", l.worker.value, l.quarantine.until.ms, l.quarantine.times);
    }
  }
  const Totals t = *r.totals();
  say("totals {} {} {} {} {} {} {} {} {} {}", t.jobs, t.jobs_pending, t.jobs_running, t.jobs_completed, t.jobs_failed,
      t.jobs_cancelled, t.tasks_submitted, t.tasks_completed, t.tasks_failed, t.tasks_cancelled);
  for (std::uint64_t n = 0; n < kShas; ++n) say("held {} {}", n, *r.blob_in_use(fake_sha(n)));
  return out;
}

// Where two descriptions part, or empty.
inline std::string difference(const std::string& want, const std::string& is) {
  if (want == is) return {};
  std::size_t at = 0;
  while (at < want.size() && at < is.size() && want[at] == is[at]) ++at;
  at = at == 0 ? 0 : want.rfind('\n', at - 1) + 1;
  return fmt::format("want: {:.300}\n  is: {:.300}", want.substr(at, want.find('\n', at) - at),
                     is.substr(at, is.find('\n', at) - at));
}

}  // namespace grange::store::testing
