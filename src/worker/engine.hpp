// What runs the tasks of a kind, and what it tells the worker. All on the loop's thread.
#pragma once

#include <string>
#include <string_view>

#include "worker/core.hpp"

namespace grange::worker {

class EngineHost {
 public:
  virtual ~EngineHost() = default;
  // The attempt's one end. Times, fence, cancel and time limit are filled in by the core.
  virtual void ended(TaskId task, Attempt attempt, pb::TaskResult result) = 0;
  // False: taken, but no more until Engine::resume_output.
  virtual bool log(TaskId task, Attempt attempt, pb::Stream stream, std::string_view data) = 0;
  virtual void progress(TaskId task, Attempt attempt, double done, double total, std::string text) = 0;
  virtual void checkpoint(TaskId task, Attempt attempt, std::string data) = 0;
  // Something to see now, for who follows the task: kept by nobody here. `data_json`: an object.
  virtual void event(TaskId task, Attempt attempt, std::string type, std::string data_json) = 0;
  // It has come to this stage.
  virtual void stage(TaskId task, Attempt attempt, pb::Stage stage) = 0;
  // The engine gave up; its tasks should go elsewhere.
  virtual void engine_off(Kind kind, std::string why) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual void run(Run run) = 0;
  virtual void stop(TaskId task, Attempt attempt, StopHow how) = 0;  // `ended` follows; unknown ones are ignored
  // Its processes stand still, or go on. Nothing when there are none (yet): the core's clocks stand still all the same.
  virtual void freeze(TaskId task, Attempt attempt, bool on) = 0;
  virtual void resume_output() = 0;
  virtual void watch() = 0;  // now and then: looks at what the tasks use
};

inline pb::TaskResult failure(pb::FailureClass cls, std::string message, bool permanent = false) {
  pb::TaskResult result;
  result.set_failure(cls);
  result.set_message(std::move(message));
  result.set_permanent(permanent);
  return result;
}

struct AttemptKey {
  TaskId task;
  Attempt attempt = 0;
  friend bool operator==(const AttemptKey&, const AttemptKey&) = default;
};
struct AttemptKeyHash {
  std::size_t operator()(const AttemptKey& key) const noexcept { return std::hash<TaskId>{}(key.task) ^ key.attempt; }
};

}  // namespace grange::worker
