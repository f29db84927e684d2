// What is wrong with a body that somebody sent.
#pragma once

#include "base/result.hpp"

namespace grange::server {

inline Error bad(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

}  // namespace grange::server
