// A thin, owning layer over the SQLite C API. It throws `Failure`, which never leaves this module: public functions
// turn it into a Result.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.hpp"

namespace grange::store::sqlite {

struct Failure {
  int code = 0;  // SQLite's extended result code
  Error error;
};

class Db {
 public:
  Db() = default;
  // `flags` as for sqlite3_open_v2; `vfs` empty: the default one.
  Db(const std::string& path, int flags, const std::string& vfs);
  void exec(const char* sql) const;
  std::int64_t integer(const char* sql) const;  // first column of the first row, 0 when there is none
  std::string text(const char* sql) const;
  std::int64_t changes() const { return sqlite3_changes64(raw()); }
  bool in_transaction() const { return sqlite3_get_autocommit(raw()) == 0; }
  void rollback() const noexcept;
  [[noreturn]] void fail(int rc) const;
  sqlite3* raw() const { return db_.get(); }
  explicit operator bool() const { return db_ != nullptr; }

 private:
  struct Close {
    void operator()(sqlite3* db) const noexcept { sqlite3_close_v2(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
  std::string path_;
};

// Parameters count from 1, columns from 0. Bound text and blobs are not copied: they must live until `run` or the last
// `step`.
class Statement {
 public:
  Statement(const Db& db, const char* sql);
  Statement& bind(int n, std::int64_t value) {
    check(sqlite3_bind_int64(s_.get(), n, value));
    return *this;
  }
  Statement& bind_u(int n, std::uint64_t value) { return bind(n, static_cast<std::int64_t>(value)); }
  Statement& bind_text(int n, std::string_view text) {
    check(sqlite3_bind_text64(s_.get(), n, text.data() == nullptr ? "" : text.data(), text.size(), SQLITE_STATIC,
                              SQLITE_UTF8));
    return *this;
  }
  Statement& bind_blob(int n, std::string_view bytes) {
    check(sqlite3_bind_blob64(s_.get(), n, bytes.data() == nullptr ? "" : bytes.data(), bytes.size(), SQLITE_STATIC));
    return *this;
  }
  Statement& bind_null(int n) {
    check(sqlite3_bind_null(s_.get(), n));
    return *this;
  }
  bool step();  // true: a row is there
  void run();   // to its end, then ready again
  void reset() noexcept { sqlite3_reset(s_.get()); }

  bool null(int c) const { return sqlite3_column_type(s_.get(), c) == SQLITE_NULL; }
  std::int64_t i64(int c) const { return sqlite3_column_int64(s_.get(), c); }
  std::uint64_t u64(int c) const { return static_cast<std::uint64_t>(i64(c)); }
  std::uint32_t u32(int c) const { return static_cast<std::uint32_t>(i64(c)); }
  int i(int c) const { return sqlite3_column_int(s_.get(), c); }
  std::string_view bytes(int c) const;  // valid until the next step
  std::string text(int c) const { return std::string(bytes(c)); }

 private:
  void check(int rc) const {
    if (rc != SQLITE_OK) db_->fail(rc);
  }
  struct Finalize {
    void operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
  };
  const Db* db_;
  std::unique_ptr<sqlite3_stmt, Finalize> s_;
};

// A kept statement in use: reset when it goes out of scope, so that no read transaction stays open.
class Use {
 public:
  explicit Use(Statement& s) : s_(s) {}
  ~Use() { s_.reset(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  Statement* operator->() const { return &s_; }

 private:
  Statement& s_;
};

// Prepared once, kept. The key is the address of a string literal.
class Statements {
 public:
  Statement& get(const Db& db, const char* sql) {
    const auto it = kept_.find(sql);
    return it != kept_.end() ? it->second : kept_.emplace(sql, Statement(db, sql)).first->second;
  }
  void clear() { kept_.clear(); }

 private:
  std::unordered_map<const char*, Statement> kept_;
};

// BEGIN IMMEDIATE; rolled back unless committed.
class Transaction {
 public:
  explicit Transaction(const Db& db) : db_(db) { db_.exec("BEGIN IMMEDIATE"); }
  ~Transaction() {
    if (db_.in_transaction()) db_.rollback();
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() { db_.exec("COMMIT"); }

 private:
  const Db& db_;
};

// Runs `f` and turns a Failure into an Error.
template <class T, class F>
Result<T> guarded(F&& f) {
  try {
    return f();
  } catch (Failure& failure) {
    return std::move(failure.error);
  }
}

}  // namespace grange::store::sqlite
