// The server's REST interface for commands: blocking calls that answer with JSON or throw Exit.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/context.hpp"
#include "net/http_client.hpp"

namespace grange::cli {

namespace json = boost::json;

class Rest {
 public:
  explicit Rest(const Context& context);
  Rest(std::string url, std::string token);
  ~Rest();

  json::value get(const std::string& path, Millis idle = Millis{30'000});
  json::value post(const std::string& path, const json::value& body = nullptr,
                   std::map<std::string, std::string> headers = {});
  json::value put(const std::string& path, const json::value& body);
  json::value remove(const std::string& path);
  std::optional<json::value> find(const std::string& path);  // nullopt: 404
  // Like get and post, with the bytes of the answer as they are.
  std::string text(const std::string& method, const std::string& path);
  void upload(const std::string& sha256, const std::string& file);  // skipped when the server has it
  void download(const std::string& sha256, const std::string& file);
  std::string blob(const std::string& sha256);

  // Any method; an answer of 4xx or 5xx is returned, not thrown. Only "not reachable" and the like are errors.
  Result<net::ClientResponse> call(net::ClientRequest request);
  // Reads a body as it arrives, until it ends, `stop` says so (asked every 50 ms), or the connection fails.
  Result<net::ClientResponse> stream(const std::string& path, std::function<void(std::string_view)> on_chunk,
                                     const std::function<bool()>& stop);
  [[noreturn]] void fail_with(const net::ClientResponse& response) const;
  [[noreturn]] void fail_with(const Error& error) const;
  const std::string& url() const { return url_; }

 private:
  net::ClientRequest request(std::string method, const std::string& path) const;
  json::value answer(Result<net::ClientResponse> response) const;
  std::string url_, token_;
  std::unique_ptr<net::Loop> loop_;
  std::unique_ptr<net::HttpClient> http_;
};

std::string escape(std::string_view path_part);  // percent-encoding for a path or query

// Fields of an answer; missing or of another type: the fallback.
std::string str(const json::value& object, std::string_view key, std::string fallback = "");
std::int64_t num(const json::value& object, std::string_view key, std::int64_t fallback = 0);
double real(const json::value& object, std::string_view key, double fallback = 0);
bool flag(const json::value& object, std::string_view key);
const json::value* field(const json::value& object, std::string_view key);
json::array list(const json::value& value);  // throws Exit when the answer is no list

std::string to_json(const json::value& value);
void print_json(const json::value& value);  // one line on stdout

}  // namespace grange::cli
