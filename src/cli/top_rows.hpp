// The columns of the tables of `grange top`: what a cell says, and how it sorts.
#pragma once

#include <string>
#include <vector>

#include "cli/top_model.hpp"

namespace grange::cli::top {

struct Column {
  const char* head;
  int rank;  // the highest goes first where there is no room
  bool right = false;
};

struct Text {
  std::string text;
  Style style = {};
};

const std::vector<Column>& job_columns();
const std::vector<Column>& worker_columns();
Text job_cell(const State& state, const Job& job, int column, Clock now);
Text worker_cell(const State& state, const Worker& worker, int column, Clock now);
bool job_before(const State& state, const Job& a, const Job& b, int column, Clock now);
bool worker_before(const Worker& a, const Worker& b, int column);
Tone tone_of(const std::string& status);
std::string short_bytes(double used, double total);  // "3.1/24 GiB"
std::string short_count(double n);                   // "1,234", "12.3k", "4.5M"
std::string short_time(double seconds);              // "12s", "3m20s", "2h05m", "4d03h"

}  // namespace grange::cli::top
