// When a schedule runs: five fields (minute, hour, day of the month, month, day of the week), UTC. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::core {

// A field is "*", a number, a name (jan..dec, sun..sat), a range, any of these with a step ("*/15", "10-30/5"), or a
// list of them. "@hourly", "@daily", "@weekly", "@monthly" and "@yearly" stand for whole lines. Where both days are
// given, either one will do, as in every cron.
class Cron {
 public:
  // invalid_argument names the field, or the date that never comes ("0 0 30 2 *").
  static Result<Cron> parse(std::string_view text);
  // The first whole minute after `t` that matches.
  WallMs next_after(WallMs t) const;
  bool matches(WallMs minute) const;

 private:
  bool day_matches(std::int64_t day) const;  // days since 1970
  std::optional<WallMs> find_after(WallMs t) const;
  std::uint64_t minutes_ = 0;
  std::uint32_t hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // bit n: n is in it
  bool any_day_ = true, any_weekday_ = true;
};

}  // namespace grange::core
