#include "worker/engines/compute.hpp"

#include <boost/json/serialize.hpp>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

namespace grange::worker {

namespace {

namespace json = boost::json;

std::string line_json(const std::string& line) {
  return json::serialize(json::object{{"line", line}});
}

pb::TaskResult result_of(const Result<ComputeOutcome>& ran) {
  if (!ran) {
    const Error& why = ran.error();
    switch (why.cls) {
      case ErrorClass::cancelled:
        return failure(pb::FAILURE_CANCELLED, why.message);
      case ErrorClass::invalid_argument:
        return failure(pb::FAILURE_REFUSED, why.message, true);
      case ErrorClass::too_large:
        return failure(pb::FAILURE_OUT_OF_MEMORY, why.message);
      default:
        return failure(pb::FAILURE_ENGINE, why.message);
    }
  }
  pb::TaskResult result;
  if (!ran->wrong.empty()) {
    result = failure(pb::FAILURE_ENGINE, ran->wrong);
    result.set_exception("wrong_result");
  } else {
    result.set_ok(true);
  }
  result.set_value(json::serialize(ran->value));
  return result;
}

// A thread each, which starts those that its kernel asks for. How many run at once is the core's to say.
class ComputeEngine final : public Engine {
 public:
  ComputeEngine(net::Loop& loop, EngineHost& host, std::string folder)
      : loop_(loop), host_(host), folder_(std::move(folder)), alive_(std::make_shared<bool>(true)) {}
  ~ComputeEngine() override {
    for (auto& [key, task] : tasks_) task->control->stop();
    for (auto& [key, task] : tasks_) {
      if (task->thread.joinable()) task->thread.join();
    }
  }

  void run(Run run) override {
    const AttemptKey key{run.fence.task, run.fence.attempt};
    host_.stage(key.task, key.attempt, pb::STAGE_EXECUTE);
    if (!run.args_sha256.empty()) {
      host_.ended(
          key.task, key.attempt,
          failure(pb::FAILURE_REFUSED, "The argument is too large; a compute task takes a small JSON object.", true));
      return;
    }
    const pb::JobSpec& spec = run.job->spec;
    auto read =
        read_compute(spec.compute(), run.args, run.cpus_milli != 0 ? run.cpus_milli : spec.requirements().cpus_milli());
    if (!read) {
      host_.ended(key.task, key.attempt, failure(pb::FAILURE_REFUSED, read.error().message, true));
      return;
    }
    auto task = std::make_unique<Task>();
    const ComputeTask asked = std::move(*read);
    task->control = std::make_shared<compute::Control>(
        [this, key, asked, alive = std::weak_ptr<bool>(alive_), &loop = loop_](const compute::Control::Progress& p) {
          loop.post([this, key, asked, alive, p] {
            if (!alive.expired()) show(key, asked, p);
          });
        },
        asked.interval);
    say(key, first_line(asked));
    const auto work = [this, key, asked, control = task->control, folder = folder_, memory = run.memory,
                       alive = std::weak_ptr<bool>(alive_), &loop = loop_] {
      auto ran = std::make_shared<Result<ComputeOutcome>>(run_compute(asked, folder, memory, *control));
      loop.post([this, key, ran, alive] {
        if (!alive.expired()) end(key, *ran);
      });
    };
    try {
      task->thread = std::thread(work);
    } catch (const std::system_error& e) {
      host_.ended(key.task, key.attempt,
                  failure(pb::FAILURE_ENGINE, std::string("The machine gave no thread: ") + e.what() + "."));
      return;
    }
    tasks_[key] = std::move(task);
  }

  void stop(TaskId task, Attempt attempt, StopHow) override {
    if (const auto it = tasks_.find({task, attempt}); it != tasks_.end()) it->second->control->stop();
  }
  void freeze(TaskId task, Attempt attempt, bool on) override {
    if (const auto it = tasks_.find({task, attempt}); it != tasks_.end()) it->second->control->pause(on);
  }
  void resume_output() override {}
  void watch() override {}

 private:
  struct Task {
    std::shared_ptr<compute::Control> control;
    std::thread thread;
  };

  void say(const AttemptKey& key, const std::string& line) {
    host_.event(key.task, key.attempt, "compute_line", line_json(line));
  }

  void show(const AttemptKey& key, const ComputeTask& asked, const compute::Control::Progress& p) {
    if (!tasks_.contains(key)) return;
    const std::string line = progress_line(asked, p);
    say(key, line);
    host_.progress(key.task, key.attempt, p.fraction, 1, line);
  }

  void end(const AttemptKey& key, const Result<ComputeOutcome>& ran) {
    const auto it = tasks_.find(key);
    if (it == tasks_.end()) return;
    it->second->thread.join();  // it has posted its last
    tasks_.erase(it);
    if (ran) {
      for (const std::string& line : ran->summary) say(key, line);
      if (!ran->wrong.empty()) say(key, "Wrong: " + ran->wrong);
    } else {
      say(key, "Ended: " + ran.error().message);
    }
    host_.ended(key.task, key.attempt, result_of(ran));
  }

  net::Loop& loop_;
  EngineHost& host_;
  const std::string folder_;
  std::unordered_map<AttemptKey, std::unique_ptr<Task>, AttemptKeyHash> tasks_;
  std::shared_ptr<bool> alive_;
};

}  // namespace

std::unique_ptr<Engine> make_compute_engine(net::Loop& loop, EngineHost& host, std::string folder) {
  return std::make_unique<ComputeEngine>(loop, host, std::move(folder));
}

std::unique_ptr<Engine> make_compute_engine(const EngineContext& context) {
  return make_compute_engine(context.loop, context.host, context.folder);
}

}  // namespace grange::worker
