// Who has how much of this machine. All or nothing, and given back once. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.hpp"

namespace grange::worker {

struct Need {
  std::uint32_t slots = 1;
  std::uint32_t cpus_milli = 1000;
  std::uint32_t gpus_milli = 0;
  Bytes memory = 0;
  Bytes disk = 0;
  friend bool operator==(const Need&, const Need&) = default;
};

class Allocator {
 public:
  using Ticket = std::uint64_t;  // never handed out twice; 0 is none

  explicit Allocator(Need total) : total_(total), used_{0, 0, 0, 0, 0} {}

  bool fits(const Need& need) const;       // now
  bool ever_fits(const Need& need) const;  // on an idle machine
  std::optional<Ticket> allocate(const Need& need);
  bool release(Ticket ticket);  // false: not held (any more); nothing changed

  const Need& total() const { return total_; }
  const Need& used() const { return used_; }
  std::size_t held() const { return held_; }

 private:
  struct Entry {
    std::uint32_t generation = 0;
    bool taken = false;
    Need need;
  };
  Need total_, used_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::size_t held_ = 0;
};

}  // namespace grange::worker
