#include "core/cron.hpp"

#include <string>
#include <vector>

#include "base/assert.hpp"

namespace grange::core {
namespace {

constexpr std::int64_t kMinute = 60'000, kDay = 86'400'000;
// Where a day matches at all, one comes within this: 29 February may be eight years away (1896 to 1904, 2096 to 2104).
constexpr int kDaysAhead = 9 * 366;

struct Field {
  std::string_view name;
  unsigned least, most;
  std::array<std::string_view, 12> words;  // words[i] is least + i
};
constexpr std::array<Field, 5> kFields = {{
    {"minute", 0, 59, {}},
    {"hour", 0, 23, {}},
    {"day of the month", 1, 31, {}},
    {"month", 1, 12, {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
    {"day of the week", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}};

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

struct Date {
  unsigned month = 1, day = 1;
};
// Proleptic Gregorian, after Howard Hinnant's "chrono-compatible low-level date algorithms".
Date date_of(std::int64_t days) {
  days += 719'468;
  const std::int64_t era = floor_div(days, 146'097);
  const auto of_era = static_cast<unsigned>(days - era * 146'097);
  const unsigned year = (of_era - of_era / 1460 + of_era / 36'524 - of_era / 146'096) / 365;
  const unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
  const unsigned month = (5 * of_year + 2) / 153;
  return {.month = month < 10 ? month + 3 : month - 9, .day = of_year - (153 * month + 2) / 5 + 1};
}

unsigned weekday_of(std::int64_t days) {
  return static_cast<unsigned>(((days + 4) % 7 + 7) % 7);  // 1970-01-01 was a Thursday
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::optional<unsigned> read_number(std::string_view text) {
  if (text.empty() || text.size() > 4) return std::nullopt;
  unsigned out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    out = out * 10 + static_cast<unsigned>(c - '0');
  }
  return out;
}

std::optional<unsigned> read_value(std::string_view text, const Field& field) {
  for (unsigned i = 0; i < field.words.size(); ++i) {
    if (!field.words[i].empty() && same(text, field.words[i])) return field.least + i;
  }
  const auto number = read_number(text);
  if (!number || *number < field.least || *number > field.most) return std::nullopt;
  return number;
}

Error bad(const Field& field, std::string_view text) {
  std::string words = field.words[0].empty()
                          ? std::string()
                          : ", or names (" + std::string(field.words[0]) + ", " + std::string(field.words[1]) + " ...)";
  return Error{ErrorClass::invalid_argument,
               "The " + std::string(field.name) + " of the cron line, \"" + std::string(text.substr(0, 64)) +
                   "\", is not understood: it takes numbers from " + std::to_string(field.least) + " to " +
                   std::to_string(field.most) + words + ", *, ranges (1-5), lists (1,3) and steps (*/15)."};
}

Result<std::uint64_t> read_field(std::string_view text, const Field& field) {
  std::uint64_t out = 0;
  const std::string_view whole = text;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
    unsigned step = 1;
    const std::size_t slash = part.find('/');
    if (slash != std::string_view::npos) {
      const auto number = read_number(part.substr(slash + 1));
      if (!number || *number == 0 || *number > field.most) return bad(field, whole);
      step = *number;
      part = part.substr(0, slash);
    }
    unsigned first = field.least, last = field.most;
    if (part == "*") {
      if (field.most == 7) last = 6;
    } else {
      const std::size_t dash = part.find('-');
      const auto from = read_value(part.substr(0, dash), field);
      if (!from) return bad(field, whole);
      first = *from;
      if (dash != std::string_view::npos) {
        const auto to = read_value(part.substr(dash + 1), field);
        if (!to) return bad(field, whole);
        last = *to;
        if (field.most == 7 && last == 0 && first > 0) last = 7;  // fri-sun
        if (last < first) return bad(field, whole);
      } else if (slash == std::string_view::npos) {
        last = first;
      }
    }
    for (unsigned n = first; n <= last; n += step) out |= std::uint64_t{1} << (field.most == 7 ? n % 7 : n);
  }
  return out;
}

}  // namespace

Result<Cron> Cron::parse(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 7> names = {{
      {"@hourly", "0 * * * *"},
      {"@daily", "0 0 * * *"},
      {"@midnight", "0 0 * * *"},
      {"@weekly", "0 0 * * 0"},
      {"@monthly", "0 0 1 * *"},
      {"@yearly", "0 0 1 1 *"},
      {"@annually", "0 0 1 1 *"},
  }};
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.starts_with('@')) {
    const std::string_view asked = text;
    for (const auto& [name, line] : names) {
      if (same(asked, name)) text = line;
    }
    if (text == asked) {
      return Error{ErrorClass::invalid_argument,
                   "\"" + std::string(asked.substr(0, 64)) +
                       "\" is not a schedule; there are @hourly, @daily, @weekly, @monthly and @yearly."};
    }
  }
  std::vector<std::string_view> parts;
  while (!text.empty() && parts.size() < 7) {
    std::size_t end = 0;
    while (end < text.size() && !blank(text[end])) ++end;
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  }
  if (parts.size() != kFields.size()) {
    return Error{ErrorClass::invalid_argument,
                 "A cron line has five fields: minute, hour, day of the month, month, day of the week. \"30 4 * * "
                 "mon-fri\" is half past four on working days, UTC."};
  }
  std::array<std::uint64_t, 5> bits{};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto field = read_field(parts[i], kFields[i]);
    if (!field) return std::move(field).error();
    bits[i] = *field;
  }
  Cron out;
  out.minutes_ = bits[0];
  out.hours_ = static_cast<std::uint32_t>(bits[1]);
  out.days_ = static_cast<std::uint32_t>(bits[2]);
  out.months_ = static_cast<std::uint32_t>(bits[3]);
  out.weekdays_ = static_cast<std::uint32_t>(bits[4]);
  out.any_day_ = parts[2] == "*";
  out.any_weekday_ = parts[4] == "*";
  if (!out.find_after(WallMs{0})) {
    return Error{ErrorClass::invalid_argument,
                 "This schedule never runs: day of the month \"" + std::string(parts[2].substr(0, 64)) +
                     "\" does not exist in month \"" + std::string(parts[3].substr(0, 64)) + "\"."};
  }
  return out;
}

bool Cron::day_matches(std::int64_t day) const {
  const Date date = date_of(day);
  if ((months_ >> date.month & 1) == 0) return false;
  const bool by_day = (days_ >> date.day & 1) != 0;
  const bool by_weekday = (weekdays_ >> weekday_of(day) & 1) != 0;
  if (any_day_ || any_weekday_) return by_day && by_weekday;
  return by_day || by_weekday;
}

bool Cron::matches(WallMs minute) const {
  const std::int64_t day = floor_div(minute.ms, kDay);
  const std::int64_t of_day = (minute.ms - day * kDay) / kMinute;
  return (minutes_ >> (of_day % 60) & 1) != 0 && (hours_ >> (of_day / 60) & 1) != 0 && day_matches(day);
}

std::optional<WallMs> Cron::find_after(WallMs t) const {
  const std::int64_t from = (floor_div(t.ms, kMinute) + 1) * kMinute;
  const std::int64_t first = floor_div(from, kDay);
  for (std::int64_t day = first; day < first + kDaysAhead; ++day) {
    if (!day_matches(day)) continue;
    const std::int64_t start = day == first ? (from - day * kDay) / kMinute : 0;
    for (std::int64_t minute = start; minute < 24 * 60; ++minute) {
      if ((hours_ >> (minute / 60) & 1) == 0) {
        minute += 59 - minute % 60;  // on to the next hour
      } else if ((minutes_ >> (minute % 60) & 1) != 0) {
        return WallMs{day * kDay + minute * kMinute};
      }
    }
  }
  return std::nullopt;
}

WallMs Cron::next_after(WallMs t) const {
  const auto next = find_after(t);
  GRANGE_ASSERT(next.has_value());  // parse() saw one, and the calendar repeats
  return *next;
}

}  // namespace grange::core
