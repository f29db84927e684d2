// What the first page is made of, between the store, the core and the Loop.
#pragma once

#include "server/overview/overview.hpp"

namespace grange::server {

// One page in the making.
struct Overview::Look {
  std::uint64_t next_event = 0;
  Now now;
  std::vector<std::pair<JobNo, Instant>> idle;
  std::vector<std::pair<JobNo, WallMs>> failed;
  bool count_dead = false;
  // of the store
  store::Totals totals;
  std::vector<store::WorkerRow> rows;
  std::map<JobNo, store::JobRow> jobs;
  std::uint64_t dead = 0;
  // of the core
  core::FarmView view;
  std::string policy;
  std::vector<core::WorkerView> workers;
  std::vector<std::pair<JobNo, core::Explanation>> explained;
};

}  // namespace grange::server
