// One batch of records, one transaction. Memory follows the disk: what a failed batch changed in it is taken back.
#include "store/body_of.hpp"
#include "store/codec.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
Result<> SqliteStore::commit(const Commit& commit) {
  if (commit.records.empty()) return {};
  const Counters before = counters_;
  try {
    sqlite::Use begin(sql("BEGIN IMMEDIATE"));
    begin->step();
    for (const core::Record& record : commit.records) {
      if (const auto* ended = std::get_if<core::TaskEnded>(&record)) {
        apply(*ended, commit.bodies);
      } else {
        std::visit([&](const auto& r) { apply(r, commit.bodies); }, record);
      }
    }
    write_workers();
    write_counters();
    sql("COMMIT").run();
  } catch (sqlite::Failure& failure) {
    undo(before);
    return std::move(failure.error);
  }
  ended_extras_.clear();
  return {};
}

void SqliteStore::undo(const Counters& before) {
  if (db_.in_transaction()) db_.rollback();
  counters_ = before;
  jobs_.clear();  // read again from disk when they are needed
  extras_.insert(ended_extras_.begin(), ended_extras_.end());
  ended_extras_.clear();
  worker_deltas_.clear();
}

void SqliteStore::apply(const core::TaskEnded& r, const core::Bodies& bodies) {
  const auto* body = body_of<core::ResultBody>(bodies, r.body);
  scratch_.clear();
  if (body != nullptr) pack_extra(*body, scratch_);
  sqlite::Statement* s = plain_outcome_;
  if (s == nullptr) {
    s = plain_outcome_ = &sql(
        "INSERT INTO outcomes(task, end, failure, attempt, worker, at, run_us, extra, value) "
        "VALUES(?,?,?,?,?,?,?,?,?)");
  }
  s->bind_u(1, r.task.packed).bind(2, static_cast<int>(r.end)).bind(3, static_cast<int>(r.failure)).bind(4, r.attempt);
  s->bind(5, r.worker.value).bind(6, r.at.ms).bind_u(7, r.run_us);
  scratch_.empty() ? s->bind_null(8) : s->bind_blob(8, scratch_);
  body == nullptr || body->value.empty() ? s->bind_null(9) : s->bind_blob(9, body->value);
  s->run();
  ++counters_.outcome_rows;
  if (body != nullptr) {
    for (const auto& sha : body->blobs) add_ref(r.task, kResultRef, sha);
    if (!body->value_sha256.empty()) add_ref(r.task, kResultRef, body->value_sha256);
  }
  if (r.worker.value != 0) {
    WorkerDelta& delta = worker_deltas_[r.worker.value];
    if (r.end == core::TaskEnd::completed) ++delta.completed;
    delta.run_us += r.run_us;
  }
  if (!extras_.empty() && extras_.erase(r.task.packed) != 0) {
    ended_extras_.push_back(r.task.packed);  // before what may fail
    sql("DELETE FROM kept WHERE task=?").bind_u(1, r.task.packed).run();
    sql("DELETE FROM checkpoints WHERE task=?").bind_u(1, r.task.packed).run();
    drop_refs(r.task, kCheckpointRef);
  }
}

void SqliteStore::apply(const core::TaskKept& r, const core::Bodies&) {
  extras_.insert(r.task.packed);
  sql("INSERT OR REPLACE INTO kept(task, attempt, failures, parked, ready_at) VALUES(?,?,?,?,?)")
      .bind_u(1, r.task.packed)
      .bind(2, r.attempt)
      .bind_u(3, pack_failures(r.failures))
      .bind(4, !r.parked   ? 0
               : r.requeue ? 2
                           : 1)
      .bind(5, r.ready_at.ms)
      .run();
}

void SqliteStore::apply(const core::TaskReopened& r, const core::Bodies&) {
  sql("DELETE FROM outcomes WHERE task=?").bind_u(1, r.task.packed).run();
  counters_.outcome_rows -= static_cast<std::uint64_t>(db_.changes());
  drop_refs(r.task, kResultRef);
}

void SqliteStore::apply(const core::AttemptFailed& r, const core::Bodies& bodies) {
  const auto* body = body_of<core::ResultBody>(bodies, r.body);
  sql("INSERT INTO failures(task, job, attempt, worker, class, at, message, stage) VALUES(?,?,?,?,?,?,?,?)")
      .bind_u(1, r.task.packed)
      .bind(2, r.task.job().value)
      .bind(3, r.attempt)
      .bind(4, r.worker.value)
      .bind(5, static_cast<int>(r.failure))
      .bind(6, r.at.ms)
      .bind_text(7, body != nullptr ? std::string_view(body->message) : std::string_view())
      .bind(8, static_cast<int>(r.stage))
      .run();
  ++counters_.failure_rows;
  if (r.worker.value == 0) return;
  ++worker_deltas_[r.worker.value].failed;
  sql("INSERT INTO worker_failures(worker, class, n) VALUES(?,?,1) ON CONFLICT DO UPDATE SET n=n+1")
      .bind(1, r.worker.value)
      .bind(2, static_cast<int>(r.failure))
      .run();
}

