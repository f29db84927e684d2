#include "base/clock.hpp"

namespace grange {
Now SystemClock::now() const {
  using namespace std::chrono;
  return {.mono = {duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count()},
          .wall = {duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count()}};
}
}  // namespace grange
