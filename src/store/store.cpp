#include "store/store.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include "store/reader.hpp"
#include "store/schema.hpp"
#include "store/sqlite_store.hpp"

#include "base/clock.hpp"

namespace grange::store {
namespace {

constexpr Micros kRoomCached = Millis{100};
constexpr Bytes kQuickCheck = 64 * MiB;
// 8000 pages: 32 MiB of WAL between two checkpoints. SQLite's automatic checkpoint is a passive one: it never waits for
// readers.
constexpr int kCheckpointPages = 8000;

void check_whole(const sqlite::Db& db, const std::string& path) {
  const std::string verdict = db.text("PRAGMA quick_check(1)");
  if (verdict == "ok") return;
  throw sqlite::Failure{
      SQLITE_CORRUPT,
      Error{ErrorClass::storage_damaged,
            fmt::format("{} is damaged ({}). Restore it from a backup, or move it away to start empty.", path, verdict),
            {}}};
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const OpenOptions& options) {
  FolderLock lock;
  if (!options.farm_only) {
    if (auto made = make_folder(options.directory); !made) return std::move(made).error();
    auto taken = FolderLock::take(options.directory);
    if (!taken) return std::move(taken).error();
    lock = std::move(taken).value();
  }
  return sqlite::guarded<std::unique_ptr<Store>>([&]() -> Result<std::unique_ptr<Store>> {
    auto store = std::make_unique<SqliteStore>(options, std::move(lock));
    store->start();
    if (!options.farm_only) {
      if (auto synced = sync_folder(options.directory); !synced) return std::move(synced).error();
    }
    return std::unique_ptr<Store>(std::move(store));
  });
}

SqliteStore::SqliteStore(OpenOptions options, FolderLock lock) : options_(std::move(options)), lock_(std::move(lock)) {}

void SqliteStore::start() {
  const std::string path = options_.directory + "/farm.db";
  const mode_t mask = ::umask(0077);  // farm.db and its WAL are the user's own
  try {
    db_ = sqlite::Db(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, options_.vfs);
    // EXTRA while the file changes its kind: a rollback journal that came back after a power loss would undo the switch
    // to WAL, and with it every commit in the WAL. temp_store comes first, as a change of it reads the schema anew.
    db_.exec("PRAGMA temp_store=MEMORY; PRAGMA synchronous=EXTRA");
    db_.exec(fmt::format("PRAGMA page_size={}; PRAGMA auto_vacuum=NONE", options_.page_size).c_str());
    // quick_check reads the whole file, which takes long when it is big: then damage shows where it is met, as
    // storage_damaged.
    const auto pages = db_.integer("PRAGMA page_count");
    if (pages > 0 && static_cast<Bytes>(pages * db_.integer("PRAGMA page_size")) < kQuickCheck) check_whole(db_, path);
    if (db_.text("PRAGMA journal_mode=WAL") != "wal") {
      throw sqlite::Failure{
          SQLITE_ERROR,
          Error{ErrorClass::io,
                fmt::format("{} cannot use a write-ahead log: put the data folder on a local disk.", path),
                {}}};
    }
    migrate(db_, path);
    // FULL syncs the WAL at each commit. secure_delete (on in some builds of SQLite) would overwrite what is deleted,
    // for nothing.
    db_.exec(fmt::format("PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF; PRAGMA secure_delete=OFF; "
                         "PRAGMA cache_size=-65536; PRAGMA mmap_size=0; PRAGMA wal_autocheckpoint={}; PRAGMA "
                         "journal_size_limit=67108864",
                         kCheckpointPages)
                 .c_str());
    counters_ = read_counters(db_);
    for (const char* query : {"SELECT task FROM kept", "SELECT task FROM checkpoints"}) {
      sqlite::Statement s(db_, query);
      while (s.step()) extras_.insert(s.u64(0));
    }
  } catch (...) {
    ::umask(mask);
    throw;
  }
  ::umask(mask);
}

Result<> SqliteStore::room_for(Bytes bytes) const {
  if (options_.farm_only) return {};
  const std::lock_guard hold(room_mutex_);
  const Instant now = SystemClock().now().mono;
  if (room_at_.us == INT64_MIN || now - room_at_ > kRoomCached) {
    auto free = free_space(options_.directory);
    if (!free) return std::move(free).error();
    room_ = *free;
    room_at_ = now;
  }
  if (room_ < options_.reserve || room_ - options_.reserve < bytes) {
    return Error{ErrorClass::storage_full,
                 fmt::format("The disk that holds {} has {} MiB free, too little for more work. What was accepted goes "
                             "on. Free some space, "
                             "or forget old jobs.",
                             options_.directory, room_ / MiB),
                 fmt::format("{{\"free_bytes\":{},\"reserve_bytes\":{}}}", room_, options_.reserve)};
  }
  return {};
}

Result<> SqliteStore::put_model(const std::string& name, const std::string& version, const std::string& sha256,
                                Bytes bytes, WallMs at) {
  return sqlite::guarded<Unit>([&]() -> Result<> {
    {
      sqlite::Use known(sql("SELECT sha256 FROM models WHERE name=? AND version=?"));
      known->bind_text(1, name).bind_text(2, version);
      if (known->step()) {
        if (known->text(0) == sha256) return {};
        return Error{ErrorClass::conflict,
                     fmt::format("Model {}/{} is known with other code. A version never changes: choose a new one.",
                                 name, version),
                     {}};
      }
    }
    sql("INSERT INTO models(name, version, sha256, bytes, at) VALUES(?,?,?,?,?)")
        .bind_text(1, name)
        .bind_text(2, version)
        .bind_text(3, sha256)
        .bind_u(4, bytes)
        .bind(5, at.ms)
        .run();
    return {};
  });
}

Result<std::unique_ptr<Reader>> SqliteStore::reader() const {
  return open_reader(options_);
}

Counters read_counters(const sqlite::Db& db) {
  sqlite::Statement s(
      db,
      "SELECT jobs, pending, running, completed, failed, cancelled, tasks_submitted, tasks_completed, tasks_failed, "
      "tasks_cancelled, last_job, outcome_rows, page_rows, failure_rows FROM totals");
  if (!s.step()) db.fail(SQLITE_CORRUPT);
  Counters c;
  c.totals = {s.u64(0), s.u64(1), s.u64(2), s.u64(3), s.u64(4), s.u64(5), s.u64(6), s.u64(7), s.u64(8), s.u64(9)};
  c.last_job = s.u32(10);
  c.outcome_rows = s.u64(11);
  c.page_rows = s.u64(12);
  c.failure_rows = s.u64(13);
  return c;
}

}  // namespace grange::store
