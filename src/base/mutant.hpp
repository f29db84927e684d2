// Guards that the simulator can take away, to see that it notices. Elsewhere always false, and the branch is gone.
#pragma once

#ifdef GRANGE_SIM_MUTANTS
#include "base/named.hpp"
namespace grange::mutants {
struct Switch {
  const char* name;
  bool on = false;
  Switch* next;
  explicit Switch(const char* n) : name(n), next(first()) { first() = this; }
  static Switch*& first() {
    static Switch* head = nullptr;
    return head;
  }
};
template <Named N>
struct Mutant {
  static inline Switch at{N.text};
};
}  // namespace grange::mutants
#define GRANGE_MUTANT(name) (::grange::mutants::Mutant<::grange::Named(name)>::at.on)
#else
#define GRANGE_MUTANT(name) false
#endif
