// What went through the gateway, by day: rows that only its meter writes.
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {

Result<> SqliteStore::put_usage(const std::vector<UsageRow>& rows, std::uint32_t keep_days) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sqlite::Transaction t(db_);
    for (const UsageRow& row : rows) {
      sql("INSERT OR REPLACE INTO usage(day, principal, model, figures) VALUES(?,?,?,?)")
          .bind(1, row.day)
          .bind_text(2, row.principal)
          .bind_text(3, row.model)
          .bind_text(4, row.figures)
          .run();
    }
    // Counted, not told from the clock: one that runs ahead for a moment takes nothing away.
    if (keep_days > 0) {
      std::optional<std::int64_t> oldest;
      {
        sqlite::Use s(sql("SELECT DISTINCT day FROM usage ORDER BY day DESC LIMIT 1 OFFSET ?"));
        s->bind(1, keep_days);
        if (s->step()) oldest = s->i64(0);
      }
      if (oldest) sql("DELETE FROM usage WHERE day <= ?").bind(1, *oldest).run();
    }
    t.commit();
    return {};
  });
}

Result<std::vector<UsageRow>> SqliteReader::usage(std::int64_t from_day) {
  using Rows = std::vector<UsageRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(
        sql("SELECT day, principal, model, figures FROM usage WHERE day >= ? ORDER BY day, principal, model"));
    s->bind(1, from_day);
    Rows rows;
    while (s->step())
      rows.push_back({.day = s->i64(0), .principal = s->text(1), .model = s->text(2), .figures = s->text(3)});
    return rows;
  });
}

}  // namespace grange::store
