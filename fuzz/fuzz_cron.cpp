// Any text as a schedule: refused, or the next time is later and fits.
#include "core/cron.hpp"
#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  if (size < 4) return 0;
  const WallMs from{(static_cast<std::int64_t>(data[0]) << 32 | data[1] << 24 | data[2] << 16 | data[3]) * 7};
  const auto cron = core::Cron::parse(fuzz::text(data + 4, size - 4));
  if (!cron.ok()) return 0;
  const WallMs next = cron->next_after(from);
  fuzz::require(next > from && next.ms % 60'000 == 0 && cron->matches(next));
  fuzz::require(cron->next_after(next) > next);
  return 0;
}
