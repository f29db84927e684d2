// The dates of HTTP's headers: "Sun, 06 Nov 1994 08:49:37 GMT".
#pragma once

#include <time.h>

#include <ctime>
#include <optional>
#include <string>

#include "base/units.hpp"

namespace grange {

inline std::optional<WallMs> http_time(const std::string& text) {
  std::tm date{};
  if (::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date) == nullptr) return std::nullopt;
  return WallMs{static_cast<std::int64_t>(::timegm(&date)) * 1000};
}

}  // namespace grange
