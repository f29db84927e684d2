#include "cli/term.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>

namespace grange::cli {

bool is_tty(int fd) {
  return isatty(fd) == 1;
}

bool colours(int fd) {
  const char* no = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return is_tty(fd) && (no == nullptr || *no == '\0') && !(term != nullptr && std::strcmp(term, "dumb") == 0);
}

int terminal_width() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string paint(std::string_view text, Colour colour, bool on) {
  static constexpr const char* kCodes[] = {"", "1", "2", "31", "32", "33", "34"};
  if (!on || colour == Colour::none) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<int>(colour)], text);
}

Colour status_colour(std::string_view status) {
  if (status == "completed" || status == "online") return Colour::green;
  if (status == "failed" || status == "quarantined") return Colour::red;
  if (status == "running" || status == "assigned" || status == "busy") return Colour::blue;
  if (status == "cancelled" || status == "draining" || status == "reconnecting" || status == "paused")
    return Colour::yellow;
  if (status == "offline" || status == "pending" || status == "blocked" || status == "delayed") return Colour::dim;
  return Colour::none;
}

std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string shorten(std::string_view text, std::size_t width) {
  if (columns(text) <= width) return std::string(text);
  if (width == 0) return "";
  std::size_t seen = 0, at = 0;
  while (at < text.size()) {
    if ((text[at] & 0xC0) != 0x80 && seen++ == width - 1) break;
    ++at;
  }
  return std::string(text.substr(0, at)) + "…";
}

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) {
      out += c == '\n' ? ' ' : '?';
    } else if (c == '\xC2' && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      out += '?';  // U+0080 to U+009F, which some terminals obey as well
      ++i;
    } else {
      out += c;
    }
  }
  return out;
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(head_.size());
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

void Table::align_right(std::size_t column) {
  right_.push_back(column);
}

std::string Table::text(int width, bool colour) const {
  std::vector<std::size_t> widths(head_.size());
  for (std::size_t c = 0; c < head_.size(); ++c) widths[c] = columns(head_[c]);
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], columns(row[c]));
  }
  const std::size_t gaps = head_.empty() ? 0 : 2 * (head_.size() - 1);
  while (width > 0 && std::accumulate(widths.begin(), widths.end(), gaps) > static_cast<std::size_t>(width)) {
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= 8) break;
    --*widest;
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells, bool head) {
    std::string text;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string cell = shorten(cells[c], widths[c]);
      const std::string pad(widths[c] - columns(cell), ' ');
      const bool right = std::find(right_.begin(), right_.end(), c) != right_.end();
      const Colour how = head ? Colour::bold : c == status_ ? status_colour(cells[c]) : Colour::none;
      if (right) text += pad;
      text += paint(cell, how, colour);
      if (c + 1 < cells.size()) text += (right ? "" : pad) + "  ";
    }
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  line(head_, true);
  for (const auto& row : rows_) line(row, false);
  return out;
}

std::string human_duration(double seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 0.0995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto s = static_cast<std::int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return s % 60 == 0 ? fmt::format("{} min", s / 60) : fmt::format("{} min {} s", s / 60, s % 60);
  if (s < 86400)
    return s % 3600 < 60 ? fmt::format("{} h", s / 3600) : fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
  return s % 86400 < 3600 ? fmt::format("{} d", s / 86400) : fmt::format("{} d {} h", s / 86400, s % 86400 / 3600);
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 1 : 0, kUnits[unit]);
}

std::string human_count(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::int64_t parse_iso_ms(std::string_view iso) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, used = 0;
  double second = 0;
  const std::string text(iso);
  if (std::sscanf(text.c_str(), "%d-%d-%dT%d:%d:%lf%n", &year, &month, &day, &hour, &minute, &second, &used) != 6)
    return -1;
  std::tm tm{};
  tm.tm_year = year - 1900;
  tm.tm_mon = month - 1;
  tm.tm_mday = day;
  tm.tm_hour = hour;
  tm.tm_min = minute;
  const std::int64_t base = timegm(&tm);
  return base * 1000 + static_cast<std::int64_t>(second * 1000 + 0.5);
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string ago(std::string_view iso, std::int64_t now) {
  const std::int64_t then = parse_iso_ms(iso);
  if (then < 0) return "-";
  const double seconds = static_cast<double>(now - then) / 1000;
  if (seconds < 1) return "just now";
  if (seconds < 120) return fmt::format("{:.0f} s ago", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min ago", seconds / 60);
  if (seconds < 172800) return fmt::format("{:.0f} h ago", seconds / 3600);
  return fmt::format("{:.0f} d ago", seconds / 86400);
}

std::string until(std::string_view iso, std::int64_t now) {
  const std::int64_t then = parse_iso_ms(iso);
  if (then < 0) return "-";
  const double seconds = static_cast<double>(then - now) / 1000;
  return seconds < 1 ? "now" : "in " + human_duration(seconds);
}

std::string plural(std::int64_t n, std::string_view word) {
  return fmt::format("{} {}{}", human_count(static_cast<std::uint64_t>(n)), word, n == 1 ? "" : "s");
}

ProgressLine::ProgressLine() : on_(is_tty(STDERR_FILENO)), start_ms_(now_ms()) {}

std::string ProgressLine::text(std::uint64_t done, std::uint64_t failed, std::uint64_t total, double seconds,
                               int width) {
  std::string tail = fmt::format(" {}/{}", human_count(done), human_count(total));
  if (failed > 0) tail += fmt::format(", {} failed", human_count(failed));
  tail += ", " + human_duration(seconds);
  const int room = std::clamp(width - static_cast<int>(tail.size()) - 3, 0, 40);
  if (room < 5 || total == 0) return tail.substr(1);
  const auto full = static_cast<std::size_t>(static_cast<double>(room) * static_cast<double>(std::min(done, total)) /
                                             static_cast<double>(total));
  return "[" + std::string(full, '#') + std::string(static_cast<std::size_t>(room) - full, '.') + "]" + tail;
}

void ProgressLine::show(std::uint64_t done, std::uint64_t failed, std::uint64_t total) {
  if (!on_) return;
  const double seconds = static_cast<double>(now_ms() - start_ms_) / 1000;
  fmt::print(stderr, "\r\x1b[K{}", text(done, failed, total, seconds, terminal_width()));
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace grange::cli
