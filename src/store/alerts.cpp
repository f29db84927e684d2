// Alerts and what people set up for them: rows that only the server's alerts write.
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {

Result<> SqliteStore::put_alerts(const std::vector<AlertRuleRow>& rules, const std::vector<AlertRow>& alerts,
                                 std::uint32_t keep) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sqlite::Transaction t(db_);
    for (const AlertRuleRow& row : rules) {
      if (row.rule.empty()) {
        sql("DELETE FROM alert_rules WHERE kind=?").bind_text(1, row.kind).run();
        continue;
      }
      sql("INSERT OR REPLACE INTO alert_rules(kind, rule) VALUES(?,?)")
          .bind_text(1, row.kind)
          .bind_text(2, row.rule)
          .run();
    }
    bool any_ended = false;
    for (const AlertRow& row : alerts) {
      any_ended = any_ended || row.ended.ms != 0;
      sql("INSERT OR REPLACE INTO alerts(id, kind, subject, record, began, ended) VALUES(?,?,?,?,?,?)")
          .bind_u(1, row.id)
          .bind_text(2, row.kind)
          .bind_text(3, row.subject)
          .bind_text(4, row.record)
          .bind(5, row.began.ms)
          .bind(6, row.ended.ms)
          .run();
    }
    if (any_ended) {
      sql("DELETE FROM alerts WHERE ended <> 0 AND (ended, id) <= (SELECT ended, id FROM alerts WHERE ended <> 0 "
          "ORDER BY ended DESC, id DESC LIMIT 1 OFFSET ?)")
          .bind(1, keep)
          .run();
    }
    t.commit();
    return {};
  });
}

Result<std::vector<AlertRuleRow>> SqliteReader::alert_rules() {
  using Rows = std::vector<AlertRuleRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(sql("SELECT kind, rule FROM alert_rules ORDER BY kind"));
    Rows rows;
    while (s->step()) rows.push_back({.kind = s->text(0), .rule = s->text(1)});
    return rows;
  });
}

Result<std::vector<AlertRow>> SqliteReader::alerts() {
  using Rows = std::vector<AlertRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(sql("SELECT id, kind, subject, record, began, ended FROM alerts ORDER BY id"));
    Rows rows;
    while (s->step()) {
      rows.push_back({.id = s->u64(0),
                      .kind = s->text(1),
                      .subject = s->text(2),
                      .record = s->text(3),
                      .began = {s->i64(4)},
                      .ended = {s->i64(5)}});
    }
    return rows;
  });
}

}  // namespace grange::store
