// One batch of records, one transaction. Memory follows the disk: what a failed batch changed in it is taken back.
#include <fmt/format.h>

#include "base/assert.hpp"
#include "store/codec.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

template <class T>
const T* body_of(const core::Bodies& bodies, core::BodyRef ref) {
  if (ref == core::kNoBody) return nullptr;
  GRANGE_ASSERT(ref < bodies.size());
  return std::get_if<T>(&bodies[ref]);
}

}  // namespace

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
  for (const std::uint64_t task : ended_extras_) extras_.erase(task);
  ended_extras_.clear();
  return {};
}

void SqliteStore::undo(const Counters& before) {
  if (db_.in_transaction()) db_.rollback();
  counters_ = before;
  jobs_.clear();  // read again from disk when they are needed
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
  if (!extras_.empty() && extras_.contains(r.task.packed)) {
    sql("DELETE FROM kept WHERE task=?").bind_u(1, r.task.packed).run();
    sql("DELETE FROM checkpoints WHERE task=?").bind_u(1, r.task.packed).run();
    drop_refs(r.task, kCheckpointRef);
    ended_extras_.push_back(r.task.packed);
  }
}

void SqliteStore::apply(const core::JobAdded& r, const core::Bodies& bodies) {
  static const core::JobBody kEmpty;
  const auto* found = body_of<core::JobBody>(bodies, r.body);
  const core::JobBody& body = found != nullptr ? *found : kEmpty;
  const core::JobHeader& h = r.header;
  const std::string request = pack_request(h.request);
  auto& s = sql(
      "INSERT INTO jobs(no, id, key, digest, name, user, engine, count, priority, request, max_attempts, backoff_base, "
      "backoff_cap, crash_limit, fail_fast, submitted) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  s.bind(1, r.job.value);
  // An id that is the number is not stored: find_job falls back to the number.
  body.id.empty() || body.id == std::to_string(r.job.value) ? s.bind_null(2) : s.bind_text(2, body.id);
  body.key.empty() ? s.bind_null(3) : s.bind_text(3, body.key);
  s.bind_text(4, body.digest).bind_text(5, body.name).bind_text(6, body.user).bind_text(7, body.engine);
  s.bind(8, h.count)
      .bind(9, h.priority)
      .bind_blob(10, request)
      .bind(11, h.retry.max_attempts)
      .bind(12, h.retry.base.count());
  s.bind(13, h.retry.cap.count()).bind(14, h.retry.crash_limit).bind(15, h.fail_fast ? 1 : 0).bind(16, r.at.ms).run();

  sql("INSERT INTO specs(job, spec) VALUES(?,?)").bind(1, r.job.value).bind_blob(2, body.spec).run();
  for (const core::ArgumentPage& page : body.pages) {
    const std::string sizes = pack_sizes(page.sizes);
    sql("INSERT INTO pages(first, count, sizes, bytes) VALUES(?,?,?,?)")
        .bind_u(1, TaskId::of(r.job, page.first).packed)
        .bind_u(2, page.sizes.size())
        .bind_blob(3, sizes)
        .bind_blob(4, page.bytes)
        .run();
  }
  counters_.page_rows += body.pages.size();
  for (const auto& sha : body.blobs) add_ref(TaskId::of(r.job, 0), kJobRef, sha);

  jobs_[r.job] = {};
  ++counters_.totals.jobs;
  ++counters_.totals.jobs_pending;
  counters_.totals.tasks_submitted += h.count;
  counters_.last_job = std::max(counters_.last_job, r.job.value);
}

void SqliteStore::apply(const core::JobProgressed& r, const core::Bodies&) {
  JobNow& now = now_of(r.job);
  // Two statements: while the state stays, its indexes need not be touched.
  const bool stays = r.state == now.state && !core::ended(r.state);
  auto& s = stays ? sql("UPDATE jobs SET next_index=?2, completed=?3, failed=?4, cancelled=?5, started=?6 WHERE no=?1")
                  : sql("UPDATE jobs SET next_index=?2, completed=?3, failed=?4, cancelled=?5, started=?6, state=?7, "
                        "ended=?8 WHERE no=?1");
  s.bind(1, r.job.value)
      .bind(2, r.next_index)
      .bind(3, r.counts.completed)
      .bind(4, r.counts.failed)
      .bind(5, r.counts.cancelled);
  s.bind(6, r.started.ms);
  if (!stays) s.bind(7, static_cast<int>(r.state)).bind(8, r.ended.ms);
  s.run();

  // Totals follow the job's own counts, which also say what no outcome does: tasks that were never handed out and were
  // cancelled.
  Totals& t = counters_.totals;
  --jobs_in(now.state);
  ++jobs_in(r.state);
  t.tasks_completed += std::uint64_t{r.counts.completed} - now.counts.completed;
  t.tasks_failed += std::uint64_t{r.counts.failed} - now.counts.failed;
  t.tasks_cancelled += std::uint64_t{r.counts.cancelled} - now.counts.cancelled;
  if (core::ended(r.state)) {
    jobs_.erase(r.job);
  } else {
    now = {r.state, r.counts};
  }
}

void SqliteStore::apply(const core::TaskKept& r, const core::Bodies&) {
  extras_.insert(r.task.packed);
  sql("INSERT OR REPLACE INTO kept(task, attempt, failures, crashes, ready_at) VALUES(?,?,?,?,?)")
      .bind_u(1, r.task.packed)
      .bind(2, r.attempt)
      .bind(3, r.failures)
      .bind(4, r.crashes)
      .bind(5, r.ready_at.ms)
      .run();
  std::erase(ended_extras_, r.task.packed);  // ended, reopened and kept within one batch
}

void SqliteStore::apply(const core::TaskReopened& r, const core::Bodies&) {
  sql("DELETE FROM outcomes WHERE task=?").bind_u(1, r.task.packed).run();
  counters_.outcome_rows -= static_cast<std::uint64_t>(db_.changes());
  drop_refs(r.task, kResultRef);
}

void SqliteStore::apply(const core::AttemptFailed& r, const core::Bodies& bodies) {
  const auto* body = body_of<core::ResultBody>(bodies, r.body);
  sql("INSERT INTO failures(task, job, attempt, worker, class, at, message) VALUES(?,?,?,?,?,?,?)")
      .bind_u(1, r.task.packed)
      .bind(2, r.task.job().value)
      .bind(3, r.attempt)
      .bind(4, r.worker.value)
      .bind(5, static_cast<int>(r.failure))
      .bind(6, r.at.ms)
      .bind_text(7, body != nullptr ? std::string_view(body->message) : std::string_view())
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
  std::erase(ended_extras_, r.task.packed);
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
      "ON CONFLICT(no) DO UPDATE SET id=?2, name=?3, manifest=?4, connected=?5, last_seen=?6")
      .bind(1, r.worker.value)
      .bind_text(2, body->id)
      .bind_text(3, body->name)
      .bind_blob(4, body->manifest)
      .bind(5, r.connected)
      .bind(6, r.at.ms)
      .run();
}

void SqliteStore::write_workers() {
  for (const auto& [worker, delta] : worker_deltas_) {
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

SqliteStore::JobNow& SqliteStore::now_of(JobNo job) {
  if (const auto it = jobs_.find(job); it != jobs_.end()) return it->second;
  sqlite::Use s(sql("SELECT state, completed, failed, cancelled FROM jobs WHERE no=?"));
  s->bind(1, job.value);
  if (!s->step()) {
    throw sqlite::Failure{
        SQLITE_ERROR,
        Error{ErrorClass::internal, fmt::format("Job {} made progress but is not in the store.", job.value), {}}};
  }
  return jobs_[job] = {static_cast<core::JobState>(s->i(0)), {s->u32(1), s->u32(2), s->u32(3)}};
}

std::uint64_t& SqliteStore::jobs_in(core::JobState state) {
  Totals& t = counters_.totals;
  switch (state) {
    case core::JobState::pending:
      return t.jobs_pending;
    case core::JobState::running:
      return t.jobs_running;
    case core::JobState::completed:
      return t.jobs_completed;
    case core::JobState::failed:
      return t.jobs_failed;
    case core::JobState::cancelled:
      return t.jobs_cancelled;
  }
  return t.jobs_pending;
}

}  // namespace grange::store
