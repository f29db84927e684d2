// Numbers and spans of time as people say them.
#pragma once

#include <string>

#include "base/units.hpp"

namespace grange::core::words {

std::string cores(std::uint64_t milli);                     // "1.5 cores"
std::string gpus(std::uint64_t milli);                      // "2 GPUs"
std::string size(Bytes bytes);                              // "16 GiB"
std::string span(Micros time);                              // "2 min 5 s"
std::string count(std::uint64_t n, std::string_view what);  // "3 tasks", "1 task"
std::string number(double n);                               // at most two decimals

}  // namespace grange::core::words
