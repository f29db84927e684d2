#include "cli/top_text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace grange::cli::top {
namespace {

using Range = std::pair<char32_t, char32_t>;

// East Asian wide and full width, and pictures that terminals show as wide (Unicode 15).
constexpr Range kWide[] = {
    {0x1100, 0x115F},   {0x231A, 0x231B},   {0x2329, 0x232A},   {0x23E9, 0x23EC},   {0x23F0, 0x23F0},
    {0x23F3, 0x23F3},   {0x25FD, 0x25FE},   {0x2614, 0x2615},   {0x2648, 0x2653},   {0x267F, 0x267F},
    {0x2693, 0x2693},   {0x26A1, 0x26A1},   {0x26AA, 0x26AB},   {0x26BD, 0x26BE},   {0x26C4, 0x26C5},
    {0x26CE, 0x26CE},   {0x26D4, 0x26D4},   {0x26EA, 0x26EA},   {0x26F2, 0x26F3},   {0x26F5, 0x26F5},
    {0x26FA, 0x26FA},   {0x26FD, 0x26FD},   {0x2705, 0x2705},   {0x270A, 0x270B},   {0x2728, 0x2728},
    {0x274C, 0x274C},   {0x274E, 0x274E},   {0x2753, 0x2755},   {0x2757, 0x2757},   {0x2795, 0x2797},
    {0x27B0, 0x27B0},   {0x27BF, 0x27BF},   {0x2B1B, 0x2B1C},   {0x2B50, 0x2B50},   {0x2B55, 0x2B55},
    {0x2E80, 0x303E},   {0x3041, 0xA4CF},   {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
    {0xFE10, 0xFE19},   {0xFE30, 0xFE6F},   {0xFF01, 0xFF60},   {0xFFE0, 0xFFE6},   {0x16FE0, 0x18CFF},
    {0x1AFF0, 0x1B2FF}, {0x1F004, 0x1F004}, {0x1F0CF, 0x1F0CF}, {0x1F18E, 0x1F18E}, {0x1F191, 0x1F19A},
    {0x1F200, 0x1F320}, {0x1F32D, 0x1F335}, {0x1F337, 0x1F37C}, {0x1F37E, 0x1F393}, {0x1F3A0, 0x1F3CA},
    {0x1F3CF, 0x1F3D3}, {0x1F3E0, 0x1F3F0}, {0x1F3F4, 0x1F3F4}, {0x1F3F8, 0x1F43E}, {0x1F440, 0x1F440},
    {0x1F442, 0x1F4FC}, {0x1F4FF, 0x1F53D}, {0x1F54B, 0x1F54E}, {0x1F550, 0x1F567}, {0x1F57A, 0x1F57A},
    {0x1F595, 0x1F596}, {0x1F5A4, 0x1F5A4}, {0x1F5FB, 0x1F64F}, {0x1F680, 0x1F6C5}, {0x1F6CC, 0x1F6CC},
    {0x1F6D0, 0x1F6D2}, {0x1F6D5, 0x1F6D7}, {0x1F6DC, 0x1F6DF}, {0x1F6EB, 0x1F6EC}, {0x1F6F4, 0x1F6FC},
    {0x1F7E0, 0x1F7EB}, {0x1F7F0, 0x1F7F0}, {0x1F90C, 0x1F93A}, {0x1F93C, 0x1F945}, {0x1F947, 0x1F9FF},
    {0x1FA70, 0x1FAFF}, {0x20000, 0x3FFFD}};

// Accents of the scripts that are common: they take no cell.
constexpr Range kAccents[] = {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x05BF, 0x05BF}, {0x05C1, 0x05C2},
                              {0x0610, 0x061A}, {0x064B, 0x065F}, {0x0670, 0x0670}, {0x06D6, 0x06DC}, {0x0900, 0x0902},
                              {0x093C, 0x093C}, {0x0941, 0x0948}, {0x094D, 0x094D}, {0x0E31, 0x0E31}, {0x0E34, 0x0E3A},
                              {0x0E47, 0x0E4E}, {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20F0}, {0x3099, 0x309A},
                              {0xFE20, 0xFE2F}};

// Left out: joiners and variation selectors, which terminals count differently.
constexpr Range kDropped[] = {{0x00AD, 0x00AD}, {0x034F, 0x034F}, {0x200B, 0x200D},  {0x2060, 0x2064},
                              {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xE0000, 0xE0FFF}};

// Shown as "?": control characters, what turns the direction of text, separators of lines, what is private or none.
constexpr Range kRefused[] = {{0x0000, 0x001F}, {0x007F, 0x009F}, {0x061C, 0x061C},   {0x115F, 0x1160},
                              {0x180B, 0x180F}, {0x200E, 0x200F}, {0x2028, 0x202E},   {0x2065, 0x206F},
                              {0x3164, 0x3164}, {0xD800, 0xF8FF}, {0xFDD0, 0xFDEF},   {0xFFA0, 0xFFA0},
                              {0xFFF0, 0xFFFB}, {0xFFFE, 0xFFFF}, {0x1D173, 0x1D17A}, {0xF0000, 0x10FFFF}};

template <std::size_t N>
bool within(const Range (&ranges)[N], char32_t c) {
  const auto* it = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                    [](char32_t value, const Range& range) { return value < range.first; });
  return it != std::begin(ranges) && c <= std::prev(it)->second;
}

