#include "store/logs.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/limits.hpp"
#include "store/folder.hpp"
#include "store/sqlite.hpp"

namespace grange::store {
namespace {

constexpr std::size_t kBatchLines = 4096;
constexpr std::size_t kLineOverhead = 64;               // of a queued line, beside its text
constexpr std::chrono::milliseconds kRetry{500};        // after a write that failed: the disk may have room again
constexpr std::int64_t kForgetRows = 20'000;            // a transaction
constexpr std::int64_t kLogApplicationId = 0x67726e6c;  // "grnl"
constexpr int kVersion = 1;

// id = job << 32 | number within the job, so that a job's lines are one range, read in order of arrival and deleted as
// one. The cursor that goes out is the number within the job: it fits into a JSON number.
constexpr const char* kLogSchema = R"sql(
CREATE TABLE IF NOT EXISTS lines(id INTEGER PRIMARY KEY, task INTEGER NOT NULL, attempt INTEGER NOT NULL, stream INTEGER NOT NULL,
  at INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS lines_task ON lines(task);
)sql";

std::uint64_t line_id(JobNo job, std::uint64_t number) {
  return TaskId::of(job, 0).packed + number;
}
std::uint64_t end_of(JobNo job) {
  return TaskId::of({job.value + 1}, 0).packed;
}

class SqliteLogs final : public LogStore {
 public:
  explicit SqliteLogs(const std::string& directory) {
    const std::string path = directory + "/logs.db";
    const mode_t mask = ::umask(0077);
    try {
      writer_ = sqlite::Db(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, {});
      prepare(path);
      reader_ = sqlite::Db(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, {});
    } catch (...) {
      ::umask(mask);
      throw;
    }
    ::umask(mask);
    thread_ = std::thread([this] { write_loop(); });
  }

