// What a follower of events has not been told yet, for one who wants to hear at most every so often. Of a job only the
// newest progress is kept: each says all that the one before it said.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/events.hpp"

namespace grange::server {

class EventBatch {
 public:
  void add(const std::shared_ptr<const Fact>& fact) {
    next_ = fact->number + 1;
    if (fact->topic == Topic::jobs && fact->job.value != 0) {
      const auto [it, fresh] = progress_.try_emplace(fact->job, facts_.size());
      if (!fresh) {
        bytes_ -= facts_[it->second]->json.size() + 1;
        facts_[it->second] = nullptr;
        it->second = facts_.size();
      }
      if (fact->type != "job_progress") progress_.erase(it);  // told for what it is, whatever follows
    }
    bytes_ += fact->json.size() + 1;
    facts_.push_back(fact);
  }
  bool empty() const { return bytes_ == 0; }
  std::size_t bytes() const { return bytes_; }
  void clear() {
    facts_.clear();
    progress_.clear();
    bytes_ = 0;
  }
  // {"events":[..],"next":N} of all of it, and forgets it.
  std::string take() {
    std::string out;
    out.reserve(bytes_ + 64);
    out = "{\"events\":[";
    bool first = true;
    for (const auto& fact : facts_) {
      if (fact == nullptr) continue;
      if (!first) out += ',';
      first = false;
      out += fact->json;
    }
    out += "],\"next\":" + std::to_string(next_) + "}";
    clear();
    return out;
  }

 private:
  std::vector<std::shared_ptr<const Fact>> facts_;  // null: a newer one says it
  std::unordered_map<JobNo, std::size_t> progress_;
  std::size_t bytes_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace grange::server
