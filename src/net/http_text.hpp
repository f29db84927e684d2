// The text of HTTP: targets, names of hosts, heads of answers, small negotiations. No sockets.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.hpp"
#include "net/listener.hpp"

namespace grange::net {

std::string lower(std::string_view text);
bool same_ignoring_case(std::string_view a, std::string_view b);
// Whether a comma-separated header names `token`.
bool has_token(std::string_view list, std::string_view token);

// Fills path and query. False: malformed.
bool parse_target(std::string_view target, HttpRequest& into);

// "Example.com:80" -> "example.com" and 80, "[::1]" -> "::1" and no port; nothing when it is no host.
struct HostPort {
  std::string host;
  std::optional<unsigned> port = {};
};
std::optional<HostPort> host_and_port(std::string_view text);
std::optional<std::string> host_name(std::string_view text);

// Keeps web pages away: a page's script can reach a local port, but cannot choose the Host and Origin that its browser
// sends.
class HostGuard {
 public:
  HostGuard(std::string host, std::vector<std::string> more);
  // `local` is the address at which the connection arrived: naming it is no trick.
  std::optional<Error> refuse(std::string_view method, const std::map<std::string, std::string>& headers,
                              const std::string& local) const;

 private:
  bool allows_page(std::string_view origin, const HostPort& asked) const;
  bool was_named(std::string_view origin) const;
  std::vector<std::string> names_;
  std::vector<HostPort> pages_;  // those that were named: no port is any port
};

std::string_view reason(int status);
std::string http_date();  // of now
// Status line and headers, with the empty line. Header values are kept on one line.
std::string head_text(int status, const std::map<std::string, std::string>& headers);
std::string request_text(std::string_view method, std::string_view target,
                         const std::map<std::string, std::string>& headers);
const std::string* find_header(const std::map<std::string, std::string>& headers, std::string_view name);

bool accepts_coding(std::string_view accept_encoding, std::string_view coding);  // "gzip", "br"
bool worth_gzip(const HttpResponse& response);
std::string gzip(std::string_view body);
bool etag_matches(std::string_view if_none_match, std::string_view etag);

}  // namespace grange::net
