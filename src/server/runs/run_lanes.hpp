// Why a machine of a race has nothing running: its service is gone, or what the core says of its job. Pure.
#pragma once

#include "core/explain.hpp"
#include "server/runs/preflight.hpp"

namespace grange::server {

struct LaneTrouble {
  std::string why;    // for people, without a full stop: "its ollama is down"
  std::string error;  // a class of the race's: it does not pass by waiting for a turn; "": it may pass
};

// What of its services keeps it from a request; nothing when they are not what it waits for.
std::optional<LaneTrouble> trouble_of(const RunSpec& spec, const RunMachine& on, const pb::Manifest& manifest);

// From what explain says of the job that is pinned to it; "" when it is about to start.
std::string lane_waits_for(const core::Explanation& explained, WorkerNo on);

}  // namespace grange::server
