#include "worker/health.hpp"

#include <openssl/crypto.h>

#include "worker/json.hpp"

namespace grange::worker {
namespace {

// Where the server takes what seed 004's agents took themselves; "": it is none of that.
std::string server_path(const std::string& path, const std::string& server) {
  if (path == "/jobs") return server + "/api/jobs";
  if (path == "/api/reset") return server + "/api/workers/ID/reset";
  for (const char* same : {"/api/compute", "/api/image/txt2img", "/models/sync", "/api/comfy/sync_checkpoints"}) {
    if (path == same) return server + path;
  }
  return {};
}

bool may_look(const net::HttpRequest& request, const std::string& token) {
  if (token.empty() || request.peer.starts_with("127.") || request.peer.starts_with("[::1]")) return true;
  const auto it = request.headers.find("authorization");
  const std::string wanted = "Bearer " + token;
  return it != request.headers.end() && it->second.size() == wanted.size() &&
         CRYPTO_memcmp(it->second.data(), wanted.data(), wanted.size()) == 0;
}

}  // namespace

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
    if (request.method != "GET" && request.method != "HEAD") {
      const std::string there = server_path(request.path, pages.server);
      return problem(405, "invalid_argument",
                     there.empty() ? "Only GET is answered here."
                                   : "A worker takes work from its server only. POST this to " + there);
    }
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
    } else if (request.path == "/capabilities" || request.path == "/api/agent/runtime_metrics") {
      if (!may_look(request, pages.token))
        return problem(
            401, "unauthenticated",
            "From another machine this is told to those who send the worker's token: \"Authorization: Bearer "
            "TOKEN\".");
      const auto& page = request.path == "/capabilities" ? pages.capabilities : pages.metrics;
      exchange->respond(net::HttpResponse::json(200, page ? page() : "{}"));
    } else {
      problem(404, "not_found", "There is /health, /ready, /status, /capabilities and /api/agent/runtime_metrics.");
    }
  };
  return net::listen(loop, std::move(options), std::move(handlers));
}

}  // namespace grange::worker