  ~SqliteLogs() override {
    {
      const std::lock_guard hold(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  bool append(std::vector<LogLine>&& lines) override {
    if (lines.empty()) return true;
    Bytes bytes = 0;
    for (const LogLine& line : lines) bytes += line.data.size() + kLineOverhead;
    {
      const std::lock_guard hold(mutex_);
      // An empty queue takes anything: one batch larger than the limit must not be refused for ever.
      if (queued_ != 0 &&
          (queued_bytes_ + bytes > limits::kLogQueueBytes || queued_ + lines.size() > limits::kLogQueueLines))
        return false;
      queued_bytes_ += bytes;
      queued_ += lines.size();
      appended_ += lines.size();
      for (LogLine& line : lines) queue_.push_back(std::move(line));
      lines.clear();
    }
    wake_.notify_one();
    return true;
  }

  void flush() override {
    std::unique_lock hold(mutex_);
    const std::uint64_t target = appended_;
    const std::uint64_t failures = failures_;
    wake_.notify_one();
    // A disk that takes nothing must not hold the caller for ever; the lines stay queued.
    written_cv_.wait(hold, [&] { return written_ >= target || failures_ > failures; });
  }

  Result<std::vector<StoredLog>> read(JobNo job, std::optional<std::uint32_t> index, std::int64_t after,
                                      std::uint32_t limit) override {
    const std::lock_guard hold(read_mutex_);
    return sqlite::guarded<std::vector<StoredLog>>([&]() -> Result<std::vector<StoredLog>> {
      sqlite::Use s(read_sql_.get(reader_, index ? "SELECT id, task, attempt, stream, at, data FROM lines "
                                                   "WHERE task = ?4 AND id > ?1 AND id < ?2 ORDER BY id LIMIT ?3"
                                                 : "SELECT id, task, attempt, stream, at, data FROM lines "
                                                   "WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3"));
      const auto from = static_cast<std::uint64_t>(std::clamp<std::int64_t>(after, 0, UINT32_MAX));
      s->bind_u(1, line_id(job, from)).bind_u(2, end_of(job)).bind(3, limit);
      if (index) s->bind_u(4, TaskId::of(job, *index).packed);
      std::vector<StoredLog> found;
      while (s->step()) {
        found.push_back({static_cast<std::int64_t>(TaskId{s->u64(0)}.index()),
                         {{s->u64(1)}, s->u32(2), static_cast<std::uint8_t>(s->i(3)), {s->i64(4)}, s->text(5)}});
      }
      return found;
    });
  }

  Result<> forget(JobNo job) override {
    flush();
    for (;;) {
      const std::lock_guard hold(write_mutex_);
      auto gone = sqlite::guarded<bool>([&]() -> Result<bool> {
        sqlite::Transaction t(writer_);
        sqlite::Statement s(writer_,
                            "DELETE FROM lines WHERE id IN (SELECT id FROM lines WHERE id >= ? AND id < ? LIMIT ?)");
        s.bind_u(1, line_id(job, 0)).bind_u(2, end_of(job)).bind(3, kForgetRows).run();
        const bool all = writer_.changes() < kForgetRows;
        t.commit();
        return all;
      });
      if (!gone) return std::move(gone).error();
      if (*gone) return {};
    }
  }

  Result<> forget_all() override {
    flush();
    const std::lock_guard hold(write_mutex_);
    return sqlite::guarded<Unit>([&]() -> Result<> {
      writer_.exec("DELETE FROM lines");
      sqlite3_exec(writer_.raw(), "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr,
                   nullptr);  // space back, where possible
      return {};
    });
  }

 private:
  void prepare(const std::string& path) {
    const std::int64_t application = writer_.integer("PRAGMA application_id");
    const std::int64_t version = writer_.integer("PRAGMA user_version");
    if (version > kVersion) {
      throw sqlite::Failure{
          SQLITE_NOTADB,
          Error{ErrorClass::version_mismatch,
                fmt::format(
                    "{} was written by a newer Grange: it has version {}, and this one knows up to {}. Use the newer "
                    "Grange, or move the file away: it holds the output of tasks only.",
                    path, version, kVersion),
                {}}};
    }
    if (application != kLogApplicationId && (application != 0 || version != 0)) {
      throw sqlite::Failure{SQLITE_NOTADB,
                            Error{ErrorClass::storage_damaged,
                                  fmt::format("{} is a database of another program. Choose another data folder.", path),
                                  {}}};
    }
    writer_.exec(
        "PRAGMA auto_vacuum=NONE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=OFF; PRAGMA "
        "temp_store=MEMORY; "
        "PRAGMA cache_size=-16384; PRAGMA journal_size_limit=33554432");
    sqlite::Transaction t(writer_);
    writer_.exec(kLogSchema);
    writer_.exec(fmt::format("PRAGMA application_id={}; PRAGMA user_version={}", kLogApplicationId, kVersion).c_str());
    t.commit();
  }

  void write_loop() {
    std::vector<LogLine> batch;
    std::unique_lock hold(mutex_);
    for (;;) {
      wake_.wait(hold, [&] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      batch.clear();
      while (!queue_.empty() && batch.size() < kBatchLines) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
      hold.unlock();
      const bool ok = write(batch);
      hold.lock();
      if (ok) {
        queued_ -= batch.size();
        written_ += batch.size();
        for (const LogLine& line : batch) queued_bytes_ -= line.data.size() + kLineOverhead;
      } else {
        ++failures_;
        for (auto it = batch.rbegin(); it != batch.rend(); ++it) queue_.push_front(std::move(*it));
      }
      written_cv_.notify_all();
      if (!ok) {
        if (closing_) return;  // logs may lose their tail; the server's end may not hang on a full disk
        wake_.wait_for(hold, kRetry, [&] { return closing_; });
      }
    }
  }

  bool write(const std::vector<LogLine>& batch) {
    const std::lock_guard hold(write_mutex_);
    std::unordered_map<std::uint32_t, std::uint64_t> next;  // kept only when the batch is on disk
    try {
      sqlite::Transaction t(writer_);
      sqlite::Statement& insert =
          write_sql_.get(writer_, "INSERT INTO lines(id, task, attempt, stream, at, data) VALUES(?,?,?,?,?,?)");
      for (const LogLine& line : batch) {
        const JobNo job = line.task.job();
        auto [it, fresh] = next.try_emplace(job.value, 0);
        if (fresh) it->second = last_number(job);
        const std::uint64_t id = line_id(job, ++it->second);
        insert.bind_u(1, id).bind_u(2, line.task.packed).bind(3, line.attempt).bind(4, line.stream).bind(5, line.at.ms);
        insert.bind_blob(6, line.data).run();
      }
      t.commit();
      return true;
    } catch (const sqlite::Failure&) {
      return false;
    }
  }

  std::uint64_t last_number(JobNo job) {
    sqlite::Use s(write_sql_.get(writer_, "SELECT id FROM lines WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1"));
    s->bind_u(1, line_id(job, 0)).bind_u(2, end_of(job));
    return s->step() ? TaskId{s->u64(0)}.index() : 0;
  }

  std::mutex write_mutex_;  // the writing connection
  sqlite::Db writer_;
  sqlite::Statements write_sql_;
  std::mutex read_mutex_;
  sqlite::Db reader_;
  sqlite::Statements read_sql_;

  std::mutex mutex_;  // all below
  std::condition_variable wake_, written_cv_;
  std::deque<LogLine> queue_;
  std::size_t queued_ = 0;  // with those being written
  Bytes queued_bytes_ = 0;
  std::uint64_t appended_ = 0, written_ = 0, failures_ = 0;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<LogStore>> LogStore::open(const std::string& directory) {
  if (auto made = make_folder(directory); !made) return std::move(made).error();
  return sqlite::guarded<std::unique_ptr<LogStore>>([&]() -> Result<std::unique_ptr<LogStore>> {
    return std::unique_ptr<LogStore>(std::make_unique<SqliteLogs>(directory));
  });
}

}  // namespace grange::store
