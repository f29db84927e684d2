// Tokens with a name: rows that only the server's token desk writes.
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {

Result<> SqliteStore::put_token(const TokenRow& row) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sql("INSERT OR REPLACE INTO tokens(name, role, sha256, created, created_by, expires, last_used) "
        "VALUES(?,?,?,?,?,?,?)")
        .bind_text(1, row.name)
        .bind_text(2, row.role)
        .bind_text(3, row.sha256)
        .bind(4, row.created.ms)
        .bind_text(5, row.created_by)
        .bind(6, row.expires.ms)
        .bind(7, row.last_used.ms)
        .run();
    return {};
  });
}

Result<bool> SqliteStore::drop_token(const std::string& name) {
  return sqlite::guarded<bool>([&]() -> Result<bool> {
    sql("DELETE FROM tokens WHERE name=?").bind_text(1, name).run();
    return db_.changes() != 0;
  });
}

Result<> SqliteStore::used_tokens(const std::vector<std::pair<std::string, WallMs>>& when) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sqlite::Transaction t(db_);
    for (const auto& [name, at] : when)
      sql("UPDATE tokens SET last_used=? WHERE name=?").bind(1, at.ms).bind_text(2, name).run();
    t.commit();
    return {};
  });
}

Result<std::vector<TokenRow>> SqliteReader::tokens() {
  return sqlite::guarded<std::vector<TokenRow>>([&]() -> Result<std::vector<TokenRow>> {
    sqlite::Use s(sql("SELECT name, role, sha256, created, created_by, expires, last_used FROM tokens ORDER BY name"));
    std::vector<TokenRow> rows;
    while (s->step()) {
      rows.push_back({.name = s->text(0),
                      .role = s->text(1),
                      .sha256 = s->text(2),
                      .created = {s->i64(3)},
                      .created_by = s->text(4),
                      .expires = {s->i64(5)},
                      .last_used = {s->i64(6)}});
    }
    return rows;
  });
}

}  // namespace grange::store
