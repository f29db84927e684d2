// Races: rows that only the server's book of runs writes.
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

RunRow row_of(const sqlite::Statement& s) {
  return {.id = s.text(0),
          .kind = s.text(1),
          .user = s.text(2),
          .digest = s.text(3),
          .status = s.text(4),
          .started = {s.i64(5)},
          .ended = {s.i64(6)},
          .record = s.text(7),
          .summary = s.text(8)};
}

}  // namespace

Result<> SqliteStore::put_run(const RunRow& row) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sql("INSERT OR REPLACE INTO runs(id, kind, user, digest, status, started, ended, record, summary) "
        "VALUES(?,?,?,?,?,?,?,?,?)")
        .bind_text(1, row.id)
        .bind_text(2, row.kind)
        .bind_text(3, row.user)
        .bind_text(4, row.digest)
        .bind_text(5, row.status)
        .bind(6, row.started.ms)
        .bind(7, row.ended.ms)
        .bind_text(8, row.record)
        .bind_text(9, row.summary)
        .run();
    return {};
  });
}

Result<bool> SqliteStore::drop_run(const std::string& id) {
  return sqlite::guarded<bool>([&]() -> Result<bool> {
    sql("DELETE FROM runs WHERE id=?").bind_text(1, id).run();
    return db_.changes() != 0;
  });
}

Result<std::vector<std::string>> SqliteStore::forget_runs(std::uint64_t keep) {
  using Ids = std::vector<std::string>;
  return sqlite::guarded<Ids>([&]() -> Result<Ids> {
    Ids out;
    {
      sqlite::Use s(sql("SELECT id FROM runs WHERE ended > 0 ORDER BY started DESC, id DESC LIMIT -1 OFFSET ?"));
      s->bind_u(1, keep);
      while (s->step()) out.push_back(s->text(0));
    }
    for (const std::string& id : out) sql("DELETE FROM runs WHERE id=?").bind_text(1, id).run();
    return out;
  });
}

Result<std::vector<RunRow>> SqliteReader::runs(const RunFilter& filter) {
  using Rows = std::vector<RunRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(
        sql("SELECT id, kind, user, digest, status, started, ended, record, CASE WHEN ?6 THEN summary ELSE '' END FROM "
            "runs WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR digest = ?2) AND (?3 = '' OR (started, id) < (SELECT "
            "started, id FROM runs WHERE id = "
            "?3)) AND (?4 = 0 OR ended = 0) ORDER BY started DESC, id DESC LIMIT ?5"));
    s->bind_text(1, filter.kind)
        .bind_text(2, filter.digest)
        .bind_text(3, filter.before)
        .bind(4, filter.unfinished)
        .bind(5, filter.limit)
        .bind(6, filter.summaries);
    Rows rows;
    while (s->step()) rows.push_back(row_of(*s.operator->()));
    return rows;
  });
}

Result<std::optional<RunRow>> SqliteReader::run(const std::string& id) {
  using Found = std::optional<RunRow>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT id, kind, user, digest, status, started, ended, record, summary FROM runs WHERE id = ?"));
    s->bind_text(1, id);
    return s->step() ? Found(row_of(*s.operator->())) : Found();
  });
}

}  // namespace grange::store
