// The measure of fair sharing: user A has 1,000,000 tasks queued, user B comes later with 100. How long does B wait,
// against what it would wait alone on half of the farm?
#pragma once

#include <cstdint>

namespace grange::sim {

struct Fairness {
  double median_wait_s = 0;        // of B's tasks, beside A
  double median_wait_alone_s = 0;  // on half of the farm
  double ratio() const { return median_wait_alone_s > 0 ? median_wait_s / median_wait_alone_s : 0; }
};
Fairness measure_fairness(std::uint32_t a_tasks, std::uint32_t b_tasks, std::uint32_t workers, std::uint32_t slots);
int print_fairness();

}  // namespace grange::sim
