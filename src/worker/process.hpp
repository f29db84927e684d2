// A child process on the loop: its output as it comes, its end with what it used. Killing means it and all that it
// started.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/loop.hpp"
#include "worker/guardian.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

enum class Output : std::uint8_t { out = 0, err = 1 };

struct ExitStatus {
  int code = 0;    // of a normal exit
  int signal = 0;  // or the signal that ended it
  Micros cpu{0};
  Bytes max_rss = 0;
  std::vector<std::string> leftovers;  // names of what it had left running; that was ended
  int shell_code() const { return signal != 0 ? 128 + signal : code; }
};

struct ProcessEvents {
  // At most limits::kLogChunk at a time. False: taken, but hold back until resume().
  std::function<bool(Output, std::string_view)> on_output;
  // Once, last: it ended, its group was killed, its output is read. The Process may be destroyed in here.
  std::function<void(const ExitStatus&)> on_exit;
};

struct ProcessSpec {
  std::string program;
  std::vector<std::string> argv, env;
  std::string folder;
  bool feeds_stdin = false;
  std::string stdin_bytes;  // written as the child reads, then closed
  int extra_fd = -1;
};

class Process {
 public:
  // `guardian` may be null and outlives the Process.
  static Result<std::unique_ptr<Process>> start(net::Loop& loop, const Guardian* guardian, const ProcessSpec& spec,
                                                ProcessEvents events);
  ~Process();  // kills what is left; no event follows
  pid_t pid() const;
  void signal(int number);         // the whole group
  void signal_leader(int number);  // only the process itself
  void signal_all(int number);     // it and everything below it, wherever that went
  Bytes memory(bool exact) const;  // of all these
  void resume();
  void drain();  // hands over, now, all output that is already there
  bool ended() const;

 private:
  struct Impl;
  explicit Process(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace grange::worker
