// Who has how much of this machine. All or nothing, and given back once. GPUs are units: whole ones, or a part of one.
// Pure.
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
  Bytes gpu_memory = 0;  // on each GPU that it gets
  friend bool operator==(const Need&, const Need&) = default;
};

class Allocator {
 public:
  using Ticket = std::uint64_t;  // never handed out twice; 0 is none

  // `gpus`: the memory of each, in the machine's order. Without them `total.gpus_milli` is taken as so many of unknown
  // memory.
  explicit Allocator(Need total, const std::vector<Bytes>& gpus = {});

  bool fits(const Need& need) const;       // now
  bool ever_fits(const Need& need) const;  // on an idle machine
  std::optional<Ticket> allocate(const Need& need);
  bool release(Ticket ticket);                              // false: not held (any more); nothing changed
  std::vector<std::uint32_t> devices(Ticket ticket) const;  // indices of its GPUs, ascending

  const Need& total() const { return total_; }
  const Need& used() const { return used_; }
  std::size_t held() const { return held_; }
  std::size_t gpus() const { return devices_.size(); }

 private:
  struct Device {
    std::uint32_t milli = 1000;  // all of it; less only when the total is no whole number
    Bytes memory = 0;
    std::uint32_t used_milli = 0;
    Bytes used_memory = 0;
  };
  struct Share {
    std::uint32_t device = 0, milli = 0;
    Bytes memory = 0;
  };
  struct Entry {
    std::uint32_t generation = 0;
    bool taken = false;
    Need need;
    std::vector<Share> shares;
  };
  // Where its GPUs come from; nullopt: nowhere.
  std::optional<std::vector<Share>> place(const Need& need, bool idle) const;

  Need total_, used_;
  std::vector<Device> devices_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::size_t held_ = 0;
};

}  // namespace grange::worker
