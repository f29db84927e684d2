// The process dies between any two steps of a batch's way: sealed, committed, released. What was said before must be
// true after, and nothing may be said before it is on disk.
#include "queue/queue_for_test.hpp"

namespace grange::queue {
namespace {

using core::TaskEnd;
using grange::testing::Fault;
using grange::testing::LossyDisk;
using testing::Cell;
using testing::hello_of;
using testing::result_of;

// Where a life ends.
enum class End : std::uint8_t { none, unsealed, sealed, in_commit, committed, told, released };
constexpr std::uint64_t kEnds = 7;

// What clients and workers were told; it survives every crash.
struct Outside {
  struct Job {
    std::uint32_t count = 0;
    bool open = false;
  };
  std::map<std::string, JobNo> keys;  // of acknowledged submits
  std::map<JobNo, Job> jobs;
  std::map<std::pair<JobNo, std::string>, std::uint32_t> extends;  // by key: what was answered
  std::map<TaskId, std::pair<TaskEnd, std::string>> ended;
  std::set<std::pair<TaskId, Attempt>> handed_out;
  std::map<TaskId, Fence> holds;  // of the one worker
  std::uint64_t answers = 0, refusals = 0, same_again = 0;
};

class Life {
 public:
  Life(LossyDisk& disk, Prng& prng, Outside& outside, Now& clock)
      : disk_(disk), prng_(prng), out_(outside), clock_(clock) {}

  // False: it died. True: it was told to go on until `turns` are over.
  void live(std::uint32_t turns, End end, std::uint32_t at) {
    Cell cell(disk_);
    cell_ = &cell;
    cell.now = clock_;
    // The worker's tasks of the last life are lost unless it says them; half of the time it does.
    check_store(*cell.reader);
    cell.seen = [&](const Delivery& d) { delivered(d); };
    HelloCall hello = hello_of("w", 8);
    if (prng_.below(2) == 0) {
      for (const auto& [task, fence] : out_.holds) hello.held.push_back({fence, true});
    } else {
      out_.holds.clear();
    }
    hello.done = [&](Result<HelloCall::Answer> r) {
      ASSERT_TRUE(r.ok());
      worker_ = r->worker;
      for (const Fence& f : r->refused) out_.holds.erase(f.task);
    };
    cell.turn->take(std::move(hello), cell.now);
    for (std::uint32_t i = 0; i < turns && !::testing::Test::HasFatalFailure(); ++i) {
      cell.pass(Millis{static_cast<std::int64_t>(prng_.below(3) == 0 ? prng_.below(3000) : 5)});
      cell.turn->take(AliveCall{worker_}, cell.now);
      for (auto n = prng_.below(4); n > 0; --n) something();
      for (Call& call : std::exchange(cell.later, {})) cell.turn->take(std::move(call), cell.now);
      cell.turn->turn(cell.now, false);
      if (i == at && end == End::unsealed) break;
      auto batch = cell.turn->seal(cell.now);
      if (batch == nullptr) continue;
      if (i >= at && end != End::none) {
        die(*batch, end);
        break;
      }
      commit(*batch);
      tell(*batch);
    }
    clock_ = cell.now;
    cell_ = nullptr;
  }

  // To the end: everything that can run does.
  void finish() {
    Cell cell(disk_);
    cell_ = &cell;
    cell.now = clock_;
    check_store(*cell.reader);
    cell.seen = [&](const Delivery& d) { delivered(d); };
    out_.holds.clear();
    worker_ = cell.hello("w", 64);
    for (const auto& job : cell.turn->farm().jobs()) {  // those whose submit was never answered, too
      if (!job.open) continue;
      ExtendCall close;
      close.job = job.job;
      close.close = true;
      ASSERT_TRUE(cell.ask<std::uint32_t>(close).ok());
    }
    for (int i = 0; i < 20'000 && cell.turn->farm().view().live_jobs > 0; ++i) {
      cell.pass(Millis{100});
      cell.turn->take(AliveCall{worker_}, cell.now);
      ReportCall report;
      report.worker = worker_;
      for (const auto& [task, fence] : out_.holds) report.results.push_back(result_of(fence, true, value_of(fence)));
      out_.holds.clear();
      cell.report(std::move(report));
    }
    ASSERT_EQ(cell.turn->farm().view().live_jobs, 0u);
    for (const auto& [no, job] : out_.jobs) {
      const auto row = cell.reader->job(no).value();
      ASSERT_TRUE(row && core::ended(row->state)) << no.value;
      ASSERT_EQ(row->counts.ended(), row->count) << no.value;
    }
    check_store(*cell.reader);
    cell_ = nullptr;
  }

