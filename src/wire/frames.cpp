#include "wire/frames.hpp"

#include <algorithm>

#include "base/limits.hpp"

namespace grange::wire {

Result<> decode(std::string_view bytes, pb::Frame& out) {
  if (bytes.size() > limits::kFrame) {
    return Error{ErrorClass::too_large,
                 "A frame may have at most " + std::to_string(limits::kFrame) + " bytes; send larger values as blobs."};
  }
  if (!out.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Error{ErrorClass::invalid_argument, "This binary message is not a grange.v1.Frame."};
  }
  if (out.body_case() == pb::Frame::BODY_NOT_SET) {
    return Error{ErrorClass::invalid_argument,
                 "This frame has no body that protocol " + std::to_string(kProtocol) + " knows; is the sender newer?"};
  }
  return {};
}

std::string encode(const pb::Frame& frame) {
  std::string bytes;
  const bool ok = frame.SerializeToString(&bytes);
  GRANGE_ASSERT(ok);
  return bytes;
}

bool valid_session_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
  });
}

}  // namespace grange::wire
