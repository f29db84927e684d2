// Numbers and spans of time as people say them.
#pragma once

#include <string>
#include <vector>

#include "base/units.hpp"

namespace grange::core::words {

std::string cores(std::uint64_t milli);                     // "1.5 cores"
std::string gpus(std::uint64_t milli);                      // "2 GPUs"
std::string size(Bytes bytes);                              // "16 GiB"
std::string span(Micros time);                              // "2 min 5 s"
std::string count(std::uint64_t n, std::string_view what);  // "3 tasks", "1 task"
std::string number(double n);                               // at most two decimals

// Of these the one that was meant, most likely; "": none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace grange::core::words
