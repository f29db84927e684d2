#include "worker/engines/remote_rules.hpp"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <utility>

#include "base/http_time.hpp"
#include "net/url.hpp"
#include "worker/engines/base64.hpp"
#include "worker/sha256.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kEventBytes = 4 * MiB;
constexpr std::int64_t kDayMs = 86'400'000;

bool is_local_host(const std::string& host) {
  return host == "localhost" || host == "::1" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

std::optional<double> finite_number(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double out = std::strtod(copy.c_str(), &end);
  if (copy.empty() || end != copy.c_str() + copy.size() || !std::isfinite(out)) return std::nullopt;
  return out;
}

bool key_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-';
}

std::string hash_of(const std::string& key) {
  return sha256(key).substr(0, 16);
}

}  // namespace

Result<> safe_for_keys(const std::string& url) {
  const auto parsed = net::parse_url(url);
  if (!parsed) return parsed.error();
  if (parsed->scheme == "https" || (parsed->scheme == "http" && is_local_host(parsed->host))) return {};
  return Error{ErrorClass::invalid_argument, "A key is only sent over https, or by http to this machine itself; \"" +
                                                 parsed->host + "\" is neither. Give the service an https:// URL."};
}

bool same_service(const std::string& base, const std::string& url) {
  const auto a = net::parse_url(base), b = net::parse_url(url);
  if (!a || !b || !safe_for_keys(url)) return false;
  if (a->host == b->host && a->port == b->port) return true;
  const auto within = [](const std::string& host, std::string_view domain) {
    return host == domain || host.ends_with("." + std::string(domain));
  };
  // Replicate streams from another domain of its own.
  return within(a->host, "replicate.com") && (within(b->host, "replicate.com") || within(b->host, "replicate.net"));
}

bool cancel_heard(int status) {
  return status / 100 == 2 || status == 404 || status == 409 || status == 410;
}

std::optional<Millis> retry_after(const Headers& headers, std::int64_t wall_ms) {
  const auto value = [&](const char* name) -> std::string {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string() : it->second;
  };
  const auto bounded = [](double ms) { return Millis(static_cast<std::int64_t>(std::clamp(ms, 0.0, 1e12))); };
  if (const auto ms = finite_number(value("retry-after-ms"))) return bounded(*ms);
  const std::string text = value("retry-after");
  if (text.empty()) return std::nullopt;
  if (const auto seconds = finite_number(text)) return bounded(*seconds * 1000);
  const auto until = http_time(text);
  if (!until) return std::nullopt;
  return bounded(static_cast<double>(until->ms - wall_ms));
}

std::string without_key(std::string_view text, std::string_view key) {
  std::string out(text);
  if (key.size() < 4) return out;
  constexpr std::string_view kInstead = "[key]";  // which a key may be part of
  for (std::size_t at = 0; (at = out.find(key, at)) != std::string::npos; at += kInstead.size())
    out.replace(at, key.size(), kInstead);
  return out;
}

std::string redacted(std::string_view text, std::string_view key) {
  std::string out = without_key(text, key);
  for (const std::string_view mark : {"sk-", "r8_", "rpa_"}) {
    for (std::size_t at = 0; (at = out.find(mark, at)) != std::string::npos;) {
      std::size_t end = at;
      while (end < out.size() && key_char(out[end])) ++end;
      const bool begins = at == 0 || !key_char(out[at - 1]);
      if (begins && end - at >= 16) out.replace(at, end - at, "[key]");
      at += mark.size();
    }
  }
  return out;
}

Result<Prices> read_prices(std::string_view text) {
  Prices out;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    const std::size_t equals = one.find('=');
    const double value = equals == std::string_view::npos ? -1 : finite_number(one.substr(equals + 1)).value_or(-1);
    const std::string_view name = one.substr(0, equals);
    double* const into = name == "in"       ? &out.per_m_in
                         : name == "out"    ? &out.per_m_out
                         : name == "second" ? &out.per_second
                         : name == "call"   ? &out.per_call
                                            : nullptr;
    if (into == nullptr || value < 0)
      return Error{ErrorClass::invalid_argument,
                   "\"" + std::string(one.substr(0, 100)) +
                       "\" is no price: write in=, out= (of a million tokens), second= or "
                       "call= and a number."};
    *into = value;
  }
  return out;
}

