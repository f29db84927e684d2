// Models on machines over REST: what is where, and jobs of the engine "models" that change it.
#pragma once

#include "server/api/routes.hpp"

namespace grange::server {

std::vector<Route> machine_routes();
std::vector<Route> service_routes();  // of services that workers keep running

}  // namespace grange::server
