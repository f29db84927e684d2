#include "cli/parse.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace grange::cli {
namespace {

// Reads an unsigned decimal from the front of `text`, and removes it.
std::optional<double> eat_number(std::string_view& text) {
  std::size_t used = 0;
  while (used < text.size() && ((text[used] >= '0' && text[used] <= '9') || text[used] == '.')) ++used;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + used, value);
  if (error != std::errc{} || end != text.data() + used) return std::nullopt;
  text.remove_prefix(used);
  return value;
}

std::string_view eat_unit(std::string_view& text) {
  std::size_t used = 0;
  while (used < text.size() && ((text[used] | 0x20) >= 'a' && (text[used] | 0x20) <= 'z')) ++used;
  const std::string_view unit = text.substr(0, used);
  text.remove_prefix(used);
  return unit;
}

const std::vector<std::string_view> kGlobalWithValue = {"--url", "--server", "--token-file"};
const std::vector<std::string_view> kRunWithValue = {"--cpus",  "--memory", "--gpus",    "--env",     "-e",
                                                     "--name",  "-n",       "--timeout", "--retries", "--priority",
                                                     "--label", "--in",     "--out"};

bool in(const std::vector<std::string_view>& set, std::string_view word) {
  return std::find(set.begin(), set.end(), word) != set.end();
}

}  // namespace

Result<Millis> parse_duration(std::string_view text) {
  const Error bad{ErrorClass::invalid_argument,
                  "\"" + std::string(text) +
                      "\" is not a duration; write a number of seconds, or for example 90s, 10m, 1h30m, 7d."};
  static const std::map<std::string_view, double> kUnits = {{"", 1000},     {"ms", 1},         {"s", 1000},
                                                            {"m", 60e3},    {"min", 60e3},     {"h", 3600e3},
                                                            {"d", 86400e3}, {"w", 7 * 86400e3}};
  std::string_view rest = text;
  double sum = 0;
  bool bare = false;
  for (bool first = true; first || !rest.empty(); first = false) {
    const auto number = eat_number(rest);
    const auto unit = kUnits.find(eat_unit(rest));
    if (!number || unit == kUnits.end() || bare) return bad;
    bare = unit->first.empty();  // a number without a unit stands alone
    if (bare && !first) return bad;
    sum += *number * unit->second;
  }
  if (!(sum >= 0) || sum > 1e15) return bad;
  return Millis{std::llround(sum)};
}

Result<Bytes> parse_size(std::string_view text) {
  const Error bad{ErrorClass::invalid_argument,
                  "\"" + std::string(text) + "\" is not a size; write bytes, or for example 512MiB or 2GiB."};
  std::string_view rest = text;
  const auto number = eat_number(rest);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  const std::string_view unit = eat_unit(rest);
  if (!number || !rest.empty()) return bad;
  double factor = 1;
  if (!unit.empty() && unit != "B") {
    const std::size_t power = std::string_view("KMGTP").find(static_cast<char>(unit[0] & ~0x20));
    const std::string_view tail = unit.substr(1);
    if (power == std::string_view::npos ||
        (!tail.empty() && tail != "iB" && tail != "B" && tail != "ib" && tail != "b" && tail != "i")) {
      return bad;
    }
    factor = std::pow(tail == "B" || tail == "b" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double bytes = *number * factor;
  if (!(bytes >= 0) || bytes > 9e18) return bad;
  return static_cast<Bytes>(std::llround(bytes));
}

Result<Bytes> parse_memory(std::string_view text) {
  Result<Bytes> size = parse_size(text);
  const bool bare = !text.empty() && text.find_first_not_of("0123456789.") == std::string_view::npos;
  if (size.ok() && bare && *size > 0 && *size < 1 * MiB) {
    return Error{ErrorClass::invalid_argument, "\"" + std::string(text) + "\" is that many bytes; did you mean " +
                                                   std::string(text) + (*size < 1024 ? "GiB?" : "MiB?")};
  }
  return size;
}

Result<std::pair<std::string, std::string>> parse_setting(std::string_view text) {
  const std::size_t at = text.find('=');
  if (at == std::string_view::npos || at == 0) {
    return Error{ErrorClass::invalid_argument,
                 "\"" + std::string(text) + "\" is not a setting; write it as NAME=VALUE."};
  }
  return std::pair{std::string(text.substr(0, at)), std::string(text.substr(at + 1))};
}

Result<TaskRef> parse_task(std::string_view text) {
  const Error bad{ErrorClass::invalid_argument,
                  "\"" + std::string(text) + "\" names no job or task; write a job as 7 and its task number 3 as 7/3."};
  const std::size_t at = text.find('/');
  TaskRef ref{std::string(text.substr(0, at)), std::nullopt};
  if (ref.job.empty() || ref.job.size() > 256) return bad;
  if (at == std::string_view::npos) return ref;
  const std::string_view digits = text.substr(at + 1);
  std::uint32_t index = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) return bad;
  ref.index = index;
  return ref;
}

std::size_t find_command(const std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (in(kGlobalWithValue, arguments[i])) {
      ++i;
    } else if (arguments[i].empty() || arguments[i][0] != '-') {
      return i;
    }
  }
  return arguments.size();
}

std::optional<std::pair<std::size_t, std::size_t>> find_run_command(const std::vector<std::string>& arguments) {
  const std::size_t command = find_command(arguments);
  if (command == arguments.size() || arguments[command] != "run") return std::nullopt;
  for (std::size_t i = command + 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--") return std::pair{i, i + 1};
    if (in(kGlobalWithValue, arguments[i]) || in(kRunWithValue, arguments[i])) {
      ++i;
    } else if (arguments[i].empty() || arguments[i][0] != '-') {
      return std::pair{i, i};
    }
  }
  return std::pair{arguments.size(), arguments.size()};
}

}  // namespace grange::cli
