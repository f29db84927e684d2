// How fast memory is read and written, by the four kernels of McCalpin's STREAM.
#pragma once

#include <array>
#include <string_view>

#include "compute/control.hpp"

namespace grange::compute {

inline constexpr Bytes kMemoryBytes = 384 * MiB;
inline constexpr Bytes kMemoryLeast = 24 * KiB;
inline constexpr Bytes kMemoryLargest = 256 * GiB;
inline constexpr std::array<std::string_view, 4> kMemoryKernels = {"copy", "scale", "add", "triad"};

struct MemoryOptions {
  Bytes n = 0;  // of its three arrays together; 0: kMemoryBytes. Below some times the last cache it measures the cache
  unsigned threads = 1;
  unsigned repeats = 5;  // the best of them is told
  Bytes memory = 0;      // that it may use; 0: what is free
};

struct MemoryResult {
  Bytes n = 0;
  std::array<double, 4> gb_per_s{};  // as in kMemoryKernels; 10^9 bytes
  double seconds = 0;                // of all
  bool right = false;                // the arrays hold what they must
};

Result<MemoryResult> memory_speed(const MemoryOptions& options, Control& control);

}  // namespace grange::compute
