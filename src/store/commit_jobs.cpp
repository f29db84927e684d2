// Records about whole jobs, about users and about the farm.
#include <fmt/format.h>

#include "store/body_of.hpp"
#include "store/codec.hpp"
#include "store/header_row.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

// Times given by people may be any: no overflow.
std::int64_t later(std::int64_t at, std::int64_t by) {
  return at > INT64_MAX - by ? INT64_MAX : at + by;
}

}  // namespace

void SqliteStore::apply(const core::JobAdded& r, const core::Bodies& bodies) {
  static const core::JobBody kEmpty;
  const auto* found = body_of<core::JobBody>(bodies, r.body);
  const core::JobBody& body = found != nullptr ? *found : kEmpty;
  const core::JobHeader& h = r.header;
  const std::string request = pack_request(h.request);
  const std::string more = pack_more(h);
  auto& s = sql(
      "INSERT INTO jobs(no, id, key, digest, name, user, engine, count, priority, request, max_attempts, backoff_base, "
      "backoff_cap, crash_limit, fail_fast, submitted, open, opened, unique_word, unique_until, more) "
      "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  s.bind(1, r.job.value);
  // An id that is the number is not stored: find_job falls back to the number.
  body.id.empty() || body.id == std::to_string(r.job.value) ? s.bind_null(2) : s.bind_text(2, body.id);
  body.key.empty() ? s.bind_null(3) : s.bind_text(3, body.key);
  s.bind_text(4, body.digest)
      .bind_text(5, body.name)
      .bind_text(6, h.user.empty() ? body.user : h.user)
      .bind_text(7, body.engine);
  s.bind(8, h.count)
      .bind(9, h.priority)
      .bind_blob(10, request)
      .bind(11, h.retry.max_attempts)
      .bind(12, h.retry.base.count());
  s.bind(13, h.retry.cap.count()).bind(14, h.retry.crash_limit).bind(15, h.fail_fast ? 1 : 0).bind(16, r.at.ms);
  s.bind(17, h.open).bind(18, h.after.empty());
  body.unique.empty() ? s.bind_null(19) : s.bind_text(19, body.unique);
  s.bind(20, body.unique.empty() || body.unique_for <= Millis{0} ? 0 : later(r.at.ms, body.unique_for.count()));
  more.empty() ? s.bind_null(21) : s.bind_blob(21, more);
  s.run();

  sql("INSERT INTO specs(job, spec) VALUES(?,?)").bind(1, r.job.value).bind_blob(2, body.spec).run();
  add_pages(r.job, body);

  jobs_[r.job] = {{}, {}, h.result_ttl, hold_parents(r.job, h.after)};
  ++counters_.totals.jobs;
  ++counters_.totals.jobs_pending;
  counters_.totals.tasks_submitted += h.count;
  counters_.last_job = std::max(counters_.last_job, r.job.value);
}

void SqliteStore::apply(const core::JobExtended& r, const core::Bodies& bodies) {
  if (const auto* body = body_of<core::JobBody>(bodies, r.body)) add_pages(r.job, *body);
  counters_.totals.tasks_submitted += r.count;
  if (r.key.empty()) return;
  sql("INSERT INTO extends(job, key, total) VALUES(?,?,?)")
      .bind(1, r.job.value)
      .bind_text(2, r.key)
      .bind(3, r.first + r.count)
      .run();
}

void SqliteStore::apply(const core::JobCancelled& r, const core::Bodies& bodies) {
  const auto* body = body_of<core::ResultBody>(bodies, r.body);
  auto& s = sql("UPDATE jobs SET reason=?2 WHERE no=?1").bind(1, r.job.value);
  body == nullptr || body->message.empty() ? s.bind_null(2) : s.bind_text(2, body->message);
  s.run();
}

void SqliteStore::add_pages(JobNo job, const core::JobBody& body) {
  for (const core::ArgumentPage& page : body.pages) {
    const std::string sizes = pack_sizes(page.sizes);
    sql("INSERT INTO pages(first, count, sizes, bytes) VALUES(?,?,?,?)")
        .bind_u(1, TaskId::of(job, page.first).packed)
        .bind_u(2, page.sizes.size())
        .bind_blob(3, sizes)
        .bind_blob(4, page.bytes)
        .run();
  }
  counters_.page_rows += body.pages.size();
  for (const auto& sha : body.blobs) add_ref(TaskId::of(job, 0), kJobRef, sha);
}

// Results that the job will be given stay while it lives. True: there are any.
bool SqliteStore::hold_parents(JobNo job, const std::vector<core::Dependency>& after) {
  bool any = false;
  for (const core::Dependency& d : after) {
    any = any || d.pass;
    sql("INSERT INTO job_parents(child, parent, holds) VALUES(?,?,?) ON CONFLICT(child, parent) DO UPDATE SET "
        "holds = max(holds, excluded.holds)")
        .bind(1, job.value)
        .bind(2, d.job.value)
        .bind(3, d.pass)
        .run();
  }
  return any;
}

void SqliteStore::apply(const core::JobProgressed& r, const core::Bodies&) {
  JobNow& now = now_of(r.job);
  // Two statements: while the state stays, its indexes need not be touched.
  const bool stays = r.state == now.state && !core::ended(r.state);
#define GRANGE_PROGRESS                                                                                               \
  "UPDATE jobs SET next_index=?2, completed=?3, failed=?4, cancelled=?5, started=?6, count=max(count, ?7), open=?8, " \
  "opened=?9, paused=?10"
  auto& s = stays ? sql(GRANGE_PROGRESS " WHERE no=?1")
                  : sql(GRANGE_PROGRESS ", state=?11, ended=?12, expires=?13 WHERE no=?1");
#undef GRANGE_PROGRESS
  s.bind(1, r.job.value)
      .bind(2, r.next_index)
      .bind(3, r.counts.completed)
      .bind(4, r.counts.failed)
      .bind(5, r.counts.cancelled);
  s.bind(6, r.started.ms).bind(7, r.count).bind(8, r.open).bind(9, r.opened).bind(10, r.paused);
  if (!stays) {
    const bool expires = core::ended(r.state) && now.result_ttl > Millis{0};
    s.bind(11, static_cast<int>(r.state)).bind(12, r.ended.ms);
    s.bind(13, expires ? later(r.ended.ms, now.result_ttl.count()) : 0);
  }
  s.run();
  if (core::ended(r.state)) {
    if (now.has_inputs) sql("UPDATE job_parents SET holds=0 WHERE child=?").bind(1, r.job.value).run();
  } else if (core::ended(now.state)) {
    now.has_inputs = hold_parents(r.job, header_of(r.job).after);  // it was retried
  }

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
    now.state = r.state;
    now.counts = r.counts;
  }
}

