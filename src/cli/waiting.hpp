// Why a job waits, in one sentence of the server.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "cli/rest.hpp"

namespace grange::cli {

// Of an answer of `explain`; empty: nothing holds it back.
std::string why_it_waits(const json::value& explanation);

// The same for a job that has nothing running; empty also when it runs or has ended. Asks the server.
std::string why_it_waits(Rest& rest, const json::value& job);

inline constexpr Millis kPatience{2000};  // before it is said

// Says it on stderr, once, when the job waits for so long. Never throws.
void say_what_it_waits_for(Rest& rest, const std::string& id);

// A thread that says it, for a caller that is busy following the output. `heard`: output came, so there is no need.
class Patience {
 public:
  Patience(Rest& rest, std::string id, const std::atomic<bool>& heard);
  ~Patience();

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace grange::cli
