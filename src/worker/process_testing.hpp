// For tests: whether a process is there, as its table says.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>

#include "base/units.hpp"
#include "worker/resources.hpp"

namespace grange::worker {

// A zombie is not alive: its parent may be slow.
inline bool alive(pid_t pid) {
  const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t at = stat.rfind(')');
  return at != std::string::npos && stat.size() > at + 2 && stat[at + 2] != 'Z' && stat[at + 2] != 'X';
}

inline bool gone_soon(pid_t pid) {
  for (int i = 0; i < 500 && alive(pid); ++i) std::this_thread::sleep_for(Millis(10));
  return !alive(pid);
}

}  // namespace grange::worker
