// The worker's health server: /health, /ready and /status; /capabilities and /api/agent/runtime_metrics. It only tells:
// work comes by the server alone.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "net/listener.hpp"

namespace grange::worker {

struct HealthPages {
  std::function<std::string()> state;
  std::function<bool()> ready;
  std::function<std::string()> status;  // JSON, as the next two
  std::function<std::string()> capabilities = {}, metrics = {};
  std::string token = {};   // what who is not on this machine must send for these two; "": nothing
  std::string server = {};  // where work is to be sent
};

Result<std::unique_ptr<net::Listener>> serve_health(net::Loop& loop, const std::string& host, std::uint16_t port,
                                                    HealthPages pages);

}  // namespace grange::worker
