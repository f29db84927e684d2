// Targets, hosts and origins of requests.
#include "fuzz/input.hpp"
#include "net/http_text.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  const std::string text(fuzz::text(data, size));
  net::HttpRequest request;
  (void)net::parse_target(text, request);
  if (const auto host = net::host_and_port(text)) fuzz::require(net::host_name(text) == host->host);
  static const net::HostGuard guard("farm.example:8000", {"https://other.example"});
  // A page of somewhere else never gets in, however it spells itself.
  const auto refused = guard.refuse("POST", {{"host", "farm.example:8000"}, {"origin", "http://evil.test" + text}}, "");
  fuzz::require(refused.has_value());
  (void)guard.refuse("GET", {{"host", text}, {"origin", text}}, "127.0.0.1");
  const std::string head = net::head_text(200, {{"x-text", text}});
  fuzz::require(head.find("\r\n\r\n") == head.size() - 4);  // no header ends the head before its time
  (void)net::accepts_gzip(text);
  (void)net::etag_matches(text, "\"1\"");
  return 0;
}
