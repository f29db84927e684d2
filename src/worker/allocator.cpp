#include "worker/allocator.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace grange::worker {

namespace {

constexpr std::uint32_t kWhole = 1000;

// used <= total holds for each part, so that the subtraction cannot wrap.
bool within(const Need& need, const Need& total, const Need& used) {
  return need.slots <= total.slots - used.slots && need.cpus_milli <= total.cpus_milli - used.cpus_milli &&
         need.gpus_milli <= total.gpus_milli - used.gpus_milli && need.memory <= total.memory - used.memory &&
         need.disk <= total.disk - used.disk;
}

}  // namespace

Allocator::Allocator(Need total, const std::vector<Bytes>& gpus) : total_(total), used_{0, 0, 0, 0, 0, 0} {
  if (gpus.empty()) {
    for (std::uint32_t rest = total_.gpus_milli; rest > 0; rest -= std::min(rest, kWhole))
      devices_.push_back({std::min(rest, kWhole)});
  } else {
    for (const Bytes memory : gpus) devices_.push_back({kWhole, memory});
    total_.gpus_milli = kWhole * static_cast<std::uint32_t>(gpus.size());
  }
}

// The part of one goes where it leaves the least free, so that whole ones stay whole.
std::optional<std::vector<Allocator::Share>> Allocator::place(const Need& need, bool idle) const {
  std::vector<Share> shares;
  const std::uint32_t part = need.gpus_milli % kWhole;
  if (part > 0) {
    std::optional<std::uint32_t> best;
    std::uint32_t best_free = 0;
    for (std::uint32_t i = 0; i < devices_.size(); ++i) {
      const Device& d = devices_[i];
      const std::uint32_t free = d.milli - (idle ? 0 : d.used_milli);
      const Bytes memory = d.memory - (idle ? 0 : d.used_memory);
      if (free < part || memory < need.gpu_memory || (best && best_free <= free)) continue;
      best = i;
      best_free = free;
    }
    if (!best) return std::nullopt;
    shares.push_back({*best, part, need.gpu_memory});
  }
  std::uint32_t whole = need.gpus_milli / kWhole;
  for (std::uint32_t i = 0; i < devices_.size() && whole > 0; ++i) {
    const Device& d = devices_[i];
    if (d.milli < kWhole || d.memory < need.gpu_memory || (!idle && d.used_milli > 0)) continue;
    if (!shares.empty() && part > 0 && shares.front().device == i) continue;
    shares.push_back({i, kWhole, d.memory});
    --whole;
  }
  if (whole > 0) return std::nullopt;
  return shares;
}

bool Allocator::fits(const Need& need) const {
  return within(need, total_, used_) && (need.gpus_milli == 0 || place(need, false).has_value());
}

bool Allocator::ever_fits(const Need& need) const {
  return within(need, total_, Need{0, 0, 0, 0, 0, 0}) && (need.gpus_milli == 0 || place(need, true).has_value());
}

std::optional<Allocator::Ticket> Allocator::allocate(const Need& need) {
  if (!within(need, total_, used_)) return std::nullopt;
  std::vector<Share> shares;
  if (need.gpus_milli > 0) {
    auto placed = place(need, false);
    if (!placed) return std::nullopt;
    shares = std::move(*placed);
  }
  used_.slots += need.slots;
  used_.cpus_milli += need.cpus_milli;
  used_.gpus_milli += need.gpus_milli;
  used_.memory += need.memory;
  used_.disk += need.disk;
  for (const Share& share : shares) {
    devices_[share.device].used_milli += share.milli;
    devices_[share.device].used_memory += share.memory;
  }
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
  entry.shares = std::move(shares);
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
  for (const Share& share : entry.shares) {
    Device& device = devices_[share.device];
    GRANGE_ASSERT(device.used_milli >= share.milli && device.used_memory >= share.memory);
    device.used_milli -= share.milli;
    device.used_memory -= share.memory;
  }
  free_.push_back(index);
  --held_;
  return true;
}

std::vector<std::uint32_t> Allocator::devices(Ticket ticket) const {
  std::vector<std::uint32_t> out;
  const auto index = static_cast<std::uint32_t>(ticket);
  if (index >= entries_.size()) return out;
  const Entry& entry = entries_[index];
  if (!entry.taken || entry.generation != static_cast<std::uint32_t>(ticket >> 32)) return out;
  for (const Share& share : entry.shares) out.push_back(share.device);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace grange::worker
