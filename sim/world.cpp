#include "world.hpp"

#include <algorithm>

namespace grange::sim {

void violated(std::string rule, std::string text) {
  throw Violation{std::move(rule), std::move(text)};
}

void World::at(Instant when, Event event) {
  std::uint32_t slot = 0;
  if (free_.empty()) {
    slot = static_cast<std::uint32_t>(events_.size());
    events_.push_back(std::move(event));
  } else {
    slot = free_.back();
    free_.pop_back();
    events_[slot] = std::move(event);
  }
  heap_.push_back({std::max(when, now_), order_++, slot});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

bool World::step(Instant until) {
  if (heap_.empty() || heap_.front().at > until) {
    now_ = std::max(now_, until);
    return false;
  }
  std::pop_heap(heap_.begin(), heap_.end(), later);
  const Item item = heap_.back();
  heap_.pop_back();
  now_ = item.at;
  const Event event = std::move(events_[item.slot]);
  events_[item.slot] = nullptr;
  free_.push_back(item.slot);
  steps_ += 1;
  event();
  return true;
}

}  // namespace grange::sim
