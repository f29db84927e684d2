// Reads values from a fuzzer's bytes; at their end it gives zeros.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace grange::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool done() const { return at_ >= size_; }
  std::uint8_t byte() { return done() ? 0 : data_[at_++]; }
  // In [0, bound).
  std::uint32_t below(std::uint32_t bound) {
    std::uint32_t v = byte();
    if (bound > 256) v = v << 8 | byte();
    return v % bound;
  }
  bool flip() { return (byte() & 1) != 0; }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A property that does not hold is a crash, which is what a fuzzer looks for.
inline void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace grange::fuzz
