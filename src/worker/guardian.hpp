// A small process beside the worker. If the worker is killed, nothing that its tasks started may live on: PDEATHSIG
// reaches only direct children, the guardian the rest. It holds the reading end of a pipe, is told each process group,
// and kills those left when the pipe ends, and whoever left his group but has the worker's mark in his environment.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

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
  // Forks: call it before there are threads. `mark`: "NAME=value" in the environment of all that is started; may be
  // empty.
  static Result<Guardian> start(const std::string& mark = {});
  Guardian() = default;
  Guardian(Guardian&& other) noexcept
      : pipe_(std::move(other.pipe_)), mark_(std::move(other.mark_)), pid_(std::exchange(other.pid_, -1)) {}
  Guardian& operator=(Guardian&&) = delete;
  ~Guardian();
  int fd() const { return pipe_.get(); }  // for the child, to announce itself; -1: no guardian
  void forget(pid_t group) const;         // it ended; its number may mean someone else soon
  pid_t pid() const { return pid_; }
  const std::string& mark() const { return mark_; }

 private:
  Fd pipe_;
  std::string mark_;
  pid_t pid_ = -1;
};

}  // namespace grange::worker
