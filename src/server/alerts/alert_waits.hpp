// Which waiting jobs are asked about in one look, and how many: the engine does nothing else meanwhile. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.hpp"
#include "core/types.hpp"

namespace grange::server {

struct WaitingJob {
  JobNo job;
  Micros waited{0};
  bool known = false;       // it was explained before
  bool on_purpose = false;  // somebody wants it to wait, as far as is known
  bool open = false;        // it has an alert
  Instant looked{};         // when it was explained last
};

// An explanation is about each worker, and counts the jobs that go first.
std::size_t explains_at_once(std::size_t workers, std::size_t jobs);

// What is told of goes first, so that it stays right, but takes no more than half while others wait for their turn;
// then what was never looked at, the longest waiting first; what waits on purpose gets what is left.
std::vector<JobNo> to_explain(std::vector<WaitingJob> waiting, std::size_t most, Instant now);

}  // namespace grange::server
