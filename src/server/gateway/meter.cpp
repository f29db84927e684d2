#include "server/gateway/meter.hpp"

#include <algorithm>
#include <iterator>
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

std::string_view name(End end) {
  switch (end) {
    case End::completed:
      return "completed";
    case End::failed:
      return "failed";
    case End::cancelled:
      return "cancelled";
    case End::refused:
      return "refused";
  }
  return "failed";
}

void Meter::Counters::add(const Record& record) {
  ++ends[static_cast<std::size_t>(record.end)];
  tokens_in += record.tokens.in.value_or(0);
  tokens_out += record.tokens.out.value_or(0);
  if (record.end == End::completed && !record.tokens.in && !record.tokens.out) ++uncounted;
  bytes += record.bytes;
}

void Meter::Counters::add(const Counters& others) {
  for (std::size_t i = 0; i < std::size(ends); ++i) ends[i] += others.ends[i];
  tokens_in += others.tokens_in;
  tokens_out += others.tokens_out;
  uncounted += others.uncounted;
  bytes += others.bytes;
}

json::object Meter::Counters::shown() const {
  std::uint64_t all = 0;
  for (const std::uint64_t n : ends) all += n;
  json::object out{{"requests", all}};
  for (const End end : {End::completed, End::failed, End::cancelled, End::refused})
    out[name(end)] = ends[static_cast<std::size_t>(end)];
  out["tokens_in"] = tokens_in;
  out["tokens_out"] = tokens_out;
  out["uncounted"] = uncounted;
  out["bytes"] = bytes;
  return out;
}

void Meter::add(Record record) {
  all_.add(record);
  if (record.tries > 1) failovers_ += record.tries - 1;
  // Names that nobody serves are not worth a counter: anybody can make them up.
  const std::string model = record.tries == 0 ? "" : record.model;
  std::pair key(record.principal, model);
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
  std::map<std::string, Counters> sums;
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
