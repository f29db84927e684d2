// What a task's environment says of its place in a gang and of its GPUs. Pure.
#pragma once

#include <string>
#include <vector>

#include "worker/core.hpp"

namespace grange::worker {

std::vector<std::string> place_env(const Run& run);  // "NAME=value"
// "Ended what the task had left running: sleep (2), sh.\n"; "" for none.
std::string told_leftovers(const std::vector<std::string>& names);
// How much a task used, and what it had asked for.
std::string over_memory(Bytes used, Bytes asked);
bool is_over(Bytes used, Bytes asked);  // by 5 %: measuring is not exact

}  // namespace grange::worker
