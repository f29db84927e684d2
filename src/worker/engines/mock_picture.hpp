// A picture that no model made: a small PNG, always the same to the same seed.
#pragma once

#include <cstdint>
#include <string>

namespace grange::worker {

inline constexpr std::uint32_t kMockSide = 256;  // at most
std::string mock_picture(std::uint32_t width, std::uint32_t height, std::uint64_t seed);

}  // namespace grange::worker
