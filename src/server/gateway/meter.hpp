// What went through the gateway: counters by principal and model since the start, the newest requests, and use by day.
// Pure.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <deque>
#include <map>
#include <string>

#include "server/gateway/usage_days.hpp"

namespace grange::server::gateway {

inline constexpr std::size_t kRecent = 256;

class Meter {
 public:
  void add(Record record);
  boost::json::array by_key() const;  // by principal and model
  boost::json::array by_principal() const;
  boost::json::array by_model() const;
  boost::json::array recent() const;  // the newest first
  boost::json::object totals() const;
  UsageDays& days() { return days_; }

 private:
  using Pair = std::pair<std::string, std::string>;
  boost::json::array summed(const char* field, std::string Pair::*part) const;
  std::map<Pair, UsageCounters> counters_;
  UsageCounters all_;
  UsageDays days_;
  std::uint64_t failovers_ = 0;
  std::deque<Record> recent_;
};

}  // namespace grange::server::gateway
