// CLI11's range check without its type soup in the help.
#pragma once

#include <CLI/CLI.hpp>

namespace grange::cli {

template <class T>
CLI::Validator between(T low, T high) {
  return CLI::Range(low, high).description("");
}

}  // namespace grange::cli
