// The schema of version 1, as it was. Tests only.
#pragma once

namespace grange::store::testing {

inline constexpr const char* kSchemaV1 = R"sql(
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
  started INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX jobs_id ON jobs(id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX jobs_key ON jobs(key) WHERE key IS NOT NULL;
CREATE INDEX jobs_state ON jobs(state);
CREATE INDEX jobs_ended ON jobs(ended) WHERE state >= 2;
CREATE TABLE specs(job INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE pages(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, sizes BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE outcomes(task INTEGER PRIMARY KEY, end INTEGER NOT NULL, failure INTEGER NOT NULL, attempt INTEGER NOT NULL,
  worker INTEGER NOT NULL, at INTEGER NOT NULL, run_us INTEGER NOT NULL, extra BLOB, value BLOB);
CREATE INDEX outcomes_unhappy ON outcomes(task, end) WHERE end <> 1;
CREATE TABLE kept(task INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, failures INTEGER NOT NULL, crashes INTEGER NOT NULL,
  ready_at INTEGER NOT NULL);
CREATE TABLE checkpoints(task INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, sha256 TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE failures(id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER NOT NULL, job INTEGER NOT NULL, attempt INTEGER NOT NULL,
  worker INTEGER NOT NULL, class INTEGER NOT NULL, at INTEGER NOT NULL, message TEXT NOT NULL);
CREATE INDEX failures_job ON failures(job);
CREATE INDEX failures_worker ON failures(worker);
CREATE TABLE workers(no INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, manifest BLOB NOT NULL, connected INTEGER NOT NULL,
  first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  run_us INTEGER NOT NULL DEFAULT 0);
CREATE TABLE worker_failures(worker INTEGER NOT NULL, class INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(worker, class)) WITHOUT ROWID;
CREATE TABLE refs(task INTEGER NOT NULL, kind INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY(task, kind, sha256)) WITHOUT ROWID;
CREATE INDEX refs_sha256 ON refs(sha256);
CREATE TABLE models(name TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(name, version)) WITHOUT ROWID;
CREATE INDEX models_sha256 ON models(sha256);
CREATE TABLE trash(job INTEGER PRIMARY KEY);
PRAGMA application_id = 1735552615;
PRAGMA user_version = 1;
)sql";

}  // namespace grange::store::testing
