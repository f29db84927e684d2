// The farm's past, for charts: rows that only the server's history writes. And outcomes as counts.
#include <map>

#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {

Result<> SqliteStore::put_history(const std::vector<HistoryRow>& rows, std::uint32_t keep) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    sqlite::Transaction t(db_);
    std::map<std::int64_t, std::int64_t> newest_of;  // by step
    for (const HistoryRow& row : rows) {
      sql("INSERT OR REPLACE INTO history(step, at, figures) VALUES(?,?,?)")
          .bind(1, row.step.count())
          .bind(2, row.at.ms)
          .bind_text(3, row.figures)
          .run();
      auto& newest = newest_of[row.step.count()];
      newest = std::max(newest, row.at.ms);
    }
    for (const auto& [step, newest] : newest_of) {
      // What is newer was written while the clock was ahead.
      sql("DELETE FROM history WHERE step=?1 AND at > ?2").bind(1, step).bind(2, newest).run();
      sql("DELETE FROM history WHERE step=?1 AND at <= (SELECT at FROM history WHERE step=?1 ORDER BY at DESC LIMIT 1 "
          "OFFSET ?2)")
          .bind(1, step)
          .bind(2, keep)
          .run();
    }
    t.commit();
    return {};
  });
}

Result<std::vector<HistoryRow>> SqliteReader::history(std::optional<Millis> step) {
  using Rows = std::vector<HistoryRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(sql("SELECT step, at, figures FROM history WHERE ?1 = 0 OR step = ?1 ORDER BY step, at"));
    s->bind(1, step.value_or(Millis{0}).count());
    Rows rows;
    while (s->step()) rows.push_back({.step = Millis{s->i64(0)}, .at = {s->i64(1)}, .figures = s->text(2)});
    return rows;
  });
}

Result<OutcomeCells> SqliteReader::outcome_cells(const OutcomeCellsOf& of) {
  return sqlite::guarded<OutcomeCells>([&]() -> Result<OutcomeCells> {
    OutcomeCells out;
    const std::size_t cells = of.from >= of.to ? 0 : (of.to - of.from + of.per_cell - 1) / of.per_cell;
    out.failed.resize(cells);
    out.cancelled.resize(cells);
    out.ended_late.resize(cells);
    const auto count = [&](sqlite::Statement& s, std::vector<std::uint32_t>& into) {
      while (s.step()) into[(TaskId{s.u64(0)}.index() - of.from) / of.per_cell] += 1;
    };
    const TaskId first = TaskId::of(of.job, of.from), end = TaskId::of(of.job, of.to);
    for (const auto& [how, into] :
         {std::pair{core::TaskEnd::failed, &out.failed}, std::pair{core::TaskEnd::cancelled, &out.cancelled}}) {
      // The index on what did not succeed has all that this asks for.
      sqlite::Use s(
          sql("SELECT task FROM outcomes INDEXED BY outcomes_unhappy WHERE end = ?1 AND end <> 1 AND task >= ?2 "
              "AND task < ?3"));
      s->bind(1, static_cast<int>(how)).bind_u(2, first.packed).bind_u(3, end.packed);
      count(*s.operator->(), *into);
    }
    if (of.late_from) {
      sqlite::Use s(sql("SELECT task FROM outcomes WHERE task >= ?1 AND task < ?2"));
      s->bind_u(1, TaskId::of(of.job, std::max(of.from, *of.late_from)).packed).bind_u(2, end.packed);
      count(*s.operator->(), out.ended_late);
    }
    return out;
  });
}

}  // namespace grange::store
