// Product of two square matrices, in blocks that fit the caches; what a machine's arithmetic is good for.
#pragma once

#include <cstddef>

#include "compute/control.hpp"

namespace grange::compute {

inline constexpr std::uint64_t kGemmSide = 1024;
inline constexpr std::uint64_t kGemmLargest = 32'768;

struct GemmOptions {
  std::uint64_t n = 0;  // side; 0: kGemmSide
  bool single = false;  // float instead of double
  unsigned threads = 1;
  unsigned repeats = 3;  // the best of them is told
  Bytes memory = 0;      // that it may use; 0: what is free
};

struct GemmResult {
  std::uint64_t n = 0;
  double gflops = 0;       // of the best
  double seconds = 0;      // of all, with making the matrices
  double worst_error = 0;  // of the checked elements, as a share of what rounding allows
  bool wrong() const { return !(worst_error <= 1); }
};

Result<GemmResult> gemm(const GemmOptions& options, Control& control);

// c = a * b, row by row in memory, all n x n. For tests, and what `gemm` measures.
void multiply(const double* a, const double* b, double* c, std::size_t n, unsigned threads, Control& control);
void multiply(const float* a, const float* b, float* c, std::size_t n, unsigned threads, Control& control);

}  // namespace grange::compute
