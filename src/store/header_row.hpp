// A core::JobHeader as columns of `jobs`: kHeaderColumns, in this order.
#pragma once

#include <fmt/format.h>

#include "core/types.hpp"
#include "store/codec.hpp"
#include "store/sqlite.hpp"

namespace grange::store {

#define GRANGE_HEADER_COLUMNS \
  "count, priority, request, max_attempts, backoff_base, backoff_cap, crash_limit, fail_fast, open, user, more"
inline constexpr int kHeaderColumns = 11;

// False: damaged.
inline bool read_header(const sqlite::Statement& s, int first, core::JobHeader& h) {
  h.count = s.u32(first);
  h.priority = s.i(first + 1);
  h.retry = {s.u32(first + 3), Millis{s.i64(first + 4)}, Millis{s.i64(first + 5)}, s.u32(first + 6), {}};
  h.fail_fast = s.i(first + 7) != 0;
  h.open = s.i(first + 8) != 0;
  h.user = s.text(first + 9);
  return unpack_request(s.bytes(first + 2), h.request) && unpack_more(s.bytes(first + 10), h);
}

[[noreturn]] inline void damaged_header(const std::string& path, JobNo job) {
  throw sqlite::Failure{
      SQLITE_CORRUPT,
      Error{ErrorClass::storage_damaged,
            fmt::format("{} is damaged: the requirements of job {} make no sense. Restore it from a backup.", path,
                        job.value),
            {}}};
}

}  // namespace grange::store
