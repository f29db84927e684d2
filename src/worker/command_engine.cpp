#include "worker/command_engine.hpp"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "worker/leftovers.hpp"
#include "worker/process.hpp"
#include "worker/resources.hpp"
#include "worker/task_env.hpp"
#include "worker/task_folder.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kStdoutTail = 64 * KiB;  // of stdout: the task's value
constexpr std::size_t kLastLine = 500;         // of stderr: in the failure's message
constexpr std::size_t kArgInEnv = 100'000;     // the kernel refuses longer strings

void keep_tail(std::string& tail, std::string_view data, std::size_t limit) {
  if (data.size() >= limit) {
    tail.assign(data.substr(data.size() - limit));
    return;
  }
  tail.append(data);
  if (tail.size() > 2 * limit) tail.erase(0, tail.size() - limit);
}

std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  if (const std::size_t at = text.rfind('\n'); at != std::string_view::npos) text.remove_prefix(at + 1);
  return std::string(text.substr(0, kLastLine));
}

struct CommandTask : std::enable_shared_from_this<CommandTask> {
  Run run;
  std::string folder;
  std::vector<Blobs::WaitPtr> waits;
  std::unique_ptr<Process> process;
  std::string out_tail, err_tail;
  std::size_t fetching = 0;
  std::vector<std::string> sources;  // of files_in, once fetched
  std::vector<SharedBytes> inputs;   // those that came as blobs
  bool stopped = false, hard = false, frozen = false;
  bool ready = false;       // to start, were it not frozen
  std::string over_memory;  // it was ended for that
  std::uint64_t oom_before = 0;
  pb::TaskResult result;
  std::vector<TakenFile> taken;
};
using TaskPtr = std::shared_ptr<CommandTask>;

class CommandEngine final : public Engine {
 public:
  CommandEngine(net::Loop& loop, EngineHost& host, Blobs& blobs, const Guardian* guardian, CommandOptions options)
      : loop_(loop),
        host_(host),
        blobs_(blobs),
        guardian_(guardian),
        options_(std::move(options)),
        alive_(std::make_shared<bool>(true)) {
    disk_.start_thread();
  }
  ~CommandEngine() override {
    tasks_.clear();
    disk_.stop();
  }

  void run(Run run) override {
    auto task = std::make_shared<CommandTask>();
    const Fence fence = run.fence;
    task->run = std::move(run);
    task->folder = options_.folder + "/" + std::to_string(fence.task.job().value) + "_" +
                   std::to_string(fence.task.index()) + "_" + std::to_string(fence.attempt);
    tasks_[{fence.task, fence.attempt}] = task;
    if (needs_blobs(*task)) {
      fetch(task);
    } else {
      fill(task);
    }
  }

  void stop(TaskId id, Attempt attempt, StopHow how) override {
    const auto it = tasks_.find({id, attempt});
    if (it == tasks_.end()) return;
    const TaskPtr task = it->second;
    task->stopped = true;
    task->hard = task->hard || how == StopHow::hard;
    if (task->process) {
      if (how == StopHow::hard) {
        task->process->signal_all(SIGKILL);
        task->process->resume();  // output that nobody takes must not hold up its end
      } else {
        task->process->signal(SIGTERM);
      }
    } else {
      task->waits.clear();
      end(task, failure(pb::FAILURE_CANCELLED, "Stopped before it ran."));
    }
  }

  void freeze(TaskId id, Attempt attempt, bool on) override {
    const auto it = tasks_.find({id, attempt});
    if (it == tasks_.end()) return;
    const TaskPtr task = it->second;
    task->frozen = on;
    if (task->process) task->process->signal_all(on ? SIGSTOP : SIGCONT);
    if (!on && std::exchange(task->ready, false)) launch(task);
  }

  void watch() override {
    for (const auto& [key, task] : tasks_) {
      if (task->run.memory == 0 || !task->process || !task->over_memory.empty()) continue;
      if (!is_over(task->process->memory(false), task->run.memory)) continue;
      const Bytes used = task->process->memory(true);
      if (!is_over(used, task->run.memory)) continue;
      task->over_memory = over_memory(used, task->run.memory);
      task->process->signal_all(SIGKILL);
    }
  }

  void resume_output() override {
    std::vector<TaskPtr> all;
    for (const auto& [key, task] : tasks_) all.push_back(task);
    for (const TaskPtr& task : all) {
      if (task->process) task->process->resume();
    }
  }

