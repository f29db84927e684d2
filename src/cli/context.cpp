#include "cli/context.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "cli/exit.hpp"

namespace grange::cli {

void Context::settle() {
  url_given = !url.empty();
  if (url.empty()) {
    const char* from_env = std::getenv("GRANGE_URL");
    url = from_env != nullptr && *from_env != '\0' ? from_env : kDefaultUrl;
  }
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (url.rfind("http://", 0) != 0) {
    throw Exit{kUsage, "\"" + url + "\" is not an address of a server; write it as http://HOST:PORT, for example " +
                           kDefaultUrl + "."};
  }
}

std::string Context::token() const {
  if (token_file.empty()) {
    const char* from_env = std::getenv("GRANGE_TOKEN");
    return from_env == nullptr ? "" : from_env;
  }
  std::ifstream file(token_file, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    throw Exit{kUsage, "The token file " + token_file +
                           " cannot be read; create one with: (umask 077; openssl rand -hex 32 > " + token_file + ")"};
  }
  std::string token = text.str();
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' ')) token.pop_back();
  if (token.empty()) {
    throw Exit{kUsage, "The token file " + token_file + " is empty; fill it with: (umask 077; openssl rand -hex 32 > " +
                           token_file + ")"};
  }
  for (const char c : token) {
    if (c <= ' ' || c > '~') {
      throw Exit{kUsage,
                 "The token file " + token_file + " must hold one line of printable characters without spaces."};
    }
  }
  return token;
}

}  // namespace grange::cli
