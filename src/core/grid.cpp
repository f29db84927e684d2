// A job's tasks by state, as counts: what is a range stays one, so a million of them cost no more than the cells.
#include "core/state.hpp"

namespace grange::core {
namespace {

// Adds the indices [first, end) to the cells that they fall into.
void spread(const JobGrid& grid, std::vector<std::uint32_t>& cells, std::uint64_t first, std::uint64_t end, int sign) {
  first = std::max<std::uint64_t>(first, grid.from);
  end = std::min<std::uint64_t>(end, grid.to);
  while (first < end) {
    const std::uint64_t cell = (first - grid.from) / grid.per_cell;
    const std::uint64_t edge = std::min(end, grid.from + (cell + 1) * grid.per_cell);
    auto& n = cells[static_cast<std::size_t>(cell)];
    const auto more = static_cast<std::uint32_t>(edge - first);
    n = sign > 0 ? n + more : n - more;
    first = edge;
  }
}

}  // namespace

std::optional<JobGrid> Farm::grid(JobNo no, std::uint32_t from, std::uint32_t to, std::uint32_t cells) const {
  const auto found = s_->jobs.find(no);
  if (found == s_->jobs.end()) return std::nullopt;
  const Job& job = *found->second;
  JobGrid out;
  out.count = job.header.count;
  out.to = std::min(to, out.count);
  out.from = std::min(from, out.to);
  cells = std::max(cells, 1u);
  out.per_cell = std::max(1u, (out.to - out.from) / cells + ((out.to - out.from) % cells != 0 ? 1 : 0));
  const std::size_t n = (out.to - out.from + out.per_cell - 1) / out.per_cell;
  for (auto* one : {&out.pending, &out.running, &out.paused, &out.blocked, &out.dropped}) one->resize(n);

  // Never handed out: a range with holes.
  auto& fresh = job.cancelled ? out.dropped : job.blocked() > 0 ? out.blocked : job.paused ? out.paused : out.pending;
  spread(out, fresh, job.next_index, out.count, 1);
  for (const auto& [first, end] : job.skipped.ranges()) {
    spread(out, fresh, std::max(first, job.next_index), std::max(end, job.next_index), -1);
  }
  for (const Task* task : job.live) {
    const std::uint32_t index = task->id.index();
    if (index < out.from || index >= out.to) continue;
    const HeldBy* held = task->held();
    auto& state = std::holds_alternative<Parked>(task->where) ? out.paused
                  : held == nullptr                           ? (job.paused ? out.paused : out.pending)
                  : held->state == AttemptState::paused       ? out.paused
                  : held->state == AttemptState::running      ? out.running
                                                              : out.pending;
    state[(index - out.from) / out.per_cell] += 1;
  }
  return out;
}

}  // namespace grange::core
