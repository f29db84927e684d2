// The machines of a farm with what their workers say of them, and orders to them: jobs that are sent to one machine.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/api/rest.hpp"

namespace grange::server {

struct ModelHost {
  std::string id, name;
  bool connected = false;
  pb::Manifest manifest;
  std::string shown() const { return name.empty() ? id : name; }
  // The first that is there of this kind ("": any) and name ("": any).
  const pb::Service* service(std::string_view kind, std::string_view called = {}) const {
    for (const pb::Service& one : manifest.services()) {
      if ((kind.empty() || one.kind() == kind) && (called.empty() || one.name() == called) && one.state() != "down")
        return &one;
    }
    return nullptr;
  }
};
using ModelHosts = std::vector<ModelHost>;

std::string joined(const std::vector<std::string>& names);
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

Error host_not_found(const std::string& name, const ModelHosts& all);
// One that is connected, by id or name.
Result<const ModelHost*> host_called(const std::string& name, const ModelHosts& all);
void read_hosts(Services& services, const RestCallPtr& call, std::function<void(const ModelHosts&)> then);

struct ModelOrder {
  const ModelHost* host;
  std::string model;
  boost::json::object models;  // of the job
  int priority = 0;
};

// All of them or none.
void send_orders(Operations& operations, const RestCallPtr& call, const std::vector<ModelOrder>& orders,
                 std::function<void(boost::json::array)> then);

}  // namespace grange::server
