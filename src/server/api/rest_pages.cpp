// What a browser loads: the dashboard, which is linked in, and the documentation.
#include "net/http_text.hpp"
#include "server/api/rest.hpp"
#include "server/web.hpp"

namespace grange::server {
namespace {

constexpr std::string_view kHtml = "text/html; charset=utf-8";

WebTakes takes(const net::HttpRequest& request) {
  const auto accept = request.headers.find("accept-encoding");
  if (accept == request.headers.end()) return {};
  return {.gzip = net::accepts_coding(accept->second, "gzip"), .brotli = net::accepts_coding(accept->second, "br")};
}

}  // namespace

// False: the dashboard has no such file.
bool Rest::web_file(const RestCallPtr& call, std::string_view path) {
  const WebFile* file = find_web_file(web_files(), path);
  if (file == nullptr) return false;
  auto answer = answer_web_file(*file, takes(call->request()));
  if (!answer) {
    call->fail({ErrorClass::internal, "This program's copy of the dashboard is damaged: build it again."});
    return true;
  }
  call->answer_text(200, file->type, std::move(answer->body), std::move(answer->headers));
  return true;
}

void Rest::get_page(RestCallPtr call) {
  if (!web_file(call, "/")) call->answer_text(200, kHtml, std::string(no_web_html()));
}

void Rest::get_moved_page(RestCallPtr call) {
  call->answer_text(302, "text/plain; charset=utf-8", "", {{"Location", moved_page(call->request().path)}});
}

void Rest::get_docs(RestCallPtr call) {
  // Its parts are named from the folder it stands in, which is another for /docs/.
  if (call->request().path.ends_with('/'))
    return call->answer_text(302, "text/plain; charset=utf-8", "", {{"Location", "../docs"}});
  call->answer_text(200, kHtml, docs_html());
}

void Rest::get_openapi(RestCallPtr call) {
  call->answer_text(200, "application/json", openapi_json());
}

void Rest::get_asset(RestCallPtr call) {
  const std::string& file = call->path["file"];
  if (file == "docs.js") return call->answer_text(200, "text/javascript; charset=utf-8", std::string(docs_script()));
  if (file == "docs.css") return call->answer_text(200, "text/css; charset=utf-8", std::string(docs_style()));
  if (!web_file(call, call->request().path)) call->fail({ErrorClass::not_found, "There is no such file."});
}

}  // namespace grange::server
