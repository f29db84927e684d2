#include "net/http_text.hpp"

#include <algorithm>
#include <ctime>

#include <fmt/format.h>
#include <zlib.h>

#include "base/limits.hpp"

namespace grange::net {

namespace {

char low(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Calls f with each trimmed part between commas, until it answers true.
template <class F>
bool any_part(std::string_view list, F f) {
  for (;;) {
    const auto comma = list.find(',');
    const auto part = trim(list.substr(0, comma));
    if (!part.empty() && f(part)) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = low(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0) return std::nullopt;
      c = static_cast<char>(static_cast<unsigned char>(hex(text[i + 1]) * 16 + hex(text[i + 2])));
      i += 2;
      if (c == '\0') return std::nullopt;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    out.push_back(c);
  }
  return out;
}

std::string json_quote(std::string_view text) {
  const bool sound = is_utf8(text);
  std::string out = "\"";
  for (const char c : text) {
    if (!sound && static_cast<unsigned char>(c) >= 0x80) {
      out.push_back('?');
    } else if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out.push_back(c);
    }
  }
  return out + '"';
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), low);
  return out;
}

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return low(x) == low(y); });
}

bool has_token(std::string_view list, std::string_view token) {
  return any_part(list, [&](std::string_view part) { return same_ignoring_case(part, token); });
}

bool parse_target(std::string_view target, HttpRequest& into) {
  if (!target.starts_with('/')) {  // "http://host/path", as a proxy's client says it
    const auto scheme = target.find("://");
    if (scheme == std::string_view::npos) return false;
    const auto slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find('#'));
  const auto mark = target.find('?');
  auto path = percent_decode(target.substr(0, mark), false);
  if (!path) return false;
  into.path = std::move(*path);
  if (mark == std::string_view::npos) return true;
  std::string_view query = target.substr(mark + 1);
  while (!query.empty()) {
    const auto end = query.find('&');
    const auto pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view{} : query.substr(end + 1);
    if (pair.empty()) continue;
    const auto equals = pair.find('=');
    auto key = percent_decode(pair.substr(0, equals), true);
    auto value = percent_decode(equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1), true);
    if (!key || !value) return false;
    into.query[std::move(*key)] = std::move(*value);
  }
  return true;
}

bool announces_body(const HttpRequest& head) {
  const auto length = head.headers.find("content-length");
  return head.headers.contains("transfer-encoding") || (length != head.headers.end() && length->second != "0");
}

std::optional<HostPort> host_and_port(std::string_view text) {
  text = trim(text);
  std::string_view host, port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && port.front() != ':') return std::nullopt;
  } else {
    const auto colon = text.find(':');
    host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon);
    if (host.ends_with('.')) host.remove_suffix(1);
  }
  if (!port.empty()) port.remove_prefix(1);
  if (host.empty() || port.size() > 5) return std::nullopt;
  if (!std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; })) return std::nullopt;
  const auto fits = [](char c) {
    return (c >= '0' && c <= '9') || (low(c) >= 'a' && low(c) <= 'z') || c == '-' || c == '.' || c == '_' || c == ':' ||
           c == '%';
  };
  if (!std::all_of(host.begin(), host.end(), fits)) return std::nullopt;
  HostPort out{lower(host)};
  if (port.empty()) return out;
  unsigned number = 0;
  for (const char c : port) number = number * 10 + static_cast<unsigned>(c - '0');
  if (number > 65535) return std::nullopt;
  out.port = number;
  return out;
}

std::optional<std::string> host_name(std::string_view text) {
  auto at = host_and_port(text);
  if (!at) return std::nullopt;
  return std::move(at->host);
}

namespace {

// A page's "http://host:port", with the port that its scheme implies.
struct Page {
  HostPort at;
  unsigned implied = 0;
  unsigned port() const { return at.port.value_or(implied); }
};

std::optional<Page> page_of(std::string_view origin) {
  const bool secure = origin.starts_with("https://");
  if (!secure && !origin.starts_with("http://")) return std::nullopt;
  auto at = host_and_port(origin.substr(secure ? 8 : 7));
  if (!at) return std::nullopt;
  return Page{std::move(*at), secure ? 443u : 80u};
}

}  // namespace

HostGuard::HostGuard(std::string host, std::vector<std::string> more) {
  for (const auto& one : more) {
    auto at = host_and_port(one);
    pages_.push_back(at ? std::move(*at) : HostPort{lower(one)});  // a bare IPv6 address, for one
    names_.push_back(pages_.back().host);
  }
  for (const char* one : {"localhost", "127.0.0.1", "::1"}) names_.emplace_back(one);
  names_.push_back(lower(host));
}

bool HostGuard::was_named(std::string_view origin) const {
  const auto page = page_of(origin);
  return page && std::any_of(pages_.begin(), pages_.end(), [&](const HostPort& one) {
           return one.host == page->at.host && (!one.port || *one.port == page->port());
         });
}

