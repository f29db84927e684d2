// The byte protocol between a worker and `python -m grange.runner`. Pure. Integers are little-endian;
// a message is u32 length | u8 type | payload. What the executor says is input: it is checked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::worker::executor {

inline constexpr Bytes kMessage = 1 * GiB;

struct RunMessage {
  TaskId task;
  Attempt attempt = 0;
  std::uint8_t encoding = 2;
  std::string_view sha;  // 32 bytes
  std::string_view args;
  bool has_checkpoint = false;
  std::string_view checkpoint;
  std::string_view job_id;
  struct Input {
    std::uint8_t encoding = 1;
    std::string_view bytes;
  };
  std::vector<Input> inputs;
  std::vector<std::string> env;  // "NAME=value", for this run only
};
Bytes size_of(const RunMessage& message);  // about; beyond kMessage it cannot be sent
std::string code(std::string_view sha, std::string_view bytes);
std::string run(const RunMessage& message);
std::string leave();

enum class Status : std::uint8_t { ok = 0, exception = 1, bad_result = 2, bad_code = 3, permanent = 4 };
struct Ready {
  std::string json;
};
struct Ended {
  TaskId task;
  Attempt attempt = 0;
  Status status{};
  std::string value, message, traceback, exception;  // exception: its type
};
struct Progress {
  TaskId task;
  Attempt attempt = 0;
  double done = 0, total = 0;
  std::string text;
};
struct Log {
  TaskId task;
  Attempt attempt = 0;
  std::string text;
};
struct Saved {
  TaskId task;
  Attempt attempt = 0;
  std::string data;
};
using Message = std::variant<Ready, Ended, Progress, Log, Saved>;

class Reader {
 public:
  void feed(std::string_view bytes) { buffer_.append(bytes); }
  // nullopt: not whole yet. An error: the executor speaks nonsense, end it.
  Result<std::optional<Message>> next();

 private:
  std::string buffer_;
  std::size_t at_ = 0;
};

}  // namespace grange::worker::executor
