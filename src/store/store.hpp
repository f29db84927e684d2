// The truth on disk: SQLite in WAL mode, synchronous=FULL, one writer. A commit that returned is there after a power
// loss.
//
// Threading: a Store belongs to one thread at a time (the committer). Readers open their own `Reader`; WAL lets both
// work at once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/bodies.hpp"
#include "core/records.hpp"

namespace grange::store {

inline constexpr int kSchemaVersion = 5;

struct OpenOptions {
  std::string directory;     // farm.db, logs.db, blobs/, lock
  std::string vfs = {};      // tests: the name of a fault-injecting VFS for farm.db
  int page_size = 4096;      // of a new farm.db; an existing one keeps its own
  Bytes reserve = 32 * MiB;  // free space under which new work is refused
  // The simulator: farm.db on `vfs` and nothing else. No folder is made, locked or asked for its free space, so the
  // disk of this machine is never touched, and nobody is kept from opening it twice.
  bool farm_only = false;
};

// What start-up needs to rebuild the core. Jobs that ended stay on disk only.
struct Loaded {
  struct Job {
    JobNo job;
    std::string id;
    core::JobHeader header;
    core::JobProgressed progress;
    std::vector<std::uint32_t> open;     // indices below next_index without an outcome, ascending
    std::vector<std::uint32_t> skipped;  // indices from next_index on that have an outcome, ascending
  };
  struct Worker {
    WorkerNo worker;
    std::string id;
    bool connected = false;
    core::WorkerQuarantined quarantine = {};
    bool paused = false;
  };
  std::uint64_t incarnation = 0;  // of this start; already written
  std::string server_id;          // made once a data folder
  JobNo last_job;
  std::vector<Job> jobs;
  std::vector<core::TaskKept> tasks;  // of these jobs; their indices may lie beyond next_index
  std::vector<Worker> workers;
  std::vector<core::UserSet> users;
  core::FarmSet farm;
};

struct Commit {
  std::span<const core::Record> records;
  const core::Bodies& bodies;
};

// A job that is submitted again and again. Times by the wall clock, which is what a calendar means.
struct ScheduleRow {
  std::string name = {};
  std::string cron = {};  // five fields, UTC
  std::string file = {};  // the job file, JSON
  std::string user = {};
  bool paused = false;
  bool overlap = true;        // false: a run is left out while the one before has not ended
  bool catch_up = false;      // true: one run for the time that nobody was there; false: none
  WallMs next{};              // the next run
  WallMs last{};              // the last one submitted; 0: none
  std::string last_job = {};  // its id
  std::uint64_t runs = 0, left_out = 0;
  std::string last_error = {};  // why the last one could not be submitted, or ""
};

// A race over several workers.
struct RunRow {
  std::string id = {};
  std::string kind = {};  // llm | compute | image
  std::string user = {};
  std::string digest = {};  // of kind and settings: runs with the same one can be compared
  std::string status = {};  // running | completed | failed | cancelled
  WallMs started{};
  WallMs ended{};            // 0: it goes on
  std::string record = {};   // JSON: what was asked for, the machines and their jobs
  std::string summary = {};  // JSON, once it has ended
};

// A stretch of the farm's past, as figures for charts. Only the server's history reads what is in them.
struct HistoryRow {
  Millis step{};  // its length
  WallMs at{};    // its begin
  std::string figures = {};
};

// What went through the gateway on one day. Only its meter reads what is in the figures.
struct UsageRow {
  std::int64_t day = 0;  // since 1970, UTC
  std::string principal = {}, model = {};
  std::string figures = {};
};

// What a person set up for one kind of alert, and one alert. Only the server's alerts read what is in them.
struct AlertRuleRow {
  std::string kind = {};
  std::string rule = {};  // JSON; "": as it comes
};
struct AlertRow {
  std::uint64_t id = 0;
  std::string kind = {}, subject = {};
  std::string record = {};  // JSON
  WallMs began{};
  WallMs ended{};  // 0: it is open
};

// A token with a name. Of its secret only the hash is here.
struct TokenRow {
  std::string name = {};
  std::string role = {};
  std::string sha256 = {};  // lower-case hex
  WallMs created{};
  std::string created_by = {};
  WallMs expires{};    // 0: never
  WallMs last_used{};  // 0: never
};

class Reader;

class Store {
 public:
  // Takes the folder's lock (`unavailable`, naming the pid that holds it), checks the file (`storage_damaged`;
  // `version_mismatch` when a newer Grange made it), migrates. A folder that cannot be written: `io`, with what to do.
  static Result<std::unique_ptr<Store>> open(const OpenOptions& options);
  virtual ~Store() = default;