 private:
  const pb::CommandSpec& command(const CommandTask& task) const { return task.run.job->spec.command(); }
  bool lives(const TaskPtr& task) const {
    const auto it = tasks_.find({task->run.fence.task, task->run.fence.attempt});
    return it != tasks_.end() && it->second == task;
  }

  // Runs `work` on the disk thread, then `after` here, if the task is still wanted.
  template <class Work, class After>
  void on_disk(const TaskPtr& task, Work work, After after) {
    disk_.post([this, task, work = std::move(work), after = std::move(after), alive = std::weak_ptr<bool>(alive_),
                &loop = loop_]() mutable {
      auto answer = std::make_shared<decltype(work())>(work());
      // `work` goes along: what it holds must be let go on the loop's thread.
      loop.post(
          [this, task = std::move(task), answer, after = std::move(after), work = std::move(work), alive]() mutable {
            if (!alive.expired() && lives(task)) after(std::move(*answer));
          });
    });
  }

  bool needs_blobs(const CommandTask& task) const {
    const auto by_blob = [](const pb::Input& input) { return !input.value_sha256().empty(); };
    return !task.run.args_sha256.empty() || !command(task).files_in().empty() ||
           std::any_of(task.run.inputs.begin(), task.run.inputs.end(), by_blob);
  }

  void fetch(const TaskPtr& task) {
    host_.stage(task->run.fence.task, task->run.fence.attempt, pb::STAGE_DOWNLOAD);
    const auto& files = command(*task).files_in();
    task->sources.resize(static_cast<std::size_t>(files.size()));
    task->fetching = 1;
    const std::weak_ptr<CommandTask> weak = task;
    const auto one_done = [this, weak](Result<> outcome) {
      const TaskPtr t = weak.lock();
      if (!t || !lives(t)) return;
      if (!outcome) {
        end(t, failure(pb::FAILURE_ENGINE, outcome.error().message));
      } else if (--t->fetching == 0) {
        fill(t);
      }
    };
    if (!task->run.args_sha256.empty()) {
      ++task->fetching;
      task->waits.push_back(blobs_.bytes(task->run.args_sha256, [weak, one_done](Result<SharedBytes> bytes) {
        if (const TaskPtr t = weak.lock(); t && bytes) t->run.args = **bytes;
        one_done(bytes ? Result<>() : Result<>(bytes.error()));
      }));
    }
    task->inputs.resize(task->run.inputs.size());
    for (std::size_t i = 0; i < task->run.inputs.size() && lives(task); ++i) {
      const std::string& sha = task->run.inputs[i].value_sha256();
      if (sha.empty()) continue;
      ++task->fetching;
      task->waits.push_back(blobs_.bytes(sha, [weak, one_done, i](Result<SharedBytes> bytes) {
        if (const TaskPtr t = weak.lock(); t && bytes) t->inputs[i] = *bytes;
        one_done(bytes ? Result<>() : Result<>(bytes.error()));
      }));
    }
    for (int i = 0; i < files.size() && lives(task); ++i) {
      ++task->fetching;
      task->waits.push_back(blobs_.file(files[i].sha256(), [weak, one_done, i](Result<std::string> path) {
        if (const TaskPtr t = weak.lock(); t && path) t->sources[static_cast<std::size_t>(i)] = *path;
        one_done(path ? Result<>() : Result<>(path.error()));
      }));
    }
    one_done({});
  }

  void fill(const TaskPtr& task) {
    if (!lives(task)) return;
    task->waits.clear();
    host_.stage(task->run.fence.task, task->run.fence.attempt, pb::STAGE_STARTUP);
    on_disk(
        task,
        [task, folder = task->folder]() -> Result<> {
          if (auto made = make_empty_folder(folder); !made) return made;
          const auto& files = task->run.job->spec.command().files_in();
          for (int i = 0; i < files.size(); ++i) {
            auto put = put_in(folder, files[i].path(), task->sources[static_cast<std::size_t>(i)], files[i].mode());
            if (!put) return put;
          }
          for (std::size_t i = 0; i < task->run.inputs.size(); ++i) {
            const bool blob = i < task->inputs.size() && task->inputs[i];
            auto put = write_in(folder, "inputs/" + std::to_string(i),
                                blob ? *task->inputs[i] : task->run.inputs[i].value(), 0400);
            if (!put) return put;
          }
          return {};
        },
        [this, task](Result<> filled) {
          if (!filled) {
            end(task, failure(pb::FAILURE_ENGINE, filled.error().message));
          } else {
            launch(task);
          }
        });
  }