 private:
  static std::string value_of(const Fence& f) {
    return std::to_string(f.task.packed) + " by " + std::to_string(f.attempt);
  }

  void commit(Batch& batch) {
    ASSERT_TRUE(cell_->store->commit({batch.effects.records, batch.bodies}).ok());
    cell_->turn->committed(batch);
  }
  void tell(Batch& batch) { cell_->release(batch); }

  void die(Batch& batch, End end) {
    switch (end) {
      case End::none:
      case End::unsealed:
      case End::sealed:
        break;
      case End::in_commit:
        disk_.fault_at(1 + prng_.below(12), Fault::power_off);
        (void)cell_->store->commit({batch.effects.records, batch.bodies});
        break;
      case End::committed:
        ASSERT_TRUE(cell_->store->commit({batch.effects.records, batch.bodies}).ok());
        break;
      case End::told:
        commit(batch);
        break;
      case End::released:
        commit(batch);
        tell(batch);
        break;
    }
  }

  // ---- what happens

  void something() {
    const auto what = prng_.below(100);
    if (what < 25) return submit();
    if (what < 30) return graph();
    if (what < 36) return extend();
    if (what < 42) return cancel();
    if (what < 47) return retry();
    if (what < 52) return pause();
    report();
  }
  JobNo some_job() {
    if (out_.jobs.empty()) return {1};
    auto it = out_.jobs.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(prng_.below(out_.jobs.size())));
    return it->first;
  }
  SubmitCall random_job() {
    SubmitCall call = testing::job(1 + static_cast<std::uint32_t>(prng_.below(6)));
    call.header.open = prng_.below(6) == 0;
    call.header.retry.max_attempts = 2;
    call.header.retry.base = Millis{50};
    if (!out_.jobs.empty() && prng_.below(3) == 0) {
      core::Dependency d{.job = some_job()};
      d.pass = prng_.below(2) == 0;
      if (prng_.below(3) == 0) d.index = 0;
      call.header.after.push_back(d);
      call.header.when = static_cast<core::When>(prng_.below(3));
    }
    return call;
  }
  void acknowledged(JobNo no, const std::string& key, std::uint32_t count, bool open) {
    out_.answers += 1;
    const auto row = cell_->reader->job(no);
    ASSERT_TRUE(row.ok() && *row) << "job " << no.value << " was acknowledged before it was on disk";
    if (!key.empty()) {
      const auto [it, fresh] = out_.keys.try_emplace(key, no);
      ASSERT_EQ(it->second, no) << "one key, two jobs";
    }
    out_.jobs.try_emplace(no, Outside::Job{count, open});
  }
  void submit() {
    SubmitCall call = random_job();
    // A client that got no answer says it again, with the same key.
    if (prng_.below(2) == 0) call.body.key = "key " + std::to_string(prng_.below(30));
    call.done = [this, key = call.body.key, count = call.header.count,
                 open = call.header.open](Result<SubmitCall::Answer> r) {
      if (!r.ok()) return static_cast<void>(out_.refusals += 1);
      acknowledged(r->job, key, r->existed ? 0 : count, open);  // said before, it may have been another
    };
    cell_->turn->take(std::move(call), cell_->now);
  }
  void graph() {
    GraphCall call;
    std::vector<std::uint32_t> counts;
    for (std::uint32_t i = 0; i < 3; ++i) {
      SubmitCall one = testing::job(1 + static_cast<std::uint32_t>(prng_.below(3)));
      if (i > 0) one.header.after.push_back({.job = {kSibling + i - 1}, .pass = true});
      counts.push_back(one.header.count);
      call.jobs.emplace_back(std::move(one.header), std::move(one.body));
    }
    call.done = [this, counts](Result<std::vector<SubmitCall::Answer>> r) {
      ASSERT_TRUE(r.ok()) << r.error().message;
      for (std::size_t i = 0; i < r->size(); ++i) acknowledged((*r)[i].job, "", counts[i], false);
    };
    cell_->turn->take(std::move(call), cell_->now);
  }
  void extend() {
    ExtendCall call;
    call.job = some_job();
    call.count = 1 + static_cast<std::uint32_t>(prng_.below(3));
    call.close = prng_.below(2) == 0;
    if (prng_.below(3) > 0) call.key = "add " + std::to_string(prng_.below(4));
    if (!out_.extends.empty() && prng_.below(2) == 0) {  // one that was answered already, in this life or before
      auto it = out_.extends.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(prng_.below(out_.extends.size())));
      std::tie(call.job, call.key) = it->first;
    }
    call.done = [this, no = call.job, key = call.key](Result<std::uint32_t> r) {
      if (!r.ok()) return static_cast<void>(out_.refusals += 1);
      out_.answers += 1;
      if (!key.empty()) {
        const auto [it, fresh] = out_.extends.try_emplace({no, key}, *r);
        ASSERT_EQ(it->second, *r) << "one key, two answers";
        out_.same_again += fresh ? 0 : 1;
      }
      auto& job = out_.jobs[no];
      job.count = std::max(job.count, *r);
      ASSERT_GE(cell_->reader->job(no).value()->count, *r) << "tasks were acknowledged before they were on disk";
    };
    cell_->turn->take(std::move(call), cell_->now);
  }
  void counted(Result<std::uint32_t> r) { (r.ok() ? out_.answers : out_.refusals) += 1; }
  void cancel() {
    CancelCall call{some_job(), {}, "because", [this](auto r) { counted(std::move(r)); }};
    if (prng_.below(3) > 0) call.index = static_cast<std::uint32_t>(prng_.below(4));
    cell_->turn->take(std::move(call), cell_->now);
  }
  void retry() {
    const JobNo no = some_job();
    RetryCall call{no, {}, [this](auto r) { counted(std::move(r)); }};
    if (prng_.below(3) == 0) call.filter.indices = {static_cast<std::uint32_t>(prng_.below(3))};
    cell_->turn->take(std::move(call), cell_->now);  // what it flushes is told meanwhile
    // From here on its failed and cancelled tasks may be live again.
    std::erase_if(out_.ended,
                  [&](const auto& e) { return e.first.job() == no && e.second.first != TaskEnd::completed; });
    forgiven_.insert(no);
  }
  void pause() {
    PauseCall call;
    call.job = some_job();
    call.pause = prng_.below(3) == 0;
    call.done = [this](auto r) { counted(std::move(r)); };
    cell_->turn->take(std::move(call), cell_->now);
    PauseCall undo;  // so that the end is reached
    undo.job = call.job;
    undo.pause = false;
    cell_->turn->take(std::move(undo), cell_->now);
  }
  void report() {
    if (out_.holds.empty()) return;
    auto it = out_.holds.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(prng_.below(out_.holds.size())));
    const Fence fence = it->second;
    ReportCall call;
    call.worker = worker_;
    if (prng_.below(8) == 0) {
      call.returned.push_back(fence);
    } else {
      auto r = result_of(fence, prng_.below(4) != 0, value_of(fence));
      r.permanent = false;
      call.results.push_back(std::move(r));
    }
    out_.holds.erase(it);
    cell_->turn->take(std::move(call), cell_->now);
  }

  // ---- what is said

  void delivered(const Delivery& d) {
    store::Reader& disk = *cell_->reader;
    for (const auto& a : d.assign) {
      const TaskId t = a.fence.task;
      ASSERT_TRUE(out_.handed_out.emplace(t, a.fence.attempt).second)
          << "attempt " << a.fence.attempt << " of " << t.job().value << "/" << t.index() << " was given out twice";
      const auto row = disk.job(t.job()).value();
      ASSERT_TRUE(row.has_value());
      bool known = t.index() < row->next_index;
      const auto kept = disk.kept(t.job());
      for (const auto& k : *kept) known = known || (k.task == t && k.attempt >= a.fence.attempt);
      ASSERT_TRUE(known) << "handed out before that was on disk";
      ASSERT_FALSE(out_.ended.contains(t)) << t.job().value << "/" << t.index() << " runs though it ended";
      out_.holds[t] = a.fence;
    }
    for (const auto& c : d.cancel) out_.holds.erase(c.task);
    for (const auto& e : d.ended) {
      const auto rows = disk.outcomes(e.task.job(), e.task.index(), 1, true);
      ASSERT_TRUE(rows.ok() && !rows->empty() && rows->front().task == e.task) << "told before it was on disk";
      ASSERT_EQ(rows->front().end, e.end);
      const std::string value = e.body && e.end == TaskEnd::completed ? e.body->value : "";
      out_.ended[e.task] = {e.end, value};
    }
  }

  void check_store(store::Reader& disk) {
    for (const auto& [key, no] : out_.keys) {
      const auto found = disk.find_key(key);
      ASSERT_TRUE(found.ok() && *found) << "the job of a key was lost";
      ASSERT_EQ((*found)->first, no);
    }
    for (const auto& [no, job] : out_.jobs) {
      const auto row = disk.job(no);
      ASSERT_TRUE(row.ok() && *row) << "job " << no.value << " was acknowledged and is lost";
      ASSERT_GE((*row)->count, job.count);
    }
    for (const auto& [task, told] : out_.ended) {
      const auto rows = disk.outcomes(task.job(), task.index(), 1, true);
      const bool there = rows.ok() && !rows->empty() && rows->front().task == task;
      if (forgiven_.contains(task.job()) && told.first != TaskEnd::completed) continue;
      ASSERT_TRUE(there) << "the outcome of " << task.job().value << "/" << task.index() << " was told and is lost";
      ASSERT_EQ(rows->front().end, told.first);
      if (told.first == TaskEnd::completed) {
        ASSERT_EQ(rows->front().body.value, told.second);
      }
    }
  }

  LossyDisk& disk_;
  Prng& prng_;
  Outside& out_;
  Now& clock_;
  Cell* cell_ = nullptr;
  WorkerNo worker_{};
  std::set<JobNo> forgiven_;  // retried at least once
};

