// What waits for what: the words that graph.cpp and the check of the state share.
#pragma once

#include "core/state.hpp"

namespace grange::core {

inline bool waits_on(const Job& child, const Dependency& d) {
  return !child.cancelled && (d.each ? child.one_by_one : !child.opened);
}

}  // namespace grange::core
