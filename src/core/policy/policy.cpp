#include "core/policy/policy.hpp"

#include <array>
#include <tuple>

namespace grange::core::policy {
namespace {

bool less_loaded(const Candidate& a, const Candidate& b) {
  return std::tuple(a.held, a.utilisation, a.last_used) < std::tuple(b.held, b.utilisation, b.last_used);
}

// Jobs strictly in order of arrival; the worker that waited longest.
struct Fifo final : Policy {
  std::string_view name() const override { return "fifo"; }
  bool by_priority() const override { return false; }
  bool before(const Candidate& a, const Candidate& b) const override { return a.last_used < b.last_used; }
};

struct RoundRobin final : Policy {
  std::string_view name() const override { return "round_robin"; }
  bool before(const Candidate& a, const Candidate& b) const override { return a.last_used < b.last_used; }
};

// Fewest active tasks, then utilisation (seed 001; its code counted lifetime tasks, its text did not).
struct LeastLoaded final : Policy {
  std::string_view name() const override { return "least_loaded"; }
  bool before(const Candidate& a, const Candidate& b) const override { return less_loaded(a, b); }
};

// Workers that succeed, then fast ones, then idle ones.
struct Performance final : Policy {
  std::string_view name() const override { return "performance"; }
  bool before(const Candidate& a, const Candidate& b) const override {
    const auto rank = [](const Candidate& c) {
      // Success in steps of 5 %, so that one stray failure does not outweigh speed.
      return std::tuple(-static_cast<int>(c.success * 20), c.mean_run_us, c.held, c.last_used);
    };
    return rank(a) < rank(b);
  }
};

// Higher priority first; inside one, order of arrival; workers by free room.
struct Priority final : Policy {
  std::string_view name() const override { return "priority"; }
  bool before(const Candidate& a, const Candidate& b) const override { return less_loaded(a, b); }
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
