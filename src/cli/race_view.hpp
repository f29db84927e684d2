// A race as it goes: the machines side by side on a terminal, plain lines elsewhere.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/rest.hpp"

namespace grange::cli {

class RaceView {
 public:
  explicit RaceView(std::vector<std::string> machines);
  // The data of one event. Answers what to print where there is no terminal; "" when there is nothing to say.
  std::string heard(const std::string& type, const json::value& data);
  bool over() const { return over_; }  // run_end was heard
  // The picture: columns of equal width, each with its name, its figures and the end of what it said.
  std::vector<std::string> picture(int width, int height, bool colour) const;

 private:
  struct Machine {
    std::string name, status = "waiting", figures;
    std::string waits;  // why nothing of it runs; "": it does, or nobody said
    std::string text;   // the end of what it said
    std::string line;   // of plain output, not ended yet
    int done = 0;
  };
  Machine* of(const json::value& data);
  std::vector<Machine> machines_;
  bool over_ = false;
};

// Draws pictures over each other on stderr; nothing when it is no terminal.
class Screen {
 public:
  Screen();
  ~Screen() { clear(); }
  bool on() const { return on_; }
  void show(const RaceView& view);
  void clear();

 private:
  bool on_;
  int lines_ = 0;
};

// The end: a table of the machines, who won and whether that is sure.
std::string race_table(const json::value& summary, int width, bool colour);

}  // namespace grange::cli
