// Text for `grange top`: cells of a terminal, not bytes. Pure; nothing that a peer wrote passes uncleaned.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace grange::cli::top {

// What may reach a terminal: well-formed, no control characters, nothing that turns the direction of text, at most two
// accents on a letter. Line ends and tabs become spaces. Without `utf8` all is ASCII.
std::string clean(std::string_view bytes, bool utf8);
// A line of a task's output without the escape sequences that colour it, and without what a "\r" has overwritten.
std::string plain_line(std::string_view bytes);

int width(std::string_view cleaned);  // in cells: 2 for a wide character, 0 for an accent
std::string cut(std::string_view cleaned, int cells, bool utf8);
// Lines of at most `cells`, broken at spaces where there are some.
std::vector<std::string> wrap(std::string_view cleaned, int cells);
// One character and its accents, from `at` on; moves `at` behind it.
std::string_view next_glyph(std::string_view cleaned, std::size_t& at);

// The newest `cells` values as a line of small bars; `most` 0: the largest of them is the height of the line.
std::string spark(const std::deque<double>& values, int cells, bool utf8, double most = 0);
std::string bar(double share, int cells, bool utf8);

enum class Tone { none, good, bad, warn, busy, accent };

struct Style {
  Tone tone = Tone::none;
  bool bold = false, dim = false, reverse = false;
  friend bool operator==(const Style&, const Style&) = default;
};

struct Cell {
  std::string glyph = " ";  // empty: the right half of a wide one
  Style style = {};
};

struct Span {
  std::string text;
  Style style;
};

// A grid of styled cells. What is put outside of it, or does not fit, is left out.
class Frame {
 public:
  Frame(int width, int height, bool utf8);
  int width() const { return width_; }
  int height() const { return height_; }
  bool utf8() const { return utf8_; }

  // Cleans, and cuts to `most` cells (-1: to the edge). Answers the first free column.
  int put(int x, int y, std::string_view text, Style style = {}, int most = -1);
  void put_right(int end, int y, std::string_view text, Style style = {});  // ends before column `end`
  void fill(int y, Style style);                                            // restyles a whole line
  void dim();                                                               // all of it
  std::vector<Span> spans(int y) const;
  std::string line(int y) const;  // without spaces at its end

 private:
  Cell& at(int x, int y) { return cells_[place(x, y)]; }
  const Cell& at(int x, int y) const { return cells_[place(x, y)]; }
  std::size_t place(int x, int y) const {
    return static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x);
  }
  int width_, height_;
  bool utf8_;
  std::vector<Cell> cells_;
};

}  // namespace grange::cli::top
