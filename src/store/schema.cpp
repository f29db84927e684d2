#include "store/schema.hpp"

#include <fmt/format.h>

#include "store/store.hpp"

namespace grange::store {
namespace {

struct Migration {
  int version;
  const char* sql;
};

// A task is job << 32 | index everywhere, so that what belongs to a job is one range of the table.
//
// jobs         the columns up to `submitted` never change, but for `count`, which grows while a job is open. `more` is
// what
//              of the header has no column. expires: forgotten then, once it has ended; 0: as others. unique_until: its
//              word is not free before, though it ended. The index on state serves start-up (unfinished jobs) and
//              lists.
// outcomes     the hot table: a plain result is 0 bytes for end, failure and attempt (SQLite stores 0 and 1 in the
// row's
//              header) and no extra. `extra` stands before `value`, so that a list without values never walks a value's
//              overflow pages. The index has what failed or was cancelled: for retries and for the dead letters.
//              reason: why what was never handed out was cancelled.
// kept         `failures` has a byte for each class of failure. parked: 1 to be frozen, 2 to be given back.
// extends      keys of what was added to an open job, and what each was answered.
// job_parents  which job waits, or waited, for which. holds: it lives, and will be given the parent's results, so the
//              parent is not forgotten.
// refs         who holds a blob: 1 a job, 2 a result, 3 a checkpoint.
// trash        jobs that were forgotten while rows of theirs are still to be deleted.
// history      figures of the farm for charts, in steps of 30 s and 15 min.
// tokens       names that may come in; of the secret only its SHA-256.
// usage        what went through the gateway, by day (since 1970, UTC).
// alerts       ended 0: open. alert_rules: only kinds that a person changed or silenced.
// workers      forgotten: shown no more, until it comes back; its number and its failures stay its own.
// runs         races. record: what was asked, of whom, and by which jobs; summary: "" until it has ended (ended 0).
constexpr const char* kSchema = R"sql(
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE totals(one INTEGER PRIMARY KEY CHECK(one = 1),
  jobs INTEGER NOT NULL, pending INTEGER NOT NULL, running INTEGER NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL,
  cancelled INTEGER NOT NULL, tasks_submitted INTEGER NOT NULL, tasks_completed INTEGER NOT NULL, tasks_failed INTEGER NOT NULL,
  tasks_cancelled INTEGER NOT NULL, last_job INTEGER NOT NULL, outcome_rows INTEGER NOT NULL, page_rows INTEGER NOT NULL,
  failure_rows INTEGER NOT NULL);
INSERT INTO totals VALUES(1,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
CREATE TABLE jobs(no INTEGER PRIMARY KEY, id TEXT, key TEXT, digest TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL,
  engine TEXT NOT NULL, count INTEGER NOT NULL, priority INTEGER NOT NULL, request BLOB NOT NULL, max_attempts INTEGER NOT NULL,
  backoff_base INTEGER NOT NULL, backoff_cap INTEGER NOT NULL, crash_limit INTEGER NOT NULL, fail_fast INTEGER NOT NULL,
  submitted INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, next_index INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
  started INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL DEFAULT 0,
  opened INTEGER NOT NULL DEFAULT 1, paused INTEGER NOT NULL DEFAULT 0, expires INTEGER NOT NULL DEFAULT 0, unique_word TEXT,
  unique_until INTEGER NOT NULL DEFAULT 0, more BLOB, reason TEXT);
CREATE UNIQUE INDEX jobs_id ON jobs(id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX jobs_key ON jobs(key) WHERE key IS NOT NULL;
CREATE INDEX jobs_state ON jobs(state);
CREATE INDEX jobs_ended ON jobs(ended) WHERE state >= 2;
CREATE INDEX jobs_unique ON jobs(unique_word) WHERE unique_word IS NOT NULL;
CREATE INDEX jobs_expires ON jobs(expires) WHERE expires > 0;
CREATE TABLE job_parents(child INTEGER NOT NULL, parent INTEGER NOT NULL, holds INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY(child, parent)) WITHOUT ROWID;
CREATE INDEX job_parents_parent ON job_parents(parent, holds);
CREATE TABLE specs(job INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE pages(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, sizes BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE outcomes(task INTEGER PRIMARY KEY, end INTEGER NOT NULL, failure INTEGER NOT NULL, attempt INTEGER NOT NULL,
  worker INTEGER NOT NULL, at INTEGER NOT NULL, run_us INTEGER NOT NULL, extra BLOB, value BLOB);
CREATE INDEX outcomes_unhappy ON outcomes(end, task, failure) WHERE end <> 1;
CREATE TABLE kept(task INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, failures INTEGER NOT NULL,
  ready_at INTEGER NOT NULL, parked INTEGER NOT NULL DEFAULT 0);
CREATE TABLE checkpoints(task INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, sha256 TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE failures(id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER NOT NULL, job INTEGER NOT NULL, attempt INTEGER NOT NULL,
  worker INTEGER NOT NULL, class INTEGER NOT NULL, at INTEGER NOT NULL, message TEXT NOT NULL,
  stage INTEGER NOT NULL DEFAULT 0);
CREATE INDEX failures_job ON failures(job);
CREATE INDEX failures_worker ON failures(worker);
CREATE TABLE workers(no INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, manifest BLOB NOT NULL, connected INTEGER NOT NULL,
  first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  run_us INTEGER NOT NULL DEFAULT 0, quarantined_until INTEGER NOT NULL DEFAULT 0, quarantines INTEGER NOT NULL DEFAULT 0,
  paused INTEGER NOT NULL DEFAULT 0, forgotten INTEGER NOT NULL DEFAULT 0);
CREATE TABLE extends(job INTEGER NOT NULL, key TEXT NOT NULL, total INTEGER NOT NULL, PRIMARY KEY(job, key)) WITHOUT ROWID;
CREATE TABLE worker_failures(worker INTEGER NOT NULL, class INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(worker, class)) WITHOUT ROWID;
CREATE TABLE refs(task INTEGER NOT NULL, kind INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY(task, kind, sha256)) WITHOUT ROWID;
CREATE INDEX refs_sha256 ON refs(sha256);
CREATE TABLE models(name TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(name, version)) WITHOUT ROWID;
CREATE INDEX models_sha256 ON models(sha256);
CREATE TABLE trash(job INTEGER PRIMARY KEY);
CREATE TABLE users(name TEXT PRIMARY KEY, weight INTEGER NOT NULL, max_running INTEGER NOT NULL, max_cpus INTEGER NOT NULL,
  max_gpus INTEGER NOT NULL, max_queued INTEGER NOT NULL, starts_per_minute INTEGER NOT NULL, submits_per_minute INTEGER NOT NULL
  ) WITHOUT ROWID;
CREATE TABLE schedules(name TEXT PRIMARY KEY, cron TEXT NOT NULL, file TEXT NOT NULL, user TEXT NOT NULL, paused INTEGER NOT NULL,
  overlap INTEGER NOT NULL, catch_up INTEGER NOT NULL, next INTEGER NOT NULL, last INTEGER NOT NULL, last_job TEXT NOT NULL,
  runs INTEGER NOT NULL, left_out INTEGER NOT NULL, last_error TEXT NOT NULL);
CREATE TABLE runs(id TEXT PRIMARY KEY, kind TEXT NOT NULL, user TEXT NOT NULL, digest TEXT NOT NULL, status TEXT NOT NULL,
  started INTEGER NOT NULL, ended INTEGER NOT NULL, record TEXT NOT NULL, summary TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX runs_started ON runs(started, id);
CREATE TABLE history(step INTEGER NOT NULL, at INTEGER NOT NULL, figures TEXT NOT NULL, PRIMARY KEY(step, at)) WITHOUT ROWID;
CREATE TABLE tokens(name TEXT PRIMARY KEY, role TEXT NOT NULL, sha256 TEXT NOT NULL, created INTEGER NOT NULL, created_by TEXT NOT NULL,
  expires INTEGER NOT NULL, last_used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE usage(day INTEGER NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL, figures TEXT NOT NULL,
  PRIMARY KEY(day, principal, model)) WITHOUT ROWID;
CREATE TABLE alert_rules(kind TEXT PRIMARY KEY, rule TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE alerts(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, record TEXT NOT NULL, began INTEGER NOT NULL,
  ended INTEGER NOT NULL);
)sql";

// From older files to the same schema, which a test compares. A new column comes last.
constexpr Migration kMigrations[] = {
    {2, R"sql(
ALTER TABLE jobs ADD COLUMN open INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN opened INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN unique_word TEXT;
ALTER TABLE jobs ADD COLUMN unique_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN more BLOB;
CREATE INDEX jobs_unique ON jobs(unique_word) WHERE unique_word IS NOT NULL;
CREATE INDEX jobs_expires ON jobs(expires) WHERE expires > 0;
DROP INDEX outcomes_unhappy;
CREATE INDEX outcomes_unhappy ON outcomes(end, task, failure) WHERE end <> 1;
ALTER TABLE kept ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
UPDATE kept SET failures = (min(failures, 255) << 40) | (min(crashes, 255) << 8);
ALTER TABLE kept DROP COLUMN crashes;
ALTER TABLE failures ADD COLUMN stage INTEGER NOT NULL DEFAULT 0;
CREATE TABLE job_parents(child INTEGER NOT NULL, parent INTEGER NOT NULL, PRIMARY KEY(child, parent)) WITHOUT ROWID;
CREATE INDEX job_parents_parent ON job_parents(parent);
CREATE TABLE users(name TEXT PRIMARY KEY, weight INTEGER NOT NULL, max_running INTEGER NOT NULL, max_cpus INTEGER NOT NULL,
  max_gpus INTEGER NOT NULL, max_queued INTEGER NOT NULL, starts_per_minute INTEGER NOT NULL, submits_per_minute INTEGER NOT NULL
  ) WITHOUT ROWID;
CREATE TABLE schedules(name TEXT PRIMARY KEY, cron TEXT NOT NULL, file TEXT NOT NULL, user TEXT NOT NULL, paused INTEGER NOT NULL,
  overlap INTEGER NOT NULL, catch_up INTEGER NOT NULL, next INTEGER NOT NULL, last INTEGER NOT NULL, last_job TEXT NOT NULL,
  runs INTEGER NOT NULL, left_out INTEGER NOT NULL, last_error TEXT NOT NULL);
)sql"},
    {3, R"sql(
ALTER TABLE jobs ADD COLUMN reason TEXT;
ALTER TABLE workers ADD COLUMN quarantined_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN quarantines INTEGER NOT NULL DEFAULT 0;
CREATE TABLE extends(job INTEGER NOT NULL, key TEXT NOT NULL, total INTEGER NOT NULL, PRIMARY KEY(job, key)) WITHOUT ROWID;
CREATE TABLE runs(id TEXT PRIMARY KEY, kind TEXT NOT NULL, user TEXT NOT NULL, digest TEXT NOT NULL, status TEXT NOT NULL,
  started INTEGER NOT NULL, ended INTEGER NOT NULL, record TEXT NOT NULL, summary TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX runs_started ON runs(started, id);
)sql"},
    {4, R"sql(
ALTER TABLE workers ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
CREATE TABLE history(step INTEGER NOT NULL, at INTEGER NOT NULL, figures TEXT NOT NULL, PRIMARY KEY(step, at)) WITHOUT ROWID;
)sql"},
    {5, R"sql(
CREATE TABLE tokens(name TEXT PRIMARY KEY, role TEXT NOT NULL, sha256 TEXT NOT NULL, created INTEGER NOT NULL, created_by TEXT NOT NULL,
  expires INTEGER NOT NULL, last_used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE usage(day INTEGER NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL, figures TEXT NOT NULL,
  PRIMARY KEY(day, principal, model)) WITHOUT ROWID;
CREATE TABLE alert_rules(kind TEXT PRIMARY KEY, rule TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE alerts(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, record TEXT NOT NULL, began INTEGER NOT NULL,
  ended INTEGER NOT NULL);
ALTER TABLE job_parents ADD COLUMN holds INTEGER NOT NULL DEFAULT 1;
DROP INDEX job_parents_parent;
CREATE INDEX job_parents_parent ON job_parents(parent, holds);
)sql"},
};
static_assert(kMigrations[std::size(kMigrations) - 1].version == kSchemaVersion);

}  // namespace

void migrate(const sqlite::Db& db, const std::string& path) {
  const std::int64_t application = db.integer("PRAGMA application_id");
  const std::int64_t version = db.integer("PRAGMA user_version");
  const bool empty = application == 0 && version == 0 && db.integer("SELECT count(*) FROM sqlite_schema") == 0;
  if (application != kApplicationId && !empty) {
    throw sqlite::Failure{
        SQLITE_NOTADB,
        Error{ErrorClass::storage_damaged,
              fmt::format("{} is a database of another program, not one of Grange. Choose another data folder.", path),
              {}}};
  }
  if (version > kSchemaVersion) {
    throw sqlite::Failure{
        SQLITE_NOTADB,
        Error{ErrorClass::version_mismatch,
              fmt::format("{} was written by a newer Grange: it has schema version {}, and this one knows up to {}. "
                          "Use the newer Grange, or another data folder.",
                          path, version, kSchemaVersion),
              {}}};
  }
  if (version == kSchemaVersion) return;
  sqlite::Transaction t(db);
  if (empty) db.exec(kSchema);  // altering tables one by one would take ten times as long
  for (const Migration& m : kMigrations) {
    if (!empty && m.version > version) db.exec(m.sql);
  }
  db.exec(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", kApplicationId, kSchemaVersion).c_str());
  t.commit();
}

}  // namespace grange::store
