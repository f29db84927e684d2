// What tasks leave running. A task's process is the reaper of its own descendants, so that they stay below it wherever
// they go (setsid, double fork, an empty environment); when it ends, they become children of the worker, which knows
// its own: whoever else is among its children was left behind by a task that has ended.
//
// Against a worker that is killed helps the mark in the environment, by which the guardian finds what lives on.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.hpp"

namespace grange::worker {

inline constexpr std::string_view kMark = "GRANGE_WORKER_MARK";

// This process becomes the one that its descendants' orphans come to; from here on every child that was not started
// through spawn() counts as left behind.
void adopt_orphans();

// Children that spawn() started, until they are reaped.
void know_child(pid_t pid);
void forget_child(pid_t pid);

// Kills and reaps what was left behind: the names of those that were still running.
std::vector<std::string> end_leftovers();

// All descendants of a process, parents first. It may miss one that is being born.
std::vector<pid_t> descendants(pid_t of);

// Kills what is below a process that goes on itself: all of it, or what left its session.
enum class Below : std::uint8_t { all, detached };
struct EndedBelow {
  std::vector<std::string> names;
  std::size_t dead = 0;  // that wait for a parent to ask for them, the killed ones included
};
EndedBelow end_below(pid_t root, Below which);

void signal_tree(pid_t root, int number);  // the process, its group, and all below it

// Memory of a process and all below it. Shared pages may count more than once: then `exact` costs more, and does not.
Bytes tree_memory(pid_t root, bool exact);

// For the guardian: kills all processes with this "NAME=value" in their environment. How many there were.
int kill_marked(std::string_view setting);

}  // namespace grange::worker