Spending::Spending(std::string file) : file_(std::move(file)) {
  if (file_.empty()) return;
  std::ifstream in(file_);
  std::string key;
  Day day;
  while (days_.size() < 10'000 && in >> key >> day.day >> day.cost) {
    if (day.cost >= 0) days_[key] = day;
  }
}

double Spending::today(const std::string& key, std::int64_t wall_ms) const {
  const auto it = days_.find(hash_of(key));
  return it == days_.end() || it->second.day != wall_ms / kDayMs ? 0 : it->second.cost;
}

void Spending::add(const std::string& key, double cost, std::int64_t wall_ms) {
  if (!(cost > 0)) return;
  Day& day = days_[hash_of(key)];
  if (day.day != wall_ms / kDayMs) day = {wall_ms / kDayMs, 0};
  day.cost += cost;
  if (file_.empty()) return;
  const std::string next = file_ + ".new";
  std::ofstream out(next, std::ios::trunc);
  out.precision(17);
  for (const auto& [name, one] : days_) out << name << ' ' << one.day << ' ' << one.cost << '\n';
  out.close();
  if (out) ::rename(next.c_str(), file_.c_str());
}

Result<> check_replicate_webhook(const Headers& headers, std::string_view body, std::string_view secret,
                                 std::int64_t wall_ms, Millis tolerance) {
  const auto wrong = [](std::string why) { return Error{ErrorClass::unauthenticated, std::move(why)}; };
  const auto value = [&](const char* name) -> std::string {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string() : it->second;
  };
  const std::string id = value("webhook-id"), stamp = value("webhook-timestamp"),
                    signatures = value("webhook-signature");
  if (id.empty() || stamp.empty() || signatures.empty())
    return wrong("The webhook has no webhook-id, webhook-timestamp or webhook-signature.");
  const bool digits = stamp.size() <= 12 && stamp.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::abs(std::atoll(stamp.c_str()) * 1000 - wall_ms) > tolerance.count())
    return wrong("The webhook is too old, or the clock of this machine is wrong.");
  const std::size_t mark = secret.find('_');
  const auto key = from_base64(mark == std::string_view::npos ? secret : secret.substr(mark + 1));
  if (!key || key->empty())
    return Error{ErrorClass::invalid_argument, "The webhook's secret is not of the form whsec_…"};
  std::string said = id + "." + stamp + ".";
  said += body;
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key->data(), static_cast<int>(key->size()), reinterpret_cast<const unsigned char*>(said.data()),
       said.size(), mac, &size);
  const std::string expected = "v1," + to_base64(std::string_view(reinterpret_cast<const char*>(mac), size));
  std::string_view rest = signatures;
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    if (one.size() == expected.size() && CRYPTO_memcmp(one.data(), expected.data(), one.size()) == 0) return {};
  }
  return wrong("The webhook's signature is wrong: it was not sent by Replicate, or the secret is another one's.");
}

bool SseReader::feed(std::string_view bytes, const Out& out) {
  while (!bytes.empty() && !broken_) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {  // the second half of a line's end
      bytes.remove_prefix(1);
      continue;
    }
    const std::size_t end = bytes.find_first_of("\r\n");
    if (rest_.size() + std::min(end, bytes.size()) + data_.size() > kEventBytes) {
      broken_ = true;
      break;
    }
    rest_ += bytes.substr(0, end);
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    const std::string whole = std::exchange(rest_, {});
    line(whole, out);
  }
  return !broken_;
}

void SseReader::line(std::string_view text, const Out& out) {
  if (text.empty()) {
    if (has_data_ || !event_.empty()) out(event_, data_);
    event_.clear();
    data_.clear();
    has_data_ = false;
    return;
  }
  if (text.front() == ':') return;  // a comment: the connection lives
  const std::size_t colon = text.find(':');
  const std::string_view field = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "event") event_ = value;
  if (field == "data") {
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
}

}  // namespace grange::worker
