#include "server/text.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <charconv>
#include <ctime>

namespace grange::server {

std::string iso_time(WallMs t) {
  const std::time_t seconds = t.ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, t.ms % 1000);
}

std::string to_base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::string to_hex(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    out.push_back(digits[b >> 4]);
    out.push_back(digits[b & 15]);
  }
  return out;
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high * 16 + low));
  }
  return out;
}

std::string cut_utf8(std::string text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  text.resize(bytes);
  return text;
}

std::string for_log(std::string_view text, std::size_t bytes) {
  const bool cut = text.size() > bytes;
  const std::string part = cut_utf8(std::string(text.substr(0, bytes + 4)), bytes);
  const bool readable = is_utf8(part);
  std::string out;
  for (std::size_t i = 0; i < part.size(); ++i) {
    const auto c = static_cast<unsigned char>(part[i]);
    // C1 controls (U+0080 to U+009F) move cursors, too.
    const bool c1 = readable && c == 0xC2 && static_cast<unsigned char>(part[i + 1]) < 0xA0;
    if (c < 0x20 || c == 0x7f || (c >= 0x80 && !readable) || c1) {
      out += fmt::format("\\x{:02x}", c);
      if (c1) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(part[++i]));
    } else {
      out.push_back(part[i]);
    }
  }
  return cut ? out + "..." : out;
}

std::string said(core::FailureClass failure, std::string message) {
  if (!message.empty()) return message;
  switch (failure) {
    case core::FailureClass::worker_lost:
      return "The worker that ran it was lost.";
    case core::FailureClass::deadline:
      return "The job's deadline passed before it ended.";
    case core::FailureClass::dependency:
      return "What it waits for did not succeed.";
    default:
      return {};
  }
}

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

std::optional<std::uint64_t> to_number(std::string_view digits) {
  std::uint64_t value = 0;
  if (digits.empty() || digits.front() < '0' || digits.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

}  // namespace grange::server
