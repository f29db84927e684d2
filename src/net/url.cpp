#include "net/url.hpp"

#include <algorithm>

#include <boost/url/src.hpp>
#include <boost/url/url_view.hpp>

namespace grange::net {

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
  const bool secure = url.scheme == "https" || url.scheme == "wss";
  if (!secure && url.scheme != "http" && url.scheme != "ws") return malformed;
  const auto address = view.host_address();
  url.host.assign(address.data(), address.size());
  url.port = secure ? 443 : 80;
  if (view.has_port() && !view.port().empty()) {
    unsigned port = 0;
    for (const char c : std::string_view(view.port().data(), view.port().size()))
      port = std::min(port * 10 + static_cast<unsigned>(c - '0'), 100'000u);
    url.port = port > 65535 ? std::uint16_t{0} : static_cast<std::uint16_t>(port);
  }
  if (url.host.empty() || url.port == 0) return malformed;
  const auto target = view.encoded_target();
  url.target.assign(target.data(), target.size());
  if (!url.target.starts_with('/')) url.target.insert(0, 1, '/');
  return url;
}

}  // namespace grange::net