void SqliteStore::apply(const core::UserSet& r, const core::Bodies&) {
  const core::UserLimits& l = r.limits;
  if (l == core::UserLimits{}) {  // as anybody
    sql("DELETE FROM users WHERE name=?").bind_text(1, r.user).run();
    return;
  }
  sql("INSERT OR REPLACE INTO users(name, weight, max_running, max_cpus, max_gpus, max_queued, starts_per_minute, "
      "submits_per_minute) VALUES(?,?,?,?,?,?,?,?)")
      .bind_text(1, r.user)
      .bind(2, l.weight_milli)
      .bind(3, l.max_running)
      .bind(4, l.max_cpus_milli)
      .bind(5, l.max_gpus_milli)
      .bind_u(6, l.max_queued)
      .bind(7, l.starts_per_minute)
      .bind(8, l.submits_per_minute)
      .run();
}

void SqliteStore::apply(const core::FarmSet& r, const core::Bodies&) {
  sql("INSERT OR REPLACE INTO meta(key, value) VALUES('paused', ?)").bind(1, r.paused).run();
  sql("INSERT OR REPLACE INTO meta(key, value) VALUES('policy', ?)").bind_text(1, r.policy).run();
  sql("INSERT OR REPLACE INTO meta(key, value) VALUES('policy_over', ?)").bind_text(1, r.policy_over).run();
}

core::JobHeader SqliteStore::header_of(JobNo job) {
  sqlite::Use s(sql("SELECT " GRANGE_HEADER_COLUMNS " FROM jobs WHERE no=?"));
  s->bind(1, job.value);
  core::JobHeader header;
  if (s->step() && !read_header(*s.operator->(), 0, header)) damaged_header(directory() + "/farm.db", job);
  return header;
}

SqliteStore::JobNow& SqliteStore::now_of(JobNo job) {
  if (const auto it = jobs_.find(job); it != jobs_.end()) return it->second;
  sqlite::Use s(
      sql("SELECT state, completed, failed, cancelled, EXISTS(SELECT 1 FROM job_parents WHERE child=no AND holds=1), "
          "more FROM jobs WHERE no=?"));
  s->bind(1, job.value);
  if (!s->step()) {
    throw sqlite::Failure{
        SQLITE_ERROR,
        Error{ErrorClass::internal, fmt::format("Job {} made progress but is not in the store.", job.value), {}}};
  }
  core::JobHeader header;
  if (!unpack_more(s->bytes(5), header)) damaged_header(directory() + "/farm.db", job);
  return jobs_[job] = {
             static_cast<core::JobState>(s->i(0)), {s->u32(1), s->u32(2), s->u32(3)}, header.result_ttl, s->i(4) != 0};
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
