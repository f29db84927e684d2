// A string literal as a template argument.
#pragma once

#include <cstddef>
#include <cstdint>

namespace grange {

template <std::size_t N>
struct Named {
  char text[N]{};
  consteval Named(const char (&from)[N]) {  // NOLINT: a literal becomes a name
    for (std::size_t i = 0; i < N; ++i) text[i] = from[i];
  }
};

}  // namespace grange
