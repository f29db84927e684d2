#include "ai/stats.hpp"

#include <algorithm>
#include <array>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstdio>

#include "ai/json.hpp"

namespace grange::ai {
namespace {

std::vector<double> sorted(std::span<const double> values) {
  std::vector<double> out;
  out.reserve(values.size());
  std::copy_if(values.begin(), values.end(), std::back_inserter(out), [](double v) { return std::isfinite(v); });
  std::sort(out.begin(), out.end());
  return out;
}

std::optional<double> at_rank(const std::vector<double>& values, double p) {
  if (values.empty() || !(p >= 0 && p <= 100)) return std::nullopt;
  const double rank = p / 100 * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(rank);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return std::lerp(values[low], values[high], rank - static_cast<double>(low));
}

struct Moments {
  double n = 0, mean = 0, variance = 0;  // of a sample
};
Moments moments(const std::vector<double>& values) {
  Moments out;
  double squares = 0;
  for (const double v : values) {  // Welford
    out.n += 1;
    const double before = v - out.mean;
    out.mean += before / out.n;
    squares += before * (v - out.mean);
  }
  if (out.n > 1) out.variance = squares / (out.n - 1);
  return out;
}

// Two-sided p of a difference of these means, by Welch.
double welch(const Moments& a, const Moments& b) {
  const double va = a.variance / a.n;
  const double vb = b.variance / b.n;
  if (!(va + vb > 0)) return a.mean == b.mean ? 1 : 0;
  const double t = std::fabs(a.mean - b.mean) / std::sqrt(va + vb);
  const double freedom = (va + vb) * (va + vb) / (va * va / (a.n - 1) + vb * vb / (b.n - 1));
  if (!std::isfinite(t) || !std::isfinite(freedom) || freedom < 1e-6) return 0;
  return 2 * boost::math::cdf(boost::math::complement(boost::math::students_t(freedom), t));
}

std::string percent(double ratio) {
  char text[32];
  const double much = std::fabs(ratio - 1) * 100;
  std::snprintf(text, sizeof text, much < 10 ? "%.1f %%" : "%.0f %%", much);
  return text;
}

// How much better the better one is: above 1.
double advantage(double better, double worse, Better which) {
  return which == Better::higher ? better / worse : worse / better;
}

}  // namespace

std::optional<double> percentile(std::span<const double> values, double p) {
  return at_rank(sorted(values), p);
}

Summary summarize(std::span<const double> values) {
  const std::vector<double> all = sorted(values);
  Summary out;
  out.n = all.size();
  if (all.empty()) return out;
  const Moments m = moments(all);
  out.mean = m.mean;
  out.min = all.front();
  out.max = all.back();
  out.p50 = at_rank(all, 50);
  out.p90 = at_rank(all, 90);
  out.p95 = at_rank(all, 95);
  out.p99 = at_rank(all, 99);
  if (all.size() < 2) return out;
  out.stddev = std::sqrt(m.variance);
  const double t = boost::math::quantile(boost::math::students_t(m.n - 1), 1 - kAlpha / 2);
  out.ci_low = m.mean - t * *out.stddev / std::sqrt(m.n);
  out.ci_high = m.mean + t * *out.stddev / std::sqrt(m.n);
  return out;
}

boost::json::object to_json(const Summary& summary) {
  return {{"n", summary.n},
          {"mean", or_null(summary.mean)},
          {"stddev", or_null(summary.stddev)},
          {"min", or_null(summary.min)},
          {"max", or_null(summary.max)},
          {"p50", or_null(summary.p50)},
          {"p90", or_null(summary.p90)},
          {"p95", or_null(summary.p95)},
          {"p99", or_null(summary.p99)},
          {"ci_low", or_null(summary.ci_low)},
          {"ci_high", or_null(summary.ci_high)}};
}

Goodput goodput(std::span<const Served> requests, const Target& target, double wall_seconds) {
  Goodput out;
  out.requests = requests.size();
  const auto within = [](const std::optional<double>& figure, const std::optional<double>& most) {
    return !most || (figure && *figure <= *most);
  };
  for (const Served& one : requests) {
    if (one.ok && within(one.ttft_ms, target.ttft_ms) && within(one.itl_ms, target.itl_ms)) ++out.met;
  }
  if (out.requests > 0) out.share = static_cast<double>(out.met) / static_cast<double>(out.requests);
  if (wall_seconds > 0) out.per_s = static_cast<double>(out.met) / wall_seconds;
  return out;
}

std::string_view name(Comparison::Answer answer) {
  static constexpr std::array<std::string_view, 4> kNames = {"not_enough_runs", "equal", "first", "second"};
  return kNames[static_cast<std::size_t>(answer)];
}

Comparison compare(std::span<const double> first, std::span<const double> second, Better better, double alpha) {
  const std::vector<double> a = sorted(first);
  const std::vector<double> b = sorted(second);
  const Moments ma = moments(a);
  const Moments mb = moments(b);
  Comparison out;
  if (!a.empty() && !b.empty() && mb.mean != 0) out.ratio = ma.mean / mb.mean;
  if (a.size() < kRunsToCompare || b.size() < kRunsToCompare) {
    out.sentence = "Not enough runs to tell: each side needs at least " + std::to_string(kRunsToCompare) + ".";
    return out;
  }
  out.p = welch(ma, mb);
  const double greater = std::max(std::fabs(ma.mean), std::fabs(mb.mean));
  if (*out.p >= alpha || std::fabs(ma.mean - mb.mean) < kLeastDifference * greater || greater == 0) {
    out.answer = Comparison::Answer::equal;
    out.sentence = "No difference that these runs can prove.";
    return out;
  }
  const bool first_wins = (ma.mean > mb.mean) == (better == Better::higher);
  out.answer = first_wins ? Comparison::Answer::first : Comparison::Answer::second;
  out.sentence = std::string(first_wins ? "The first" : "The second") + " is better";
  if (ma.mean > 0 && mb.mean > 0) {
    out.sentence +=
        " by " + percent(first_wins ? advantage(ma.mean, mb.mean, better) : advantage(mb.mean, ma.mean, better));
  }
  out.sentence += ".";
  return out;
}

Ranking rank(std::span<const Contender> contenders, Better better) {
  Ranking out;
  std::vector<double> means(contenders.size());
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    const std::vector<double> values = sorted(contenders[i].values);
    if (!contenders[i].ranked || values.empty()) continue;
    means[i] = moments(values).mean;
    out.order.push_back(i);
  }
  std::stable_sort(out.order.begin(), out.order.end(), [&](std::size_t a, std::size_t b) {
    return better == Better::higher ? means[a] > means[b] : means[a] < means[b];
  });
  if (out.order.size() < 2) {
    out.sentence = out.order.empty() ? "There is nothing to rank."
                                     : "Only " + contenders[out.order.front()].name + " has figures to rank.";
    return out;
  }
  const Contender& best = contenders[out.order.front()];
  const double alpha = kAlpha / static_cast<double>(out.order.size() - 1);
  for (std::size_t i = 1; i < out.order.size(); ++i) {
    const Contender& other = contenders[out.order[i]];
    const Comparison one = compare(best.values, other.values, better, alpha);
    if (one.answer == Comparison::Answer::first) continue;
    out.sentence = one.answer == Comparison::Answer::not_enough_runs
                       ? "No winner: each machine needs at least " + std::to_string(kRunsToCompare) + " runs to tell."
                       : "No winner: these runs cannot tell " + best.name + " and " + other.name + " apart.";
    return out;
  }
  out.winner = out.order.front();
  const double next = means[out.order[1]];
  out.sentence = best.name + " wins";
  if (means[*out.winner] > 0 && next > 0) {
    out.sentence +=
        ", by " + percent(advantage(means[*out.winner], next, better)) + " before " + contenders[out.order[1]].name;
  }
  out.sentence += ".";
  return out;
}

}  // namespace grange::ai
