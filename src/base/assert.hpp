// GRANGE_ASSERT guards our own logic and stays on in release. What a peer says is validated, never asserted.
#pragma once

namespace grange {
[[noreturn]] void assert_failed(const char* what, const char* file, int line) noexcept;
}

#define GRANGE_ASSERT(condition) \
  (static_cast<bool>(condition) ? static_cast<void>(0) : ::grange::assert_failed(#condition, __FILE__, __LINE__))
