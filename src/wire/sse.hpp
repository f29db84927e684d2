// Lines, and server-sent events, read as they arrive in pieces (WHATWG HTML, "event stream interpretation").
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace grange::wire {

// A line ends with LF, CR or CR LF. What is longer than `limit` ends the reading: full() is true from then on, and
// nothing more is given out.
class LineSplitter {
 public:
  explicit LineSplitter(std::size_t limit = SIZE_MAX) : limit_(limit) {}
  // on_line: bool(std::string_view), without its end; false stops the reading of these bytes.
  template <class OnLine>
  void feed(std::string_view bytes, OnLine&& on_line) {
    while (!bytes.empty() && !full_) {
      if (after_cr_) {
        after_cr_ = false;
        if (bytes.front() == '\n') {
          bytes.remove_prefix(1);
          continue;
        }
      }
      const std::size_t end = bytes.find_first_of("\r\n");
      const std::string_view piece = bytes.substr(0, end);
      if (piece.size() > limit_ - rest_.size()) {
        full_ = true;
        rest_ = {};
        return;
      }
      if (end == std::string_view::npos) {
        rest_ += piece;
        return;
      }
      after_cr_ = bytes[end] == '\r';
      bytes.remove_prefix(end + 1);
      if (rest_.empty()) {
        if (!on_line(piece)) return;
        continue;
      }
      rest_ += piece;
      const std::string whole = take();
      if (!on_line(std::string_view(whole))) return;
    }
  }
  // The line that no end has come for.
  std::string take() {
    std::string line;
    line.swap(rest_);
    return line;
  }
  bool full() const { return full_; }
  std::size_t held() const { return rest_.capacity(); }

 private:
  std::size_t limit_;
  std::string rest_;
  bool after_cr_ = false;
  bool full_ = false;
};

struct SseEvent {
  std::string type = "message";
  std::string data;
  std::string id;
};

class SseParser {
 public:
  // limit: of a line, and of the data of an event. on_field is told of fields that the standard does not know.
  using OnEvent = std::function<void(const SseEvent&)>;
  using OnField = std::function<void(std::string_view name, std::string_view value)>;
  explicit SseParser(OnEvent on_event, std::size_t limit = SIZE_MAX, OnField on_field = {})
      : on_event_(std::move(on_event)), on_field_(std::move(on_field)), limit_(limit), lines_(limit) {}
  void feed(std::string_view bytes);
  // The stream has ended. The standard drops an event that no empty line closed; here it is given out.
  void finish();
  bool full() const { return full_ || lines_.full(); }
  // Memory that the beginning of an event takes, or its predecessors left taken.
  std::size_t held() const {
    return lines_.held() + event_.type.capacity() + event_.data.capacity() + event_.id.capacity();
  }

 private:
  void line(std::string_view text);
  OnEvent on_event_;
  OnField on_field_;
  std::size_t limit_;
  LineSplitter lines_;
  bool has_data_ = false;
  bool full_ = false;
  SseEvent event_;
};

}  // namespace grange::wire
