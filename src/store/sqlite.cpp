#include "store/sqlite.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace grange::store::sqlite {
namespace {

ErrorClass classify(int code, int os_error) {
  const int primary = code & 0xff;
  if (primary == SQLITE_FULL) return ErrorClass::storage_full;
  if (os_error == ENOSPC || os_error == EDQUOT) return ErrorClass::storage_full;
  if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) return ErrorClass::storage_damaged;
  if (code == SQLITE_CONSTRAINT_UNIQUE) return ErrorClass::conflict;
  switch (primary) {
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return ErrorClass::io;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorClass::unavailable;
    default:
      return ErrorClass::internal;
  }
}

std::string sentence(ErrorClass cls, const std::string& path, const std::string& why) {
  switch (cls) {
    case ErrorClass::storage_full:
      return fmt::format("The disk that holds {} is full. Nothing was written. Free some space, and it goes on.", path);
    case ErrorClass::storage_damaged:
      return fmt::format(
          "{} is damaged or is not a Grange database ({}). Restore it from a backup, or move it away to start empty.",
          path, why);
    case ErrorClass::io:
      return fmt::format(
          "Cannot use {} ({}). Check that the folder exists, that this user may write to it, and that the disk is "
          "sound.",
          path, why);
    case ErrorClass::unavailable:
      return fmt::format("{} is in use by another program ({}).", path, why);
    default:
      return fmt::format("The database {} refused: {}", path, why);
  }
}

}  // namespace

Db::Db(const std::string& path, int flags, const std::string& vfs) : path_(path) {
  sqlite3* raw_db = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &raw_db, flags, vfs.empty() ? nullptr : vfs.c_str());
  db_.reset(raw_db);
  if (rc != SQLITE_OK) fail(rc);
  sqlite3_extended_result_codes(raw_db, 1);
  sqlite3_busy_timeout(raw_db, 5000);
}

void Db::fail(int rc) const {
  const int primary = rc & 0xff;
  const bool has_errno = db_ && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN);
  const int os_error = has_errno ? sqlite3_system_errno(raw()) : 0;
  std::string why = db_ ? sqlite3_errmsg(raw()) : sqlite3_errstr(rc);
  if (os_error != 0) why += fmt::format(": {}", std::strerror(os_error));
  const ErrorClass cls = classify(rc, os_error);
  throw Failure{rc, Error{cls, sentence(cls, path_, why), {}}};
}

void Db::exec(const char* sql) const {
  const int rc = sqlite3_exec(raw(), sql, nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) fail(rc);
}

std::int64_t Db::integer(const char* sql) const {
  Statement s(*this, sql);
  return s.step() ? s.i64(0) : 0;
}

std::string Db::text(const char* sql) const {
  Statement s(*this, sql);
  return s.step() ? s.text(0) : std::string();
}

void Db::rollback() const noexcept {
  sqlite3_exec(raw(), "ROLLBACK", nullptr, nullptr, nullptr);
}

Statement::Statement(const Db& db, const char* sql) : db_(&db) {
  sqlite3_stmt* raw_statement = nullptr;
  const int rc = sqlite3_prepare_v3(db.raw(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw_statement, nullptr);
  s_.reset(raw_statement);
  if (rc != SQLITE_OK) db.fail(rc);
}

bool Statement::step() {
  const int rc = sqlite3_step(s_.get());
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  try {
    db_->fail(rc);
  } catch (...) {
    sqlite3_reset(s_.get());  // after the message was read: a statement left open would hold its transaction
    throw;
  }
}

void Statement::run() {
  while (step()) {
  }
  sqlite3_reset(s_.get());
}

std::string_view Statement::bytes(int c) const {
  const void* data = sqlite3_column_blob(s_.get(), c);
  const int size = sqlite3_column_bytes(s_.get(), c);
  if (data == nullptr) return {};
  return {static_cast<const char*>(data), static_cast<std::size_t>(size)};
}

}  // namespace grange::store::sqlite
