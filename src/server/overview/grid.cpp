#include "server/overview/grid.hpp"

#include <algorithm>

namespace grange::server {
namespace {

std::uint32_t part_of(std::uint32_t& left, std::uint32_t wanted) {
  const std::uint32_t n = std::min(left, wanted);
  left -= n;
  return n;
}

TaskGrid empty_grid(std::uint32_t total, std::uint32_t from, std::uint32_t to, std::uint32_t per_cell) {
  TaskGrid out;
  out.total = total;
  out.from = from;
  out.to = to;
  out.per_cell = per_cell;
  const std::size_t n = from >= to ? 0 : (to - from + per_cell - 1) / per_cell;
  for (auto* one : {&out.pending, &out.running, &out.completed, &out.failed, &out.cancelled, &out.blocked, &out.paused})
    one->resize(n);
  return out;
}

std::uint32_t cell_at(const std::vector<std::uint32_t>& cells, std::size_t i) {
  return i < cells.size() ? cells[i] : 0;
}

}  // namespace

std::uint32_t grid_step(std::uint32_t from, std::uint32_t to, std::uint32_t cells) {
  const std::uint32_t n = to > from ? to - from : 0;
  cells = std::max(cells, 1u);
  return std::max(1u, n / cells + (n % cells != 0 ? 1 : 0));
}

TaskGrid fold_grid(const core::JobGrid& live, const store::OutcomeCells& outcomes) {
  TaskGrid out = empty_grid(live.count, live.from, live.to, live.per_cell);
  for (std::size_t i = 0; i < out.pending.size(); ++i) {
    const auto begin = static_cast<std::uint32_t>(live.from + i * live.per_cell);
    std::uint32_t left = std::min(live.per_cell, live.to - begin);
    out.running[i] = part_of(left, cell_at(live.running, i));
    out.paused[i] = part_of(left, cell_at(live.paused, i));
    out.blocked[i] = part_of(left, cell_at(live.blocked, i));
    out.pending[i] = part_of(left, cell_at(live.pending, i));
    out.cancelled[i] = part_of(left, cell_at(live.dropped, i));
    out.failed[i] = part_of(left, cell_at(outcomes.failed, i));
    out.cancelled[i] += part_of(left, cell_at(outcomes.cancelled, i));
    out.completed[i] = left;
  }
  return out;
}

TaskGrid fold_ended_grid(const store::OutcomeCellsOf& of, std::uint32_t total, const store::OutcomeCells& outcomes) {
  TaskGrid out = empty_grid(total, of.from, of.to, of.per_cell);
  for (std::size_t i = 0; i < out.completed.size(); ++i) {
    const auto begin = static_cast<std::uint32_t>(of.from + i * of.per_cell);
    std::uint32_t left = std::min(of.per_cell, of.to - begin);
    out.failed[i] = part_of(left, cell_at(outcomes.failed, i));
    out.cancelled[i] = part_of(left, cell_at(outcomes.cancelled, i));
    if (of.late_from) {
      // From there on, what ended has an outcome; the rest was dropped as a range.
      const std::uint32_t size = out.failed[i] + out.cancelled[i] + left;
      const std::uint32_t late = begin + size <= *of.late_from ? 0 : std::min(size, begin + size - *of.late_from);
      out.cancelled[i] += part_of(left, late - std::min(late, cell_at(outcomes.ended_late, i)));
    }
    out.completed[i] = left;
  }
  return out;
}

}  // namespace grange::server
