// The table of REST routes: what is served, who may, and what the documentation says, in one place.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/authorize.hpp"

namespace grange::server {

class Rest;
struct RestCall;
using RestCallPtr = std::shared_ptr<RestCall>;

struct RouteParam {
  std::string_view name, type,
      summary;  // type: string | integer | boolean; a name that stands in the pattern is a path parameter
};
struct Route {
  std::string_view method, pattern;  // "/api/jobs/{id}/tasks"
  Action action;
  std::string_view tag, summary;
  std::vector<RouteParam> params;
  std::string_view request,
      response;  // names of schemas in the OpenAPI document; "" none, "bytes", "html", "text", "sse"
  void (Rest::*handler)(RestCallPtr);
};
const std::vector<Route>& routes();
std::vector<Route> job_routes();       // of these, those of jobs and tasks
std::vector<Route> gateway_routes();   // and those of models
std::vector<Route> run_routes();       // and those of races
std::vector<Route> overview_routes();  // and those of the dashboard's pages
std::vector<Route> alert_routes();     // and those of alerts
std::vector<Route> token_routes();     // and those of tokens

struct Match {
  const Route* route = nullptr;  // null: no such path or method
  std::map<std::string, std::string> params;
  std::string allow;  // set: the path is known, these are its methods
};
Match match_route(std::string_view method, std::string_view path);

std::string openapi_json();  // OpenAPI 3.1, made from the table
std::string docs_html();     // the same as a page; its script is assets/docs.js
std::string_view docs_script();
std::string_view docs_style();

}  // namespace grange::server
