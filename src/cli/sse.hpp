// Server-sent events, read as they arrive in pieces (WHATWG HTML, "event stream interpretation").
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace grange::cli {

struct SseEvent {
  std::string type = "message";
  std::string data;
  std::string id;
};

class SseParser {
 public:
  explicit SseParser(std::function<void(const SseEvent&)> on_event) : on_event_(std::move(on_event)) {}
  void feed(std::string_view bytes);

 private:
  void line(std::string_view text);
  std::function<void(const SseEvent&)> on_event_;
  std::string rest_;
  bool after_cr_ = false;
  bool has_data_ = false;
  SseEvent event_;
};

}  // namespace grange::cli
