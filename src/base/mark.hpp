// Named places that the simulator must reach. Compiled to nothing elsewhere; in the simulator a counter, no I/O.
#pragma once

#ifdef GRANGE_SIM_MARKS
#include "base/named.hpp"
namespace grange::marks {
struct Counter {
  const char* name;
  std::uint64_t hits = 0;
  Counter* next;
  explicit Counter(const char* n) : name(n), next(first()) { first() = this; }
  static Counter*& first() {
    static Counter* head = nullptr;
    return head;
  }
};
// Static, so that a mark is in the list though it was never reached.
template <Named N>
struct Mark {
  static inline Counter counter{N.text};
};
}  // namespace grange::marks
#define GRANGE_MARK(name) (static_cast<void>(++::grange::marks::Mark<::grange::Named(name)>::counter.hits))
#else
#define GRANGE_MARK(name) static_cast<void>(0)
#endif
