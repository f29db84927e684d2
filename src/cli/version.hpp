// What was built: shown by `grange version` and kept with every figure.
#pragma once

namespace grange::cli {
const char* version();     // "0.1.0"
const char* commit();      // "a1b2c3d4e5f6", "...-dirty" or "unknown"
const char* build_type();  // "Release"
}  // namespace grange::cli
