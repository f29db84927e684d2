// The terminal of `grange top`: ncurses stands in top_screen.cpp and nowhere else.
#pragma once

#include <vector>

#include "cli/top_model.hpp"

namespace grange::cli::top {

// Takes the terminal, and gives it back as it was when destroyed; a crash of the program gives it back, too.
class Screen {
 public:
  Screen();  // throws Exit when this terminal cannot show it
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  int width() const;
  int height() const;
  void resized();  // asks the terminal for its size
  void show(const Frame& frame);
  std::vector<Key> keys();  // typed since the last call
  void stop_and_go_on();    // Ctrl-Z: gives the terminal back, stops the program, and takes it again
};

}  // namespace grange::cli::top
