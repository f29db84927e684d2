// The parts of a URL that a connection needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace grange::net {

struct Url {
  std::string scheme;  // lower case
  std::string host;    // without brackets
  std::uint16_t port = 0;
  std::string target;  // "/path?query", never empty
};

// http, https, ws and wss; the port has its usual default.
Result<Url> parse_url(std::string_view text);
bool secure(const Url& url);              // https or wss
std::string host_header(const Url& url);  // the port only where it is not the usual one

}  // namespace grange::net
