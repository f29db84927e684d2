// Strong ids. A job is a number; a task is (job, index) packed into 64 bits, so that tasks of a job are neighbours on
// disk.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace grange {

template <class Tag, class Rep>
struct Id {
  Rep value{};
  friend constexpr auto operator<=>(Id, Id) = default;
};

using JobNo = Id<struct JobTag, std::uint32_t>;          // from 1; 0 is "none"
using WorkerNo = Id<struct WorkerTag, std::uint32_t>;    // from 1, lasting: the store's row of a worker
using RequestId = Id<struct RequestTag, std::uint32_t>;  // an interned set of requirements
using Attempt = std::uint32_t;                           // from 1, only grows
using LeaseEpoch = std::uint64_t;                        // (incarnation << 40) | counter: unique over restarts

struct TaskId {
  std::uint64_t packed = 0;
  static constexpr TaskId of(JobNo job, std::uint32_t index) {
    return {(static_cast<std::uint64_t>(job.value) << 32) | index};
  }
  constexpr JobNo job() const { return {static_cast<std::uint32_t>(packed >> 32)}; }
  constexpr std::uint32_t index() const { return static_cast<std::uint32_t>(packed); }
  friend constexpr auto operator<=>(TaskId, TaskId) = default;
};

// What every message about an attempt carries. It is honoured only while it equals what the core holds.
struct Fence {
  TaskId task;
  Attempt attempt = 0;
  LeaseEpoch epoch = 0;
  friend constexpr bool operator==(const Fence&, const Fence&) = default;
};

}  // namespace grange

template <class Tag, class Rep>
struct std::hash<grange::Id<Tag, Rep>> {
  std::size_t operator()(grange::Id<Tag, Rep> id) const noexcept { return std::hash<Rep>{}(id.value); }
};
template <>
struct std::hash<grange::TaskId> {
  // Fibonacci hashing: indices of one job differ in the low bits only.
  std::size_t operator()(grange::TaskId id) const noexcept { return id.packed * 0x9E3779B97F4A7C15ull >> 7; }
};
