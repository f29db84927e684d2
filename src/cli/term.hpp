// What people see: colours, tables that fit the terminal, times relative to now, a progress line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace grange::cli {

bool is_tty(int fd);
bool colours(int fd);  // a terminal, no NO_COLOR, and TERM is not "dumb"
int terminal_width();  // of stdout, 80 when it is not a terminal

enum class Colour { none, bold, dim, red, green, yellow, blue };
std::string paint(std::string_view text, Colour colour, bool on);
Colour status_colour(std::string_view status);

// Columns as wide as their widest cell; when the lines do not fit, the widest column that may shrink is cut with "…".
class Table {
 public:
  explicit Table(std::vector<std::string> head) : head_(std::move(head)) {}
  void row(std::vector<std::string> cells);
  void align_right(std::size_t column);
  void colour_by_status(std::size_t column) { status_ = column; }
  std::string text(int width, bool colour) const;  // width 0: no limit

 private:
  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
  std::vector<std::size_t> right_;
  std::size_t status_ = SIZE_MAX;
};

// Characters on the screen: UTF-8 code points.
std::size_t columns(std::string_view text);
std::string shorten(std::string_view text, std::size_t width);
// Bytes of a peer for a terminal: control characters are shown as "?", so that a name cannot move the cursor.
std::string printable(std::string_view text);

std::string human_duration(double seconds);    // "0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h"
std::string human_bytes(std::uint64_t bytes);  // "1.5 GiB"
std::string human_count(std::uint64_t n);      // "1,000,000"
// `iso` as the API writes it ("2026-01-02T03:04:05.678Z"); "" becomes "-".
std::string ago(std::string_view iso, std::int64_t now_ms);
std::string until(std::string_view iso, std::int64_t now_ms);  // "in 12 s", "now"; "" becomes "-"
std::string plural(std::int64_t n, std::string_view word);     // "1 task", "1,000 tasks"
std::int64_t parse_iso_ms(std::string_view iso);               // -1: not a time
std::int64_t now_ms();

// One line on stderr that is rewritten; nothing when stderr is not a terminal.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  void show(std::uint64_t done, std::uint64_t failed, std::uint64_t total);
  void clear();
  static std::string text(std::uint64_t done, std::uint64_t failed, std::uint64_t total, double seconds, int width);

 private:
  bool on_;
  bool shown_ = false;
  std::int64_t start_ms_;
};

}  // namespace grange::cli
