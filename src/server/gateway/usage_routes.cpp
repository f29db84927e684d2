// The gateway's use by day, over REST.
#include "server/api/rest.hpp"
#include "server/gateway/gateway.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kUsageRows = 50'000;  // in one answer

json::value usage_word(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

}  // namespace

void Rest::get_usage(RestCallPtr call) {
  std::uint64_t days = 0;
  if (!call->number("days", 1, gateway::kUsageDays, 30, days)) return;
  const std::int64_t first = gateway::day_of(s_.clock.now().wall) - static_cast<std::int64_t>(days) + 1;
  const auto asked = [&call](const char* key) {
    const std::string text = call->query(key);
    return text.empty() ? std::optional<std::string>() : std::optional(text);
  };
  const auto principal = asked("principal"), model = asked("model");
  s_.readers->read<std::vector<store::UsageRow>>(
      [first](store::Reader& reader) { return reader.usage(first); },
      [this, call, first, principal, model](Result<std::vector<store::UsageRow>> on_disk) {
        if (!on_disk) return call->fail(on_disk.error());
        const auto usage = s_.gateway->meter().days().since(first, *on_disk, principal, model);
        if (usage.size() > kUsageRows) {
          return call->fail({ErrorClass::too_large,
                             "That is too much for one answer. Ask for fewer days, or for one principal or model."});
        }
        gateway::UsageCounters totals;
        json::array out;
        for (const auto& [key, counters] : usage) {
          const auto& [day, of, with] = key;
          json::object one{{"day", gateway::day_name(day)}, {"principal", usage_word(of)}, {"model", usage_word(with)}};
          for (auto& [field, value] : counters.shown()) one[field] = value;
          out.push_back(std::move(one));
          totals.add(counters);
        }
        call->answer(
            200, json::object{{"days", std::move(out)}, {"totals", totals.shown()}, {"since_ms", first * 86'400'000}});
      });
}

}  // namespace grange::server
