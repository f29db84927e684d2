// The steady clock, as the core counts it.
#pragma once

#include <chrono>

#include "base/units.hpp"

namespace grange::net {

inline Instant mono_now() {
  return {std::chrono::duration_cast<Micros>(std::chrono::steady_clock::now().time_since_epoch()).count()};
}

}  // namespace grange::net
