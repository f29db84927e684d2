#include "server/gateway/usage_days.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <iterator>
#include <limits>

#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {

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

void UsageCounters::add(const Record& record) {
  ++ends[static_cast<std::size_t>(record.end)];
  tokens_in += record.tokens.in.value_or(0);
  tokens_out += record.tokens.out.value_or(0);
  if (record.end == End::completed && !record.tokens.in && !record.tokens.out) ++uncounted;
  bytes += record.bytes;
}

void UsageCounters::add(const UsageCounters& others) {
  for (std::size_t i = 0; i < std::size(ends); ++i) ends[i] += others.ends[i];
  tokens_in += others.tokens_in;
  tokens_out += others.tokens_out;
  uncounted += others.uncounted;
  bytes += others.bytes;
}

boost::json::object UsageCounters::shown() const {
  std::uint64_t all = 0;
  for (const std::uint64_t n : ends) all += n;
  boost::json::object out{{"requests", all}};
  for (const End end : {End::completed, End::failed, End::cancelled, End::refused})
    out[name(end)] = ends[static_cast<std::size_t>(end)];
  out["tokens_in"] = tokens_in;
  out["tokens_out"] = tokens_out;
  out["uncounted"] = uncounted;
  out["bytes"] = bytes;
  return out;
}

std::string UsageCounters::kept() const {
  return boost::json::serialize(shown());
}

std::optional<UsageCounters> UsageCounters::read(std::string_view kept) {
  const auto parsed = wire::parse_json(kept);
  if (!parsed || !parsed->is_object()) return std::nullopt;
  const auto number = [&](std::string_view key) -> std::uint64_t {
    const boost::json::value* value = parsed->get_object().if_contains(key);
    if (value == nullptr) return 0;
    if (value->is_uint64()) return value->get_uint64();
    return value->is_int64() && value->get_int64() > 0 ? static_cast<std::uint64_t>(value->get_int64()) : 0;
  };
  UsageCounters out;
  for (const End end : {End::completed, End::failed, End::cancelled, End::refused})
    out.ends[static_cast<std::size_t>(end)] = number(name(end));
  out.tokens_in = number("tokens_in");
  out.tokens_out = number("tokens_out");
  out.uncounted = number("uncounted");
  out.bytes = number("bytes");
  return out;
}

std::int64_t day_of(WallMs at) {
  constexpr std::int64_t day = 86'400'000;
  return at.ms >= 0 ? at.ms / day : -((-at.ms + day - 1) / day);
}

std::string day_name(std::int64_t day) {
  return iso_time({day * 86'400'000}).substr(0, 10);
}

bool UsageDays::restore(const store::UsageRow& row) {
  const auto counters = UsageCounters::read(row.figures);
  if (!counters) return false;
  if (entries_.insert_or_assign({row.day, row.principal, row.model}, Entry{.counters = *counters, .dirty = false})
          .second)
    ++keys_of_[row.day];
  return true;
}

void UsageDays::add(const Record& record) {
  const std::int64_t day = std::max(first_, day_of(record.at));
  std::size_t& keys = keys_of_[day];
  new_day_ = new_day_ || keys == 0;
  Key key{day, record.principal, record.counted_model()};
  auto it = entries_.find(key);
  if (it == entries_.end()) {
    if (keys >= kMeters) key = {day, "", ""};
    const auto [at, fresh] = entries_.try_emplace(std::move(key));
    if (fresh) ++keys;
    it = at;
  }
  it->second.counters.add(record);
  it->second.dirty = true;
  latest_ = day;
}

UsageDays::Rows UsageDays::unwritten() {
  Rows out;
  for (auto& [key, entry] : entries_) {
    if (!std::exchange(entry.dirty, false)) continue;
    const auto& [day, principal, model] = key;
    out.rows.push_back({.day = day, .principal = principal, .model = model, .figures = entry.counters.kept()});
  }
  if (!out.rows.empty()) out.new_day = std::exchange(new_day_, false);
  return out;
}

void UsageDays::not_written(const Rows& rows) {
  for (const store::UsageRow& row : rows.rows) {
    const auto it = entries_.find({row.day, row.principal, row.model});
    if (it != entries_.end()) it->second.dirty = true;
  }
  new_day_ = new_day_ || rows.new_day;
}

void UsageDays::written() {
  // Counted, as on disk: one record of a clock that ran far ahead does not make all other days old ones.
  while (keys_of_.size() > kUsageDaysInMemory) {
    const std::int64_t day = std::get<0>(entries_.begin()->first);
    if (day >= latest_) return;
    const auto end = entries_.lower_bound({day + 1, "", ""});
    for (auto it = entries_.begin(); it != end; ++it) {
      if (it->second.dirty) return;
    }
    entries_.erase(entries_.begin(), end);
    keys_of_.erase(day);
    first_ = std::max(first_, day + 1);
  }
}

std::map<UsageDays::Key, UsageCounters> UsageDays::since(std::int64_t first,
                                                         const std::vector<store::UsageRow>& on_disk,
                                                         const std::optional<std::string>& principal,
                                                         const std::optional<std::string>& model) const {
  std::map<Key, UsageCounters> out;
  const auto wanted = [&](const std::string& of, const std::string& with) {
    return (!principal || *principal == of) && (!model || *model == with);
  };
  for (const store::UsageRow& row : on_disk) {
    if (row.day < first || !wanted(row.principal, row.model)) continue;
    if (const auto counters = UsageCounters::read(row.figures))
      out.insert_or_assign({row.day, row.principal, row.model}, *counters);
  }
  for (auto it = entries_.lower_bound({first, "", ""}); it != entries_.end(); ++it) {
    const auto& [day, of, with] = it->first;
    if (wanted(of, with)) out.insert_or_assign(it->first, it->second.counters);
  }
  return out;
}

}  // namespace grange::server::gateway
