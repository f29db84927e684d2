#include "cli/top_screen.hpp"

#define NCURSES_NOMACROS 1
#define NCURSES_WIDECHAR 1
#include <fmt/format.h>
#include <ncurses.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <cwchar>

#include "cli/exit.hpp"

namespace grange::cli::top {
namespace {

// What a crash needs to give the terminal back: set before, since a handler may not ask for it.
termios before_us;
char last_words[256];
volatile sig_atomic_t taken = 0;

void give_back_and_die(int number) {
  if (taken) {
    [[maybe_unused]] const ssize_t n = write(STDOUT_FILENO, last_words, std::strlen(last_words));
    tcsetattr(STDIN_FILENO, TCSANOW, &before_us);
  }
  signal(number, SIG_DFL);
  raise(number);
}

// "" when the terminal cannot do that; tigetstr answers a null pointer or, for what is no string, minus one.
std::string ability(const char* name) {
  const char* value = tigetstr(name);
  return value == nullptr || std::bit_cast<std::intptr_t>(value) == -1 ? "" : value;
}

void prepare_last_words() {
  std::string words;
  for (const char* name : {"rmkx", "sgr0", "cnorm", "rmcup"}) words += ability(name);
  words += "\r\n";
  std::strncpy(last_words, words.c_str(), sizeof last_words - 1);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) signal(number, give_back_and_die);
}

bool coloured() {
  const char* no = std::getenv("NO_COLOR");
  return (no == nullptr || *no == '\0') && has_colors();
}

attr_t attributes(const Style& style, bool colour) {
  attr_t out = A_NORMAL;
  if (style.bold) out |= A_BOLD;
  if (style.dim) out |= A_DIM;
  if (style.reverse) out |= A_REVERSE;
  if (colour && style.tone != Tone::none) out |= COLOR_PAIR(static_cast<int>(style.tone));
  return out;
}

// The C library and we must agree on how wide a character is, or the rest of its line stands elsewhere than ncurses
// thinks. It knows fewer accents of rare scripts as such.
std::string agreed(const std::string& text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return text;
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::string glyph(next_glyph(text, at));
    wchar_t wide[16];
    const std::size_t n = std::mbstowcs(wide, glyph.c_str(), std::size(wide));
    const int cells = n == static_cast<std::size_t>(-1) || n >= std::size(wide) ? -1 : wcswidth(wide, n);
    const int ours = top::width(glyph);
    out += cells == ours ? glyph : "?" + std::string(static_cast<std::size_t>(std::max(0, ours - 1)), ' ');
  }
  return out;
}

Key special(wint_t code) {
  switch (code) {
    case KEY_UP:
      return {Key::up};
    case KEY_DOWN:
      return {Key::down};
    case KEY_LEFT:
      return {Key::left};
    case KEY_RIGHT:
      return {Key::right};
    case KEY_PPAGE:
      return {Key::page_up};
    case KEY_NPAGE:
      return {Key::page_down};
    case KEY_HOME:
      return {Key::home};
    case KEY_END:
      return {Key::end};
    case KEY_BTAB:
      return {Key::back_tab};
    case KEY_ENTER:
      return {Key::enter};
    case KEY_BACKSPACE:
    case KEY_DC:
      return {Key::backspace};
    default:
      return {};
  }
}

Key typed(wint_t c) {
  if (c == '\t') return {Key::tab};
  if (c == '\r' || c == '\n') return {Key::enter};
  if (c == 0x1B) return {Key::escape};
  if (c == 0x7F || c == 0x08) return {Key::backspace};
  return {Key::character, static_cast<char32_t>(c)};
}

}  // namespace

Screen::Screen() {
  tcgetattr(STDIN_FILENO, &before_us);
  const char* term = std::getenv("TERM");
  const auto cannot = [&] {
    return Exit{kUsage, fmt::format("The terminal \"{}\" cannot show `grange top`; use `grange top --once`, or `grange "
                                    "jobs` and `grange workers`.",
                                    term == nullptr ? "" : term)};
  };
  if (newterm(nullptr, stdout, stdin) == nullptr) throw cannot();
  if (ability("cup").empty()) {
    endwin();
    throw cannot();
  }
  prepare_last_words();
  taken = 1;
  cbreak();
  noecho();
  nonl();
  keypad(stdscr, TRUE);
  nodelay(stdscr, TRUE);
  set_escdelay(25);
  curs_set(0);
  if (coloured()) {
    start_color();
    use_default_colors();
    for (const auto& [tone, colour] : std::initializer_list<std::pair<Tone, short>>{{Tone::good, COLOR_GREEN},
                                                                                    {Tone::bad, COLOR_RED},
                                                                                    {Tone::warn, COLOR_YELLOW},
                                                                                    {Tone::busy, COLOR_BLUE},
                                                                                    {Tone::accent, COLOR_CYAN}})
      init_pair(static_cast<short>(tone), colour, -1);
  }
}

Screen::~Screen() {
  endwin();
  taken = 0;
}

int Screen::width() const {
  return getmaxx(stdscr);
}

int Screen::height() const {
  return getmaxy(stdscr);
}

void Screen::resized() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0)
    resizeterm(size.ws_row, size.ws_col);
  clearok(stdscr, TRUE);
}

void Screen::show(const Frame& frame) {
  const bool colour = coloured();
  werase(stdscr);
  for (int y = 0; y < std::min(frame.height(), height()); ++y) {
    wmove(stdscr, y, 0);
    for (const Span& span : frame.spans(y)) {
      wattrset(stdscr, static_cast<int>(attributes(span.style, colour)));
      waddstr(stdscr, agreed(span.text).c_str());
    }
  }
  wattrset(stdscr, A_NORMAL);
  wrefresh(stdscr);
}

std::vector<Key> Screen::keys() {
  std::vector<Key> out;
  wint_t c = 0;
  for (int kind; (kind = wget_wch(stdscr, &c)) != ERR;) {
    if (kind == KEY_CODE_YES) {
      const Key key = special(c);
      if (key.kind != Key::character) out.push_back(key);
    } else {
      out.push_back(typed(c));
    }
  }
  return out;
}

void Screen::stop_and_go_on() {
  endwin();
  taken = 0;
  kill(getpid(), SIGSTOP);
  taken = 1;
  resized();
  wrefresh(stdscr);
}

}  // namespace grange::cli::top
