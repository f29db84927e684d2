// Who gets the next task: a policy orders jobs and scores workers; what fits and what is free was decided before it is
// asked.
#pragma once

#include <compare>
#include <memory>
#include <string_view>
#include <vector>

#include "core/types.hpp"

namespace grange::core::policy {

// A worker that could take the task now.
struct Candidate {
  std::uint32_t held = 0, slots = 1;  // attempts that it holds; executors
  double utilisation = 0;             // of its scarcest resource by what it holds, 0..1
  double success = 1;                 // decayed share of attempts of this kind that did not fail, 0..1
  double mean_run_us = 0;             // of this kind, decayed; 0: not known
  std::uint64_t last_used = 0;        // a counter: smaller is longer ago
};

// Less is better. It never falls while a worker gets more to do: the planner relies on that.
struct Score {
  double first = 0, second = 0;
  std::uint64_t last_used = 0;
  friend auto operator<=>(const Score&, const Score&) = default;
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  // False: jobs go in order of arrival, whatever their priority and whoever owns them.
  virtual bool by_priority() const { return true; }
  // True: success and mean_run_us are asked for.
  virtual bool by_kind() const { return false; }
  virtual Score score(const Candidate& c) const = 0;
};

std::vector<std::string_view> names();
std::unique_ptr<Policy> make(std::string_view name);  // null: no such policy

}  // namespace grange::core::policy
