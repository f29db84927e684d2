// What the owner of a machine writes of a service that the worker keeps running.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/services/care.hpp"

namespace grange::worker {

struct CareSpec {
  std::string name;
  std::string kind;  // ollama | llamacpp | openai | comfyui | other
  std::string url;   // no slash at the end
  std::vector<std::string> command;
  std::map<std::string, std::string> env = {};
  std::string cwd = {};  // "": the worker's
  std::vector<std::string> after = {};
  std::string health = {};  // a path; "": by its kind
  Millis start_timeout{120'000}, stop_timeout{10'000}, hang_timeout{60'000};
  std::uint32_t restarts = 10;  // in ten minutes
  std::optional<Bytes> memory = {};
};

inline constexpr std::size_t kCareServices = 32;

// Puts in what was left out, and says what cannot be: two of a name, one that waits for itself.
Result<std::vector<CareSpec>> checked_care(std::vector<CareSpec> all);
std::vector<CareRule> care_rules(const std::vector<CareSpec>& all);  // of checked ones

}  // namespace grange::worker