  void launch(const TaskPtr& task) {
    if (task->frozen) {  // it starts when it may go on
      task->ready = true;
      return;
    }
    const pb::CommandSpec& spec = command(*task);
    const Run& run = task->run;
    const std::string index = std::to_string(run.fence.task.index());
    if (run.args.find('\0') != std::string::npos) {
      end(task, failure(pb::FAILURE_REFUSED, "The task's argument holds a NUL byte; a command cannot take it.", true));
      return;
    }
    if (spec.shell() && run.args.size() >= kArgInEnv &&
        std::any_of(spec.argv().begin(), spec.argv().end(), names_argument)) {
      end(task, failure(pb::FAILURE_REFUSED,
                        "The task's argument has " + std::to_string(run.args.size()) +
                            " bytes; {} in a script takes less than " + std::to_string(kArgInEnv) +
                            ". Send it as a file (files_in).",
                        true));
      return;
    }
    ProcessSpec child;
    std::string path = options_.path;
    child.env = {"HOME=" + task->folder,
                 "TMPDIR=" + task->folder,
                 "LANG=C.UTF-8",
                 "GRANGE_JOB_ID=" + run.job->id,
                 "GRANGE_TASK_INDEX=" + index,
                 "GRANGE_TASK_ID=" + run.job->id + "/" + index,
                 "GRANGE_ATTEMPT=" + std::to_string(run.fence.attempt),
                 "GRANGE_URL=" + options_.server_url};
    if (guardian_ != nullptr && !guardian_->mark().empty()) child.env.insert(child.env.begin(), guardian_->mark());
    if (!run.inputs.empty()) child.env.push_back("GRANGE_INPUTS=" + task->folder + "/inputs");
    for (std::string& setting : place_env(run)) child.env.push_back(std::move(setting));
    if (run.args.size() < kArgInEnv) child.env.push_back("GRANGE_ARG=" + run.args);
    for (const auto& [name, value] : spec.env()) {
      if (name == "PATH") {
        path = value;
        continue;
      }
      std::erase_if(child.env, [&, prefix = name + "="](const std::string& set) { return set.rfind(prefix, 0) == 0; });
      child.env.push_back(name + "=" + value);
    }
    child.env.push_back("PATH=" + path);
    for (const std::string& word : spec.argv()) {
      child.argv.push_back(spec.shell() ? shell_substitute(word, index) : substitute(word, run.args, index));
    }
    if (spec.shell()) child.argv.insert(child.argv.begin(), {"/bin/sh", "-c"});
    const auto program = find_program(child.argv[0], path, task->folder);
    if (!program) {
      const int code = program.error().cls == ErrorClass::not_found ? 127 : 126;
      auto result =
          failure(pb::FAILURE_EXIT_CODE, "exit code " + std::to_string(code) + ": " + program.error().message, true);
      result.set_exit_code(code);
      host_.log(run.fence.task, run.fence.attempt, pb::STREAM_SYSTEM, program.error().message + "\n");
      end(task, std::move(result));
      return;
    }
    child.program = *program;
    child.folder = task->folder;
    child.feeds_stdin = !spec.stdin().empty();
    child.stdin_bytes = spec.stdin();
    task->oom_before = oom_kills();
    const std::weak_ptr<CommandTask> weak = task;
    auto process = Process::start(loop_, guardian_, child,
                                  {[this, weak](Output from, std::string_view data) {
                                     const TaskPtr t = weak.lock();
                                     return t == nullptr || output(*t, from, data);
                                   },
                                   [this, weak](const ExitStatus& status) {
                                     if (const TaskPtr t = weak.lock()) exited(t, status);
                                   }});
    if (!process) {
      end(task, failure(pb::FAILURE_ENGINE, process.error().message));
      return;
    }
    task->process = std::move(*process);
    host_.stage(run.fence.task, run.fence.attempt, pb::STAGE_EXECUTE);
  }

  bool output(CommandTask& task, Output from, std::string_view data) {
    if (from == Output::out) {
      keep_tail(task.out_tail, data, kStdoutTail);
    } else {
      keep_tail(task.err_tail, data, 2 * kLastLine);
    }
    const bool more = host_.log(task.run.fence.task, task.run.fence.attempt,
                                from == Output::out ? pb::STREAM_STDOUT : pb::STREAM_STDERR, data);
    return more || task.hard;
  }

