// What a task of an AI engine starts from: its argument and its parents' results, fetched where they are blobs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/blobs.hpp"
#include "worker/core.hpp"

namespace grange::worker {

struct TaskInput {
  struct Parent {
    pb::Encoding encoding{};
    std::string value;
  };
  std::string args;  // as it came: a JSON list of positional arguments, or nothing
  std::vector<Parent> parents;
};

// Destroyed: the callback does not come. It may come before `fetch_input` returns, and then it returns null.
class InputFetch {
 public:
  virtual ~InputFetch() = default;
};
bool needs_fetching(const Run& run);
std::unique_ptr<InputFetch> fetch_input(Blobs& blobs, Run& run, std::function<void(Result<TaskInput>)> done);

}  // namespace grange::worker
