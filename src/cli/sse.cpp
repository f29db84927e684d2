#include "cli/sse.hpp"

#include <utility>

namespace grange::cli {

void SseParser::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const std::size_t end = bytes.find_first_of("\r\n");
    if (end == std::string_view::npos) {
      rest_ += bytes;
      return;
    }
    after_cr_ = bytes[end] == '\r';
    if (rest_.empty()) {
      line(bytes.substr(0, end));
    } else {
      rest_ += bytes.substr(0, end);
      const std::string whole = std::exchange(rest_, {});
      line(whole);
    }
    bytes.remove_prefix(end + 1);
  }
}

void SseParser::line(std::string_view text) {
  if (text.empty()) {
    if (has_data_) on_event_(event_);
    event_ = SseEvent{"message", "", event_.id};
    has_data_ = false;
    return;
  }
  const std::size_t colon = text.find(':');
  if (colon == 0) return;  // a comment keeps the line alive
  const std::string_view field = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  if (field == "event") {
    event_.type = value;
  } else if (field == "data") {
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (field == "id") {
    event_.id = value;
  }
}

}  // namespace grange::cli
