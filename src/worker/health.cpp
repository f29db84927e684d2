#include "worker/health.hpp"

#include "worker/json.hpp"

namespace grange::worker {

Result<std::unique_ptr<net::Listener>> serve_health(net::Loop& loop, const std::string& host, std::uint16_t port,
                                                    HealthPages pages) {
  net::ListenerOptions options;
  options.host = host;
  options.port = port;
  net::ListenerHandlers handlers;
  handlers.on_http = [pages = std::move(pages)](const net::HttpExchangePtr& exchange) {
    const net::HttpRequest& request = exchange->request();
    const auto problem = [&](int status, const char* code, const std::string& message) {
      exchange->respond(net::HttpResponse::json(
          status,
          JsonObject()
              .raw("error", JsonObject().text("code", code).text("message", message).raw("details", "{}").done())
              .done()));
    };
    if (request.method != "GET" && request.method != "HEAD")
      return problem(405, "invalid_argument", "Only GET is answered here.");
    if (request.path == "/health") {
      const std::string state = pages.state();
      exchange->respond(
          net::HttpResponse::json(200, JsonObject().flag("healthy", state != "failed").text("state", state).done()));
    } else if (request.path == "/ready") {
      const bool ready = pages.ready();
      exchange->respond(net::HttpResponse::json(ready ? 200 : 503,
                                                JsonObject().flag("ready", ready).text("state", pages.state()).done()));
    } else if (request.path == "/status") {
      exchange->respond(net::HttpResponse::json(200, pages.status()));
    } else {
      problem(404, "not_found", "There is /health, /ready and /status.");
    }
  };
  return net::listen(loop, std::move(options), std::move(handlers));
}

}  // namespace grange::worker