int cells_of(char32_t c) {
  if (c < 0x300) return 1;
  return within(kAccents, c) ? 0 : within(kWide, c) ? 2 : 1;
}

constexpr char32_t kBroken = 0xFFFFFFFF;

// The character at `at`, which moves behind it; kBroken: these bytes are none.
char32_t decode(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const std::size_t start = at++;
  if (first < 0x80) return first;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || start + length > text.size()) return kBroken;
  char32_t c = first & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(start + i) & 0xC0) != 0x80) return kBroken;
    c = c << 6 | (byte(start + i) & 0x3Fu);
  }
  static constexpr std::array<char32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  if (c < kLeast[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return kBroken;
  at = start + length;
  return c;
}

}  // namespace

std::string clean(std::string_view bytes, bool utf8) {
  std::string out;
  out.reserve(bytes.size());
  int accents = 2;  // none at the start: there is no letter to carry them
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t start = at;
    const char32_t c = decode(bytes, at);
    if (c == '\n' || c == '\t' || c == '\r') {
      out += ' ';
      accents = 0;
    } else if (c != kBroken && within(kDropped, c)) {
      continue;
    } else if (c == kBroken || within(kRefused, c)) {
      out += '?';
      accents = 0;
    } else if (c >= 0x300 && cells_of(c) == 0) {
      if (utf8 && accents++ < 2) out += bytes.substr(start, at - start);
    } else {
      if (utf8 || c < 0x80) {
        out += bytes.substr(start, at - start);
      } else {
        out += '?';
      }
      accents = 0;
    }
  }
  return out;
}

std::string plain_line(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const char c = bytes[at];
    if (c == '\r') {
      if (at + 1 < bytes.size() && bytes[at + 1] != '\n') out.clear();
    } else if (c == '\t') {
      out.append(4 - out.size() % 4, ' ');
    } else if (c != '\x1b') {
      out += c;
    } else if (at + 1 < bytes.size() && bytes[at + 1] == '[') {
      for (at += 2; at < bytes.size() && !(bytes[at] >= '@' && bytes[at] <= '~');) ++at;
    } else if (at + 1 < bytes.size() && bytes[at + 1] == ']') {
      for (at += 2; at < bytes.size() && bytes[at] != '\a' && bytes[at] != '\x1b';) ++at;
      if (at < bytes.size() && bytes[at] == '\x1b') ++at;
    } else {
      ++at;
    }
  }
  return out;
}

int width(std::string_view cleaned) {
  int cells = 0;
  for (std::size_t at = 0; at < cleaned.size();) {
    const char32_t c = decode(cleaned, at);
    cells += c == kBroken ? 1 : cells_of(c);
  }
  return cells;
}

std::string_view next_glyph(std::string_view cleaned, std::size_t& at) {
  const std::size_t start = at;
  decode(cleaned, at);
  while (at < cleaned.size()) {
    std::size_t behind = at;
    const char32_t c = decode(cleaned, behind);
    if (c == kBroken || c < 0x300 || cells_of(c) != 0) break;
    at = behind;
  }
  return cleaned.substr(start, at - start);
}

