// What the engines of AI work do alike: hold their tasks until each has ended, fetch what they start from, and send
// what came out. All on the loop's thread.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "worker/engines/engines.hpp"
#include "worker/engines/task_input.hpp"

namespace grange::worker {

// `Task` has: Run run; std::unique_ptr<InputFetch> input; Blobs::WaitPtr put; pb::TaskResult result.
template <class Task>
class HeldTasks {
 public:
  using Ptr = std::shared_ptr<Task>;

  explicit HeldTasks(const EngineContext& context) : context_(context) {}

  // Holds it, and calls `begin(task, Result<TaskInput>)` with what it starts from.
  template <class Begin>
  void start(const Ptr& task, Begin begin) {
    tasks_[key(*task)] = task;
    if (needs_fetching(task->run)) stage(*task, pb::STAGE_DOWNLOAD);
    auto fetch = fetch_input(context_.blobs, task->run, while_held(task, std::move(begin)));
    task->input = std::move(fetch);
  }

  Ptr find(TaskId id, Attempt attempt) const {
    const auto it = tasks_.find({id, attempt});
    return it == tasks_.end() ? nullptr : it->second;
  }
  bool holds(const Ptr& task) const { return find(task->run.fence.task, task->run.fence.attempt) == task; }

  // `f(task, …)` as a callback that does nothing once the task has ended, and does not keep it.
  template <class F>
  auto while_held(const Ptr& task, F f) {
    return [this, weak = std::weak_ptr<Task>(task), f = std::move(f)](auto&&... given) mutable {
      if (const Ptr one = weak.lock(); one && holds(one)) f(one, std::forward<decltype(given)>(given)...);
    };
  }

  void stage(const Task& task, pb::Stage stage) {
    context_.host.stage(task.run.fence.task, task.run.fence.attempt, stage);
  }
  void event(const Task& task, std::string type, std::string data_json) {
    context_.host.event(task.run.fence.task, task.run.fence.attempt, std::move(type), std::move(data_json));
  }
  void progress(const Task& task, double done, double total, std::string text) {
    context_.host.progress(task.run.fence.task, task.run.fence.attempt, done, total, std::move(text));
  }

  void end(const Ptr& task, pb::TaskResult result) {
    tasks_.erase(key(*task));
    context_.loop.post([task] {});  // we may be inside one of its callbacks
    context_.host.ended(task->run.fence.task, task->run.fence.attempt, std::move(result));
  }

  bool is_large(const std::string& value) const { return value.size() > context_.inline_limit(); }
  // Ends it with what its `result` has so far and this value, which goes as a blob when it is large. That it uploads
  // is the engine's to say: it may have files, and have said so.
  void complete(const Ptr& task, std::string value) {
    task->result.set_ok(true);
    if (!is_large(value)) {
      task->result.set_value(std::move(value));
      return end(task, std::move(task->result));
    }
    auto put = context_.blobs.put(std::move(value), while_held(task, [this](const Ptr& one, Result<std::string> sha) {
                                    if (!sha) return end(one, failure(pb::FAILURE_ENGINE, sha.error().message));
                                    one->result.set_value_sha256(*sha);
                                    end(one, std::move(one->result));
                                  }));
    if (holds(task)) task->put = std::move(put);
  }

 private:
  static AttemptKey key(const Task& task) { return {task.run.fence.task, task.run.fence.attempt}; }

  EngineContext context_;
  std::unordered_map<AttemptKey, Ptr, AttemptKeyHash> tasks_;
};

// DATA/name, where `folder` is the worker's scratch folder DATA/x.
inline std::string file_beside(const std::string& folder, const std::string& name) {
  const std::size_t slash = folder.rfind('/');
  return (slash == std::string::npos ? std::string(".") : folder.substr(0, slash)) + "/" + name;
}

}  // namespace grange::worker
