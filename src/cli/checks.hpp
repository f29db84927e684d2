// CLI11's checks without their type soup in the help, and with messages that fit on a line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace grange::cli {

template <class T>
CLI::Validator between(T low, T high) {
  return CLI::Range(low, high).description("");
}

namespace checks {
inline CLI::Validator number(bool zero, const char* wanted) {
  return CLI::Validator(
      [zero, wanted](std::string& text) {
        double value = 0;
        const bool ok = CLI::detail::lexical_cast(text, value) && value < 1e9 && (zero ? value >= 0 : value > 0);
        return ok ? std::string() : text + " is not a number " + wanted;
      },
      "");
}
}  // namespace checks

inline CLI::Validator above_zero() {
  return checks::number(false, "above 0");
}
inline CLI::Validator not_negative() {
  return checks::number(true, "of 0 or more");
}

}  // namespace grange::cli
