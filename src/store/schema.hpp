// The tables of farm.db, and how an older file becomes a newer one.
#pragma once

#include "base/result.hpp"
#include "store/sqlite.hpp"

namespace grange::store {

inline constexpr std::int64_t kApplicationId =
    0x67726e67;  // "grng": in the file's header, so that `file` and we know it

// Checks that the file is ours and not too new, and brings it up to kSchemaVersion, in one transaction.
// Throws sqlite::Failure.
void migrate(const sqlite::Db& db, const std::string& path);

}  // namespace grange::store
