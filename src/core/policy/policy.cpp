#include "core/policy/policy.hpp"

#include <algorithm>
#include <array>

namespace grange::core::policy {
namespace {

// Jobs strictly in order of arrival: what came later never delays a job, and so may wait for as long as there is
// earlier work. Room is kept for big work only against what came after it. The worker that waited longest.
struct Fifo final : Policy {
  std::string_view name() const override { return "fifo"; }
  bool by_priority() const override { return false; }
  Score score(const Candidate& c) const override { return {0, 0, c.last_used}; }
};

struct RoundRobin final : Policy {
  std::string_view name() const override { return "round_robin"; }
  Score score(const Candidate& c) const override { return {0, 0, c.last_used}; }
};

// Fewest active tasks, then utilisation (seed 001; its code counted lifetime tasks, its text did not).
struct LeastLoaded final : Policy {
  std::string_view name() const override { return "least_loaded"; }
  Score score(const Candidate& c) const override { return {static_cast<double>(c.held), c.utilisation, c.last_used}; }
};

// Seed 000's load balancer: of the eligible the one with the best score of measured performance for this kind of work,
// free resources and load. As a price: the time that a success takes there, dearer the fuller the worker is. Steps of
// an eighth keep noise from sending everything to one worker; ties go to the one that was used longest ago.
struct Performance final : Policy {
  std::string_view name() const override { return "performance"; }
  bool by_kind() const override { return true; }
  Score score(const Candidate& c) const override {
    constexpr double kUnknownUs = 1;  // whoever was never tried is tried
    const double time = c.mean_run_us <= 0 ? kUnknownUs : c.mean_run_us;
    const double per_success = time / std::max(c.success, 0.02);
    const double load = 1 + c.utilisation / 2 + static_cast<double>(c.held) / std::max(1u, c.slots) / 2;
    return {steps(per_success * load), 0, c.last_used};
  }

 private:
  static double steps(double price) {
    double scale = 1;
    while (price >= scale * 16) scale *= 2;
    return static_cast<double>(static_cast<long>(price / scale)) * scale;
  }
};

// Higher priority first; inside one, fair share; workers by free room.
struct Priority final : Policy {
  std::string_view name() const override { return "priority"; }
  Score score(const Candidate& c) const override { return {static_cast<double>(c.held), c.utilisation, c.last_used}; }
};

constexpr std::array<std::string_view, 5> kNames = {"fifo", "round_robin", "least_loaded", "performance", "priority"};

}  // namespace

std::vector<std::string_view> names() {
  return {kNames.begin(), kNames.end()};
}

std::unique_ptr<Policy> make(std::string_view name) {
  if (name == "fifo") return std::make_unique<Fifo>();
  if (name == "round_robin") return std::make_unique<RoundRobin>();
  if (name == "least_loaded") return std::make_unique<LeastLoaded>();
  if (name == "performance") return std::make_unique<Performance>();
  if (name == "priority") return std::make_unique<Priority>();
  return nullptr;
}

}  // namespace grange::core::policy
