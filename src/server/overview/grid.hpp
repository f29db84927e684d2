// The states of a job's tasks as counts by cell: what the core holds, what the store has of its outcomes, and the rest.
#pragma once

#include <optional>
#include <vector>

#include "core/views.hpp"
#include "store/store.hpp"

namespace grange::server {

struct TaskGrid {
  std::uint32_t total = 0, from = 0, to = 0, per_cell = 1;
  std::vector<std::uint32_t> pending, running, completed, failed, cancelled, blocked, paused;
};

// live: as the core sees it. The store may be a commit ahead or behind, so what does not add up is cut off, never
// negative.
TaskGrid fold_grid(const core::JobGrid& live, const store::OutcomeCells& outcomes);

// An ended job: what has no outcome was cancelled before it was handed out. late_from, ended_late: as asked of the
// store; without it everything that neither failed nor was cancelled has completed.
TaskGrid fold_ended_grid(const store::OutcomeCellsOf& of, std::uint32_t total, const store::OutcomeCells& outcomes);

// Cells of equal size over [from, to), at most `cells`.
std::uint32_t grid_step(std::uint32_t from, std::uint32_t to, std::uint32_t cells);

}  // namespace grange::server
