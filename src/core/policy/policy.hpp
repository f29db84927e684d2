// Who gets the next task: a policy orders jobs and scores workers; what fits and what is free was decided before it is
// asked.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/types.hpp"

namespace grange::core::policy {

// A worker that could take the task now.
struct Candidate {
  std::uint32_t held = 0, slots = 1;  // attempts that it holds; executors
  double utilisation = 0;             // of its cores by what it holds, 0..1
  double success = 1;                 // decayed share of attempts that did not fail, 0..1
  double mean_run_us = 0;             // decayed
  std::uint64_t last_used = 0;        // a counter: smaller is longer ago
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  // False: jobs go in order of arrival whatever their priority.
  virtual bool by_priority() const { return true; }
  // True: `a` is to be taken before `b`. A strict weak order.
  virtual bool before(const Candidate& a, const Candidate& b) const = 0;
};

std::vector<std::string_view> names();
std::unique_ptr<Policy> make(std::string_view name);  // null: no such policy

}  // namespace grange::core::policy
