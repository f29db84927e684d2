#include "wire/sse.hpp"

#include <utility>

namespace grange::wire {
namespace {

constexpr std::size_t kKept = 64 * 1024;  // of the room for an event, for the next one

}  // namespace

void SseParser::feed(std::string_view bytes) {
  if (full_) return;
  lines_.feed(bytes, [this](std::string_view text) {
    line(text);
    return !full_;
  });
}

void SseParser::finish() {
  if (full()) return;
  if (const std::string last = lines_.take(); !last.empty()) line(last);
  if (!full_) line({});
}

void SseParser::line(std::string_view text) {
  if (text.empty()) {
    if (has_data_) on_event_(event_);
    if (event_.data.capacity() > kKept) std::string().swap(event_.data);
    event_ = SseEvent{"message", "", std::move(event_.id)};
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
    if (value.size() >= limit_ - event_.data.size()) {
      full_ = true;
      event_ = {};
      return;
    }
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (field == "id") {
    event_.id = value;
  } else if (on_field_) {
    on_field_(field, value);
  }
}

}  // namespace grange::wire
