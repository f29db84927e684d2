// What went through the gateway: counters by principal and model, and the newest requests. Pure.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <deque>
#include <map>
#include <string>

#include "base/units.hpp"
#include "server/gateway/dialect.hpp"

namespace grange::server::gateway {

inline constexpr std::size_t kMeters = 4096;  // pairs of principal and model that are counted apart
inline constexpr std::size_t kRecent = 256;

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
};

class Meter {
 public:
  void add(Record record);
  boost::json::array by_key() const;  // by principal and model
  boost::json::array by_principal() const;
  boost::json::array by_model() const;
  boost::json::array recent() const;  // the newest first
  boost::json::object totals() const;

 private:
  struct Counters {
    std::uint64_t ends[4] = {};
    std::uint64_t tokens_in = 0, tokens_out = 0, uncounted = 0, bytes = 0;
    void add(const Record& record);
    void add(const Counters& others);
    boost::json::object shown() const;
  };
  using Pair = std::pair<std::string, std::string>;
  boost::json::array summed(const char* field, std::string Pair::*part) const;
  std::map<Pair, Counters> counters_;
  Counters all_;
  std::uint64_t failovers_ = 0;
  std::deque<Record> recent_;
};

}  // namespace grange::server::gateway
