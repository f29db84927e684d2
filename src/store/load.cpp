// What start-up reads: jobs that have not ended, and what of them is still to do. Ended jobs cost nothing here.
#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <unordered_set>

#include "store/header_row.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

// like_sqlite: from SQLite's own generator, which a simulated disk seeds.
std::string new_server_id(bool like_sqlite) {
  unsigned char bytes[16];
  if (like_sqlite) {
    sqlite3_randomness(sizeof bytes, bytes);
  } else if (RAND_bytes(bytes, sizeof bytes) != 1) {
    throw sqlite::Failure{SQLITE_ERROR,
                          Error{ErrorClass::internal, "The system gave no random bytes for the server's id.", {}}};
  }
  std::string id;
  for (const unsigned char b : bytes) id += fmt::format("{:02x}", b);
  return id;
}

Loaded::Job job_from(const sqlite::Statement& s, const std::string& path) {
  Loaded::Job job;
  job.job = {s.u32(0)};
  job.id = s.null(1) ? std::to_string(job.job.value) : s.text(1);
  if (!read_header(s, 2, job.header)) damaged_header(path, job.job);
  constexpr int p = 2 + kHeaderColumns;
  job.progress = {.job = job.job,
                  .state = static_cast<core::JobState>(s.i(p)),
                  .next_index = s.u32(p + 1),
                  .counts = {s.u32(p + 2), s.u32(p + 3), s.u32(p + 4)},
                  .started = {s.i64(p + 5)},
                  .ended = {s.i64(p + 6)},
                  .count = job.header.count,
                  .open = job.header.open,
                  .opened = s.i(p + 7) != 0,
                  .paused = s.i(p + 8) != 0};
  return job;
}

}  // namespace

Result<Loaded> SqliteStore::load() {
  return sqlite::guarded<Loaded>([&]() -> Result<Loaded> {
    Loaded out;
    {
      sqlite::Transaction t(db_);
      out.incarnation = static_cast<std::uint64_t>(db_.integer("SELECT value FROM meta WHERE key='incarnation'")) + 1;
      sql("INSERT OR REPLACE INTO meta(key, value) VALUES('incarnation', ?)").bind_u(1, out.incarnation).run();
      out.server_id = db_.text("SELECT value FROM meta WHERE key='server_id'");
      if (out.server_id.empty()) {
        out.server_id = new_server_id(options_.farm_only);
        sql("INSERT INTO meta(key, value) VALUES('server_id', ?)").bind_text(1, out.server_id).run();
      }
      t.commit();
    }
    out.last_job = {counters_.last_job};
    out.farm.paused = db_.integer("SELECT value FROM meta WHERE key='paused'") != 0;
    out.farm.policy = db_.text("SELECT value FROM meta WHERE key='policy'");
    out.farm.policy_over = db_.text("SELECT value FROM meta WHERE key='policy_over'");

    std::unordered_set<std::uint32_t> unfinished;
    jobs_.clear();
    sqlite::Statement jobs(db_,
                           "SELECT no, id, " GRANGE_HEADER_COLUMNS
                           ", state, next_index, completed, failed, cancelled, started, ended, opened, paused FROM "
                           "jobs WHERE state IN (0, 1) ORDER BY no");
    sqlite::Statement ends(db_, "SELECT task FROM outcomes WHERE task >= ? AND task < ? ORDER BY task");
    while (jobs.step()) {
      Loaded::Job job = job_from(jobs, directory() + "/farm.db");
      // The gaps in the ordered keys are what is open.
      const std::uint64_t base = TaskId::of(job.job, 0).packed;
      std::uint32_t expected = 0;
      ends.bind_u(1, base).bind_u(2, TaskId::of({job.job.value + 1}, 0).packed);
      const std::uint32_t handed_out = job.progress.next_index;
      while (ends.step()) {
        const std::uint32_t index = TaskId{ends.u64(0)}.index();
        for (; expected < std::min(index, handed_out); ++expected) job.open.push_back(expected);
        expected = index + 1;
        if (index >= handed_out) job.skipped.push_back(index);
      }
      ends.reset();
      for (; expected < handed_out; ++expected) job.open.push_back(expected);
      const auto& after = job.header.after;
      jobs_[job.job] = {job.progress.state, job.progress.counts, job.header.result_ttl,
                        std::any_of(after.begin(), after.end(), [](const auto& d) { return d.pass; })};
      unfinished.insert(job.job.value);
      out.jobs.push_back(std::move(job));
    }

    sqlite::Statement kept(db_, "SELECT task, attempt, failures, parked, ready_at FROM kept ORDER BY task");
    while (kept.step()) {
      const TaskId task{kept.u64(0)};
      if (!unfinished.contains(task.job().value)) continue;
      out.tasks.push_back(
          {task, kept.u32(1), unpack_failures(kept.u64(2)), kept.i(3) != 0, {kept.i64(4)}, kept.i(3) == 2});
    }
    sqlite::Statement users(db_,
                            "SELECT name, weight, max_running, max_cpus, max_gpus, max_queued, starts_per_minute, "
                            "submits_per_minute FROM users ORDER BY name");
    while (users.step()) {
      out.users.push_back(
          {users.text(0),
           {users.u32(1), users.u32(2), users.u32(3), users.u32(4), users.u64(5), users.u32(6), users.u32(7)}});
    }
    sqlite::Statement workers(
        db_, "SELECT no, id, connected, quarantined_until, quarantines, paused FROM workers ORDER BY no");
    while (workers.step()) {
      const WorkerNo no{workers.u32(0)};
      out.workers.push_back(
          {no, workers.text(1), workers.i(2) != 0, {no, {workers.i64(3)}, workers.u32(4)}, workers.i(5) != 0});
    }
    return out;
  });
}

}  // namespace grange::store
