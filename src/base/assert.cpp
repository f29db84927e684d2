#include "base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace grange {
void assert_failed(const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "grange: assertion failed: %s (%s:%d)\n", what, file, line);
  std::fflush(stderr);
  std::abort();
}
}  // namespace grange
