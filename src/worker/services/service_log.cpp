#include "worker/services/service_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/utf8.hpp"

namespace grange::worker {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// How many bytes of `text` are an escape sequence of a terminal; 0: it does not begin with one.
std::size_t escape_length(std::string_view text) {
  if (text.size() < 2 || text[0] != '\x1b') return 0;
  if (text[1] == '[') {  // CSI: parameters, then a letter
    std::size_t at = 2;
    while (at < text.size() && at < 64 && text[at] >= 0x20 && text[at] <= 0x3f) ++at;
    return at < text.size() && text[at] >= 0x40 && text[at] <= 0x7e ? at + 1 : at;
  }
  if (text[1] == ']') {  // OSC: a text that ends with BEL or ESC backslash
    for (std::size_t at = 2; at < text.size() && at < 4096; ++at) {
      if (text[at] == '\a') return at + 1;
      if (text[at] == '\n') return at;
      if (text[at] == '\x1b') return at + (at + 1 < text.size() && text[at + 1] == '\\' ? 2 : 0);
    }
  }
  return 2;
}

// The length of the character at the beginning; 0: it is none.
std::size_t character(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  const std::size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  return length == 0 || length > text.size() || !is_utf8(text.substr(0, length)) ? 0 : length;
}

// Up to `most` bytes of its end.
std::string end_of_file(const std::string& path, Bytes most, bool& whole) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat about {};
  whole = true;
  if (!file || ::fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode)) return {};
  const auto size = static_cast<Bytes>(about.st_size);
  const Bytes from = size > most ? size - most : 0;
  whole = from == 0;
  std::string out(static_cast<std::size_t>(size - from), '\0');
  std::size_t got = 0;
  while (got < out.size()) {
    const ssize_t n = ::pread(file.get(), out.data() + got, out.size() - got, static_cast<off_t>(from + got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<std::size_t>(n);
  }
  out.resize(got);
  return out;
}

}  // namespace

std::string clean_text(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const char c = bytes.front();
    if (const std::size_t escape = escape_length(bytes); escape > 0) {
      bytes.remove_prefix(escape);
    } else if (c == '\r') {
      const bool with_line_end = bytes.size() > 1 && bytes[1] == '\n';
      if (!with_line_end) out += '\n';
      bytes.remove_prefix(1);
    } else if (const std::size_t length = character(bytes); length == 0) {
      out += kReplacement;
      bytes.remove_prefix(1);
    } else {
      const bool control =
          length == 1 && ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f);
      const bool c1 = length == 2 && c == '\xC2' && static_cast<unsigned char>(bytes[1]) < 0xA0;
      if (!control && !c1) out += bytes.substr(0, length);
      bytes.remove_prefix(length);
    }
  }
  return out;
}

std::string_view last_lines(std::string_view text, std::size_t lines, std::size_t bytes) {
  std::size_t from = text.size();
  std::size_t at = text.ends_with('\n') ? text.size() - 1 : text.size();
  while (lines > 0 && from > 0) {
    const std::size_t end = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
    const std::size_t begin = end == std::string_view::npos ? 0 : end + 1;
    if (text.size() - begin > bytes) break;
    from = begin;
    --lines;
    if (begin == 0) break;
    at = begin - 1;
  }
  // A single line that is longer than that: its end.
  if (from == text.size() && lines > 0 && !text.empty()) {
    from = text.size() - std::min(text.size(), bytes);
    while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) ++from;
  }
  return text.substr(from);
}

Result<> ServiceLog::open() {
  if (file_) return {};
  struct stat about {};
  const Bytes before = ::stat((path_ + ".1").c_str(), &about) == 0 ? static_cast<Bytes>(about.st_size) : 0;
  // A link there would lead our writing elsewhere, a pipe would hold it up.
  file_ = Fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (!file_ || ::fstat(file_.get(), &about) != 0)
    return Error{ErrorClass::io, "The log " + path_ + " cannot be written: " + std::strerror(errno)};
  if (!S_ISREG(about.st_mode)) {
    file_.reset();
    return Error{ErrorClass::io, "The log " + path_ + " cannot be written: it is not a file. Remove it."};
  }
  size_ = static_cast<Bytes>(about.st_size);
  if (written_ == 0) written_ = before + size_;
  return {};
}

Result<> ServiceLog::append(std::string_view bytes) {
  if (auto opened = open(); !opened) return opened;
  if (size_ > 0 && size_ + bytes.size() > limit_) {
    file_.reset();
    if (::rename(path_.c_str(), (path_ + ".1").c_str()) != 0 && ::truncate(path_.c_str(), 0) != 0)
      return Error{ErrorClass::io, "The log " + path_ + " cannot be turned over: " + std::strerror(errno)};
    if (auto opened = open(); !opened) return opened;
  }
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error{ErrorClass::io, "The log " + path_ + " cannot be written: " + std::strerror(errno)};
    size_ += static_cast<Bytes>(n);
    written_ += static_cast<std::uint64_t>(n);
    half_line_ = bytes[static_cast<std::size_t>(n) - 1] != '\n';
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> ServiceLog::line(std::string_view text) {
  std::string all = half_line_ ? "\n" : "";
  all.append(text).append("\n");
  return append(all);
}

ServiceLog::Tail ServiceLog::tail(std::size_t lines, std::uint64_t after) {
  Tail out;
  if (!open()) return out;
  constexpr Bytes kMost = 2 * kLogText;  // escape sequences go, and lines with them
  const bool continues = after != 0 && after <= written_;
  const Bytes wanted = continues ? std::min<Bytes>(kMost, written_ - after) : kMost;
  bool whole = true;
  std::string text = end_of_file(path_, wanted, whole);
  if (whole && text.size() < wanted) {
    bool whole_before = true;
    text = end_of_file(path_ + ".1", wanted - text.size(), whole_before) + text;
    whole = whole_before;
  }
  // What a service has begun to write comes with the next question.
  const std::size_t end = text.find_last_of("\n\r");
  const std::size_t kept = end == std::string::npos ? 0 : end + 1;
  out.end = written_ - (text.size() - kept);
  text.resize(kept);
  if (!whole && !(continues && written_ - after <= kMost))
    text.erase(0, std::min(text.find('\n'), text.size() - 1) + 1);
  const std::string clean = clean_text(text);
  out.text = last_lines(clean, std::min(lines, kLogLines), kLogText);
  return out;
}

}  // namespace grange::worker
