#include "worker/allocator.hpp"

#include "base/assert.hpp"

namespace grange::worker {

namespace {

// used <= total holds for each part, so that the subtraction cannot wrap.
bool within(const Need& need, const Need& total, const Need& used) {
  return need.slots <= total.slots - used.slots && need.cpus_milli <= total.cpus_milli - used.cpus_milli &&
         need.gpus_milli <= total.gpus_milli - used.gpus_milli && need.memory <= total.memory - used.memory &&
         need.disk <= total.disk - used.disk;
}

}  // namespace

bool Allocator::fits(const Need& need) const {
  return within(need, total_, used_);
}

bool Allocator::ever_fits(const Need& need) const {
  return within(need, total_, Need{0, 0, 0, 0, 0});
}

std::optional<Allocator::Ticket> Allocator::allocate(const Need& need) {
  if (!fits(need)) return std::nullopt;
  used_.slots += need.slots;
  used_.cpus_milli += need.cpus_milli;
  used_.gpus_milli += need.gpus_milli;
  used_.memory += need.memory;
  used_.disk += need.disk;
  std::uint32_t index = 0;
  if (free_.empty()) {
    index = static_cast<std::uint32_t>(entries_.size());
    entries_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Entry& entry = entries_[index];
  entry.taken = true;
  entry.need = need;
  ++entry.generation;
  ++held_;
  return (static_cast<Ticket>(entry.generation) << 32) | index;
}

bool Allocator::release(Ticket ticket) {
  const auto index = static_cast<std::uint32_t>(ticket);
  if (index >= entries_.size()) return false;
  Entry& entry = entries_[index];
  if (!entry.taken || entry.generation != static_cast<std::uint32_t>(ticket >> 32)) return false;
  entry.taken = false;
  GRANGE_ASSERT(used_.slots >= entry.need.slots && used_.cpus_milli >= entry.need.cpus_milli);
  used_.slots -= entry.need.slots;
  used_.cpus_milli -= entry.need.cpus_milli;
  used_.gpus_milli -= entry.need.gpus_milli;
  used_.memory -= entry.need.memory;
  used_.disk -= entry.need.disk;
  free_.push_back(index);
  --held_;
  return true;
}

}  // namespace grange::worker
