// The worker's health server: /health, /ready, /status.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "net/listener.hpp"

namespace grange::worker {

struct HealthPages {
  std::function<std::string()> state;
  std::function<bool()> ready;
  std::function<std::string()> status;  // JSON
};

Result<std::unique_ptr<net::Listener>> serve_health(net::Loop& loop, const std::string& host, std::uint16_t port,
                                                    HealthPages pages);

}  // namespace grange::worker
