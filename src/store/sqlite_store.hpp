// The one implementation of Store. Its parts: store.cpp (open), commit.cpp, commit_jobs.cpp, load.cpp, forget.cpp,
// schedules.cpp, runs.cpp.
#pragma once

#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "store/folder.hpp"
#include "store/sqlite.hpp"
#include "store/store.hpp"

namespace grange::store {

// The row of `totals`: what people ask for, and counts of rows that would take a scan.
struct Counters {
  Totals totals;
  std::uint32_t last_job = 0;
  std::uint64_t outcome_rows = 0, page_rows = 0, failure_rows = 0;
};
Counters read_counters(const sqlite::Db& db);

enum RefKind : std::int64_t { kJobRef = 1, kResultRef = 2, kCheckpointRef = 3 };  // on disk

class SqliteStore final : public Store {
 public:
  SqliteStore(OpenOptions options, FolderLock lock);
  void start();  // opens and checks the file; throws sqlite::Failure

  Result<Loaded> load() override;
  Result<> commit(const Commit& commit) override;
  Result<> room_for(Bytes bytes) const override;
  Result<std::vector<JobNo>> forget_ended(WallMs before, WallMs now, std::uint64_t keep, std::uint32_t limit) override;
  Result<> forget_all() override;
  Result<> put_model(const std::string& name, const std::string& version, const std::string& sha256, Bytes bytes,
                     WallMs at) override;
  Result<> put_schedule(const ScheduleRow& row) override;
  Result<bool> drop_schedule(const std::string& name) override;
  Result<> put_run(const RunRow& row) override;
  Result<bool> drop_run(const std::string& id) override;
  Result<std::vector<std::string>> forget_runs(std::uint64_t keep) override;
  Result<> put_history(const std::vector<HistoryRow>& rows, std::uint32_t keep) override;
  Result<> put_usage(const std::vector<UsageRow>& rows, std::uint32_t keep_days) override;
  Result<> put_alerts(const std::vector<AlertRuleRow>& rules, const std::vector<AlertRow>& alerts,
                      std::uint32_t keep) override;
  Result<> put_token(const TokenRow& row) override;
  Result<bool> drop_token(const std::string& name) override;
  Result<> used_tokens(const std::vector<std::pair<std::string, WallMs>>& when) override;
  const std::string& directory() const override { return options_.directory; }
  Result<std::unique_ptr<Reader>> reader() const override;

 private:
  struct JobNow {
    core::JobState state{};
    core::JobCounts counts;
    Millis result_ttl{0};
    bool has_inputs = false;  // parents whose results it will be given: rows in job_parents that hold
  };
  struct WorkerDelta {
    std::uint64_t completed = 0, failed = 0, run_us = 0;
  };

  sqlite::Statement& sql(const char* text) { return statements_.get(db_, text); }
  void apply(const core::JobAdded& r, const core::Bodies& bodies);
  void apply(const core::JobProgressed& r, const core::Bodies& bodies);
  void apply(const core::TaskKept& r, const core::Bodies& bodies);
  void apply(const core::TaskEnded& r, const core::Bodies& bodies);
  void apply(const core::TaskReopened& r, const core::Bodies& bodies);
  void apply(const core::AttemptFailed& r, const core::Bodies& bodies);
  void apply(const core::CheckpointKept& r, const core::Bodies& bodies);
  void apply(const core::WorkerSeen& r, const core::Bodies& bodies);
  void apply(const core::JobExtended& r, const core::Bodies& bodies);
  void apply(const core::UserSet& r, const core::Bodies& bodies);
  void apply(const core::FarmSet& r, const core::Bodies& bodies);
  void apply(const core::JobCancelled& r, const core::Bodies& bodies);
  void apply(const core::WorkerQuarantined& r, const core::Bodies& bodies);
  void apply(const core::WorkerMarked& r, const core::Bodies& bodies);
  void add_pages(JobNo job, const core::JobBody& body);
  bool hold_parents(JobNo job, const std::vector<core::Dependency>& after);
  void write_workers();
  void write_counters();
  void add_ref(TaskId task, RefKind kind, const std::string& sha256);
  void drop_refs(TaskId task, RefKind kind);
  JobNow& now_of(JobNo job);
  core::JobHeader header_of(JobNo job);
  std::uint64_t& jobs_in(core::JobState state);
  std::vector<std::pair<JobNo, core::JobState>> to_forget(WallMs before, WallMs now, std::uint64_t keep,
                                                          std::uint32_t limit);
  bool delete_some(JobNo job, std::int64_t& budget);
  void undo(const Counters& before);

  OpenOptions options_;
  FolderLock lock_;
  sqlite::Db db_;
  sqlite::Statements statements_;
  sqlite::Statement* plain_outcome_ = nullptr;  // the hot one
  std::string scratch_;

  Counters counters_;
  // State and counts of jobs as on disk (unfinished ones, mostly): what a JobProgressed changes is told from them.
  std::unordered_map<JobNo, JobNow> jobs_;
  // Tasks that may have a row in `kept` or `checkpoints`; so that an ordinary end costs one INSERT and no DELETE.
  std::unordered_set<std::uint64_t> extras_;
  std::vector<std::uint64_t> ended_extras_;  // taken out by this batch: back in if it fails
  std::unordered_map<std::uint32_t, WorkerDelta> worker_deltas_;

  mutable std::mutex room_mutex_;
  mutable Bytes room_ = 0;
  mutable Instant room_at_{INT64_MIN};
};

}  // namespace grange::store
