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
    std::vector<std::uint32_t> open() const {
      std::vector<std::uint32_t> out;
      for (std::uint32_t i = 0; i < progress.next_index; ++i) {
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
  };
  struct Failure {
    core::AttemptFailed record;
    std::string message;
  };
  std::map<std::uint32_t, Job> jobs;
  std::map<std::uint32_t, Worker> workers;
  std::vector<Failure> failures;
  std::map<std::pair<std::uint32_t, int>, std::uint64_t> stats;
  std::int64_t clock = 1'700'000'000'000;

  // One random batch; the model is as after it.
  Batch random_batch(Prng& prng) {
    Batch b;
    std::set<std::uint32_t> touched;
    const auto ops = 1 + prng.below(12);
    for (std::uint64_t i = 0; i < ops; ++i) {
      clock += static_cast<std::int64_t>(prng.below(5));
      switch (prng.below(11)) {
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
    h.count = 1 + static_cast<std::uint32_t>(prng.below(20));
    h.request = {static_cast<std::uint32_t>(prng.below(5000)),
                 static_cast<std::uint32_t>(prng.below(3000)),
                 prng.next() >> 10,
                 prng.below(100),
                 "python",
                 {}};
    if (prng.below(3) == 0) h.request.labels = {{"room", bytes(prng, 9)}, {"zone", ""}};
    h.priority = static_cast<int>(prng.below(2001)) - 1000;
    h.retry = {1 + static_cast<std::uint32_t>(prng.below(9)), Millis{prng.below(5000)}, Millis{prng.below(90'000)},
               static_cast<std::uint32_t>(prng.below(9))};
    h.fail_fast = prng.below(2) == 0;
    core::JobBody& body = job.body;
    if (prng.below(2) == 0) body.id = fmt::format("job-{}", no);
    if (prng.below(2) == 0) body.key = fmt::format("key {}", no);
    body.digest = fake_sha(no);
    body.name = "name'; --", body.user = "u", body.engine = "python", body.spec = bytes(prng, 300);
    for (std::uint32_t first = 0; first < h.count;) {
      core::ArgumentPage page{first, {}, {}};
      for (auto n = 1 + prng.below(8); n > 0 && first < h.count; --n, ++first) {
        const bool blob = prng.below(5) == 0;
        page.sizes.push_back(blob ? core::ArgumentPage::kBlobSize : static_cast<std::uint32_t>(prng.below(3)));
        page.bytes += blob ? fake_sha(prng.below(kShas)) : std::string(page.sizes.back(), 'a');
      }
      body.pages.push_back(std::move(page));
    }
    while (prng.below(3) == 0) body.blobs.push_back(fake_sha(prng.below(kShas)));
    job.progress.job = {no};
    job.submitted = {clock};
    b.records.emplace_back(core::JobAdded{{no}, b.add(body), h, {clock}});
    jobs[no] = std::move(job);
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
    }
    b.records.emplace_back(core::WorkerSeen{{no}, w.connected, ref, {clock}});
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
    if (end == core::TaskEnd::failed) o.ended.failure = static_cast<core::FailureClass>(1 + prng.below(8));
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
    const auto open = job->open();
    if (open.empty()) return nullptr;
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
    f.record = {task, 1, some_worker(prng), static_cast<core::FailureClass>(1 + prng.below(8)), core::kNoBody, {clock}};
    if (prng.below(2) == 0) {
      core::ResultBody body;
      body.message = f.message = bytes(prng, 30);
      f.record.body = b.add(body);
    }
    b.records.emplace_back(f.record);
    if (auto w = workers.find(f.record.worker.value); w != workers.end()) ++w->second.failed;
    if (f.record.worker.value != 0) ++stats[{f.record.worker.value, static_cast<int>(f.record.failure)}];
    failures.push_back(f);
    const core::TaskKept kept{task,
                              2 + static_cast<Attempt>(prng.below(5)),
                              static_cast<std::uint16_t>(prng.below(9)),
                              static_cast<std::uint16_t>(prng.below(9)),
                              {clock + 7}};
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
      const core::TaskKept kept{task, 9, 0, 0, {}};
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
    job->progress.counts.cancelled += job->header.count - job->progress.next_index;
    job->progress.state = core::JobState::cancelled;
    job->progress.ended = {clock};
    touched.insert(job->progress.job.value);
  }
  core::JobProgressed settle(std::uint32_t no) {
    Job& job = jobs.at(no);
    auto& p = job.progress;
    if (p.state == core::JobState::running && p.counts.ended() == job.header.count) {
      p.state = p.counts.failed != 0 ? core::JobState::failed : core::JobState::completed;
      p.ended = {clock};
    }
    return p;
  }
};

inline std::string describe_header(const core::JobHeader& h) {
  return fmt::format("{} {} {} {} {} {} {} | {} {} {} {} {} {}", h.count, h.request.cpus_milli, h.request.gpus_milli,
                     h.request.memory, h.request.disk, h.request.engine, h.request.labels, h.priority,
                     h.retry.max_attempts, h.retry.base.count(), h.retry.cap.count(), h.retry.crash_limit, h.fail_fast);
}
inline std::string describe_progress(const core::JobProgressed& p) {
  return fmt::format("{} {} {} {} {} {} {}", static_cast<int>(p.state), p.next_index, p.counts.completed,
                     p.counts.failed, p.counts.cancelled, p.started.ms, p.ended.ms);
}
inline std::string describe_body(const core::ResultBody& b) {
  return fmt::format("{:?} {} {:?} {:?} {} {:?} {} {} {} {}", fmt::join(b.value, ","), b.value_sha256,
                     fmt::join(b.message, ","), fmt::join(b.traceback, ","), b.exit_code, fmt::join(b.files, ","),
                     fmt::join(b.blobs, " "), b.queued_us, b.cpu_us, b.max_rss_bytes);
}
inline std::string describe_kept(const core::TaskKept& k) {
  return fmt::format("{} {} {} {} {}", k.task.packed, k.attempt, k.failures, k.crashes, k.ready_at.ms);
}

inline std::string describe(const Model& m) {
  std::string out;
  const auto say = [&](auto format, const auto&... args) { out += fmt::format(fmt::runtime(format), args...) + "\n"; };
  Totals t;
  std::set<std::string> held;
  for (const auto& [no, job] : m.jobs) {
    const auto& p = job.progress;
    say("job {} {} {} {} {} [{}] [{}] {}", no, job.body.id.empty() ? std::to_string(no) : job.body.id, job.body.name,
        job.body.user, job.body.engine, describe_header(job.header), describe_progress(p), job.submitted.ms);
    if (!job.body.key.empty()) say("key {} {}", job.body.key, job.body.digest);
    say("spec {}", job.body.spec);
    for (const auto& page : job.body.pages) say("page {} {} {}", page.first, fmt::join(page.sizes, ","), page.bytes);
    if (!core::ended(p.state)) say("open {}", fmt::join(job.open(), ","));
    std::vector<std::uint32_t> failed, cancelled;
    for (const auto& [index, o] : job.outcomes) {
      const auto& e = o.ended;
      say("outcome {} {} {} {} {} {} {} {}", index, static_cast<int>(e.end), static_cast<int>(e.failure), e.attempt,
          e.worker.value, e.at.ms, e.run_us, describe_body(o.body));
      if (e.end == core::TaskEnd::failed) failed.push_back(index);
      if (e.end == core::TaskEnd::cancelled) cancelled.push_back(index);
      held.insert(o.body.blobs.begin(), o.body.blobs.end());
      held.insert(o.body.value_sha256);
    }
    say("failed {} cancelled {}", fmt::join(failed, ","), fmt::join(cancelled, ","));
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
    say("failure {} {} {} {} {} {}", it->record.task.packed, it->record.attempt, it->record.worker.value,
        static_cast<int>(it->record.failure), it->message, it->record.at.ms);
  }
  for (const auto& [key, n] : m.stats) say("stat {} {} {}", key.first, key.second, n);
  for (const auto& [no, w] : m.workers) {
    say("worker {} {} {} {} {} {} {} {} {} {}", no, w.body.id, w.body.name, w.body.manifest, w.connected, w.first.ms,
        w.last.ms, w.completed, w.failed, w.run_us);
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
    const core::JobProgressed progress{no, row.state, row.next_index, row.counts, row.started, row.ended};
    const auto header = *r.header(no);
    say("job {} {} {} {} {} [{}] [{}] {}", no.value, row.id, row.name, row.user, row.engine,
        header ? describe_header(*header) : "none", describe_progress(progress), row.submitted.ms);
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
      say("open {}", fmt::join(it->second->open, ","));
    }
    for (const auto& o : take(r.outcomes(no, 0, 100'000, true))) {
      say("outcome {} {} {} {} {} {} {} {}", o.task.index(), static_cast<int>(o.end), static_cast<int>(o.failure),
          o.attempt, o.worker.value, o.at.ms, o.run_us, describe_body(o.body));
    }
    say("failed {} cancelled {}", fmt::join(*r.failed_indices(no), ","), fmt::join(*r.cancelled_indices(no), ","));
    for (const auto& k : take(r.kept(no))) say("kept {}", describe_kept(k));
    for (std::uint32_t i = 0; i < row.count; ++i) {
      if (const auto c = *r.checkpoint(TaskId::of(no, i))) say("checkpoint {} {} {}", i, c->data, c->data_sha256);
    }
  }
  if (used != loaded.jobs.size()) say("loaded jobs that are not listed");
  for (const auto& f : take(r.failures({}, {}, 0, 0, 100'000))) {
    say("failure {} {} {} {} {} {}", f.task.packed, f.attempt, f.worker.value, static_cast<int>(f.failure), f.message,
        f.at.ms);
  }
  for (const auto& [worker, classes] : take(r.failure_stats())) {
    for (const auto& [cls, n] : classes) say("stat {} {} {}", worker.value, static_cast<int>(cls), n);
  }
  for (const auto& w : take(r.workers())) {
    say("worker {} {} {} {} {} {} {} {} {} {}", w.worker.value, w.id, w.name, w.manifest, w.connected, w.first_seen.ms,
        w.last_seen.ms, w.completed, w.failed, w.run_us);
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
