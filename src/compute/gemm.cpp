#include "compute/gemm.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/prng.hpp"

namespace grange::compute {

namespace {

constexpr std::size_t kRows = 240, kColumns = 480, kDepth = 240;  // a block of c, and how deep it goes at a time
constexpr std::size_t kChecked = 256;

// c[i][j] += sum over k of a[k][i] * b[k][j], for one tile of kMr rows and kNv vectors of kBytes. The tile lives in
// registers; a and b are packed so that both are read in order.
template <class T, std::size_t kBytes, std::size_t kMr, std::size_t kNv>
struct Tile {
  static constexpr std::size_t kLanes = kBytes / sizeof(T);
  static constexpr std::size_t kHeight = kMr, kWidth = kNv * kLanes;

  [[gnu::always_inline]] static inline void add(const T* a, const T* b, std::size_t depth, T* c, std::size_t stride) {
    using Vector [[gnu::vector_size(kBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
    Vector sum[kMr][kNv] = {};
    for (std::size_t k = 0; k < depth; ++k, a += kMr, b += kWidth) {
#pragma GCC unroll 16
      for (std::size_t i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < kNv; ++v) sum[i][v] += a[i] * *reinterpret_cast<const Vector*>(b + v * kLanes);
      }
    }
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kNv; ++v) *reinterpret_cast<Vector*>(c + i * stride + v * kLanes) += sum[i][v];
    }
  }
};

// What the machine can do is found out when it runs; one binary serves all.
template <class T>
struct Kernel {
  void (*add)(const T* a, const T* b, std::size_t depth, T* c, std::size_t stride) = nullptr;
  std::size_t height = 0, width = 0;
};

#if defined(__x86_64__)
template <class T>
using Tile512 = Tile<T, 64, 8, 3>;
template <class T>
using Tile256 = Tile<T, 32, 4, 3>;
template <class T>
[[gnu::target("avx512f")]] void add_512(const T* a, const T* b, std::size_t depth, T* c, std::size_t stride) {
  Tile512<T>::add(a, b, depth, c, stride);
}
template <class T>
[[gnu::target("avx2,fma")]] void add_256(const T* a, const T* b, std::size_t depth, T* c, std::size_t stride) {
  Tile256<T>::add(a, b, depth, c, stride);
}
#endif
template <class T>
using Tile128 = Tile<T, 16, 4, 2>;
template <class T>
void add_128(const T* a, const T* b, std::size_t depth, T* c, std::size_t stride) {
  Tile128<T>::add(a, b, depth, c, stride);
}

template <class T>
Kernel<T> kernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {add_512<T>, Tile512<T>::kHeight, Tile512<T>::kWidth};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {add_256<T>, Tile256<T>::kHeight, Tile256<T>::kWidth};
#endif
  return {add_128<T>, Tile128<T>::kHeight, Tile128<T>::kWidth};
}

std::size_t round_up(std::size_t value, std::size_t to) {
  return (value + to - 1) / to * to;
}

// One thread's: packs blocks of a and b, and adds their product to a block of c.
template <class T>
class Blocks {
 public:
  explicit Blocks(const Kernel<T>& kernel)
      : kernel_(kernel),
        a_(round_up(kRows, kernel.height) * kDepth),
        b_(round_up(kColumns, kernel.width) * kDepth),
        edge_(kernel.height * kernel.width) {}

  void add(const T* a, const T* b, T* c, std::size_t n, std::size_t row, std::size_t column, std::size_t from) {
    const std::size_t rows = std::min(kRows, n - row), columns = std::min(kColumns, n - column);
    const std::size_t depth = std::min(kDepth, n - from);
    const std::size_t height = kernel_.height, width = kernel_.width;
    T* to = a_.data();
    for (std::size_t i = 0; i < rows; i += height) {
      for (std::size_t k = 0; k < depth; ++k) {
        for (std::size_t r = i; r < i + height; ++r) *to++ = r < rows ? a[(row + r) * n + from + k] : T{0};
      }
    }
    to = b_.data();
    for (std::size_t j = 0; j < columns; j += width) {
      const std::size_t there = std::min(width, columns - j);
      for (std::size_t k = 0; k < depth; ++k) {
        const T* const line = b + (from + k) * n + column + j;
        to = std::fill_n(std::copy_n(line, there, to), width - there, T{0});
      }
    }
    for (std::size_t j = 0; j < columns; j += width) {
      for (std::size_t i = 0; i < rows; i += height) {
        const T* const left = a_.data() + i * depth;
        const T* const right = b_.data() + j * depth;
        T* const out = c + (row + i) * n + column + j;
        if (i + height <= rows && j + width <= columns) {
          kernel_.add(left, right, depth, out, n);
          continue;
        }
        std::fill(edge_.begin(), edge_.end(), T{0});
        kernel_.add(left, right, depth, edge_.data(), width);
        for (std::size_t y = 0; y < std::min(height, rows - i); ++y) {
          for (std::size_t x = 0; x < std::min(width, columns - j); ++x) out[y * n + x] += edge_[y * width + x];
        }
      }
    }
  }

