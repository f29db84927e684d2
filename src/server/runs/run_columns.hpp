// Which figures of a race people see first, what they are called, and by which its machines are ranked. Pure.
#pragma once

#include <string_view>
#include <vector>

namespace grange::server {

struct RunColumn {
  std::string_view metric, label;  // as programs and as people call it
};
// kind: llm | compute | image; op, of compute: primes | gemm | memory | disk.
std::vector<RunColumn> run_columns(std::string_view kind, std::string_view op);
std::string_view label_of(std::string_view metric);  // the metric itself when it has none

// The first decides.
struct RankedBy {
  std::string_view metric;
  bool higher;  // more of it is better
};
std::vector<RankedBy> ranked_by(std::string_view kind, std::string_view op);

}  // namespace grange::server
