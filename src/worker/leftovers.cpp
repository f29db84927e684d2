#include "worker/leftovers.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "worker/resources.hpp"

namespace grange::worker {

namespace {

constexpr int kPasses = 64;            // a chain of orphans comes up link by link
constexpr std::size_t kNamed = 32;     // of those left behind
constexpr std::size_t kTree = 65'536;  // processes of one task that are looked at
constexpr std::size_t kEnvironment = 1 << 20;

struct Children {
  std::mutex mutex;
  std::set<pid_t> known;
  bool adopting = false;
};
Children& children() {
  static Children all;
  return all;
}

template <class Each>
void each_number_in(const char* folder, Each each) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder), ::closedir);
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
    char* end = nullptr;
    const long number = std::strtol(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == '\0' && number > 0) each(static_cast<pid_t>(number));
  }
}

struct Stat {
  char state = '?';
  pid_t parent = 0;
  std::string name;
};
bool read_stat(pid_t pid, Stat& out) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat", 4096);
  const std::size_t open = text.find('('), close = text.rfind(')');  // a name may hold both
  if (open == std::string::npos || close == std::string::npos || close + 4 >= text.size()) return false;
  out.name = text.substr(open + 1, close - open - 1);
  out.state = text[close + 2];
  out.parent = static_cast<pid_t>(std::strtol(text.c_str() + close + 4, nullptr, 10));
  return true;
}

// Some kernels list children; where they do not, all of /proc is read once.
bool kernel_lists_children() {
  static const bool does = [] {
    const std::string self = std::to_string(::getpid());
    return ::access(("/proc/" + self + "/task/" + self + "/children").c_str(), R_OK) == 0;
  }();
  return does;
}

std::vector<pid_t> listed_children(pid_t of) {
  std::vector<pid_t> out;
  const std::string tasks = "/proc/" + std::to_string(of) + "/task";
  each_number_in(tasks.c_str(), [&](pid_t thread) {
    const std::string text = read_text(tasks + "/" + std::to_string(thread) + "/children");
    for (const char* at = text.c_str(); *at != '\0';) {
      char* end = nullptr;
      const long pid = std::strtol(at, &end, 10);
      if (end == at) break;
      out.push_back(static_cast<pid_t>(pid));
      at = end;
      while (*at == ' ' || *at == '\n') ++at;
    }
  });
  return out;
}

std::multimap<pid_t, pid_t> all_by_parent() {
  std::multimap<pid_t, pid_t> out;
  each_number_in("/proc", [&](pid_t pid) {
    Stat stat;
    if (read_stat(pid, stat)) out.emplace(stat.parent, pid);
  });
  return out;
}

std::vector<pid_t> children_of(pid_t of) {
  if (kernel_lists_children()) return listed_children(of);
  std::vector<pid_t> out;
  const auto all = all_by_parent();
  for (auto [at, end] = all.equal_range(of); at != end; ++at) out.push_back(at->second);
  return out;
}

}  // namespace

void adopt_orphans() {
  const std::scoped_lock lock(children().mutex);
  children().adopting = ::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
}

void know_child(pid_t pid) {
  const std::scoped_lock lock(children().mutex);
  children().known.insert(pid);
}

void forget_child(pid_t pid) {
  const std::scoped_lock lock(children().mutex);
  children().known.erase(pid);
}

std::vector<std::string> end_leftovers() {
  std::vector<std::string> names;
  const std::scoped_lock lock(children().mutex);
  if (!children().adopting) return names;
  std::set<pid_t> ended;
  for (int pass = 0; pass < kPasses; ++pass) {
    bool dying = false;
    for (const pid_t pid : children_of(::getpid())) {
      if (children().known.contains(pid)) continue;
      Stat stat;
      if (ended.insert(pid).second && read_stat(pid, stat) && stat.state != 'Z' && stat.state != 'X') {
        if (names.size() < kNamed) names.push_back(stat.name);
        // What it started comes up to us only when it is gone.
        signal_tree(pid, SIGKILL);
      }
      if (::waitpid(pid, nullptr, WNOHANG) == 0) dying = true;
    }
    if (!dying) return names;
    ::usleep(500);
  }
  return names;  // the next look finds the rest
}

std::vector<pid_t> descendants(pid_t of) {
  std::vector<pid_t> out{of};
  std::set<pid_t> seen{of};
  const bool listed = kernel_lists_children();
  const auto all = listed ? std::multimap<pid_t, pid_t>{} : all_by_parent();
  for (std::size_t i = 0; i < out.size() && out.size() < kTree; ++i) {
    std::vector<pid_t> below;
    if (listed) {
      below = listed_children(out[i]);
    } else {
      for (auto [at, end] = all.equal_range(out[i]); at != end; ++at) below.push_back(at->second);
    }
    for (const pid_t pid : below) {
      if (seen.insert(pid).second) out.push_back(pid);
    }
  }
  out.erase(out.begin());
  return out;
}

EndedBelow end_below(pid_t root, Below which) {
  EndedBelow out;
  const std::vector<pid_t> all = descendants(root);
  if (all.empty()) return out;
  const pid_t session = ::getsid(root);
  for (const pid_t pid : all) {
    Stat stat;
    if (!read_stat(pid, stat)) continue;
    const bool dead = stat.state == 'Z' || stat.state == 'X';
    if (!dead && which == Below::detached && ::getsid(pid) == session) continue;
    ++out.dead;
    if (dead) continue;
    if (out.names.size() < kNamed) out.names.push_back(stat.name);
    ::kill(pid, SIGKILL);
  }
  return out;
}

void signal_tree(pid_t root, int number) {
  // Twice: one that was born while we looked is found the second time, its parent being stopped or gone.
  const std::vector<pid_t> before = descendants(root);
  ::kill(-root, number);
  ::kill(root, number);
  for (const pid_t pid : before) ::kill(pid, number);
  if (before.empty() || number == SIGCONT) return;
  for (const pid_t pid : descendants(root)) {
    if (std::find(before.begin(), before.end(), pid) == before.end()) ::kill(pid, number);
  }
}

Bytes tree_memory(pid_t root, bool exact) {
  std::vector<pid_t> all = descendants(root);
  all.push_back(root);
  Bytes sum = 0;
  for (const pid_t pid : all) {
    const std::string folder = "/proc/" + std::to_string(pid);
    if (exact) {
      const std::string rollup = read_text(folder + "/smaps_rollup");
      if (const auto share = parse_meminfo(rollup, "Pss")) {
        sum += *share;
        continue;
      }
    }
    const std::string statm = read_text(folder + "/statm", 4096);
    const std::size_t space = statm.find(' ');
    if (space != std::string::npos)
      sum += std::strtoull(statm.c_str() + space, nullptr, 10) * static_cast<Bytes>(::sysconf(_SC_PAGESIZE));
  }
  return sum;
}

int kill_marked(std::string_view setting) {
  int count = 0;
  std::string needle(1, '\0');
  needle.append(setting).push_back('\0');
  each_number_in("/proc", [&](pid_t pid) {
    if (pid == ::getpid()) return;
    const std::string text = '\0' + read_text("/proc/" + std::to_string(pid) + "/environ", kEnvironment);
    if (text.find(needle) == std::string::npos) return;
    Stat stat;
    if (!read_stat(pid, stat) || stat.state == 'Z' || stat.state == 'X') return;
    if (::kill(pid, SIGKILL) == 0) ++count;
  });
  return count;
}

}  // namespace grange::worker