 private:
  Kernel<T> kernel_;
  std::vector<T> a_, b_, edge_;
};

template <class T>
void multiply_in(const T* a, const T* b, T* c, std::size_t n, unsigned threads, Control& control,
                 const std::function<void(double)>& told) {
  if (n == 0) return;
  const std::size_t down = (n + kRows - 1) / kRows, across = (n + kColumns - 1) / kColumns;
  const Kernel<T> chosen = kernel<T>();
  std::atomic<std::size_t> next{0}, done{0};
  (void)on_threads(static_cast<unsigned>(std::min<std::size_t>(threads, down * across)), control, [&](unsigned) {
    Blocks<T> blocks(chosen);
    for (std::size_t i = next++; i < down * across; i = next++) {
      const std::size_t row = i % down * kRows, column = i / down * kColumns;
      for (std::size_t y = row; y < std::min(n, row + kRows); ++y)
        std::fill(c + y * n + column, c + y * n + std::min(n, column + kColumns), T{0});
      for (std::size_t from = 0; from < n; from += kDepth) {
        if (!control.go_on()) return;
        blocks.add(a, b, c, n, row, column, from);
      }
      told(static_cast<double>(++done) / static_cast<double>(down * across));
    }
  });
}

// By the plain definition, in double. What rounding may do is bounded by the sum of the terms' sizes.
template <class T>
double error_at(const std::vector<T>& a, const std::vector<T>& b, const std::vector<T>& c, std::size_t n, std::size_t i,
                std::size_t j) {
  double sum = 0, size = 0;
  for (std::size_t k = 0; k < n; ++k) {
    const double term = static_cast<double>(a[i * n + k]) * static_cast<double>(b[k * n + j]);
    sum += term;
    size += std::abs(term);
  }
  const double allowed = 2 * static_cast<double>(n) * static_cast<double>(std::numeric_limits<T>::epsilon()) * size;
  return std::abs(sum - static_cast<double>(c[i * n + j])) / std::max(allowed, std::numeric_limits<double>::min());
}

template <class T>
Result<GemmResult> measure(const GemmOptions& options, Control& control) {
  GemmResult result;
  result.n = options.n;
  const auto n = static_cast<std::size_t>(options.n);
  std::vector<T> a, b, c;
  try {
    a.resize(n * n);
    b.resize(n * n);
    c.resize(n * n);
  } catch (const std::bad_alloc&) {
    return Error{ErrorClass::too_large, "There is not enough memory for the matrices; take a smaller n."};
  }
  Prng prng(n);
  const double before = control.seconds();
  for (std::size_t i = 0; i < n * n; ++i) {
    if (i % (1 << 20) == 0 && !control.go_on()) return control.outcome().error();
    a[i] = static_cast<T>(prng.unit() * 2 - 1);
    b[i] = static_cast<T>(prng.unit() * 2 - 1);
  }
  double best = std::numeric_limits<double>::max();
  for (unsigned repeat = 0; repeat < options.repeats; ++repeat) {
    const double start = control.seconds();
    multiply_in<T>(a.data(), b.data(), c.data(), n, options.threads, control,
                   [&](double share) { control.report((repeat + share) / options.repeats, 0); });
    if (auto ended = control.outcome(); !ended) return ended.error();
    best = std::min(best, control.seconds() - start);
  }
  result.gflops = 2e-9 * std::pow(static_cast<double>(n), 3) / std::max(best, 1e-9);
  result.seconds = control.seconds() - before;
  const auto look = [&](std::size_t i, std::size_t j) {
    const double error = error_at(a, b, c, n, i, j);
    if (!(error <= result.worst_error)) result.worst_error = error;
  };
  look(0, 0);
  look(n - 1, n - 1);
  for (std::size_t i = 0; i < kChecked; ++i) look(prng.below(n), prng.below(n));
  return result;
}

}  // namespace

void multiply(const double* a, const double* b, double* c, std::size_t n, unsigned threads, Control& control) {
  multiply_in(a, b, c, n, threads, control, [](double) {});
}
void multiply(const float* a, const float* b, float* c, std::size_t n, unsigned threads, Control& control) {
  multiply_in(a, b, c, n, threads, control, [](double) {});
}

Result<GemmResult> gemm(const GemmOptions& asked, Control& control) {
  GemmOptions options = asked;
  if (options.n == 0) options.n = kGemmSide;
  if (options.n > kGemmLargest)
    return Error{ErrorClass::invalid_argument, "gemm takes matrices of a side up to " + std::to_string(kGemmLargest) +
                                                   ", not " + std::to_string(options.n) + "."};
  if (options.threads == 0 || options.threads > kMaxThreads)
    return Error{ErrorClass::invalid_argument, "threads is 1 to " + std::to_string(kMaxThreads) + "."};
  if (options.repeats == 0 || options.repeats > 1000)
    return Error{ErrorClass::invalid_argument, "repeats is 1 to 1000."};
  const Bytes needed = 3 * options.n * options.n * (options.single ? sizeof(float) : sizeof(double));
  if (auto fits = check_memory(needed, options.memory); !fits) return fits.error();
  return options.single ? measure<float>(options, control) : measure<double>(options, control);
}

}  // namespace grange::compute
