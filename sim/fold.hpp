// What the journal should say: the plain fold of the records of all batches that were committed (S8).
#pragma once

#include <map>
#include <string>

#include "core/farm.hpp"
#include "store/store.hpp"

namespace grange::sim {

class Fold {
 public:
  void apply(const std::vector<core::Record>& records);
  // Empty: the store, and the core that was loaded from it, are this fold. Else the first difference.
  std::string differs(store::Reader& reader) const;
  std::string differs(const core::Farm& farm) const;

 private:
  struct Job {
    core::JobHeader header;
    core::JobProgressed progress;
    std::map<std::uint32_t, core::TaskEnded> outcomes;
    std::map<std::uint32_t, core::TaskKept> kept;
    std::map<std::string, std::uint32_t> extends;  // by key: what each was answered
  };
  std::map<JobNo, Job> jobs_;
  std::map<std::string, core::UserLimits> users_;
  bool paused_ = false;
};

}  // namespace grange::sim
