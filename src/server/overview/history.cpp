#include "server/overview/history.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

namespace grange::server {
namespace {

constexpr std::array<std::string_view, History::kFigures> kFigureNames{
    "completed", "failed", "submitted", "queued", "running", "workers", "cpu_percent", "memory_used", "gpu_percent"};

std::string bucket_text(const History::Bucket& bucket) {
  std::string out = "{";
  for (std::size_t f = 0; f < History::kFigures; ++f) {
    if (bucket.n[f] > 0) out += fmt::format(R"("{}":[{},{}],)", kFigureNames[f], bucket.sum[f], bucket.n[f]);
  }
  out += "\"waits\":[";
  bool first = true;
  for (std::size_t i = 0; i < core::WaitCounts::kBuckets; ++i) {
    if (bucket.waits.at(i) == 0) continue;
    out += fmt::format("{}[{},{}]", first ? "" : ",", i, bucket.waits.at(i));
    first = false;
  }
  return out + "]}";
}

}  // namespace

std::optional<std::size_t> History::span_named(std::string_view name) {
  for (std::size_t i = 0; i < kSpans.size(); ++i) {
    if (kSpans[i].name == name) return i;
  }
  return std::nullopt;
}

// The newest bucket, or a new one. A clock that went back a little does not open an older one again; one that was far
// ahead had the future's buckets filled, and these go.
History::Bucket& History::bucket_of(std::size_t i, WallMs at) {
  const Span& span = kSpans[i];
  auto& ring = rings_[i];
  const WallMs begin{at.ms - at.ms % span.step.count()};
  const std::int64_t believed = begin.ms + std::max(kBackAtMost, span.step).count();
  while (!ring.empty() && ring.back().at.ms > believed) ring.pop_back();
  if (written_to_[i].ms > believed) written_to_[i] = begin;
  if (ring.empty() || ring.back().at < begin) {
    ring.emplace_back().at = begin;
    if (ring.size() > span.kept) ring.pop_front();
  }
  return ring.back();
}

void History::add(const FarmSample& sample, WallMs at) {
  for (std::size_t i = 0; i < kSpans.size(); ++i) {
    Bucket& bucket = bucket_of(i, at);
    const auto put = [&bucket](Figure f, std::optional<double> value) {
      if (!value) return;
      bucket.sum[f] += *value;
      bucket.n[f] += 1;
    };
    put(completed, sample.completed);
    put(failed, sample.failed);
    put(submitted, sample.submitted);
    put(queued, sample.queued);
    put(running, sample.running);
    put(workers, sample.workers);
    put(cpu_percent, sample.cpu_percent);
    put(memory_used, sample.memory_used);
    put(gpu_percent, sample.gpu_percent);
    bucket.waits.add(sample.waits);
  }
}

core::WaitCounts History::waits(std::size_t seconds) const {
  core::WaitCounts out;
  const auto& ring = rings_[0];
  if (ring.empty()) return out;
  const std::int64_t since = ring.back().at.ms - static_cast<std::int64_t>(seconds) * 1000;
  for (auto it = ring.rbegin(); it != ring.rend() && it->at.ms > since; ++it) out.add(it->waits);
  return out;
}

double History::rate(Figure figure, std::size_t seconds) const {
  const auto& ring = rings_[0];
  if (ring.empty()) return 0;
  const std::int64_t since = ring.back().at.ms - static_cast<std::int64_t>(seconds) * 1000;
  double sum = 0;
  std::size_t n = 0;
  for (auto it = ring.rbegin(); it != ring.rend() && it->at.ms > since; ++it) {
    sum += it->mean(figure).value_or(0);
    n += 1;
  }
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

std::vector<History::Kept> History::unwritten(bool all) {
  std::vector<Kept> out;
  for (std::size_t i = 1; i < kSpans.size(); ++i) {  // the seconds live in memory only
    const auto& ring = rings_[i];
    for (const Bucket& bucket : ring) {
      if (bucket.at < written_to_[i]) continue;
      const bool complete = &bucket != &ring.back();
      if (!complete && !all) continue;
      out.push_back({i, bucket.at, bucket_text(bucket)});
      if (complete) written_to_[i] = {bucket.at.ms + 1};
    }
  }
  return out;
}

bool History::restore(std::size_t span, WallMs at, std::string_view figures) {
  namespace json = boost::json;
  boost::system::error_code ec;
  const json::value value = json::parse(figures, ec);
  if (ec || !value.is_object() || span == 0 || span >= kSpans.size()) return false;
  auto& ring = rings_[span];
  if (!ring.empty() && at <= ring.back().at) return false;
  const auto pair_of = [](const json::value& v, double& a, double& b) {
    if (!v.is_array() || v.get_array().size() != 2) return false;
    boost::system::error_code e1, e2;
    a = v.get_array()[0].to_number<double>(e1);
    b = v.get_array()[1].to_number<double>(e2);
    return !e1 && !e2 && b >= 0 && b < 4e9;
  };
  Bucket bucket;
  bucket.at = at;
  double a = 0, b = 0;
  for (std::size_t f = 0; f < kFigures; ++f) {
    const json::value* one = value.get_object().if_contains(kFigureNames[f]);
    if (one == nullptr) continue;
    if (!pair_of(*one, a, b)) return false;
    bucket.sum[f] = a;
    bucket.n[f] = static_cast<std::uint32_t>(b);
  }
  if (const json::value* waits = value.get_object().if_contains("waits"); waits != nullptr && waits->is_array()) {
    for (const json::value& one : waits->get_array()) {
      if (!pair_of(one, a, b) || a < 0 || a >= static_cast<double>(core::WaitCounts::kBuckets)) return false;
      bucket.waits.add(static_cast<std::size_t>(a), static_cast<std::uint32_t>(b));
    }
  }
  ring.push_back(std::move(bucket));
  if (ring.size() > kSpans[span].kept) ring.pop_front();
  written_to_[span] = at;
  return true;
}

}  // namespace grange::server
