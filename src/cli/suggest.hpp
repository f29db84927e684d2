// "Did you mean ...?": the nearest of some known words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace grange::cli {

// Empty when nothing is near enough to be what was meant.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace grange::cli
