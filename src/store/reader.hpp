// The one implementation of Reader: a connection of its own that only reads. Its parts: reader_jobs, reader_tasks,
// reader_dead, reader_info, schedules, runs.
#pragma once

#include "store/sqlite.hpp"
#include "store/store.hpp"

namespace grange::store {

Result<std::unique_ptr<Reader>> open_reader(const OpenOptions& options);

class SqliteReader final : public Reader {
 public:
  explicit SqliteReader(const OpenOptions& options);  // throws sqlite::Failure

  Result<std::vector<JobRow>> jobs(const JobFilter& filter) override;
  Result<std::optional<JobRow>> job(JobNo job) override;
  Result<std::optional<JobNo>> find_job(const std::string& id) override;
  Result<std::optional<std::pair<JobNo, std::string>>> find_key(const std::string& key) override;
  Result<std::optional<std::uint32_t>> find_extend(JobNo job, const std::string& key) override;
  Result<std::string> spec(JobNo job) override;
  Result<std::optional<core::JobHeader>> header(JobNo job) override;
  Result<std::optional<core::ArgumentPage>> page(JobNo job, std::uint32_t index) override;
  Result<std::optional<std::uint32_t>> page_after(JobNo job, std::uint32_t index) override;
  Result<std::vector<OutcomeRow>> outcomes(JobNo job, std::uint32_t from, std::uint32_t limit,
                                           bool with_values) override;
  Result<std::vector<OutcomeRow>> unhappy(JobNo job) override;
  Result<std::vector<OutcomeRow>> dead(const DeadFilter& filter) override;
  Result<std::optional<JobNo>> find_unique(const std::string& word, WallMs since) override;
  Result<std::vector<ScheduleRow>> schedules() override;
  Result<std::vector<RunRow>> runs(const RunFilter& filter) override;
  Result<std::optional<RunRow>> run(const std::string& id) override;
  Result<std::vector<core::TaskKept>> kept(JobNo job) override;
  Result<std::optional<core::CheckpointBody>> checkpoint(TaskId task) override;
  Result<std::vector<FailureRow>> failures(std::optional<WorkerNo> worker, std::optional<JobNo> job,
                                           std::int64_t before_id, std::uint32_t skip, std::uint32_t limit) override;
  Result<std::vector<std::pair<WorkerNo, std::vector<std::pair<core::FailureClass, std::uint64_t>>>>> failure_stats()
      override;
  Result<std::vector<WorkerRow>> workers() override;
  Result<OutcomeCells> outcome_cells(const OutcomeCellsOf& of) override;
  Result<std::vector<HistoryRow>> history(std::optional<Millis> step) override;
  Result<std::vector<ChildRow>> children(JobNo job, std::uint32_t limit) override;
  Result<std::vector<UsageRow>> usage(std::int64_t from_day) override;
  Result<std::vector<AlertRuleRow>> alert_rules() override;
  Result<std::vector<AlertRow>> alerts() override;
  Result<std::vector<TokenRow>> tokens() override;
  Result<bool> blob_in_use(const std::string& sha256) override;
  Result<std::optional<ModelRow>> get_model(const std::string& name, const std::string& version) override;
  Result<std::vector<ModelRow>> list_models() override;
  Result<Totals> totals() override;
  Result<DbInfo> info() override;

 private:
  sqlite::Statement& sql(const char* text) { return statements_.get(db_, text); }
  OutcomeRow outcome_row(const sqlite::Statement& s) const;
  [[noreturn]] void damaged(const char* what) const;

  std::string directory_;
  bool farm_only_ = false;
  sqlite::Db db_;
  sqlite::Statements statements_;
};

}  // namespace grange::store
