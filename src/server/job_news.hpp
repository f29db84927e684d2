// Turns what the queue delivers into events. Progress of a job is told at most ten times a second; a change of its
// state at once.
#pragma once

#include <unordered_map>

#include "server/services.hpp"

namespace grange::server {

class JobNews {
 public:
  explicit JobNews(Services& services) : s_(services) {}
  void deliver(const queue::Delivery& delivery);
  void tick();  // ten times a second

 private:
  struct Told {
    core::JobState state{};
    queue::JobChange latest;
    bool dirty = false;
  };
  void tell(const queue::JobChange& change, std::string_view type);
  void tell_ended(const queue::Delivery& delivery);

  Services& s_;
  std::unordered_map<JobNo, Told> live_;
  std::vector<JobNo> dirty_;
};

}  // namespace grange::server
