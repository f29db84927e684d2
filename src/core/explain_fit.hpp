// Why work does or does not fit a worker. The planner asks the same questions (fit.hpp); here each gets a sentence.
#pragma once

#include "core/fit.hpp"

namespace grange::core {

struct Demand {
  std::vector<const Request*> requests;  // the first, then the alternatives; null: not within the quota
  const Task* task = nullptr;            // to know whom it avoids
  const Job* job = nullptr;              // to know whether kept room is kept for it
  int level = 0;
};

// of not `now`, of the alternative that comes nearest.
WorkerFit fit_of(const Farm::State& s, Worker& w, const Demand& demand, bool avoid_counts, Now now);
inline WallMs wall_of(Instant at, Now now) {
  return {now.wall.ms + (at - now.mono).count() / 1000};
}

}  // namespace grange::core
