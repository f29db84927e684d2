// CLI11's checks without their type soup in the help, and with messages that fit on a line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
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

// Counts as people write large ones: 1e6, 1_000_000 and 1,000,000 where they are whole. What is none stays as it is,
// for the check behind to refuse. To be given to transform().
inline CLI::Validator whole_number() {
  return CLI::Validator(
      [](std::string& text) {
        std::string plain;
        for (std::size_t i = 0; i < text.size(); ++i) {
          const bool mark = text[i] == '_' || text[i] == ',';
          if (!mark) plain += text[i];
          if (mark && (i == 0 || i + 1 == text.size())) return std::string();
        }
        if (plain.find_first_not_of("0123456789") == std::string::npos) {
          if (plain.size() != text.size()) text = plain;
          return std::string();
        }
        if (plain.find_first_not_of("0123456789.eE+") != std::string::npos) return std::string();
        double value = 0;
        if (!CLI::detail::lexical_cast(plain, value) || !(value >= 0) || value > 9007199254740992.0 ||
            value != static_cast<double>(static_cast<std::int64_t>(value)))
          return std::string();
        text = std::to_string(static_cast<std::int64_t>(value));
        return std::string();
      },
      "");
}

inline CLI::Validator above_zero() {
  return checks::number(false, "above 0");
}
inline CLI::Validator not_negative() {
  return checks::number(true, "of 0 or more");
}

}  // namespace grange::cli
