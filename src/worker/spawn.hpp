// Starts a child process: clean environment, own process group, no new privileges, no descriptors of ours, and it dies
// with us.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::worker {

// An owned file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read, write;
};
Result<Pipe> make_pipe();
void set_nonblocking(int fd);

struct ChildSpec {
  std::string program;  // path of the file
  std::vector<std::string> argv;
  std::vector<std::string> env;  // "NAME=value": all of it, nothing is inherited
  std::string folder;            // working directory; empty: ours
  int stdin_fd = -1;             // -1: /dev/null
  int stdout_fd = -1;
  int stderr_fd = -1;
  int extra_fd = -1;     // becomes descriptor 3
  int guardian_fd = -1;  // told of the new process group before anything of the child's runs
  rlim_t files = 65'536;
};
struct Child {
  pid_t pid = -1;
  Fd pidfd;
};

// not_found: no such program; forbidden: not executable.
Result<Child> spawn(const ChildSpec& spec);

// The file that `name` means, seen from `folder` with this PATH.
Result<std::string> find_program(std::string_view name, std::string_view path, const std::string& folder);

struct BoundedOutput {
  bool ended = false;
  int exit_code = -1;
  std::string out, err;
};  // not ended: killed at the time limit
// Blocks: for a few questions at start only.
Result<BoundedOutput> run_bounded(const ChildSpec& spec, Millis limit);

inline constexpr std::string_view kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

}  // namespace grange::worker
