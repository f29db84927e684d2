// Output of tasks, in logs.db beside the truth (WAL, synchronous=NORMAL: a power loss may cut the tail of a log,
// nothing else). Writes are queued and batched on a thread of its own; a full queue says so. Any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::store {

struct LogLine {
  TaskId task;
  Attempt attempt = 1;
  std::uint8_t stream = 0;  // Stream in wire.proto: 0 stdout, 1 stderr, 2 log, 3 system
  WallMs at{};
  std::string data;
};
struct StoredLog {
  std::int64_t id = 0;  // grows; a cursor
  LogLine line;
};

class LogStore {
 public:
  static Result<std::unique_ptr<LogStore>> open(const std::string& directory);
  virtual ~LogStore() = default;                          // flushes
  virtual bool append(std::vector<LogLine>&& lines) = 0;  // false: the queue is full, nothing was taken
  virtual void flush() = 0;                               // until all that was appended can be read
  // Of one task (or of all of a job's, index nullopt), after cursor `after`, in order of arrival.
  virtual Result<std::vector<StoredLog>> read(JobNo job, std::optional<std::uint32_t> index, std::int64_t after,
                                              std::uint32_t limit) = 0;
  virtual Result<> forget(JobNo job) = 0;
  virtual Result<> forget_all() = 0;
};

}  // namespace grange::store
