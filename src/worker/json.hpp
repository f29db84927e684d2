// Enough JSON to write a status page.
#pragma once

#include <string>
#include <string_view>

namespace grange::worker {

std::string quoted(std::string_view text);

class JsonObject {
 public:
  JsonObject& text(std::string_view key, std::string_view value) { return raw(key, quoted(value)); }
  JsonObject& flag(std::string_view key, bool value) { return raw(key, value ? "true" : "false"); }
  template <class T>
  JsonObject& number(std::string_view key, T value) {
    return raw(key, std::to_string(value));
  }
  JsonObject& raw(std::string_view key, std::string_view json) {
    out_ += (out_.size() > 1 ? "," : "") + quoted(key) + ":";
    out_ += json;
    return *this;
  }
  std::string done() { return out_ + "}"; }

 private:
  std::string out_ = "{";
};

}  // namespace grange::worker
