// Follows the output of a job or task until it ended, over lost connections: the cursor says where to go on.
#pragma once

#include <functional>
#include <optional>

#include "cli/rest.hpp"

namespace grange::cli {

struct LogChunk {
  std::uint32_t index = 0;
  std::string stream;  // stdout | stderr | log | system
  std::string bytes;
};

// The object of the log endpoints. `cursor` gets its cursor, as the query wants it back.
LogChunk read_log(const json::value& object, std::string& cursor);

// Writes chunks as they come: stdout to stdout, the rest to stderr. With `prefix`, whole lines, each with "[index] "
// before it.
class LogWriter {
 public:
  explicit LogWriter(bool prefix, bool as_json = false) : prefix_(prefix), json_(as_json) {}
  void write(const json::value& object, const LogChunk& chunk);
  void flush();  // lines without an end

 private:
  void line(int fd, std::uint32_t index, std::string_view text);
  bool prefix_, json_;
  std::map<std::pair<std::uint32_t, int>, std::string> open_;
};
void write_all(int fd, std::string_view bytes);  // a closed pipe ends the program, as it does for others

struct FollowOptions {
  std::string job;
  std::optional<std::uint32_t> index;
  std::string after;  // a cursor; empty: from the start
  std::function<bool()> stop = [] { return false; };
  Millis give_up{120'000};  // without any answer from the server
};

// Calls `on_log` on another thread than the caller's. Answers the job as JSON, or null when stopped. Throws Exit when
// the server stays away or the job is unknown.
json::value follow(Rest& rest, const FollowOptions& options,
                   const std::function<void(const json::value&, const LogChunk&)>& on_log);

std::string base64_decode(std::string_view text);

}  // namespace grange::cli
