// Words of the job file that are not whole values: durations, sizes, misspelt keys, pages of arguments.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/edit_distance.hpp"
#include "base/limits.hpp"
#include "server/api/job_file.hpp"

namespace grange::server {
namespace {

// Splits "10 MiB" into 10 and "mib".
bool split_unit(std::string_view text, double& number, std::string& unit) {
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc{} || !std::isfinite(number) || number < 0) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  unit.assign(text);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return true;
}

Result<std::uint64_t> scaled(std::string_view text, const std::vector<std::pair<std::string_view, double>>& units,
                             std::string_view example) {
  double number = 0;
  std::string unit;
  if (split_unit(text, number, unit)) {
    for (const auto& [name, factor] : units) {
      if (name != unit) continue;
      const double value = std::round(number * factor);
      if (value < 9e15) return static_cast<std::uint64_t>(value);
    }
  }
  return Error{ErrorClass::invalid_argument, fmt::format("\"{}\" is not understood; write it like {}.", text, example)};
}

}  // namespace

Result<std::uint64_t> read_duration_ms(std::string_view text) {
  return scaled(text, {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60e3}, {"min", 60e3}, {"h", 3600e3}, {"d", 86400e3}},
                "90, \"1.5s\", \"10m\" or \"2h\"");
}

Result<std::uint64_t> read_bytes(std::string_view text) {
  constexpr double k = 1024;
  return scaled(text,
                {{"", 1},
                 {"b", 1},
                 {"kib", k},
                 {"mib", k * k},
                 {"gib", k * k * k},
                 {"tib", k * k * k * k},
                 {"k", k},
                 {"m", k * k},
                 {"g", k * k * k},
                 {"t", k * k * k * k},
                 {"kb", 1e3},
                 {"mb", 1e6},
                 {"gb", 1e9},
                 {"tb", 1e12}},
                "1048576, \"512MiB\" or \"2GiB\"");
}

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& known) {
  if (word.size() > 64) return {};
  std::string_view best;
  std::size_t least = std::max<std::size_t>(2, word.size() / 2);
  for (const std::string_view one : known) {
    if (one.size() > word.size() + least) continue;  // too far anyway, and it may be a peer's megabytes
    const std::size_t d = edit_distance(word, one);
    if (d < least) {
      least = d;
      best = one;
    }
  }
  return best;
}

std::vector<core::ArgumentPage> make_pages(const std::vector<std::string>& args) {
  constexpr std::size_t page_bytes = 1 * MiB, page_tasks = 16'384;
  std::vector<core::ArgumentPage> pages;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (pages.empty() || pages.back().bytes.size() + args[i].size() > page_bytes ||
        pages.back().sizes.size() >= page_tasks) {
      pages.emplace_back().first = static_cast<std::uint32_t>(i);
    }
    pages.back().sizes.push_back(static_cast<std::uint32_t>(args[i].size()));
    pages.back().bytes += args[i];
  }
  return pages;
}

}  // namespace grange::server