  virtual Result<Loaded> load() = 0;
  // All or nothing, and on disk when it returns. storage_full: nothing was written, try again later.
  virtual Result<> commit(const Commit& commit) = 0;
  // Is there room for `bytes` more of new work? storage_full with a sentence that names the folder and the free space.
  // Any thread.
  virtual Result<> room_for(Bytes bytes) const = 0;
  // Deletes at most `limit` ended jobs, with all that is theirs: those whose own time is over at `now`, those without
  // one that ended before `before`, and those beyond the newest `keep`. Never one whose results a live job will be
  // given (Dependency::pass), nor one whose uniqueness word is still held at `now`. Returns which. The jobs are gone at
  // once; rows of big ones are taken away piece by piece, by this call and the next ones (`limit` 0: only that).
  virtual Result<std::vector<JobNo>> forget_ended(WallMs before, WallMs now, std::uint64_t keep,
                                                  std::uint32_t limit) = 0;
  // `db clear`: everything but the schema, the server's id, connected workers, the last job number (fences must stay
  // unique) and what people set up: users' limits, schedules, alerts, tokens, the pause of the farm; nor what was
  // metered.
  virtual Result<> forget_all() = 0;
  // Names code. The same content again is fine; other content under a known version: conflict.
  virtual Result<> put_model(const std::string& name, const std::string& version, const std::string& sha256,
                             Bytes bytes, WallMs at) = 0;
  virtual Result<> put_schedule(const ScheduleRow& row) = 0;        // adds or replaces
  virtual Result<bool> drop_schedule(const std::string& name) = 0;  // false: there was none
  virtual Result<> put_run(const RunRow& row) = 0;                  // adds or replaces
  virtual Result<bool> drop_run(const std::string& id) = 0;         // false: there was none
  // Those that ended, beyond the newest `keep`. Returns which.
  virtual Result<std::vector<std::string>> forget_runs(std::uint64_t keep) = 0;
  // Adds or replaces; of each step's rows only the newest `keep` stay.
  virtual Result<> put_history(const std::vector<HistoryRow>& rows, std::uint32_t keep) = 0;
  // Adds or replaces. keep_days: of the days that have any, the newest so many stay; 0: all.
  virtual Result<> put_usage(const std::vector<UsageRow>& rows, std::uint32_t keep_days) = 0;
  // Adds or replaces; of those that ended the newest `keep` stay.
  virtual Result<> put_alerts(const std::vector<AlertRuleRow>& rules, const std::vector<AlertRow>& alerts,
                              std::uint32_t keep) = 0;
  virtual Result<> put_token(const TokenRow& row) = 0;  // adds or replaces
  virtual Result<bool> drop_token(const std::string& name) = 0;
  virtual Result<> used_tokens(const std::vector<std::pair<std::string, WallMs>>& when) = 0;  // of those that are there
  virtual const std::string& directory() const = 0;
  virtual Result<std::unique_ptr<Reader>> reader() const = 0;  // any thread
};

struct RunFilter {
  std::string kind = {}, digest = {};  // "": any
  std::string before = {};             // only those that started before this one; "": all
  bool unfinished = false;             // only those that go on
  bool summaries = false;              // with their summaries, which may be long
  std::uint32_t limit = limits::kPageDefault;
};

// Queries. One thread at a time each. Answers are as of the last commit.
struct JobRow {
  JobNo job;
  std::string id, name, user, engine;
  core::JobState state{};
  std::uint32_t count = 0, next_index = 0;
  int priority = 0;
  core::JobCounts counts;
  WallMs submitted{}, started{}, ended{};
  bool open = false, opened = false, paused = false;
  WallMs expires{};         // forgotten then, once it has ended; 0: as the server keeps others
  std::string reason = {};  // why what was never handed out of it was cancelled, if someone said so
};
struct OutcomeRow {
  TaskId task;
  core::TaskEnd end{};
  core::FailureClass failure{};
  Attempt attempt = 0;
  WorkerNo worker{};
  WallMs at{};
  std::uint64_t run_us = 0;
  core::ResultBody body;
};
struct FailureRow {
  std::int64_t id = 0;
  TaskId task;
  Attempt attempt = 0;
  WorkerNo worker{};
  core::FailureClass failure{};
  core::Stage stage{};
  std::string message;
  WallMs at{};
};
// Tasks that ended as failed, of all jobs, newest job first.
struct DeadFilter {
  std::optional<JobNo> job;
  std::optional<core::FailureClass> failure;
  std::string user;              // "": all
  std::optional<TaskId> before;  // keyset
  std::uint32_t limit = 100;
};
// Outcomes of a job's tasks from `from` to below `to`, counted in cells.
struct OutcomeCells {
  std::vector<std::uint32_t> failed, cancelled;
  std::vector<std::uint32_t> ended_late;  // however, from `late_from` on
};
struct OutcomeCellsOf {
  JobNo job;
  std::uint32_t from = 0, to = 0, per_cell = 1;
  std::optional<std::uint32_t> late_from = {};  // nullopt: ended_late is not wanted, which would read every outcome
};
struct WorkerRow {
  WorkerNo worker;
  std::string id, name, manifest;
  bool connected = false;
  WallMs first_seen{}, last_seen{};
  std::uint64_t completed = 0, failed = 0,
                run_us = 0;  // lifetime: tasks completed, attempts failed, time of tasks that ended
  bool paused = false, forgotten = false;
};
// A job that waits, or waited, for another.
struct ChildRow {
  JobNo job;
  std::string id, name;
  core::JobState state{};
};
// Kept, never counted. Jobs: those that are there. Tasks: all there ever were.
struct Totals {
  std::uint64_t jobs = 0, jobs_pending = 0, jobs_running = 0, jobs_completed = 0, jobs_failed = 0, jobs_cancelled = 0;
  std::uint64_t tasks_submitted = 0, tasks_completed = 0, tasks_failed = 0, tasks_cancelled = 0;  // lifetime
};
struct DbInfo {
  int schema_version = 0;
  std::string path;
  Bytes db_bytes = 0, wal_bytes = 0, log_bytes = 0, blob_bytes = 0, disk_free_bytes = 0;
  std::uint64_t blobs = 0;
  std::vector<std::pair<std::string, std::uint64_t>> rows;  // table -> rows, estimated where exact would scan
};
struct ModelRow {
  std::string name, version, sha256;
  Bytes bytes = 0;
  WallMs at{};
};
struct JobFilter {
  std::optional<core::JobState> state = {};
  std::optional<JobNo> before = {};  // keyset: newest first, jobs below this number
  std::uint32_t skip = 0, limit = 100;
  std::string engine = {}, user = {};  // "": any
  std::string text = {};               // stands in id, name, user or engine, whatever the case of ASCII letters
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual Result<std::vector<JobRow>> jobs(const JobFilter& filter) = 0;  // newest first
  virtual Result<std::optional<JobRow>> job(JobNo job) = 0;
  virtual Result<std::optional<JobNo>> find_job(const std::string& id) = 0;                           // external id
  virtual Result<std::optional<std::pair<JobNo, std::string>>> find_key(const std::string& key) = 0;  // -> job, digest
  // What was answered to the extend with this key.
  virtual Result<std::optional<std::uint32_t>> find_extend(JobNo job, const std::string& key) = 0;
  virtual Result<std::string> spec(JobNo job) = 0;
  virtual Result<std::optional<core::JobHeader>> header(JobNo job) = 0;
  virtual Result<std::optional<core::ArgumentPage>> page(JobNo job,
                                                         std::uint32_t index) = 0;  // the page that holds index
  // Where the first page after `index` begins; a job that was extended may have arguments for some of its tasks only.
  virtual Result<std::optional<std::uint32_t>> page_after(JobNo job, std::uint32_t index) = 0;
  // Outcomes of one job, by index from `from` (inclusive), at most `limit`. with_values false: bodies without value and
  // traceback.
  virtual Result<std::vector<OutcomeRow>> outcomes(JobNo job, std::uint32_t from, std::uint32_t limit,
                                                   bool with_values) = 0;
  // Tasks of one job with an outcome that is not `completed`, by index; no bodies.
  virtual Result<std::vector<OutcomeRow>> unhappy(JobNo job) = 0;
  virtual Result<std::vector<OutcomeRow>> dead(const DeadFilter& filter) = 0;  // bodies without value and traceback
  // The newest job with this uniqueness word that is still live, or was submitted at or after `since`.
  virtual Result<std::optional<JobNo>> find_unique(const std::string& word, WallMs since) = 0;
  virtual Result<std::vector<ScheduleRow>> schedules() = 0;
  virtual Result<std::vector<RunRow>> runs(const RunFilter& filter) = 0;  // newest first
  virtual Result<std::optional<RunRow>> run(const std::string& id) = 0;
  virtual Result<std::vector<core::TaskKept>> kept(JobNo job) = 0;
  virtual Result<std::optional<core::CheckpointBody>> checkpoint(TaskId task) = 0;
  virtual Result<std::vector<FailureRow>> failures(std::optional<WorkerNo> worker, std::optional<JobNo> job,
                                                   std::int64_t before_id, std::uint32_t skip,
                                                   std::uint32_t limit) = 0;  // newest first; before_id 0: all
  virtual Result<std::vector<std::pair<WorkerNo, std::vector<std::pair<core::FailureClass, std::uint64_t>>>>>
  failure_stats() = 0;
  virtual Result<std::vector<WorkerRow>> workers() = 0;  // forgotten ones too
  virtual Result<OutcomeCells> outcome_cells(const OutcomeCellsOf& of) = 0;
  virtual Result<std::vector<HistoryRow>> history(std::optional<Millis> step) = 0;     // oldest first
  virtual Result<std::vector<ChildRow>> children(JobNo job, std::uint32_t limit) = 0;  // oldest first
  virtual Result<std::vector<UsageRow>> usage(std::int64_t from_day) = 0;              // by day
  virtual Result<std::vector<AlertRuleRow>> alert_rules() = 0;
  virtual Result<std::vector<AlertRow>> alerts() = 0;               // oldest first
  virtual Result<std::vector<TokenRow>> tokens() = 0;               // by name
  virtual Result<bool> blob_in_use(const std::string& sha256) = 0;  // by a job, a result, a checkpoint or a model
  virtual Result<std::optional<ModelRow>> get_model(const std::string& name, const std::string& version) = 0;
  virtual Result<std::vector<ModelRow>> list_models() = 0;  // by name and version
  virtual Result<Totals> totals() = 0;
  virtual Result<DbInfo> info() = 0;
};

}  // namespace grange::store
