// Bytes <-> Frame. Total on any input: a frame that cannot be read is an Error that says why, never an exception or a
// guess.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "grange/v1/wire.pb.h"

namespace grange::wire {

namespace pb = ::grange::v1;

inline constexpr std::uint32_t kProtocol = 1;

// invalid_argument: not a Frame, or a Frame without a body; too_large.
Result<> decode(std::string_view bytes, pb::Frame& out);
std::string encode(const pb::Frame& frame);

// A session id: 1..64 of [0-9A-Za-z_-].
bool valid_session_id(std::string_view id);

}  // namespace grange::wire
