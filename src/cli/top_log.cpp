// The end of a job's log, which may be long.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/follow.hpp"
#include "cli/top_model.hpp"

namespace grange::cli::top {
namespace {
constexpr std::size_t kLogLines = 1000, kLineBytes = 4096;
}

std::int64_t LogTail::asks_after() const {
  switch (step) {
    case start:
      return 0;
    case gallop:
      return low + stride;
    case bisect:
      return low + (high - low) / 2;
    case last:
      return low;
    case follow:
      return cursor;
  }
  return cursor;
}

bool LogTail::take(const json::array& page) {
  const bool full = static_cast<std::int64_t>(page.size()) >= kPage;
  const auto search = [&] {
    if (step == gallop) {
      if (full) {
        low += stride;
        stride *= 2;
        return true;
      }
      high = low + stride;
    } else {
      (full ? low : high) = low + (high - low) / 2;
    }
    step = high - low > 16 ? bisect : last;
    return true;
  };
  if (step == gallop || step == bisect) return search();
  const std::int64_t at_first = cursor;
  if (step == last) {
    lines.clear();
    open.clear();
  }
  for (const json::value& one : page) {
    std::string at;
    const LogChunk chunk = read_log(one, at);
    cursor = std::max(cursor, num(one, "cursor"));
    std::string_view rest = chunk.bytes;
    const bool whole = chunk.stream == "system" || chunk.stream == "log";
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      const std::pair name(chunk.index, chunk.stream);
      const auto begun = open.find(name);
      const bool goes_on = begun != open.end() && begun->second >= before;
      if (!goes_on) lines.push_back({.index = chunk.index, .stream = chunk.stream, .text = {}, .ended = false});
      const std::int64_t number = goes_on ? begun->second : before + static_cast<std::int64_t>(lines.size()) - 1;
      LogLine& line = lines[static_cast<std::size_t>(number - before)];
      if (line.text.size() < kLineBytes) line.text += rest.substr(0, std::min(end, kLineBytes));
      line.ended = whole || end != std::string_view::npos;
      if (line.ended) {
        open.erase(name);
      } else {
        open[name] = number;
      }
      if (lines.size() > kLogLines) {
        lines.pop_front();
        before += 1;
      }
      if (end == std::string_view::npos) break;
      rest.remove_prefix(end + 1);
    }
  }
  std::erase_if(open, [this](const auto& one) { return one.second < before; });
  const bool first = step == start;
  step = follow;
  if (!full) {
    full_pages = 0;
    return false;
  }
  // More than can be read along: on to its end.
  if (first || ++full_pages > 20) {
    low = first ? 0 : at_first;
    stride = 1000;
    step = gallop;
    full_pages = 0;
    left_out = true;
  }
  return true;
}

}  // namespace grange::cli::top
