// The farm's past as figures, in rings of three steps: seconds for the last quarter of an hour, half minutes for six
// hours, quarters of an hour for a week. A coarser ring is filled from the same samples, so nothing is measured twice.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/wait_counts.hpp"

namespace grange::server {

// What one look at the farm saw. Rates are per second over the time since the look before.
struct FarmSample {
  double completed = 0, failed = 0, submitted = 0;
  double queued = 0, running = 0, workers = 0;
  std::optional<double> cpu_percent, memory_used, gpu_percent;  // nullopt: no machine says
  core::WaitCounts waits;                                       // of tasks that started in that time
};

class History {
 public:
  enum Figure : std::size_t {
    completed,
    failed,
    submitted,
    queued,
    running,
    workers,
    cpu_percent,
    memory_used,
    gpu_percent,
    kFigures
  };
  struct Bucket {
    WallMs at{};
    std::array<double, kFigures> sum{};
    std::array<std::uint32_t, kFigures> n{};  // looks that measured it
    core::WaitCounts waits;
    std::optional<double> mean(Figure f) const { return n[f] == 0 ? std::nullopt : std::optional(sum[f] / n[f]); }
  };
  struct Span {
    std::string_view name;
    Millis step;
    std::size_t kept;
  };
  static constexpr std::array<Span, 3> kSpans{
      {{"15m", Millis{1000}, 900}, {"6h", Millis{30'000}, 720}, {"7d", Millis{900'000}, 672}}};
  static constexpr Millis kBackAtMost{300'000};  // a clock that goes back further was wrong before
  static std::optional<std::size_t> span_named(std::string_view name);

  void add(const FarmSample& sample, WallMs at);
  const std::deque<Bucket>& buckets(std::size_t span) const { return rings_[span]; }
  // Waits of the last `seconds` s, and means of rates over them.
  core::WaitCounts waits(std::size_t seconds) const;
  double rate(Figure figure, std::size_t seconds) const;

  // What must be written so that a restart finds it: of the spans that are kept on disk, the buckets that changed since
  // the last call and are complete, or (all) every one that changed.
  struct Kept {
    std::size_t span = 0;
    WallMs at{};
    std::string figures;
  };
  std::vector<Kept> unwritten(bool all);
  // What unwritten() gave, read again; in order of time. False: not understood, and left out.
  bool restore(std::size_t span, WallMs at, std::string_view figures);

 private:
  Bucket& bucket_of(std::size_t span, WallMs at);
  std::array<std::deque<Bucket>, kSpans.size()> rings_;
  std::array<WallMs, kSpans.size()> written_to_{};  // buckets before this one are on disk
};

}  // namespace grange::server
