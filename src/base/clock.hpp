// The clock as a port: only `SystemClock` reads a real one.
#pragma once

#include "base/units.hpp"

namespace grange {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Now now() const = 0;
};

class SystemClock final : public Clock {
 public:
  Now now() const override;
};

}  // namespace grange
