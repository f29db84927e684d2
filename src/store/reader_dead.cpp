// Tasks that did not complete: what a retry takes up, and the dead letters.
#include <algorithm>

#include "store/codec.hpp"
#include "store/reader.hpp"

namespace grange::store {

Result<std::vector<OutcomeRow>> SqliteReader::unhappy(JobNo job) {
  return sqlite::guarded<std::vector<OutcomeRow>>([&]() -> Result<std::vector<OutcomeRow>> {
    std::vector<OutcomeRow> rows;
    std::ptrdiff_t failed = 0;
    for (const auto end : {core::TaskEnd::failed, core::TaskEnd::cancelled}) {
      failed = std::ssize(rows);
      sqlite::Use s(
          sql("SELECT task, end, failure, attempt, worker, at, run_us FROM outcomes INDEXED BY outcomes_unhappy "
              "WHERE end <> 1 AND end = ? AND task >= ? AND task < ? ORDER BY task"));
      s->bind(1, static_cast<int>(end))
          .bind_u(2, TaskId::of(job, 0).packed)
          .bind_u(3, TaskId::of({job.value + 1}, 0).packed);
      while (s->step()) rows.push_back(outcome_row(*s.operator->()));
    }
    std::inplace_merge(rows.begin(), rows.begin() + failed, rows.end(),
                       [](const auto& a, const auto& b) { return a.task < b.task; });
    return rows;
  });
}

// Job by job, so that one with millions of failures costs nothing when it is not of the user that is asked for, or was
// forgotten while rows of it are still there.
Result<std::vector<OutcomeRow>> SqliteReader::dead(const DeadFilter& filter) {
  return sqlite::guarded<std::vector<OutcomeRow>>([&]() -> Result<std::vector<OutcomeRow>> {
    const std::uint64_t low = filter.job ? TaskId::of(*filter.job, 0).packed : 0;
    std::uint64_t high = filter.job ? TaskId::of({filter.job->value + 1}, 0).packed : INT64_MAX;
    if (filter.before) high = std::min(high, filter.before->packed);
#define GRANGE_DEAD "FROM outcomes INDEXED BY outcomes_unhappy WHERE end <> 1 AND end = 2 AND task >= ?1 AND task < ?2 "
    std::vector<OutcomeRow> rows;
    while (rows.size() < filter.limit && low < high) {
      JobNo job;
      {
        sqlite::Use s(sql("SELECT task " GRANGE_DEAD "ORDER BY task DESC LIMIT 1"));
        s->bind_u(1, low).bind_u(2, high);
        if (!s->step()) break;
        job = TaskId{s->u64(0)}.job();
      }
      const std::uint64_t first = TaskId::of(job, 0).packed;
      bool wanted = false;
      {
        sqlite::Use s(sql("SELECT 1 FROM jobs WHERE no = ?1 AND (?2 = '' OR user = ?2)"));
        s->bind(1, job.value).bind_text(2, filter.user);
        wanted = s->step();
      }
      if (wanted) {
        sqlite::Use s(sql("SELECT task, end, failure, attempt, worker, at, run_us, extra " GRANGE_DEAD
                          "AND (?3 < 0 OR failure = ?3) ORDER BY task DESC LIMIT ?4"));
        s->bind_u(1, first).bind_u(2, high).bind(3, filter.failure ? static_cast<int>(*filter.failure) : -1);
        s->bind_u(4, filter.limit - rows.size());
        while (s->step()) {
          OutcomeRow& row = rows.emplace_back(outcome_row(*s.operator->()));
          if (!s->null(7) && !unpack_extra(s->bytes(7), false, row.body)) damaged("a result");
        }
      }
      high = first;
    }
#undef GRANGE_DEAD
    return rows;
  });
}

}  // namespace grange::store
