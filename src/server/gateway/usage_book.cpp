#include "server/gateway/usage_book.hpp"

#include <spdlog/spdlog.h>

#include "server/gateway/gateway.hpp"

namespace grange::server::gateway {
namespace {

constexpr Micros kUsageEvery{3'000'000};
constexpr Micros kUsageAgain{30'000'000};  // after a write that failed

}  // namespace

Result<> UsageBook::load(store::Reader& reader) {
  UsageDays& days = s_.gateway->meter().days();
  const std::int64_t first = day_of(s_.clock.now().wall) - 1;
  auto rows = reader.usage(first);
  if (!rows) return std::move(rows).error();
  days.start(first);
  for (const store::UsageRow& row : *rows) {
    if (!days.restore(row)) spdlog::warn("what the gateway counted on {} was not understood", day_name(row.day));
  }
  return {};
}

void UsageBook::tick(Now now) {
  if (s_.stopping || writing_ || now.mono < next_) return;
  next_ = now.mono + kUsageEvery;
  UsageDays& days = s_.gateway->meter().days();
  auto rows = std::make_shared<UsageDays::Rows>(days.unwritten());
  if (rows->rows.empty()) return;
  writing_ = true;
  on_store_([rows](store::Store& store) { return store.put_usage(rows->rows, rows->new_day ? kUsageDays : 0); },
            [this, rows](Result<> done) {
              writing_ = false;
              UsageDays& now_there = s_.gateway->meter().days();
              if (done) return now_there.written();
              spdlog::warn("what the gateway counted was not written, and will be: {}", done.error().message);
              now_there.not_written(*rows);
              next_ = s_.clock.now().mono + kUsageAgain;
            });
}

void UsageBook::keep_in(store::Store& store) {
  const UsageDays::Rows rows = s_.gateway->meter().days().unwritten();
  if (rows.rows.empty()) return;
  if (auto kept = store.put_usage(rows.rows, rows.new_day ? kUsageDays : 0); !kept)
    spdlog::warn("what the gateway counted was not written: {}", kept.error().message);
}

}  // namespace grange::server::gateway
