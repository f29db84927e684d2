// What went through the gateway, by day (UTC), principal and model; and one request of it. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "base/units.hpp"
#include "server/gateway/dialect.hpp"
#include "store/store.hpp"

namespace grange::server::gateway {

inline constexpr std::size_t kMeters = 4096;          // pairs of principal and model that are counted apart, in a day
inline constexpr std::uint32_t kUsageDays = 400;      // days with any use that are kept
inline constexpr std::size_t kUsageDaysInMemory = 7;  // and those not written yet

enum class End : std::uint8_t { completed, failed, cancelled, refused };
std::string_view name(End end);

struct Record {
  std::string request_id, principal, model, path, worker, service;
  WallMs at{};
  End end = End::completed;
  int status = 0;         // that the client saw; 0: none
  std::string code = {};  // of the fault
  double total_ms = 0, waited_ms = 0;
  std::optional<double> ttft_ms = {};  // from the request's arrival to the answer's first byte
  TokenCounts tokens = {};
  std::uint64_t bytes = 0;
  std::uint32_t tries = 0;  // services that it was given to

  // Names that nobody serves are not worth a counter: anybody can make them up.
  std::string counted_model() const { return tries == 0 ? std::string() : model; }
};

struct UsageCounters {
  std::uint64_t ends[4] = {};
  std::uint64_t tokens_in = 0, tokens_out = 0, uncounted = 0, bytes = 0;
  void add(const Record& record);
  void add(const UsageCounters& others);
  boost::json::object shown() const;
  std::string kept() const;
  static std::optional<UsageCounters> read(std::string_view kept);
};

std::int64_t day_of(WallMs at);          // since 1970
std::string day_name(std::int64_t day);  // "2026-11-22"

class UsageDays {
 public:
  using Key = std::tuple<std::int64_t, std::string, std::string>;  // day, principal, model

  // Rows of the days from `first` on were restored: nothing is counted for a day before it, whatever a clock says, so
  // that what is on disk is never replaced by less.
  void start(std::int64_t first) { first_ = first; }
  bool restore(const store::UsageRow& row);  // false: not understood
  void add(const Record& record);

  // What is not on disk yet; taken for written until not_written() says otherwise. new_day: for the first time there is
  // something of a day that was not there before.
  struct Rows {
    std::vector<store::UsageRow> rows;
    bool new_day = false;
  };
  Rows unwritten();
  void not_written(const Rows& rows);
  void written();  // lets days go that are over

  // What is on disk, with what is newer here, summed as asked. principal, model: nullopt: any.
  std::map<Key, UsageCounters> since(std::int64_t first, const std::vector<store::UsageRow>& on_disk,
                                     const std::optional<std::string>& principal,
                                     const std::optional<std::string>& model) const;

 private:
  struct Entry {
    UsageCounters counters;
    bool dirty = false;
  };

  std::int64_t first_ = 0, latest_ = INT64_MIN;  // latest_: of the last record
  std::map<Key, Entry> entries_;
  std::map<std::int64_t, std::size_t> keys_of_;  // by day
  bool new_day_ = true;
};

}  // namespace grange::server::gateway
