// Writes into a service's models how they fit the machine. Pure.
#pragma once

#include "ai/fit.hpp"
#include "wire/frames.hpp"
#include "worker/services/look.hpp"

namespace grange::worker {

void judge(pb::Service& service, const FactsCache& facts, const ai::MachineFacts& machine);

}  // namespace grange::worker
