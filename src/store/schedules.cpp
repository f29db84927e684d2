// Jobs that are submitted again and again: rows that only the server's scheduler writes.
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {

Result<> SqliteStore::put_schedule(const ScheduleRow& row) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sql("INSERT OR REPLACE INTO schedules(name, cron, file, user, paused, overlap, catch_up, next, last, last_job, "
        "runs, "
        "left_out, last_error) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)")
        .bind_text(1, row.name)
        .bind_text(2, row.cron)
        .bind_text(3, row.file)
        .bind_text(4, row.user)
        .bind(5, row.paused)
        .bind(6, row.overlap)
        .bind(7, row.catch_up)
        .bind(8, row.next.ms)
        .bind(9, row.last.ms)
        .bind_text(10, row.last_job)
        .bind_u(11, row.runs)
        .bind_u(12, row.left_out)
        .bind_text(13, row.last_error)
        .run();
    return {};
  });
}

Result<bool> SqliteStore::drop_schedule(const std::string& name) {
  return sqlite::guarded<bool>([&]() -> Result<bool> {
    sql("DELETE FROM schedules WHERE name=?").bind_text(1, name).run();
    return db_.changes() != 0;
  });
}

Result<std::vector<ScheduleRow>> SqliteReader::schedules() {
  return sqlite::guarded<std::vector<ScheduleRow>>([&]() -> Result<std::vector<ScheduleRow>> {
    sqlite::Use s(
        sql("SELECT name, cron, file, user, paused, overlap, catch_up, next, last, last_job, runs, left_out, "
            "last_error FROM schedules ORDER BY name"));
    std::vector<ScheduleRow> rows;
    while (s->step()) {
      rows.push_back({.name = s->text(0),
                      .cron = s->text(1),
                      .file = s->text(2),
                      .user = s->text(3),
                      .paused = s->i(4) != 0,
                      .overlap = s->i(5) != 0,
                      .catch_up = s->i(6) != 0,
                      .next = {s->i64(7)},
                      .last = {s->i64(8)},
                      .last_job = s->text(9),
                      .runs = s->u64(10),
                      .left_out = s->u64(11),
                      .last_error = s->text(12)});
    }
    return rows;
  });
}

}  // namespace grange::store
