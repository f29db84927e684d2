// What a worker knows of a job: its spec, read once, and checked as input from a peer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "wire/frames.hpp"
#include "worker/allocator.hpp"

namespace grange::worker {

namespace pb = wire::pb;

// From python on, each is an engine's; those before run in the core.
enum class Kind : std::uint8_t {
  refused,
  noop,
  echo,
  sleep,
  fail,
  python,
  command,
  compute,
  llm,
  image,
  remote,
  models
};
inline constexpr bool has_engine(Kind kind) {
  return kind >= Kind::python;
}

struct JobInfo {
  JobNo job;
  std::string id;
  pb::JobSpec spec;
  Kind kind = Kind::refused;
  std::string refusal;                    // of a refused one: why
  std::vector<Need> needs;                // the first, then the alternatives; at least one
  std::vector<std::size_t> need_classes;  // of each; equal needs share one; the core's
  Micros time_limit{0};                   // 0: none
  Micros grace{0};                        // between the polite and the hard stop; 0: the engine's
};

JobInfo read_job(const pb::SpecOrder& order);

// A path inside the task's folder: relative, no "..", no empty or "." part, no NUL. Links are the opener's to refuse.
Result<> safe_relative(std::string_view path);

}  // namespace grange::worker