  void exited(const TaskPtr& task, const ExitStatus& status) {
    if (const std::string told = told_leftovers(status.leftovers); !told.empty())
      host_.log(task->run.fence.task, task->run.fence.attempt, pb::STREAM_SYSTEM, told);
    pb::TaskResult& result = task->result;
    if (task->out_tail.size() > kStdoutTail) task->out_tail.erase(0, task->out_tail.size() - kStdoutTail);
    result.set_value(std::move(task->out_tail));
    result.set_exit_code(status.shell_code());
    result.set_cpu_us(static_cast<std::uint64_t>(status.cpu.count()));
    result.set_max_rss_bytes(status.max_rss);
    if (status.shell_code() != 0) {
      std::string message = status.signal != 0 ? "killed by signal " + std::to_string(status.signal)
                                               : "exit code " + std::to_string(status.code);
      result.set_failure(pb::FAILURE_EXIT_CODE);
      if (!task->over_memory.empty()) {
        result.set_failure(pb::FAILURE_OUT_OF_MEMORY);
        message = task->over_memory;
      } else if (status.signal == SIGKILL && !task->hard && oom_kills() > task->oom_before) {
        result.set_failure(pb::FAILURE_OUT_OF_MEMORY);
        message += " (out of memory)";
      }
      if (const std::string line = last_line(task->err_tail); task->over_memory.empty() && !line.empty())
        message += ": " + line;
      result.set_message(message);
      end(task, std::move(result));
      return;
    }
    result.set_ok(true);
    if (command(*task).files_out().empty()) {
      end(task, std::move(result));
    } else {
      collect(task);
    }
  }

  void collect(const TaskPtr& task) {
    host_.stage(task->run.fence.task, task->run.fence.attempt, pb::STAGE_UPLOAD);
    // The process is over; from here a stop ends the attempt at once.
    loop_.post([process = std::shared_ptr<Process>(std::move(task->process))] {});
    on_disk(
        task,
        [task]() -> Result<> {
          for (const std::string& path : task->run.job->spec.command().files_out()) {
            auto file = take_out(task->folder, path);
            if (!file) return file.error();
            task->taken.push_back(std::move(*file));
          }
          return {};
        },
        [this, task](Result<> all) {
          if (!all) {
            pb::TaskResult result = std::move(task->result);
            result.set_ok(false);
            result.set_failure(pb::FAILURE_EXIT_CODE);
            result.set_message(all.error().message);
            end(task, std::move(result));
          } else {
            send_file(task, 0);
          }
        });
  }

  void send_file(const TaskPtr& task, std::size_t at) {
    if (at == task->taken.size()) {
      end(task, std::move(task->result));
      return;
    }
    const TakenFile& file = task->taken[at];
    pb::FileOut& out = *task->result.add_files();
    out.set_path(command(*task).files_out(static_cast<int>(at)));
    out.set_sha256(file.sha256);
    out.set_bytes(file.bytes);
    out.set_mode(file.mode);
    const std::weak_ptr<CommandTask> weak = task;
    // By descriptor: what was hashed is what is sent, whatever has become of the name.
    task->waits.push_back(blobs_.put_file("/proc/self/fd/" + std::to_string(file.fd.get()), file.sha256,
                                          [this, weak, at](Result<std::string> sent) {
                                            const TaskPtr t = weak.lock();
                                            if (!t || !lives(t)) return;
                                            if (!sent) {
                                              end(t, failure(pb::FAILURE_ENGINE, sent.error().message));
                                            } else {
                                              send_file(t, at + 1);
                                            }
                                          }));
  }

  void end(const TaskPtr& task, pb::TaskResult result) {
    const Fence fence = task->run.fence;
    if (tasks_.erase({fence.task, fence.attempt}) == 0) return;
    disk_.post([folder = task->folder] { remove_folder(folder); });
    loop_.post([task] {});  // its process and waits may be below us on the stack
    host_.ended(fence.task, fence.attempt, std::move(result));
  }

  net::Loop& loop_;
  EngineHost& host_;
  Blobs& blobs_;
  const Guardian* guardian_;
  CommandOptions options_;
  std::unordered_map<AttemptKey, TaskPtr, AttemptKeyHash> tasks_;
  std::shared_ptr<bool> alive_;
  net::Loop disk_;
};

}  // namespace

std::unique_ptr<Engine> make_command_engine(net::Loop& loop, EngineHost& host, Blobs& blobs, const Guardian* guardian,
                                            CommandOptions options) {
  return std::make_unique<CommandEngine>(loop, host, blobs, guardian, std::move(options));
}

}  // namespace grange::worker