std::string cut(std::string_view cleaned, int cells, bool utf8) {
  if (cells <= 0) return "";
  if (width(cleaned) <= cells) return std::string(cleaned);
  std::string out;
  int used = 0;
  for (std::size_t at = 0; at < cleaned.size();) {
    const std::string_view glyph = next_glyph(cleaned, at);
    used += width(glyph);
    if (used > cells - 1) break;
    out += glyph;
  }
  return out + (utf8 ? "…" : "~");
}

std::vector<std::string> wrap(std::string_view cleaned, int cells) {
  std::vector<std::string> out;
  std::string line;
  int used = 0;
  for (std::size_t at = 0; at < cleaned.size();) {
    const std::string_view glyph = next_glyph(cleaned, at);
    const int more = width(glyph);
    if (used + more > cells && used > 0) {
      const std::size_t space = glyph == " " ? line.size() : line.rfind(' ');
      std::string rest;
      if (space != std::string::npos && space > line.size() / 2) {
        rest = space < line.size() ? line.substr(space + 1) : "";
        line.resize(space);
      }
      out.push_back(std::move(line));
      line = std::move(rest);
      used = width(line);
      if (glyph == " ") continue;
    }
    line += glyph;
    used += more;
  }
  if (!line.empty() || out.empty()) out.push_back(std::move(line));
  return out;
}

std::string spark(const std::deque<double>& values, int cells, bool utf8, double most) {
  static constexpr const char* kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr const char* kPlain[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
  if (cells <= 0) return "";
  const std::size_t shown = std::min(values.size(), static_cast<std::size_t>(cells));
  if (most <= 0) {
    for (std::size_t i = values.size() - shown; i < values.size(); ++i) most = std::max(most, values[i]);
  }
  std::string out(static_cast<std::size_t>(cells) - shown, ' ');
  for (std::size_t i = values.size() - shown; i < values.size(); ++i) {
    const double share = most > 0 ? std::clamp(values[i] / most, 0.0, 1.0) : 0;
    out += (utf8 ? kBars : kPlain)[static_cast<std::size_t>(std::ceil(share * 7))];
  }
  return out;
}

std::string bar(double share, int cells, bool utf8) {
  if (cells <= 0) return "";
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * cells + 1e-9);
  std::string out;
  for (int i = 0; i < cells; ++i) out += i < full ? (utf8 ? "█" : "#") : (utf8 ? "░" : ".");
  return out;
}

Frame::Frame(int width, int height, bool utf8)
    : width_(std::max(width, 0)),
      height_(std::max(height, 0)),
      utf8_(utf8),
      cells_(static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_)) {}

int Frame::put(int x, int y, std::string_view text, Style style, int most) {
  if (y < 0 || y >= height_ || x < 0 || x >= width_) return x;
  const int room = most < 0 ? width_ - x : std::min(most, width_ - x);
  const std::string shown = cut(clean(text, utf8_), room, utf8_);
  for (std::size_t i = 0; i < shown.size();) {
    const std::string_view glyph = next_glyph(shown, i);
    const int cells = top::width(glyph);
    if (at(x, y).glyph.empty() && x > 0) at(x - 1, y).glyph = " ";  // the left half of what is overwritten
    at(x, y) = {std::string(glyph), style};
    if (cells == 2) at(x + 1, y) = {"", style};
    x += cells;
    if (x < width_ && at(x, y).glyph.empty()) at(x, y).glyph = " ";
  }
  return x;
}

void Frame::put_right(int end, int y, std::string_view text, Style style) {
  const int cells = top::width(clean(text, utf8_));
  put(std::max(0, end - cells), y, text, style, std::min(end, cells));
}

void Frame::fill(int y, Style style) {
  if (y < 0 || y >= height_) return;
  for (int x = 0; x < width_; ++x) at(x, y).style = style;
}

void Frame::dim() {
  for (Cell& cell : cells_) {
    cell.style.dim = true;
    cell.style.tone = Tone::none;
  }
}

std::vector<Span> Frame::spans(int y) const {
  std::vector<Span> out;
  for (int x = 0; x < width_; ++x) {
    const Cell& cell = at(x, y);
    if (out.empty() || !(out.back().style == cell.style)) out.push_back({"", cell.style});
    out.back().text += cell.glyph;
  }
  return out;
}

std::string Frame::line(int y) const {
  std::string out;
  for (int x = 0; x < width_; ++x) out += at(x, y).glyph;
  return out.substr(0, out.find_last_not_of(' ') + 1);
}

}  // namespace grange::cli::top
