// A small process beside the worker. If the worker is killed, nothing that its tasks started may live on: PDEATHSIG
// reaches only direct children, the guardian the rest. It holds the reading end of a pipe, is told each process group,
// and kills those left when the pipe ends.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

struct GuardianNote {
  static constexpr std::int32_t kGuard = 1, kForget = 2;
  std::int32_t what;
  std::int32_t group;
};

class Guardian {
 public:
  // Forks: call it before there are threads.
  static Result<Guardian> start();
  Guardian() = default;
  Guardian(Guardian&& other) noexcept : pipe_(std::move(other.pipe_)), pid_(std::exchange(other.pid_, -1)) {}
  Guardian& operator=(Guardian&&) = delete;
  ~Guardian();
  int fd() const { return pipe_.get(); }  // for the child, to announce itself; -1: no guardian
  void forget(pid_t group) const;         // it ended; its number may mean someone else soon
  pid_t pid() const { return pid_; }

 private:
  Fd pipe_;
  pid_t pid_ = -1;
};

}  // namespace grange::worker
