#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "store/header_row.hpp"
#include "store/reader.hpp"

namespace grange::store {
namespace {

#define GRANGE_JOB_COLUMNS                                                                                           \
  "SELECT no, id, name, user, engine, state, count, next_index, priority, completed, failed, cancelled, submitted, " \
  "started, ended, open, opened, paused, expires, reason FROM jobs "

JobRow job_row(const sqlite::Statement& s) {
  JobRow row;
  row.job = {s.u32(0)};
  row.id = s.null(1) ? std::to_string(row.job.value) : s.text(1);
  row.name = s.text(2);
  row.user = s.text(3);
  row.engine = s.text(4);
  row.state = static_cast<core::JobState>(s.i(5));
  row.count = s.u32(6);
  row.next_index = s.u32(7);
  row.priority = s.i(8);
  row.counts = {s.u32(9), s.u32(10), s.u32(11)};
  row.submitted = {s.i64(12)};
  row.started = {s.i64(13)};
  row.ended = {s.i64(14)};
  row.open = s.i(15) != 0;
  row.opened = s.i(16) != 0;
  row.paused = s.i(17) != 0;
  row.expires = {s.i64(18)};
  if (!s.null(19)) row.reason = s.text(19);
  return row;
}

}  // namespace

Result<std::vector<ChildRow>> SqliteReader::children(JobNo job, std::uint32_t limit) {
  using Rows = std::vector<ChildRow>;
  return sqlite::guarded<Rows>([&]() -> Result<Rows> {
    sqlite::Use s(
        sql("SELECT no, id, name, state FROM jobs WHERE no IN ("  // never more than a page, however many there are
            "SELECT * FROM (SELECT child FROM job_parents WHERE parent = ?1 AND holds = 0 ORDER BY child LIMIT ?2) "
            "UNION ALL "
            "SELECT * FROM (SELECT child FROM job_parents WHERE parent = ?1 AND holds = 1 ORDER BY child LIMIT ?2)) "
            "ORDER BY no LIMIT ?2"));
    s->bind(1, job.value).bind(2, limit);
    Rows rows;
    while (s->step()) {
      const JobNo child{s->u32(0)};
      rows.push_back({.job = child,
                      .id = s->null(1) ? std::to_string(child.value) : s->text(1),
                      .name = s->text(2),
                      .state = static_cast<core::JobState>(s->i(3))});
    }
    return rows;
  });
}

Result<std::unique_ptr<Reader>> open_reader(const OpenOptions& options) {
  return sqlite::guarded<std::unique_ptr<Reader>>([&]() -> Result<std::unique_ptr<Reader>> {
    return std::unique_ptr<Reader>(std::make_unique<SqliteReader>(options));
  });
}

SqliteReader::SqliteReader(const OpenOptions& options)
    : directory_(options.directory),
      farm_only_(options.farm_only),
      db_(options.directory + "/farm.db", SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, options.vfs) {
  db_.exec("PRAGMA temp_store=MEMORY; PRAGMA query_only=1; PRAGMA cache_size=-8192; PRAGMA mmap_size=0");
}

void SqliteReader::damaged(const char* what) const {
  throw sqlite::Failure{
      SQLITE_CORRUPT,
      Error{ErrorClass::storage_damaged,
            fmt::format("{}/farm.db is damaged: {} makes no sense. Restore it from a backup.", directory_, what),
            {}}};
}

Result<std::vector<JobRow>> SqliteReader::jobs(const JobFilter& filter) {
  return sqlite::guarded<std::vector<JobRow>>([&]() -> Result<std::vector<JobRow>> {
    const std::int64_t below = filter.before ? std::int64_t{filter.before->value} : INT64_MAX;
    const bool searched = !filter.engine.empty() || !filter.user.empty() || !filter.text.empty();
    sqlite::Use s(
        searched
            ? sql(GRANGE_JOB_COLUMNS
                  "WHERE no < ?1 AND (?4 < 0 OR state = ?4) AND (?5 = '' OR engine = ?5) AND (?6 = '' OR user = ?6) "
                  "AND (?7 = '' OR instr(lower(coalesce(id, no)), lower(?7)) OR instr(lower(name), lower(?7)) "
                  "OR instr(lower(user), lower(?7)) OR instr(lower(engine), lower(?7))) "
                  "ORDER BY no DESC LIMIT ?2 OFFSET ?3")
        : filter.state ? sql(GRANGE_JOB_COLUMNS "WHERE no < ?1 AND state = ?4 ORDER BY no DESC LIMIT ?2 OFFSET ?3")
                       : sql(GRANGE_JOB_COLUMNS "WHERE no < ?1 ORDER BY no DESC LIMIT ?2 OFFSET ?3"));
    s->bind(1, below).bind(2, filter.limit).bind(3, filter.skip);
    if (searched || filter.state) s->bind(4, filter.state ? static_cast<int>(*filter.state) : -1);
    if (searched) s->bind_text(5, filter.engine).bind_text(6, filter.user).bind_text(7, filter.text);
    std::vector<JobRow> rows;
    while (s->step()) rows.push_back(job_row(*s.operator->()));
    return rows;
  });
}

Result<std::optional<JobRow>> SqliteReader::job(JobNo job) {
  return sqlite::guarded<std::optional<JobRow>>([&]() -> Result<std::optional<JobRow>> {
    sqlite::Use s(sql(GRANGE_JOB_COLUMNS "WHERE no = ?"));
    s->bind(1, job.value);
    if (!s->step()) return std::optional<JobRow>();
    return std::optional(job_row(*s.operator->()));
  });
}

Result<std::optional<JobNo>> SqliteReader::find_job(const std::string& id) {
  return sqlite::guarded<std::optional<JobNo>>([&]() -> Result<std::optional<JobNo>> {
    {
      sqlite::Use s(sql("SELECT no FROM jobs WHERE id = ?"));
      s->bind_text(1, id);
      if (s->step()) return std::optional(JobNo{s->u32(0)});
    }
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc() || end != id.data() + id.size() || id.front() == '0') return std::optional<JobNo>();
    sqlite::Use s(sql("SELECT 1 FROM jobs WHERE no = ? AND id IS NULL"));
    s->bind(1, number);
    return s->step() ? std::optional(JobNo{number}) : std::nullopt;
  });
}

