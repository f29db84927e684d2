// Who waits for a job to end: long polls, JSON clients, followers of logs.
#pragma once

#include <functional>
#include <map>
#include <unordered_map>

#include "queue/queue.hpp"

namespace grange::server {

class JobWatch {
 public:
  using Id = std::uint64_t;
  // Called once, when the job's end is on disk. Watch first, then read the job's state: so no end is missed.
  Id watch(JobNo job, std::function<void()> ended) {
    const Id id = ++last_;
    jobs_[job].emplace(id, std::move(ended));
    return id;
  }
  void unwatch(JobNo job, Id id) {
    const auto it = jobs_.find(job);
    if (it == jobs_.end()) return;
    it->second.erase(id);
    if (it->second.empty()) jobs_.erase(it);
  }
  void changed(const queue::JobChange& change) {
    if (!core::ended(change.state)) return;
    const auto it = jobs_.find(change.job);
    if (it == jobs_.end()) return;
    const auto waiting = std::move(it->second);
    jobs_.erase(it);
    for (const auto& [id, call] : waiting) call();
  }
  std::size_t size() const { return jobs_.size(); }

 private:
  std::unordered_map<JobNo, std::map<Id, std::function<void()>>> jobs_;
  Id last_ = 0;
};

}  // namespace grange::server
