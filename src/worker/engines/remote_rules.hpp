// What holds for all services that are reached with a key: whom a key may be sent to, how long to wait when told to,
// what it costs, and that no key is ever shown. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::worker {

using Headers = std::map<std::string, std::string>;  // names in lower case

// https anywhere; plain http only on this machine.
Result<> safe_for_keys(const std::string& url);
// A URL that the service itself gave, to which its key may be sent.
bool same_service(const std::string& base, const std::string& url);

// It will not go on: cancelled, or not there any more.
bool cancel_heard(int status);

// retry-after-ms, or Retry-After in seconds or as a date. None: it does not say.
std::optional<Millis> retry_after(const Headers& headers, std::int64_t wall_ms);

std::string without_key(std::string_view text, std::string_view key);
// Of a message: the key, and all that looks like one, made unreadable.
std::string redacted(std::string_view text, std::string_view key);

// GRANGE_PRICE_<NAME>: "in=2.5,out=10" (of a million tokens), "second=0.0002", "call=0.01"; in the unit of the budget.
struct Prices {
  double per_m_in = 0, per_m_out = 0, per_second = 0, per_call = 0;
  bool any() const { return per_m_in > 0 || per_m_out > 0 || per_second > 0 || per_call > 0; }
};
Result<Prices> read_prices(std::string_view text);

// What was spent with each key today (UTC).
class Spending {
 public:
  explicit Spending(std::string file = {});  // kept there over restarts; "": nowhere
  void add(const std::string& key, double cost, std::int64_t wall_ms);
  double today(const std::string& key, std::int64_t wall_ms) const;

 private:
  struct Day {
    std::int64_t day = 0;
    double cost = 0;
  };
  std::string file_;
  std::map<std::string, Day> days_;  // by a hash of the key
};

// Replicate's webhooks: webhook-id, webhook-timestamp and webhook-signature of a POST, and its body as it came. A
// signature older or newer than `tolerance` is refused: it may be one that was overheard.
Result<> check_replicate_webhook(const Headers& headers, std::string_view body, std::string_view secret,
                                 std::int64_t wall_ms, Millis tolerance = Millis{300'000});

// Server-sent events, however the bytes are cut.
class SseReader {
 public:
  using Out = std::function<void(const std::string& event, const std::string& data)>;
  // False: an event is larger than it may be; nothing more is read.
  bool feed(std::string_view bytes, const Out& out);

 private:
  void line(std::string_view text, const Out& out);
  std::string rest_, event_, data_;
  bool has_data_ = false, broken_ = false, after_cr_ = false;
};

}  // namespace grange::worker
