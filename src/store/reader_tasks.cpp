#include "store/codec.hpp"
#include "store/reader.hpp"

namespace grange::store {

OutcomeRow SqliteReader::outcome_row(const sqlite::Statement& s) const {
  OutcomeRow row;
  row.task = {s.u64(0)};
  row.end = static_cast<core::TaskEnd>(s.i(1));
  row.failure = static_cast<core::FailureClass>(s.i(2));
  row.attempt = s.u32(3);
  row.worker = {s.u32(4)};
  row.at = {s.i64(5)};
  row.run_us = s.u64(6);
  return row;
}

Result<std::vector<OutcomeRow>> SqliteReader::outcomes(JobNo job, std::uint32_t from, std::uint32_t limit,
                                                       bool with_values) {
  return sqlite::guarded<std::vector<OutcomeRow>>([&]() -> Result<std::vector<OutcomeRow>> {
    sqlite::Use s(with_values
                      ? sql("SELECT task, end, failure, attempt, worker, at, run_us, extra, value FROM outcomes "
                            "WHERE task >= ? AND task < ? ORDER BY task LIMIT ?")
                      : sql("SELECT task, end, failure, attempt, worker, at, run_us, extra FROM outcomes "
                            "WHERE task >= ? AND task < ? ORDER BY task LIMIT ?"));
    s->bind_u(1, TaskId::of(job, from).packed).bind_u(2, TaskId::of({job.value + 1}, 0).packed).bind(3, limit);
    std::vector<OutcomeRow> rows;
    while (s->step()) {
      OutcomeRow& row = rows.emplace_back(outcome_row(*s.operator->()));
      if (!s->null(7) && !unpack_extra(s->bytes(7), with_values, row.body)) damaged("a result");
      if (with_values) row.body.value = s->text(8);
    }
    return rows;
  });
}

Result<std::vector<core::TaskKept>> SqliteReader::kept(JobNo job) {
  return sqlite::guarded<std::vector<core::TaskKept>>([&]() -> Result<std::vector<core::TaskKept>> {
    sqlite::Use s(
        sql("SELECT task, attempt, failures, parked, ready_at FROM kept WHERE task >= ? AND task < ? ORDER BY task"));
    s->bind_u(1, TaskId::of(job, 0).packed).bind_u(2, TaskId::of({job.value + 1}, 0).packed);
    std::vector<core::TaskKept> rows;
    while (s->step()) {
      rows.push_back({{s->u64(0)}, s->u32(1), unpack_failures(s->u64(2)), s->i(3) != 0, {s->i64(4)}, s->i(3) == 2});
    }
    return rows;
  });
}

Result<std::optional<core::CheckpointBody>> SqliteReader::checkpoint(TaskId task) {
  using Found = std::optional<core::CheckpointBody>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT data, sha256 FROM checkpoints WHERE task = ?"));
    s->bind_u(1, task.packed);
    return s->step() ? Found({s->text(0), s->text(1)}) : Found();
  });
}

Result<std::vector<FailureRow>> SqliteReader::failures(std::optional<WorkerNo> worker, std::optional<JobNo> job,
                                                       std::int64_t before_id, std::uint32_t skip,
                                                       std::uint32_t limit) {
  return sqlite::guarded<std::vector<FailureRow>>([&]() -> Result<std::vector<FailureRow>> {
#define GRANGE_FAILURE_COLUMNS \
  "SELECT id, task, attempt, worker, class, message, at, stage FROM failures WHERE id < ?1 "
#define GRANGE_FAILURE_ORDER "ORDER BY id DESC LIMIT ?2 OFFSET ?3"
    sqlite::Use s(worker && job ? sql(GRANGE_FAILURE_COLUMNS "AND worker = ?4 AND +job = ?5 " GRANGE_FAILURE_ORDER)
                  : worker      ? sql(GRANGE_FAILURE_COLUMNS "AND worker = ?4 " GRANGE_FAILURE_ORDER)
                  : job         ? sql(GRANGE_FAILURE_COLUMNS "AND job = ?4 " GRANGE_FAILURE_ORDER)
                                : sql(GRANGE_FAILURE_COLUMNS GRANGE_FAILURE_ORDER));
#undef GRANGE_FAILURE_COLUMNS
#undef GRANGE_FAILURE_ORDER
    s->bind(1, before_id > 0 ? before_id : INT64_MAX).bind(2, limit).bind(3, skip);
    if (worker) s->bind(4, worker->value);
    if (job) s->bind(worker ? 5 : 4, job->value);
    std::vector<FailureRow> rows;
    while (s->step()) {
      rows.push_back({s->i64(0),
                      {s->u64(1)},
                      s->u32(2),
                      {s->u32(3)},
                      static_cast<core::FailureClass>(s->i(4)),
                      static_cast<core::Stage>(s->i(7)),
                      s->text(5),
                      {s->i64(6)}});
    }
    return rows;
  });
}

}  // namespace grange::store
