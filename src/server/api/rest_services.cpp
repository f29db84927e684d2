// Services that workers keep running, over REST: started, stopped, and what they wrote.
#include <fmt/format.h>

#include "server/api/machine_hosts.hpp"
#include "server/api/rest_machines.hpp"
#include "server/gateway/gateway.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {
namespace {

namespace json = boost::json;

constexpr int kAheadOfAll = 1000;
constexpr std::uint64_t kLogLinesMost = 5'000, kLogLinesUsual = 200;

// The machine and its service, one that the worker keeps running.
Result<const ModelHost*> keeper_of(const std::string& worker, const std::string& service, const ModelHosts& all) {
  auto host = host_called(worker, all);
  if (!host) return host;
  std::vector<std::string> names;
  for (const pb::Service& one : (*host)->manifest.services()) {
    if (one.kind() == "files") continue;
    names.push_back(one.name());
    if (one.name() != service) continue;
    if (one.managed()) return host;
    return Error{ErrorClass::conflict,
                 fmt::format("The service \"{}\" was only found on \"{}\": its worker did not start it. To have it "
                             "started, stopped and kept running, put it into the worker's services file "
                             "(--services-file).",
                             cut_utf8(service, 80), (*host)->shown())};
  }
  return Error{ErrorClass::not_found, fmt::format("The worker \"{}\" has no service called \"{}\".{} {}",
                                                  (*host)->shown(), cut_utf8(service, 80), did_you_mean(service, names),
                                                  names.empty() ? "It has none." : "It has " + joined(names) + ".")};
}

}  // namespace

void Rest::change_service(RestCallPtr call, const std::string& op) {
  if (!call->no_keys("a change of a service")) return;
  read_hosts(s_, call, [this, call, op](const ModelHosts& all) {
    const std::string service = call->path["name"];
    auto host = keeper_of(call->path["id"], service, all);
    if (!host) return call->fail(host.error());
    // Work that waits for the service may be what fills its machine.
    send_orders(operations_, call, {{*host, service, json::object{{"op", op}, {"service", service}}, kAheadOfAll}},
                [call, service](json::array jobs) {
                  const json::object& one = jobs.front().get_object();
                  call->answer(
                      202, json::object{
                               {"job_id", one.at("job_id")}, {"worker_id", one.at("worker_id")}, {"service", service}});
                });
  });
}

void Rest::start_service(RestCallPtr call) {
  change_service(std::move(call), "start");
}

void Rest::stop_service(RestCallPtr call) {
  change_service(std::move(call), "stop");
}

void Rest::restart_service(RestCallPtr call) {
  change_service(std::move(call), "restart");
}

void Rest::get_service_log(RestCallPtr call) {
  std::uint64_t lines = 0, after = 0;
  if (!call->number("lines", 1, kLogLinesMost, kLogLinesUsual, lines) ||
      !call->number("after", 0, INT64_MAX, 0, after)) {
    return;
  }
  read_hosts(s_, call, [this, call, lines, after](const ModelHosts& all) {
    const std::string service = call->path["name"];
    auto host = keeper_of(call->path["id"], service, all);
    if (!host) return call->fail(host.error());
    const auto number = s_.workers->number_of((*host)->id);
    if (!number) return call->fail({ErrorClass::not_found, "The worker is not here any more."});
    s_.gateway->service_log(*number, service, static_cast<std::uint32_t>(lines),
                            after == 0 ? "" : std::to_string(after), [call](Result<gateway::Gateway::ServiceLog> log) {
                              if (!log) return call->fail(log.error());
                              std::map<std::string, std::string> headers{{"Cache-Control", "no-store"}};
                              if (!log->end.empty()) headers["X-Log-End"] = log->end;
                              call->answer_text(200, "text/plain; charset=utf-8", std::move(log->text),
                                                std::move(headers));
                            });
  });
}

std::vector<Route> service_routes() {
  const RouteParam id{"id", "string", "The worker's id, or its name"};
  const RouteParam name{"name", "string", "The service's name"};
  const auto post = [&](std::string_view pattern, std::string_view summary, void (Rest::*handler)(RestCallPtr)) {
    return Route{"POST", pattern, Action::change_machines, "models", summary, {id, name}, "", "ServiceJob", handler};
  };
  return {
      post("/api/workers/{id}/services/{name}/start",
           "Start a service that the worker keeps running, and wait until it is ready: a job", &Rest::start_service),
      post("/api/workers/{id}/services/{name}/stop",
           "Stop one; it stays down until it is started, or the worker is: a job", &Rest::stop_service),
      post("/api/workers/{id}/services/{name}/restart", "End one and start it again: a job", &Rest::restart_service),
      {"GET",
       "/api/workers/{id}/services/{name}/log",
       Action::see_logs,
       "models",
       "The newest lines that a service wrote which the worker keeps running; at most 1 MiB",
       {id,
        name,
        {"lines", "integer", "1 to 5,000; 200 when left out"},
        {"after", "integer", "Only what came after this: the X-Log-End of an answer before"}},
       "",
       "text",
       &Rest::get_service_log},
  };
}

}  // namespace grange::server
