// What the files of Turn share: turn (workers and time), turn_submit (new work), turn_jobs (what people do with work),
// release (what a committed batch lets go).
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/range_set.hpp"
#include "queue/inputs.hpp"
#include "queue/loop.hpp"

namespace grange::queue {

struct Turn::Impl {
  Impl(TurnOptions o, std::function<void(Now)> f)
      : options(std::move(o)), flush_now(std::move(f)), prng(options.seed) {}

  const TurnOptions options;
  const std::function<void(Now)> flush_now;
  std::uint64_t incarnation = 0;
  std::string server_id;

  // ---- the engine's thread
  std::unique_ptr<core::Farm> farm;
  std::unique_ptr<store::Reader> reader;
  Prng prng;
  Batch batch;
  std::uint32_t last_job = 0, last_worker = 0;
  std::uint64_t last_session = 0;
  std::unordered_map<std::string, WorkerNo> worker_numbers;
  std::unordered_map<WorkerNo, std::uint64_t> sessions, not_resumable;
  // Names of jobs that the reader may not see yet: "k" + key, "i" + id, "u" + uniqueness word.
  struct Named {
    JobNo job;
    std::string digest, id;
    WallMs at;
  };
  std::unordered_map<std::string, Named> uncommitted;
  std::deque<std::pair<JobNo, std::string>> uncommitted_order;
  // Keys of extends that the reader may not see yet, behind the job's number; and what each was answered.
  std::unordered_map<std::string, std::uint32_t> uncommitted_extends;
  // Jobs that ended, but not on disk for all the reader knows.
  std::unordered_map<JobNo, core::NoteJob> ended_uncommitted;

  // ---- any thread
  std::unique_ptr<PageCache> pages;
  std::unique_ptr<Inputs> inputs;
  std::mutex mutex;  // of those that follow: told by the committer, taken up by the engine
  JobNo committed_jobs;
  std::vector<JobNo> committed_ends;
  std::vector<std::string> committed_extends;
  std::atomic<std::uint64_t> events{0}, batches{0}, tasks_ended{0}, assigned{0};
  std::uint64_t submitted = 0, completed = 0, failed = 0;  // of tasks; these and the waits under `mutex`
  core::WaitCounts waits;

  // ---- turn.cpp
  bool has_batch() const { return !batch.empty() || farm->dirty(); }
  std::unique_ptr<Batch> seal(Now now);
  // Forgets what the reader can see by now.
  void catch_up();
  void flush(Now now);
  BodyRef keep(core::Body body) {
    batch.bodies.push_back(std::move(body));
    return static_cast<BodyRef>(batch.bodies.size() - 1);
  }
  core::StepAnswer step(const core::Event& event, Now now) { return farm->step(event, now, batch.effects); }
  template <class T>
  void answer(std::function<void(Result<T>)>& done, Result<T> result) {
    if (!done) return;
    batch.answers.push_back(
        [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
  }
  void on(HelloCall& call, Now now);
  void on(ReportCall& call, Now now);
  void on(AliveCall& call, Now now);
  void on(GoneCall& call, Now now);
  void on(DrainCall& call, Now now);
  void on(ReleaseWorkerCall& call, Now now);
  void on(PauseWorkerCall& call, Now now);
  void on(ForgetWorkerCall& call, Now now);
  void on(UnsentCall& call, Now now);
  void on(InspectCall& call, Now now);
  void on(MaintainCall& call, Now now);

  // ---- turn_submit.cpp
  using Known = std::optional<SubmitCall::Answer>;
  struct Parents;
  void on(SubmitCall& call, Now now);
  void on(GraphCall& call, Now now);
  void on(ExtendCall& call, Now now);
  Result<std::optional<std::uint32_t>> known_extend(const ExtendCall& call);
  Result<Known> known_job(const core::JobBody& body, Now now);
  Result<Known> known_key(const core::JobBody& body);
  Result<Known> known_word(const core::JobBody& body, Now now);
  // Of an ended job, from its next_index on: tasks with an outcome of their own, ascending, and those that were
  // cancelled as a range before they were ever handed out, which have none.
  struct Beyond {
    std::vector<std::uint32_t> with_outcome;
    RangeSet without;
  };
  Result<Beyond> beyond(JobNo job);
  void name(JobNo job, const core::JobBody& body, const std::string& id, Now now);
  void unname(JobNo from);

  // ---- turn_jobs.cpp
  void on(CancelCall& call, Now now);
  void on(RetryCall& call, Now now);
  void on(PauseCall& call, Now now);
  void on(PauseFarmCall& call, Now now);
  void on(SetUserCall& call, Now now);
  void on(SetPolicyCall& call, Now now);
  void on(ForgetAllCall& call, Now now);
  Result<std::uint32_t> retry(const RetryCall& call, Now now);
  // Would work of it, run again, run although what it waits for did not succeed? all: the whole job waited, not only
  // `tasks` of it.
  Result<> check_parents(const store::JobRow& row, bool all, const std::vector<std::uint32_t>& tasks);
  // The core knows live jobs only. Of one that ended: what can no longer be done with it.
  Error no_longer(JobNo job, Error error, std::string_view what);
};

}  // namespace grange::queue
