// The output of a service that a worker keeps running, asked for and sent over the worker's session as a relay without
// a request.
#include <fmt/format.h>

#include "base/utf8.hpp"
#include "server/gateway/stream.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server::gateway {
namespace {

constexpr Bytes kLogAnswer = 1 * MiB;
constexpr std::size_t kLogsAsked = 64;  // at once
constexpr Micros kLogPatience{15'000'000};
constexpr std::string_view kLogAfter = "x-log-after", kLogEnd = "x-log-end";

}  // namespace

void Gateway::service_log(WorkerNo worker, const std::string& service, std::uint32_t lines, const std::string& after,
                          std::function<void(Result<ServiceLog>)> done) {
  WorkerChannel* channel = s_.workers->find(worker);
  if (channel == nullptr || stopping_)
    return done(Error{ErrorClass::unavailable, "The worker is not connected now; its logs are on its own machine."});
  if (logs_.size() >= kLogsAsked)
    return done(Error{ErrorClass::rate_limited, "Too many logs are being read; try again in a moment."});
  const std::uint64_t number = ++last_relay_;
  LogAsked& asked = logs_[number];
  asked.worker = worker;
  asked.until = now() + kLogPatience;
  asked.done = std::move(done);
  pb::Relay relay;
  relay.set_stream(number);
  pb::RelayOpen& open = *relay.mutable_open();
  open.set_service(service);
  open.set_log_lines(lines);
  open.set_credit_bytes(kLogAnswer);
  if (!after.empty()) {
    pb::RelayHeader& header = *open.add_headers();
    header.set_name(std::string(kLogAfter));
    header.set_value(after);
  }
  if (!channel->relay(relay)) board_.set_behind(worker, true);
}

void Gateway::log_heard(std::uint64_t number, LogAsked& asked, pb::Relay& relay) {
  if (relay.has_head()) {
    asked.status = static_cast<int>(relay.head().status());
    for (const pb::RelayHeader& header : relay.head().headers()) {
      if (header.name() == kLogEnd && to_number(header.value())) asked.so_far.end = header.value();
    }
  } else if (relay.what_case() == pb::Relay::kBody) {
    asked.so_far.text += relay.body();
    if (asked.so_far.text.size() > kLogAnswer)
      log_over(number, Error{ErrorClass::too_large, "The worker sent more of the log than it was asked for."});
  } else if (relay.has_end()) {
    const std::string why = is_utf8(relay.end().error().message()) ? relay.end().error().message() : "";
    if (relay.end().has_error() || asked.status != 200) {
      return log_over(number, Error{ErrorClass::unavailable,
                                    why.empty() ? "The worker could not read the log." : cut_utf8(why, 1024)});
    }
    if (!is_utf8(asked.so_far.text))
      return log_over(number, Error{ErrorClass::internal, "The worker sent a log that is no text."});
    ServiceLog all = std::move(asked.so_far);
    log_over(number, std::move(all));
  }
}

void Gateway::log_over(std::uint64_t number, Result<ServiceLog> answer) {
  const auto node = logs_.extract(number);
  if (!node.empty()) node.mapped().done(std::move(answer));
}

void Gateway::logs_over(const Error& why, const std::function<bool(const LogAsked&)>& of) {
  std::vector<std::uint64_t> over;
  for (const auto& [number, one] : logs_) {
    if (of(one)) over.push_back(number);
  }
  for (const std::uint64_t number : over) log_over(number, why);
}

}  // namespace grange::server::gateway