Result<std::optional<std::pair<JobNo, std::string>>> SqliteReader::find_key(const std::string& key) {
  using Found = std::optional<std::pair<JobNo, std::string>>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT no, digest FROM jobs WHERE key = ?"));
    s->bind_text(1, key);
    return s->step() ? Found({JobNo{s->u32(0)}, s->text(1)}) : Found();
  });
}

Result<std::optional<std::uint32_t>> SqliteReader::find_extend(JobNo job, const std::string& key) {
  using Found = std::optional<std::uint32_t>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT total FROM extends WHERE job = ? AND key = ?"));
    s->bind(1, job.value).bind_text(2, key);
    return s->step() ? Found(s->u32(0)) : Found();
  });
}

Result<std::optional<JobNo>> SqliteReader::find_unique(const std::string& word, WallMs since) {
  using Found = std::optional<JobNo>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql(
        "SELECT no FROM jobs INDEXED BY jobs_unique WHERE unique_word IS NOT NULL AND unique_word = ? AND (state < 2 "
        "OR submitted >= ?) ORDER BY no DESC LIMIT 1"));
    s->bind_text(1, word).bind(2, since.ms);
    return s->step() ? Found(JobNo{s->u32(0)}) : Found();
  });
}

Result<std::string> SqliteReader::spec(JobNo job) {
  return sqlite::guarded<std::string>([&]() -> Result<std::string> {
    sqlite::Use s(sql("SELECT spec FROM specs WHERE job = ?"));
    s->bind(1, job.value);
    if (!s->step()) return Error{ErrorClass::not_found, fmt::format("There is no job {}.", job.value), {}};
    return s->text(0);
  });
}

Result<std::optional<core::JobHeader>> SqliteReader::header(JobNo job) {
  using Found = std::optional<core::JobHeader>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT " GRANGE_HEADER_COLUMNS " FROM jobs WHERE no = ?"));
    s->bind(1, job.value);
    if (!s->step()) return Found();
    core::JobHeader header;
    if (!read_header(*s.operator->(), 0, header)) damaged("the requirements of a job");
    return Found(std::move(header));
  });
}

Result<std::optional<core::ArgumentPage>> SqliteReader::page(JobNo job, std::uint32_t index) {
  using Found = std::optional<core::ArgumentPage>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql(
        "SELECT first, count, sizes, bytes FROM pages WHERE first <= ? AND first >= ? ORDER BY first DESC LIMIT 1"));
    s->bind_u(1, TaskId::of(job, index).packed).bind_u(2, TaskId::of(job, 0).packed);
    if (!s->step()) return Found();
    core::ArgumentPage page;
    page.first = TaskId{s->u64(0)}.index();
    const std::uint32_t count = s->u32(1);
    if (index - page.first >= count) return Found();
    if (!unpack_sizes(s->bytes(2), count, page.sizes)) damaged("a page of arguments");
    page.bytes = s->text(3);
    return Found(std::move(page));
  });
}

Result<std::optional<std::uint32_t>> SqliteReader::page_after(JobNo job, std::uint32_t index) {
  using Found = std::optional<std::uint32_t>;
  return sqlite::guarded<Found>([&]() -> Result<Found> {
    sqlite::Use s(sql("SELECT first FROM pages WHERE first > ? AND first < ? ORDER BY first LIMIT 1"));
    s->bind_u(1, TaskId::of(job, index).packed).bind_u(2, TaskId::of({job.value + 1}, 0).packed);
    return s->step() ? Found(TaskId{s->u64(0)}.index()) : Found();
  });
}

}  // namespace grange::store
