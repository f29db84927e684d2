// The body that a record refers to.
#pragma once

#include "base/assert.hpp"
#include "core/bodies.hpp"

namespace grange::store {

// Null: it has none.
template <class T>
const T* body_of(const core::Bodies& bodies, core::BodyRef ref) {
  if (ref == core::kNoBody) return nullptr;
  GRANGE_ASSERT(ref < bodies.size());
  return std::get_if<T>(&bodies[ref]);
}

}  // namespace grange::store
