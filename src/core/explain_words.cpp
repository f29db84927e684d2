#include "core/explain_words.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "base/edit_distance.hpp"

namespace grange::core::words {

std::string number(double n) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.2f", n);
  std::string out(text.data());
  while (out.back() == '0') out.pop_back();
  if (out.back() == '.') out.pop_back();
  return out;
}

std::string count(std::uint64_t n, std::string_view what) {
  return std::to_string(n) + " " + std::string(what) + (n == 1 ? "" : "s");
}

std::string cores(std::uint64_t milli) {
  return number(static_cast<double>(milli) / 1000) + (milli == 1000 ? " core" : " cores");
}
std::string gpus(std::uint64_t milli) {
  return number(static_cast<double>(milli) / 1000) + (milli == 1000 ? " GPU" : " GPUs");
}

std::string size(Bytes bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto n = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (n >= 1024 && unit + 1 < kUnits.size()) {
    n /= 1024;
    ++unit;
  }
  return number(n) + " " + std::string(kUnits[unit]);
}

std::string span(Micros time) {
  const auto ms = std::max<std::int64_t>(0, time.count() / 1000);
  if (ms < 1000) return std::to_string(ms) + " ms";
  const auto s = (ms + 500) / 1000;
  if (s < 60) return std::to_string(s) + " s";
  if (s < 3600) return std::to_string(s / 60) + " min" + (s % 60 == 0 ? "" : " " + std::to_string(s % 60) + " s");
  const auto min = s / 60;
  return std::to_string(min / 60) + " h" + (min % 60 == 0 ? "" : " " + std::to_string(min % 60) + " min");
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t kLongest = 128;
  std::string best;
  std::size_t least = std::max<std::size_t>(2, word.size() / 3 + 1);
  if (word.size() > kLongest) return best;
  for (const std::string& one : known) {
    if (one.size() > kLongest || one == word) continue;
    // The same with a tag behind is as near as a slip of the pen: "llama3" for "llama3:8b".
    const bool begins = word.size() >= 3 && one.starts_with(word);
    const std::size_t far = begins ? 1 : edit_distance(word, one);
    if (far >= least) continue;
    best = one;
    least = far;
  }
  return best;
}

}  // namespace grange::core::words
