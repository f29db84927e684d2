#include "server/gateway/meter.hpp"

#include <algorithm>
#include <vector>

#include "server/text.hpp"

namespace grange::server::gateway {
namespace {

namespace json = boost::json;

template <class T>
json::value or_null(const std::optional<T>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}

json::value word(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

}  // namespace

void Meter::add(Record record) {
  all_.add(record);
  days_.add(record);
  if (record.tries > 1) failovers_ += record.tries - 1;
  std::pair key(record.principal, record.counted_model());
  if (counters_.size() >= kMeters && !counters_.contains(key)) key = {"", ""};
  counters_[key].add(record);
  recent_.push_front(std::move(record));
  if (recent_.size() > kRecent) recent_.pop_back();
}

json::array Meter::by_key() const {
  json::array out;
  for (const auto& [key, counters] : counters_) {
    json::object one{{"principal", word(key.first)}, {"model", word(key.second)}};
    for (auto& [field, value] : counters.shown()) one[field] = value;
    out.push_back(std::move(one));
  }
  return out;
}

json::array Meter::summed(const char* field, std::string Pair::*part) const {
  std::map<std::string, UsageCounters> sums;
  for (const auto& [key, counters] : counters_) sums[key.*part].add(counters);
  json::array out;
  for (const auto& [name, counters] : sums) {
    json::object one{{field, word(name)}};
    for (auto& [key, value] : counters.shown()) one[key] = value;
    out.push_back(std::move(one));
  }
  return out;
}

json::array Meter::by_principal() const {
  return summed("principal", &Pair::first);
}
json::array Meter::by_model() const {
  return summed("model", &Pair::second);
}

json::array Meter::recent() const {
  json::array out;
  for (const Record& one : recent_) {
    out.push_back(json::object{{"request_id", one.request_id},
                               {"at", iso_time(one.at)},
                               {"principal", one.principal},
                               {"path", one.path},
                               {"model", one.model},
                               {"worker_id", word(one.worker)},
                               {"service", word(one.service)},
                               {"end", name(one.end)},
                               {"status", one.status == 0 ? json::value(nullptr) : json::value(one.status)},
                               {"code", word(one.code)},
                               {"tries", one.tries},
                               {"waited_ms", one.waited_ms},
                               {"ttft_ms", or_null(one.ttft_ms)},
                               {"total_ms", one.total_ms},
                               {"tokens_in", or_null(one.tokens.in)},
                               {"tokens_out", or_null(one.tokens.out)},
                               {"bytes", one.bytes}});
  }
  return out;
}

json::object Meter::totals() const {
  json::object out = all_.shown();
  out["failovers"] = failovers_;
  std::vector<double> first;
  for (const Record& one : recent_) {
    if (one.ttft_ms) first.push_back(*one.ttft_ms);
  }
  std::sort(first.begin(), first.end());
  const auto at = [&first](double share) -> json::value {
    if (first.empty()) return nullptr;
    return first[static_cast<std::size_t>(share * static_cast<double>(first.size() - 1))];
  };
  out["ttft_ms"] = json::object{{"of_the_last", first.size()}, {"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}};
  return out;
}

}  // namespace grange::server::gateway