void SqliteStore::apply(const core::CheckpointKept& r, const core::Bodies& bodies) {
  static const core::CheckpointBody kEmpty;
  const auto* found = body_of<core::CheckpointBody>(bodies, r.body);
  const core::CheckpointBody& body = found != nullptr ? *found : kEmpty;
  if (!extras_.insert(r.task.packed).second) drop_refs(r.task, kCheckpointRef);
  sql("INSERT OR REPLACE INTO checkpoints(task, attempt, sha256, data) VALUES(?,?,?,?)")
      .bind_u(1, r.task.packed)
      .bind(2, r.attempt)
      .bind_text(3, body.data_sha256)
      .bind_blob(4, body.data)
      .run();
  if (!body.data_sha256.empty()) add_ref(r.task, kCheckpointRef, body.data_sha256);
}

void SqliteStore::apply(const core::WorkerSeen& r, const core::Bodies& bodies) {
  const auto* body = body_of<core::WorkerBody>(bodies, r.body);
  if (body == nullptr) {
    sql("UPDATE workers SET connected=?2, last_seen=?3 WHERE no=?1")
        .bind(1, r.worker.value)
        .bind(2, r.connected)
        .bind(3, r.at.ms)
        .run();
    return;
  }
  sql("INSERT INTO workers(no, id, name, manifest, connected, first_seen, last_seen) VALUES(?1,?2,?3,?4,?5,?6,?6) "
      "ON CONFLICT(no) DO UPDATE SET id=?2, name=?3, manifest=?4, connected=?5, last_seen=?6, forgotten=0")
      .bind(1, r.worker.value)
      .bind_text(2, body->id)
      .bind_text(3, body->name)
      .bind_blob(4, body->manifest)
      .bind(5, r.connected)
      .bind(6, r.at.ms)
      .run();
}

void SqliteStore::apply(const core::WorkerQuarantined& r, const core::Bodies&) {
  sql("UPDATE workers SET quarantined_until=?2, quarantines=?3 WHERE no=?1")
      .bind(1, r.worker.value)
      .bind(2, r.until.ms)
      .bind(3, r.times)
      .run();
}

void SqliteStore::apply(const core::WorkerMarked& r, const core::Bodies&) {
  sql("UPDATE workers SET paused=?2, forgotten=forgotten OR ?3 WHERE no=?1")
      .bind(1, r.worker.value)
      .bind(2, r.paused)
      .bind(3, r.forgotten)
      .run();
}

void SqliteStore::write_workers() {
  for (const auto& [worker, delta] : worker_deltas_) {  // each a row of its own: their order decides nothing
    sql("UPDATE workers SET completed=completed+?2, failed=failed+?3, run_us=run_us+?4 WHERE no=?1")
        .bind(1, worker)
        .bind_u(2, delta.completed)
        .bind_u(3, delta.failed)
        .bind_u(4, delta.run_us)
        .run();
  }
  worker_deltas_.clear();
}

void SqliteStore::write_counters() {
  const Totals& t = counters_.totals;
  auto& s =
      sql("UPDATE totals SET jobs=?, pending=?, running=?, completed=?, failed=?, cancelled=?, tasks_submitted=?, "
          "tasks_completed=?, "
          "tasks_failed=?, tasks_cancelled=?, last_job=?, outcome_rows=?, page_rows=?, failure_rows=?");
  s.bind_u(1, t.jobs)
      .bind_u(2, t.jobs_pending)
      .bind_u(3, t.jobs_running)
      .bind_u(4, t.jobs_completed)
      .bind_u(5, t.jobs_failed);
  s.bind_u(6, t.jobs_cancelled).bind_u(7, t.tasks_submitted).bind_u(8, t.tasks_completed).bind_u(9, t.tasks_failed);
  s.bind_u(10, t.tasks_cancelled)
      .bind(11, counters_.last_job)
      .bind_u(12, counters_.outcome_rows)
      .bind_u(13, counters_.page_rows);
  s.bind_u(14, counters_.failure_rows).run();
}

void SqliteStore::add_ref(TaskId task, RefKind kind, const std::string& sha256) {
  sql("INSERT OR IGNORE INTO refs(task, kind, sha256) VALUES(?,?,?)")
      .bind_u(1, task.packed)
      .bind(2, kind)
      .bind_text(3, sha256)
      .run();
}

void SqliteStore::drop_refs(TaskId task, RefKind kind) {
  sql("DELETE FROM refs WHERE task=? AND kind=?").bind_u(1, task.packed).bind(2, kind).run();
}

}  // namespace grange::store
