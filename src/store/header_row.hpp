// A core::JobHeader as columns of `jobs`: kHeaderColumns, in this order.
#pragma once

#include "core/types.hpp"
#include "store/codec.hpp"
#include "store/sqlite.hpp"

namespace grange::store {

#define GRANGE_HEADER_COLUMNS \
  "count, priority, request, max_attempts, backoff_base, backoff_cap, crash_limit, fail_fast"
inline constexpr int kHeaderColumns = 8;

inline bool read_header(const sqlite::Statement& s, int first, core::JobHeader& h) {
  h.count = s.u32(first);
  h.priority = s.i(first + 1);
  h.retry = {s.u32(first + 3), Millis{s.i64(first + 4)}, Millis{s.i64(first + 5)}, s.u32(first + 6)};
  h.fail_fast = s.i(first + 7) != 0;
  return unpack_request(s.bytes(first + 2), h.request);
}

}  // namespace grange::store
