#include <sys/stat.h>

#include <filesystem>

#include "store/folder.hpp"
#include "store/reader.hpp"
#include "store/sqlite_store.hpp"

namespace grange::store {
namespace {

constexpr std::int64_t kCountedAtMost = 100'000;  // rows counted one by one for `db info`

Bytes file_size(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<Bytes>(st.st_size) : 0;
}

void measure(const std::string& directory, DbInfo& info) {
  info.db_bytes = file_size(info.path);
  info.wal_bytes = file_size(info.path + "-wal");
  info.log_bytes = file_size(directory + "/logs.db") + file_size(directory + "/logs.db-wal");
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator it(directory + "/blobs", error), end; !error && it != end;
       it.increment(error)) {
    if (it.depth() == 0 && it->path().filename() == "parts") {
      it.disable_recursion_pending();
    } else if (it.depth() == 1) {
      std::error_code gone;  // a file that is swept meanwhile is not an error
      const auto size = it->file_size(gone);
      if (gone) continue;
      info.blob_bytes += size;
      ++info.blobs;
    }
  }
  if (auto free = free_space(directory)) info.disk_free_bytes = *free;
}

}  // namespace

Result<std::vector<std::pair<WorkerNo, std::vector<std::pair<core::FailureClass, std::uint64_t>>>>>
SqliteReader::failure_stats() {
  using Stats = std::vector<std::pair<WorkerNo, std::vector<std::pair<core::FailureClass, std::uint64_t>>>>;
  return sqlite::guarded<Stats>([&]() -> Result<Stats> {
    sqlite::Use s(sql("SELECT worker, class, n FROM worker_failures ORDER BY worker, class"));
    Stats stats;
    while (s->step()) {
      const WorkerNo worker{s->u32(0)};
      if (stats.empty() || stats.back().first != worker)
        stats.emplace_back(worker, std::vector<std::pair<core::FailureClass, std::uint64_t>>());
      stats.back().second.emplace_back(static_cast<core::FailureClass>(s->i(1)), s->u64(2));
    }
    return stats;
  });
}

Result<std::vector<WorkerRow>> SqliteReader::workers() {
  return sqlite::guarded<std::vector<WorkerRow>>([&]() -> Result<std::vector<WorkerRow>> {
    sqlite::Use s(
        sql("SELECT no, id, name, manifest, connected, first_seen, last_seen, completed, failed, run_us, "
            "paused, forgotten FROM workers "
            "ORDER BY no"));
    std::vector<WorkerRow> rows;
    while (s->step()) {
      rows.push_back({{s->u32(0)},
                      s->text(1),
                      s->text(2),
                      s->text(3),
                      s->i(4) != 0,
                      {s->i64(5)},
                      {s->i64(6)},
                      s->u64(7),
                      s->u64(8),
                      s->u64(9),
                      s->i(10) != 0,
                      s->i(11) != 0});
    }
    return rows;
  });
}

Result<bool> SqliteReader::blob_in_use(const std::string& sha256) {
  return sqlite::guarded<bool>([&]() -> Result<bool> {
    sqlite::Use s(
        sql("SELECT EXISTS(SELECT 1 FROM refs WHERE sha256 = ?1) OR EXISTS(SELECT 1 FROM models WHERE sha256 = ?1)"));
    s->bind_text(1, sha256);
    return s->step() && s->i(0) != 0;
  });
}

Result<std::optional<ModelRow>> SqliteReader::get_model(const std::string& name, const std::string& version) {
  using Found = std::optional<ModelRow>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT sha256, bytes, at FROM models WHERE name = ? AND version = ?"));
    s->bind_text(1, name).bind_text(2, version);
    return s->step() ? Found({name, version, s->text(0), s->u64(1), {s->i64(2)}}) : Found();
  });
}

Result<std::vector<ModelRow>> SqliteReader::list_models() {
  return sqlite::guarded<std::vector<ModelRow>>([&]() -> Result<std::vector<ModelRow>> {
    sqlite::Use s(sql("SELECT name, version, sha256, bytes, at FROM models ORDER BY name, version LIMIT ?"));
    s->bind(1, kCountedAtMost);
    std::vector<ModelRow> rows;
    while (s->step()) rows.push_back({s->text(0), s->text(1), s->text(2), s->u64(3), {s->i64(4)}});
    return rows;
  });
}

Result<Totals> SqliteReader::totals() {
  return sqlite::guarded<Totals>([&]() -> Result<Totals> { return read_counters(db_).totals; });
}

Result<DbInfo> SqliteReader::info() {
  return sqlite::guarded<DbInfo>([&]() -> Result<DbInfo> {
    DbInfo info;
    info.schema_version = static_cast<int>(db_.integer("PRAGMA user_version"));
    info.path = directory_ + "/farm.db";
    if (farm_only_) {
      info.db_bytes = static_cast<Bytes>(db_.integer("PRAGMA page_count") * db_.integer("PRAGMA page_size"));
    } else {
      measure(directory_, info);
    }

    // Big tables have their counts kept; small ones are counted up to a bound.
    const Counters c = read_counters(db_);
    const auto counted = [&](const char* text) {
      sqlite::Use s(sql(text));
      s->bind(1, kCountedAtMost);
      return s->step() ? s->u64(0) : 0;
    };
    info.rows = {{"jobs", c.totals.jobs},
                 {"outcomes", c.outcome_rows},
                 {"pages", c.page_rows},
                 {"failures", c.failure_rows},
                 {"kept", counted("SELECT count(*) FROM (SELECT 1 FROM kept LIMIT ?)")},
                 {"checkpoints", counted("SELECT count(*) FROM (SELECT 1 FROM checkpoints LIMIT ?)")},
                 {"workers", counted("SELECT count(*) FROM (SELECT 1 FROM workers LIMIT ?)")},
                 {"models", counted("SELECT count(*) FROM (SELECT 1 FROM models LIMIT ?)")},
                 {"users", counted("SELECT count(*) FROM (SELECT 1 FROM users LIMIT ?)")},
                 {"schedules", counted("SELECT count(*) FROM (SELECT 1 FROM schedules LIMIT ?)")},
                 {"runs", counted("SELECT count(*) FROM (SELECT 1 FROM runs LIMIT ?)")}};
    return info;
  });
}

}  // namespace grange::store
