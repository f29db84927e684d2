// Gathers pieces of text for those who look on, so that a page is not told of each token. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/units.hpp"

namespace grange::worker {

class TokenBuffer {
 public:
  struct Limits {
    std::size_t characters = 64;
    Micros wait = std::chrono::milliseconds(100);
  };
  using Out = std::function<void(const std::string& text, std::size_t pieces, bool thinking)>;
  TokenBuffer(Limits limits, Out out) : limits_(limits), out_(std::move(out)) {}

  // Hands over when there are enough characters, a line ends, or the first piece has waited for long.
  void add(std::string_view text, bool thinking, Instant now) {
    if (thinking != thinking_) flush();
    thinking_ = thinking;
    if (pieces_ == 0) since_ = now;
    ++pieces_;
    text_ += text;
    for (const char c : text) characters_ += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (characters_ >= limits_.characters || text.find('\n') != std::string_view::npos || now >= due()) flush();
  }
  void flush() {
    if (pieces_ == 0) return;
    const std::string text = std::move(text_);
    const std::size_t pieces = pieces_;
    text_.clear();
    pieces_ = characters_ = 0;
    out_(text, pieces, thinking_);
  }
  bool empty() const { return pieces_ == 0; }
  Instant due() const { return since_ + limits_.wait; }

 private:
  Limits limits_;
  Out out_;
  std::string text_;
  std::size_t pieces_ = 0, characters_ = 0;
  bool thinking_ = false;
  Instant since_{};
};

}  // namespace grange::worker
