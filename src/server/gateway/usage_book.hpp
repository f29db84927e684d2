// Keeps the gateway's use by day in the store: every few seconds, and at a clean stop. A crash loses what was counted
// since.
#pragma once

#include <functional>

#include "server/gateway/meter.hpp"
#include "server/services.hpp"

namespace grange::server::gateway {

class UsageBook {
 public:
  // As RunPorts: work on the store's own thread, between two commits.
  using OnStore = std::function<void(std::function<Result<>(store::Store&)>, std::function<void(Result<>)>)>;
  UsageBook(Services& services, OnStore on_store) : s_(services), on_store_(std::move(on_store)) {}

  Result<> load(store::Reader& reader);
  void tick(Now now);
  void keep_in(store::Store& store);  // the rest; the store is nobody else's then

 private:
  Services& s_;
  const OnStore on_store_;
  Instant next_{};
  bool writing_ = false;
};

}  // namespace grange::server::gateway
