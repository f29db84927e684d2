#include "server/live_events.hpp"

#include <algorithm>

#include <boost/json/serialize.hpp>

#include "wire/json_dialect.hpp"

namespace grange::server {

bool LiveGate::take(std::size_t bytes, Instant now) {
  if (last_.us == INT64_MIN) last_ = now;
  const std::int64_t earned = (now - last_).count() * kLiveRate / 1'000'000;
  if (earned > 0) {
    room_ = static_cast<std::uint32_t>(std::min<std::int64_t>(kLiveAtOnce, room_ + earned));
    last_ = now;
  }
  if (room_ == 0 || bytes > kLiveEvent || bytes_ + bytes > kLiveBytes) {
    ++left_out_;
    return false;
  }
  --room_;
  bytes_ += bytes;
  return true;
}

std::optional<std::string> live_event(std::string_view type, const std::string& data_json) {
  if (type.empty() || type.size() > 48 ||
      !std::all_of(type.begin(), type.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; }))
    return std::nullopt;
  // What the server itself says of jobs, tasks and workers is not a worker's to say.
  for (const std::string_view ours : {"task_", "worker_", "server_", "run_", "schedule_", "queue_", "database_",
                                      "policy_", "alert_", "hello", "gap"}) {
    if (type.starts_with(ours)) return std::nullopt;
  }
  if (type.starts_with("job_") && type != "job_start" && type != "job_done" && type != "job_timeout")
    return std::nullopt;
  if (data_json.empty()) return "{}";
  if (data_json.size() > kLiveEvent) return std::nullopt;
  auto value = wire::parse_json(data_json);
  if (!value || !value->is_object()) return std::nullopt;
  return boost::json::serialize(*value);
}

}  // namespace grange::server
