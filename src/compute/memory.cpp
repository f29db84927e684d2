#include "compute/memory.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <string>

namespace grange::compute {

namespace {

constexpr double kScalar = 3;
constexpr std::size_t kPiece = 1 << 19;  // elements between two looks at the control

using Array = std::unique_ptr<double[]>;  // not touched before its threads do

struct Arrays {
  double* a;
  double* b;
  double* c;
};

void apply(std::size_t kernel, const Arrays& on, std::size_t from, std::size_t end) {
  double* __restrict a = on.a;
  double* __restrict b = on.b;
  double* __restrict c = on.c;
  switch (kernel) {
    case 0:
      for (std::size_t i = from; i < end; ++i) c[i] = a[i];
      break;
    case 1:
      for (std::size_t i = from; i < end; ++i) b[i] = kScalar * c[i];
      break;
    case 2:
      for (std::size_t i = from; i < end; ++i) c[i] = a[i] + b[i];
      break;
    default:
      for (std::size_t i = from; i < end; ++i) a[i] = b[i] + kScalar * c[i];
      break;
  }
}

}  // namespace

Result<MemoryResult> memory_speed(const MemoryOptions& options, Control& control) {
  MemoryResult result;
  result.n = options.n == 0 ? kMemoryBytes : options.n;
  if (result.n < kMemoryLeast || result.n > kMemoryLargest)
    return Error{ErrorClass::invalid_argument, "memory takes " + std::to_string(kMemoryLeast) + " to " +
                                                   std::to_string(kMemoryLargest) + " bytes, not " +
                                                   std::to_string(result.n) + "."};
  if (options.threads == 0 || options.threads > kMaxThreads)
    return Error{ErrorClass::invalid_argument, "threads is 1 to " + std::to_string(kMaxThreads) + "."};
  if (options.repeats == 0 || options.repeats > 50)  // beyond, the values would overflow
    return Error{ErrorClass::invalid_argument, "repeats is 1 to 50."};
  if (auto fits = check_memory(result.n, options.memory); !fits) return fits.error();
  const auto length = static_cast<std::size_t>(result.n / 3 / sizeof(double));
  Array a, b, c;
  try {
    a = std::make_unique_for_overwrite<double[]>(length);
    b = std::make_unique_for_overwrite<double[]>(length);
    c = std::make_unique_for_overwrite<double[]>(length);
  } catch (const std::bad_alloc&) {
    return Error{ErrorClass::too_large, "There is not enough memory for the arrays; take a smaller n."};
  }
  const Arrays arrays{a.get(), b.get(), c.get()};
  const double start = control.seconds();
  // Each thread always has the same stretch, so that it is near to it.
  const auto everywhere = [&](const std::function<void(std::size_t, std::size_t)>& work) {
    return on_threads(options.threads, control, [&](unsigned index) {
      const std::size_t first = length * index / options.threads, end = length * (index + 1) / options.threads;
      for (std::size_t at = first; at < end && control.go_on(); at += kPiece) work(at, std::min(end, at + kPiece));
    });
  };
  auto made = everywhere([&](std::size_t from, std::size_t end) {
    std::fill(arrays.a + from, arrays.a + end, 1.0);
    std::fill(arrays.b + from, arrays.b + end, 2.0);
    std::fill(arrays.c + from, arrays.c + end, 0.0);
  });
  if (!made) return made.error();
  std::array<double, 4> best;
  best.fill(std::numeric_limits<double>::max());
  for (unsigned repeat = 0; repeat < options.repeats; ++repeat) {
    for (std::size_t kernel = 0; kernel < best.size(); ++kernel) {
      const double before = control.seconds();
      auto ran = everywhere([&](std::size_t from, std::size_t end) { apply(kernel, arrays, from, end); });
      if (!ran) return ran.error();
      best[kernel] = std::min(best[kernel], control.seconds() - before);
      control.report((repeat * 4.0 + static_cast<double>(kernel) + 1) / (4.0 * options.repeats), 0);
    }
  }
  for (std::size_t kernel = 0; kernel < best.size(); ++kernel) {
    const double moved = static_cast<double>(length * sizeof(double)) * (kernel < 2 ? 2 : 3);
    result.gb_per_s[kernel] = moved / 1e9 / std::max(best[kernel], 1e-9);
  }
  double x = 1, y = 2, z = 0;  // whole numbers: exact until they leave 2^53, and the same rounding after it
  for (unsigned repeat = 0; repeat < options.repeats; ++repeat) {
    z = x;
    y = kScalar * z;
    z = x + y;
    x = y + kScalar * z;
  }
  const auto all = [length](const double* array, double value) {
    return std::all_of(array, array + length,
                       [value](double v) { return v >= value * (1 - 1e-12) && v <= value * (1 + 1e-12); });
  };
  result.right = all(arrays.a, x) && all(arrays.b, y) && all(arrays.c, z);
  result.seconds = control.seconds() - start;
  return result;
}

}  // namespace grange::compute
