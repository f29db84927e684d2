// Statistics of repeated runs: how fast, how sure, and whether one machine is really faster than another.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace grange::ai {

// Linear interpolation between the closest ranks: rank p/100*(n-1) of the sorted values, from 0 (Hyndman and Fan's type
// 7, as in NumPy and spreadsheets). Values that are not finite are left out. Nothing when there are none.
std::optional<double> percentile(std::span<const double> values, double p);

struct Summary {
  std::size_t n = 0;
  std::optional<double> mean, stddev, min, max, p50, p90, p95, p99;  // stddev of a sample: from two values on
  std::optional<double> ci_low, ci_high;                             // 95 %, of the mean, by Student's t
};
Summary summarize(std::span<const double> values);
boost::json::object to_json(const Summary& summary);

// What one request did, and what it should.
struct Served {
  bool ok = false;
  std::optional<double> ttft_ms, itl_ms;  // itl: the request's mean
};
struct Target {
  std::optional<double> ttft_ms, itl_ms;
};
struct Goodput {
  std::size_t requests = 0;
  std::size_t met = 0;          // ended well within each target; a figure that is absent meets none
  std::optional<double> share;  // of all requests
  std::optional<double> per_s;  // met / wall
};
Goodput goodput(std::span<const Served> requests, const Target& target, double wall_seconds);

enum class Better { higher, lower };

inline constexpr std::size_t kRunsToCompare = 3;  // of each side
inline constexpr double kAlpha = 0.05;
inline constexpr double kLeastDifference = 0.01;  // of the means: less is called equal however sure it is

// Welch's t test, two-sided.
struct Comparison {
  enum class Answer { not_enough_runs, equal, first, second };
  Answer answer = Answer::not_enough_runs;
  std::optional<double> p;      // of a difference so great by chance alone
  std::optional<double> ratio;  // mean of the first / mean of the second
  std::string sentence;
};
std::string_view name(Comparison::Answer answer);
Comparison compare(std::span<const double> first, std::span<const double> second, Better better, double alpha = kAlpha);

struct Contender {
  std::string name;
  std::vector<double> values;
  bool ranked = true;  // a mock, or one that failed, is not
};
struct Ranking {
  std::vector<std::size_t> order;     // of those that are ranked and have values, best mean first
  std::optional<std::size_t> winner;  // better than each other one, surely (alpha shared among the comparisons)
  std::string sentence;
};
Ranking rank(std::span<const Contender> contenders, Better better);

}  // namespace grange::ai
