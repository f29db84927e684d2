// A pair of connections in memory: what one sends, the other hears, in order, on the Loop. For tests.
#pragma once

#include "net/loop.hpp"
#include "net/transport.hpp"

namespace grange::net {
std::pair<ConnectionPtr, ConnectionPtr> memory_pair(Loop& loop);
}  // namespace grange::net
