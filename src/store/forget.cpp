// Taking away what is no longer wanted. Not reached by a task's way through the house.
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

// Rows deleted in one call: some tens of milliseconds, so that commits never wait long behind it.
constexpr std::int64_t kRowsPerCall = 50'000;

constexpr const char* kOfAJob[] = {
    "DELETE FROM outcomes WHERE task IN (SELECT task FROM outcomes WHERE task >= ?1 AND task < ?2 LIMIT ?3)",
    "DELETE FROM pages WHERE first IN (SELECT first FROM pages WHERE first >= ?1 AND first < ?2 LIMIT ?3)",
    "DELETE FROM failures WHERE id IN (SELECT id FROM failures WHERE job = ?1 >> 32 AND ?2 LIMIT ?3)",
    "DELETE FROM kept WHERE task IN (SELECT task FROM kept WHERE task >= ?1 AND task < ?2 LIMIT ?3)",
    "DELETE FROM extends WHERE (job, key) IN (SELECT job, key FROM extends WHERE job = ?1 >> 32 AND ?2 LIMIT ?3)",
    "DELETE FROM checkpoints WHERE task IN (SELECT task FROM checkpoints WHERE task >= ?1 AND task < ?2 LIMIT ?3)",
    "DELETE FROM refs WHERE (task, kind, sha256) IN (SELECT task, kind, sha256 FROM refs WHERE task >= ?1 AND task < "
    "?2 LIMIT ?3)",
};

}  // namespace

// True: nothing of the job is left.
bool SqliteStore::delete_some(JobNo job, std::int64_t& budget) {
  for (const char* text : kOfAJob) {
    if (budget <= 0) return false;
    sql(text)
        .bind_u(1, TaskId::of(job, 0).packed)
        .bind_u(2, TaskId::of({job.value + 1}, 0).packed)
        .bind(3, budget)
        .run();
    const std::int64_t gone = db_.changes();
    if (text == kOfAJob[0]) counters_.outcome_rows -= static_cast<std::uint64_t>(gone);
    if (text == kOfAJob[1]) counters_.page_rows -= static_cast<std::uint64_t>(gone);
    if (text == kOfAJob[2]) counters_.failure_rows -= static_cast<std::uint64_t>(gone);
    budget -= gone;
  }
  return budget > 0;
}

// Ended jobs, those with a time of their own first, then the oldest. Left out are jobs whose results a live job will be
// given, and those whose uniqueness word is not free yet.
std::vector<std::pair<JobNo, core::JobState>> SqliteStore::to_forget(WallMs before, WallMs now, std::uint64_t keep,
                                                                     std::uint32_t limit) {
  std::vector<std::pair<JobNo, core::JobState>> jobs;
  if (limit == 0) return jobs;
  const Totals& totals = counters_.totals;
  std::uint64_t ended = totals.jobs_completed + totals.jobs_failed + totals.jobs_cancelled;
#define GRANGE_MAY_GO "unique_until > ?1 OR EXISTS(SELECT 1 FROM job_parents WHERE parent = no AND holds = 1)"
  {
    sqlite::Use over(
        sql("SELECT no, state, " GRANGE_MAY_GO " FROM jobs WHERE expires > 0 AND expires <= ?1 ORDER BY expires, no"));
    over->bind(1, now.ms);
    while (jobs.size() < limit && over->step()) {
      if (over->i(2) == 0) jobs.emplace_back(JobNo{over->u32(0)}, static_cast<core::JobState>(over->i(1)));
    }
  }
  std::unordered_set<std::uint32_t> taken;
  for (const auto& [job, state] : jobs) taken.insert(job.value);
  ended -= taken.size();
  sqlite::Use oldest(
      sql("SELECT no, state, " GRANGE_MAY_GO ", ended, expires FROM jobs WHERE state >= 2 ORDER BY ended, no"));
#undef GRANGE_MAY_GO
  oldest->bind(1, now.ms);
  while (jobs.size() < limit && oldest->step()) {
    const bool many = ended > keep;
    if (!many && oldest->i64(3) >= before.ms) break;
    const JobNo job{oldest->u32(0)};
    if (taken.contains(job.value)) continue;
    --ended;
    const bool old = oldest->i64(3) < before.ms && oldest->i64(4) == 0;
    if ((many || old) && oldest->i(2) == 0) {
      jobs.emplace_back(job, static_cast<core::JobState>(oldest->i(1)));
    }
  }
  return jobs;
}

Result<std::vector<JobNo>> SqliteStore::forget_ended(WallMs before, WallMs now, std::uint64_t keep,
                                                     std::uint32_t limit) {
  const Counters was = counters_;
  try {
    sqlite::Transaction t(db_);
    const auto jobs = to_forget(before, now, keep, limit);
    for (const auto& [job, state] : jobs) {
      sql("DELETE FROM jobs WHERE no=?").bind(1, job.value).run();
      sql("DELETE FROM specs WHERE job=?").bind(1, job.value).run();
      sql("DELETE FROM job_parents WHERE child=?").bind(1, job.value).run();
      sql("INSERT INTO trash(job) VALUES(?)").bind(1, job.value).run();
      --counters_.totals.jobs;
      --jobs_in(state);
    }
    for (std::int64_t budget = kRowsPerCall; budget > 0;) {
      const JobNo job{static_cast<std::uint32_t>(db_.integer("SELECT min(job) FROM trash"))};
      if (job.value == 0 || !delete_some(job, budget)) break;
      sql("DELETE FROM trash WHERE job=?").bind(1, job.value).run();
    }
    write_counters();
    t.commit();
    std::vector<JobNo> gone;
    for (const auto& [job, state] : jobs) {
      jobs_.erase(job);
      gone.push_back(job);
    }
    return gone;
  } catch (sqlite::Failure& failure) {
    undo(was);
    return std::move(failure.error);
  }
}

Result<> SqliteStore::forget_all() {
  const Counters was = counters_;
  try {
    sqlite::Transaction t(db_);
    db_.exec(
        "DELETE FROM jobs; DELETE FROM specs; DELETE FROM pages; DELETE FROM outcomes; DELETE FROM kept; DELETE FROM "
        "checkpoints; "
        "DELETE FROM failures; DELETE FROM worker_failures; DELETE FROM refs; DELETE FROM models; DELETE FROM trash; "
        "DELETE FROM job_parents; DELETE FROM extends; DELETE FROM runs; "
        "DELETE FROM workers WHERE connected=0; UPDATE workers SET completed=0, failed=0, run_us=0");
    counters_ = {};
    counters_.last_job = was.last_job;
    write_counters();
    t.commit();
  } catch (sqlite::Failure& failure) {
    undo(was);
    return std::move(failure.error);
  }
  jobs_.clear();
  extras_.clear();
  ended_extras_.clear();
  // Gives the space back to the disk. What matters is done: a reader in the way or a full disk is no failure here.
  sqlite3_exec(db_.raw(), "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr);
  return {};
}

}  // namespace grange::store