TEST(TurnCrash, NothingToldIsLostAndNothingIsToldBeforeItIsOnDisk) {
  std::uint64_t told = 0, handed_out = 0, answers = 0, same_again = 0;
  std::set<End> reached;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    LossyDisk disk("turn-crash", seed);
    Prng prng(seed);
    Outside outside;
    Now clock{{1'000'000}, {1'700'000'000'000}};
    Life life(disk, prng, outside, clock);
    for (int n = 0; n < 4; ++n) {
      const End end = static_cast<End>(prng.below(kEnds));
      reached.insert(end);
      life.live(30, end, static_cast<std::uint32_t>(prng.below(30)));
      ASSERT_FALSE(HasFatalFailure());
      // The process dies with the power, or alone.
      if (end == End::in_commit || prng.below(2) == 0) {
        disk.crash();
      } else {
        disk.kill();
      }
      clock.mono = clock.mono + Millis{static_cast<std::int64_t>(prng.below(60'000))};
    }
    life.finish();
    ASSERT_FALSE(HasFatalFailure());
    told += outside.ended.size();
    handed_out += outside.handed_out.size();
    answers += outside.answers;
    same_again += outside.same_again;
  }
  EXPECT_EQ(reached.size(), kEnds);
  EXPECT_GT(told, 3000u);
  EXPECT_GT(handed_out, 3000u);
  EXPECT_GT(answers, 3000u);
  EXPECT_GT(same_again, 20u);
}

}  // namespace
}  // namespace grange::queue
