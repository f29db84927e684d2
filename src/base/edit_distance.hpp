// How far two words are apart, for "did you mean". The callers bound how long their words are.
#pragma once

#include <string_view>

namespace grange {

// Bytes added, removed or changed, and swaps of neighbours, each counted as one (optimal string alignment).
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace grange
