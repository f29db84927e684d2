// The output of services that the worker starts: two files of a bounded size each, and the newest lines of them as
// text that may be shown anywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

inline constexpr Bytes kServiceLog = 8 * MiB;     // of a file; there is one more from before
inline constexpr std::size_t kLogLines = 5'000;   // of one answer
inline constexpr std::size_t kLogText = 1 * MiB;  // and its bytes

// Valid UTF-8 without control characters but tab and line end: terminals obey what services write, and others choke on
// it. A lone carriage return ends a line; what is no UTF-8 becomes U+FFFD.
std::string clean_text(std::string_view bytes);
// At most so many lines and bytes of its end, never half a line at its beginning.
std::string_view last_lines(std::string_view text, std::size_t lines, std::size_t bytes);

// One service's. One thread at a time; it may block.
class ServiceLog {
 public:
  explicit ServiceLog(std::string path, Bytes limit = kServiceLog) : path_(std::move(path)), limit_(limit) {}
  Result<> append(std::string_view bytes);
  Result<> line(std::string_view text);  // one of our own, on a line by itself

  struct Tail {
    std::string text;       // clean
    std::uint64_t end = 0;  // ask for what comes after it; whole lines only
  };
  // The newest lines; of those after `after` when that is not 0 and still there.
  Tail tail(std::size_t lines, std::uint64_t after = 0);

 private:
  Result<> open();

  std::string path_;
  Bytes limit_, size_ = 0;
  std::uint64_t written_ = 0;  // in all; what was there at first counts
  bool half_line_ = false;
  Fd file_;
};

}  // namespace grange::worker
