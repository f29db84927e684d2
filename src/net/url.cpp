#include "net/url.hpp"

#include <algorithm>

#include <boost/url/src.hpp>
#include <boost/url/url_view.hpp>

namespace grange::net {

namespace {

std::uint16_t usual_port(const Url& url) {
  return secure(url) ? 443 : 80;
}

// Boost 1.81 takes "127.0.0.1.nip.io" for the address that it begins with, and the rest for a path. What it read so is
// read again here. False: it is no host either.
bool read_name_like_an_address(std::string_view text, Url& url) {
  const std::size_t from = text.find("://") + 3;
  const std::size_t end = std::min(text.find_first_of("/?#", from), text.size());
  const std::string_view authority = text.substr(from, end - from);
  const std::size_t colon = std::min(authority.find(':'), authority.size());
  url.host = authority.substr(0, colon);
  for (const char c : url.host) {
    const bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (!letter && c != '.' && c != '-' && c != '_') return false;
  }
  unsigned port = colon < authority.size() ? 0 : usual_port(url);
  for (const char c : authority.substr(std::min(colon + 1, authority.size()))) {
    if (c < '0' || c > '9') return false;
    port = std::min(port * 10 + static_cast<unsigned>(c - '0'), 100'000u);
  }
  url.port = port > 65535 ? std::uint16_t{0} : static_cast<std::uint16_t>(port);
  url.target = text.substr(end, text.find('#', end) - end);
  return true;
}

}  // namespace

bool secure(const Url& url) {
  return url.scheme == "https" || url.scheme == "wss";
}

std::string host_header(const Url& url) {
  std::string host = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  if (url.port != usual_port(url)) host += ":" + std::to_string(url.port);
  return host;
}

Result<Url> parse_url(std::string_view text) {
  const Error malformed{ErrorClass::invalid_argument,
                        "\"" + std::string(text.substr(0, 200)) + "\" is not a URL such as http://127.0.0.1:8000."};
  const auto parsed = boost::urls::parse_uri(boost::core::string_view(text.data(), text.size()));
  if (!parsed) return malformed;
  const boost::urls::url_view& view = *parsed;
  Url url;
  for (const char c : std::string_view(view.scheme().data(), view.scheme().size())) {
    url.scheme.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  }
  if (!secure(url) && url.scheme != "http" && url.scheme != "ws") return malformed;
  const auto address = view.host_address();
  url.host.assign(address.data(), address.size());
  url.port = usual_port(url);
  if (view.has_port() && !view.port().empty()) {
    unsigned port = 0;
    for (const char c : std::string_view(view.port().data(), view.port().size()))
      port = std::min(port * 10 + static_cast<unsigned>(c - '0'), 100'000u);
    url.port = port > 65535 ? std::uint16_t{0} : static_cast<std::uint16_t>(port);
  }
  const auto target = view.encoded_target();
  url.target.assign(target.data(), target.size());
  const bool begins_well = url.target.empty() || url.target.front() == '/' || url.target.front() == '?';
  if (!begins_well && !read_name_like_an_address(text, url)) return malformed;
  if (url.host.empty() || url.port == 0) return malformed;
  if (!url.target.starts_with('/')) url.target.insert(0, 1, '/');
  return url;
}

}  // namespace grange::net
