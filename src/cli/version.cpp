#include "cli/version.hpp"

#include "grange_commit.hpp"

namespace grange::cli {
const char* version() {
  return GRANGE_VERSION;
}
const char* commit() {
  return GRANGE_COMMIT;
}
const char* build_type() {
  return GRANGE_BUILD_TYPE;
}
}  // namespace grange::cli