// Another port of the same host is another program, whose page has no business here.
bool HostGuard::allows_page(std::string_view origin, const HostPort& asked) const {
  const auto page = page_of(origin);
  if (page && page->at.host == asked.host && page->port() == asked.port.value_or(page->implied)) return true;
  return was_named(origin);
}

std::optional<Error> HostGuard::refuse(std::string_view method, const std::map<std::string, std::string>& headers,
                                       const std::string& local) const {
  const auto host = headers.find("host");
  const auto asked = host == headers.end() ? std::nullopt : host_and_port(host->second);
  if (!asked)
    return Error{ErrorClass::invalid_argument,
                 "The request needs one Host header that names a host, such as \"Host: localhost\"."};
  if (asked->host != local && std::find(names_.begin(), names_.end(), asked->host) == names_.end()) {
    return Error{
        ErrorClass::forbidden,
        fmt::format("This server does not answer to the name \"{}\". Use http://localhost or the address that it "
                    "listens on, or start it with \"{}\" among its allowed hosts.",
                    asked->host, asked->host)};
  }
  const auto origin = headers.find("origin");
  const auto site = headers.find("sec-fetch-site");
  const std::string_view page = origin == headers.end() ? "another site" : std::string_view(origin->second);
  const bool acts_across = method != "GET" && site != headers.end() && site->second == "cross-site";
  if (origin == headers.end() ? !acts_across : acts_across ? was_named(page) : allows_page(page, *asked))
    return std::nullopt;
  return Error{
      ErrorClass::forbidden,
      fmt::format("A web page from \"{}\" may not use this server. Open the server's own page, or start it with "
                  "that page's host among its allowed hosts.",
                  page.substr(0, 200))};
}

std::string_view reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 426:
      return "Upgrade Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 507:
      return "Insufficient Storage";
    default:
      return status < 400 ? "OK" : "Error";
  }
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday, kMonths[utc.tm_mon],
                     utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

namespace {

void append_headers(std::string& out, const std::map<std::string, std::string>& headers) {
  for (const auto& [name, value] : headers) {
    out += name;
    out += ": ";
    for (const char c : value) out.push_back(c == '\r' || c == '\n' || c == '\0' ? ' ' : c);
    out += "\r\n";
  }
  out += "\r\n";
}

}  // namespace

std::string head_text(int status, const std::map<std::string, std::string>& headers) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", status, reason(status));
  append_headers(out, headers);
  return out;
}

std::string request_text(std::string_view method, std::string_view target,
                         const std::map<std::string, std::string>& headers) {
  std::string out = fmt::format("{} {} HTTP/1.1\r\n", method, target);
  append_headers(out, headers);
  return out;
}

const std::string* find_header(const std::map<std::string, std::string>& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (same_ignoring_case(key, name)) return &value;
  }
  return nullptr;
}

bool accepts_coding(std::string_view accept, std::string_view wanted) {
  return any_part(accept, [wanted](std::string_view part) {
    const auto semicolon = part.find(';');
    const auto coding = trim(part.substr(0, semicolon));
    if (!same_ignoring_case(coding, wanted) && coding != "*") return false;
    if (semicolon == std::string_view::npos) return true;
    auto q = trim(part.substr(semicolon + 1));
    if (!q.starts_with("q=")) return true;
    q.remove_prefix(2);
    return q.find_first_not_of("0.") != std::string_view::npos;  // q=0 is a no
  });
}

bool worth_gzip(const HttpResponse& response) {
  if (response.body.size() <= limits::kGzipFrom || response.status < 200 || response.status == 206) return false;
  if (find_header(response.headers, "content-encoding") != nullptr) return false;
  const auto* type = find_header(response.headers, "content-type");
  return type != nullptr &&
         (type->starts_with("text/") || type->find("json") != std::string::npos ||
          type->find("javascript") != std::string::npos || type->find("svg+xml") != std::string::npos);
}

std::string gzip(std::string_view body) {
  z_stream z{};
  // Large answers are squeezed less: the loop serves others, too.
  const int level = body.size() > 256 * KiB ? 1 : 6;
  if (deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return {};
  std::string out(deflateBound(&z, body.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));  // zlib does not write there
  z.avail_in = static_cast<uInt>(body.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const bool done = body.size() <= UINT32_MAX && deflate(&z, Z_FINISH) == Z_STREAM_END;
  out.resize(done ? z.total_out : 0);
  deflateEnd(&z);
  return out;
}

bool etag_matches(std::string_view if_none_match, std::string_view etag) {
  const auto strong = [](std::string_view tag) { return tag.starts_with("W/") ? tag.substr(2) : tag; };
  return any_part(if_none_match, [&](std::string_view part) { return part == "*" || strong(part) == strong(etag); });
}

HttpResponse HttpResponse::json(int status, std::string body) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

HttpResponse HttpResponse::error(const Error& error) {
  return json(http_status(error.cls),
              fmt::format(R"({{"error":{{"code":"{}","message":{},"details":{}}}}})", code(error.cls),
                          json_quote(error.message), error.details.empty() ? "{}" : error.details));
}

}  // namespace grange::net
