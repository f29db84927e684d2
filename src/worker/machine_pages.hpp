// What a worker tells of its machine to whoever asks it directly: what it can do, and how busy it was of late.
#pragma once

#include <deque>
#include <string>
#include <utility>

#include "base/units.hpp"
#include "wire/frames.hpp"

namespace grange::worker {

namespace pb = wire::pb;

// The manifest, with the models of all services in one list.
std::string capabilities_json(const std::string& worker_id, const std::string& name, const pb::Manifest& manifest);

// The samples that went out with the newest heartbeats.
class LoadHistory {
 public:
  static constexpr std::size_t kSamples = 90;  // a quarter of an hour at the usual pace
  void add(WallMs at, const pb::Heartbeat& beat);
  std::string json() const;

 private:
  std::deque<std::pair<WallMs, pb::Heartbeat>> samples_;
};

}  // namespace grange::worker
