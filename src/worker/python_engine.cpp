#include "worker/python_engine.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <list>
#include <set>

#include "base/clock.hpp"
#include "net/connection_manager.hpp"
#include "worker/leftovers.hpp"
#include "worker/python_executor.hpp"
#include "worker/python_job.hpp"
#include "worker/resources.hpp"
#include "worker/task_env.hpp"
#include "worker/task_folder.hpp"

namespace grange::worker {

namespace {

constexpr int kStartFailures = 5;  // in a row, and the engine is off
constexpr std::uint32_t kStartingAtOnce = 4;
constexpr Millis kLeave{2'000};  // for an executor that was asked to go
constexpr std::size_t kErrorTail = 2 * KiB;
constexpr std::size_t kDeadKept = 64;  // dead children in an executor, before it is replaced
constexpr Micros kLookEvery{100'000};  // for what tasks left running: not after each of many small ones

class Python final : public PythonEngine {
 public:
  Python(net::Loop& loop, EngineHost& host, Blobs& blobs, const Guardian* guardian, PythonOptions options)
      : loop_(loop),
        host_(host),
        blobs_(blobs),
        guardian_(guardian),
        options_(std::move(options)),
        slots_(options_.slots),
        prng_(options_.slots) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].at = i;
  }
  ~Python() override {
    closing_ = true;
    slots_.clear();
  }

  void prestart() override {
    for (Slot& slot : slots_) {
      if (status_.starting >= kStartingAtOnce) return;  // the next one starts when one of these is ready
      if (slot.state == State::absent && !slot.timer) launch(slot);
    }
  }

  void run(Run run) override {
    auto job = std::make_shared<PythonJob>();
    job->run = std::move(run);
    const pb::PythonSpec& spec = job->run.job->spec.python();
    if (!status_.off.empty()) {
      host_.ended(job->run.fence.task, job->run.fence.attempt, failure(pb::FAILURE_ENGINE, status_.off));
      return;
    }
    job->code_sha = spec.code_sha256();
    jobs_[key(*job)] = job;
    if (job->code_sha.empty()) {
      const std::weak_ptr<PythonJob> weak = job;
      auto wait = blobs_.model(spec.model(), [this, weak](Result<std::string> sha) {
        const PythonJobPtr j = weak.lock();
        if (!j) return;
        if (!sha) {
          end(j, failure(pb::FAILURE_ENGINE, sha.error().message));
          return;
        }
        j->code_sha = *sha;
        fetch(j);
      });
      job->waits.push_back(std::move(wait));
    } else {
      fetch(job);
    }
  }

  void stop(TaskId task, Attempt attempt, StopHow how) override {
    const auto it = jobs_.find({task, attempt});
    if (it == jobs_.end()) return;
    const PythonJobPtr job = it->second;
    for (Slot& slot : slots_) {
      if (slot.job != job || !slot.executor) continue;
      job->stopped = true;
      if (how == StopHow::hard) {
        slot.killed = true;
        slot.executor->process().signal_all(SIGKILL);
        slot.executor->resume();  // output that nobody takes must not hold up its end
      } else {
        // The slot stays with its job until the executor has answered for it, and the executor ignores the signal when
        // it comes after the function's end: the next task does not feel it.
        slot.executor->process().signal_leader(SIGINT);
      }
      return;
    }
    end(job, failure(pb::FAILURE_CANCELLED, "Stopped before it ran."));
  }

  void freeze(TaskId task, Attempt attempt, bool on) override {
    const auto it = jobs_.find({task, attempt});
    if (it == jobs_.end()) return;
    it->second->frozen = on;
    for (Slot& slot : slots_) {
      if (slot.job == it->second && slot.executor) slot.executor->process().signal_all(on ? SIGSTOP : SIGCONT);
    }
    if (!on) dispatch();
  }

  void watch() override {
    for (Slot& slot : slots_) {
      if (!slot.executor || slot.state == State::leaving) continue;
      if (slot.state == State::idle && std::exchange(slot.unseen, false)) end_detached(slot, nullptr);
      // A SIGINT that fell between Python's last look at its signals and a call that blocks is not seen until another
      // signal ends the call. This one means nothing else.
      if (slot.state == State::busy && slot.job && slot.job->stopped && !slot.killed && !slot.job->frozen)
        slot.executor->process().signal_leader(SIGURG);
      if (slot.state != State::busy || !slot.job || slot.job->run.memory == 0 || !slot.job->over_memory.empty())
        continue;
      const Bytes asked = slot.job->run.memory;
      if (!is_over(slot.executor->process().memory(false), asked)) continue;
      const Bytes used = slot.executor->process().memory(true);
      if (!is_over(used, asked)) continue;
      slot.job->over_memory = over_memory(used, asked);
      slot.killed = true;
      slot.executor->process().signal_all(SIGKILL);
      slot.executor->resume();
    }
  }

  void resume_output() override {
    for (Slot& slot : slots_) {
      if (slot.executor) slot.executor->resume();
    }
  }

  Status status() const override {
    Status out = status_;
    for (const Slot& slot : slots_) {
      out.ready += slot.state == State::idle ? 1 : 0;
      out.busy += slot.state == State::busy ? 1 : 0;
    }
    return out;
  }

 private:
  enum class State : std::uint8_t { absent, starting, idle, busy, leaving };
  struct Slot {
    std::size_t at = 0;
    State state = State::absent;
    std::unique_ptr<PythonExecutor> executor;
    std::unique_ptr<net::Timer> timer;  // start limit, restart delay, or time to leave
    CodeMirror codes;
    PythonJobPtr job;
    std::uint32_t tasks = 0;
    Bytes rss = 0;
    bool killed = false;   // by us
    std::string gpus;      // that it was given once
    Instant looked{};      // for what its tasks left running
    bool unseen = false;   // a task has ended since
    std::size_t dead = 0;  // children that nobody in there asks for
    std::string errors;    // what it wrote outside of tasks
  };

  static AttemptKey key(const PythonJob& job) { return {job.run.fence.task, job.run.fence.attempt}; }

  // ---- what a run needs

  void stage(const PythonJob& job, pb::Stage stage) { host_.stage(job.run.fence.task, job.run.fence.attempt, stage); }

  void fetch(const PythonJobPtr& job) {
    if (!needs_blobs(blobs_, *job)) return fetched(job);
    stage(*job, pb::STAGE_DOWNLOAD);
    fetch_blobs(blobs_, job, [this, weak = std::weak_ptr<PythonJob>(job)](Result<> outcome) {
      const PythonJobPtr j = weak.lock();
      if (!j || j->over) return;
      if (!outcome) {
        end(j, failure(pb::FAILURE_ENGINE, outcome.error().message));
      } else {
        fetched(j);
      }
    });
  }

  void fetched(const PythonJobPtr& job) {
    stage(*job, pb::STAGE_STARTUP);
    if (executor::size_of(job->message({})) > executor::kMessage) {
      end(job, failure(pb::FAILURE_REFUSED,
                       "The task's arguments and inputs have more than " + std::to_string(executor::kMessage / MiB) +
                           " MiB together; hand over big data as files or blobs.",
                       true));
      return;
    }
    ready_.push_back(job);
    dispatch();
  }

  // One that used a GPU keeps it: a library binds to it once for the whole process.
  Slot* idle_for(const PythonJob& job) {
    Slot* other = nullptr;
    for (Slot& slot : slots_) {
      if (slot.state != State::idle) continue;
      if (job.run.gpus.empty() || slot.gpus.empty() || slot.gpus == job.gpus()) return &slot;
      other = &slot;
    }
    const bool soon = std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
      return slot.state != State::idle && slot.state != State::busy;
    });
    if (other != nullptr && !soon) recycle(*other);  // a new one takes its place, and comes back here
    return nullptr;
  }

  void dispatch() {
    for (auto at = ready_.begin(); at != ready_.end();) {
      const PythonJobPtr job = *at;
      if (!job->over && job->frozen) {  // it starts when it may go on
        ++at;
        continue;
      }
      Slot* free = job->over ? nullptr : idle_for(*job);
      if (!job->over && free == nullptr) {
        prestart();
        if (std::none_of(slots_.begin(), slots_.end(), [](const Slot& s) { return s.state == State::idle; })) return;
        ++at;  // what is idle has another GPU, and may do for the next
        continue;
      }
      ready_.erase(at);
      if (free != nullptr) give(*free, job);
      at = ready_.begin();
    }
  }

  void give(Slot& slot, const PythonJobPtr& job) {
    slot.state = State::busy;
    slot.job = job;
    slot.killed = false;
    if (!job->run.gpus.empty()) slot.gpus = job->gpus();
    const std::string sha = unhex(job->code_sha);
    std::string bytes;
    if (!slot.codes.use(job->code_sha)) bytes = executor::code(sha, *job->code);
    bytes += executor::run(job->message(sha));
    stage(*job, pb::STAGE_EXECUTE);
    slot.executor->send(std::move(bytes));
  }

  // ---- executors

  void launch(Slot& slot) {
    if (closing_ || !status_.off.empty()) return;
    const std::string folder = options_.folder + "/" + std::to_string(slot.at);
    if (auto made = make_empty_folder(folder); !made) {
      start_failed(slot, made.error().message);
      return;
    }
    ProcessSpec spec;
    spec.program = options_.interpreter;
    spec.argv = {options_.interpreter, "-m", "grange.runner"};
    spec.env = {
        "PATH=" + options_.path, "HOME=" + options_.home, "LANG=C.UTF-8",       "TMPDIR=" + folder,
        "GRANGE_EXECUTOR_FD=3",  "OMP_NUM_THREADS=1",     "PYTHONUNBUFFERED=1", "GRANGE_URL=" + options_.server_url};
    if (!options_.python_path.empty()) spec.env.push_back("PYTHONPATH=" + options_.python_path);
    spec.folder = folder;
    slot.codes = CodeMirror{};
    slot.gpus.clear();
    slot.dead = 0;
    if (guardian_ != nullptr && !guardian_->mark().empty()) spec.env.insert(spec.env.begin(), guardian_->mark());
    slot.tasks = 0;
    slot.errors.clear();
    slot.killed = false;
    const std::size_t at = slot.at;
    auto executor = PythonExecutor::start(
        loop_, guardian_, std::move(spec),
        {[this, at](executor::Message message) { heard(slots_[at], std::move(message)); },
         [this, at](Output from, std::string_view data) { return output(slots_[at], from, data); },
         [this, at](const ExitStatus& status) { gone(slots_[at], status); }});
    if (!executor) {
      start_failed(slot, executor.error().message);
      return;
    }
    slot.executor = std::move(*executor);
    slot.state = State::starting;
    ++status_.starting;
    ++status_.started;
    oom_seen_ = oom_kills();
    slot.timer = loop_.after(options_.ready_limit, [this, at] {
      slots_[at].errors = "it was not ready in time";
      slots_[at].executor->process().signal(SIGKILL);
    });
  }

  void start_failed(Slot& slot, const std::string& why) {
    slot.state = State::absent;
    if (++failures_ >= kStartFailures) {
      off("The Python engine is off: its executor failed to start " + std::to_string(failures_) + " times in a row (" +
          why + "). Check the interpreter, then restart the worker.");
      return;
    }
    slot.timer = loop_.after(net::backoff(failures_ - 1, options_.restart_first, options_.restart_last, 0.2, prng_),
                             [this, at = slot.at] {
                               slots_[at].timer.reset();
                               launch(slots_[at]);
                             });
  }

  void off(std::string why) {
    status_.off = std::move(why);
    const std::string told = status_.off;
    std::vector<PythonJobPtr> waiting;
    for (const auto& [attempt, job] : jobs_) {
      const bool runs = std::any_of(slots_.begin(), slots_.end(), [&, j = job](const Slot& s) { return s.job == j; });
      if (!runs) waiting.push_back(job);
    }
    std::sort(waiting.begin(), waiting.end(), [](const PythonJobPtr& a, const PythonJobPtr& b) {
      return a->run.fence.task.packed < b->run.fence.task.packed;
    });
    for (const PythonJobPtr& job : waiting) end(job, failure(pb::FAILURE_ENGINE, told));
    host_.engine_off(Kind::python, told);
  }

  void heard(Slot& slot, executor::Message message) {
    if (std::holds_alternative<executor::Ready>(message)) {
      if (slot.state != State::starting) return;
      slot.timer.reset();
      slot.state = State::idle;
      --status_.starting;
      failures_ = 0;
      dispatch();
      prestart();
      return;
    }
    const PythonJobPtr job = slot.job;
    if (!job) return;
    const AttemptKey now = key(*job);
    if (auto* end = std::get_if<executor::Ended>(&message)) {
      if (end->task == now.task && end->attempt == now.attempt) finished(slot, job, std::move(*end));
    } else if (auto* progress = std::get_if<executor::Progress>(&message)) {
      if (progress->task == now.task)
        host_.progress(now.task, now.attempt, progress->done, progress->total, std::move(progress->text));
    } else if (auto* log = std::get_if<executor::Log>(&message)) {
      if (log->task == now.task && !host_.log(now.task, now.attempt, pb::STREAM_LOG, log->text) && !slot.killed)
        slot.executor->hold();
    } else if (auto* saved = std::get_if<executor::Saved>(&message)) {
      if (saved->task == now.task && saved->attempt == now.attempt)
        host_.checkpoint(now.task, now.attempt, std::move(saved->data));
    }
  }

  bool output(Slot& slot, Output from, std::string_view data) {
    if (slot.job) {
      const AttemptKey now = key(*slot.job);
      return host_.log(now.task, now.attempt, from == Output::out ? pb::STREAM_STDOUT : pb::STREAM_STDERR, data) ||
             slot.killed;
    }
    slot.errors.append(data.substr(data.size() > kErrorTail ? data.size() - kErrorTail : 0));
    if (slot.errors.size() > kErrorTail) slot.errors.erase(0, slot.errors.size() - kErrorTail);
    return true;
  }

  void finished(Slot& slot, const PythonJobPtr& job, executor::Ended end_message) {
    slot.executor->process().drain();  // what the task printed comes before its result
    pb::TaskResult result;
    using executor::Status;
    if (end_message.status == Status::ok) {
      result.set_ok(true);
    } else {
      result.set_failure(pb::FAILURE_EXCEPTION);
      result.set_permanent(end_message.status != Status::exception);
      result.set_exception(std::move(end_message.exception));
      if (end_message.status == Status::bad_code) slot.codes.forget(job->code_sha);
      result.set_message(std::move(end_message.message));
      result.set_traceback(std::move(end_message.traceback));
    }
    *result.mutable_value() = std::move(end_message.value);
    const Instant now = clock_.now().mono;
    slot.unseen = !job->stopped && now - slot.looked <= kLookEvery;
    if (!slot.unseen) {
      slot.looked = now;
      end_detached(slot, job);
    }
    slot.job.reset();
    ++slot.tasks;
    if (slot.killed) {
      slot.state = State::leaving;  // it answered just before its end, and takes nothing more
    } else if (worn(slot)) {
      recycle(slot);
    } else {
      slot.state = State::idle;
    }
    deliver(job, std::move(result));
    dispatch();
  }

  // A value too big for a message becomes a blob before the result is told.
  void deliver(const PythonJobPtr& job, pb::TaskResult result) {
    if (result.value().size() <= options_.inline_limit()) {
      end(job, std::move(result));
      return;
    }
    const std::weak_ptr<PythonJob> weak = job;
    auto kept = std::make_shared<pb::TaskResult>(std::move(result));
    std::string value = std::move(*kept->mutable_value());
    kept->clear_value();
    job->waits.clear();
    stage(*job, pb::STAGE_UPLOAD);
    auto wait = blobs_.put(std::move(value), [this, weak, kept](Result<std::string> sha) {
      const PythonJobPtr j = weak.lock();
      if (!j || j->over) return;
      if (!sha) {
        end(j, failure(pb::FAILURE_ENGINE, sha.error().message));
      } else {
        kept->set_value_sha256(*sha);
        end(j, std::move(*kept));
      }
    });
    job->waits.push_back(std::move(wait));
  }

  // What a task started in a session of its own was meant to outlive it, and must not. What stays in the executor's
  // session may be a library's pool, and useful to the next task; after a stop it goes as well.
  void end_detached(Slot& slot, const PythonJobPtr& job) {
    const pid_t root = slot.executor->process().pid();
    const EndedBelow ended = end_below(root, job && job->stopped ? Below::all : Below::detached);
    slot.dead = ended.dead;
    if (const std::string told = told_leftovers(ended.names); job && !told.empty())
      host_.log(job->run.fence.task, job->run.fence.attempt, pb::STREAM_SYSTEM, told);
  }

  bool worn(Slot& slot) {
    if (slot.dead > kDeadKept) return true;
    if (options_.recycle_tasks > 0 && slot.tasks >= options_.recycle_tasks) return true;
    if (options_.recycle_rss == 0 || slot.tasks % 64 != 1) return false;  // a look costs more than a small task
    const std::string statm = read_text("/proc/" + std::to_string(slot.executor->process().pid()) + "/statm", 4096);
    const std::size_t space = statm.find(' ');
    slot.rss = space == std::string::npos
                   ? 0
                   : std::strtoull(statm.c_str() + space, nullptr, 10) * static_cast<Bytes>(::sysconf(_SC_PAGESIZE));
    return slot.rss > options_.recycle_rss;
  }

  void recycle(Slot& slot) {
    slot.state = State::leaving;
    ++status_.recycled;
    slot.executor->send(executor::leave());
    slot.timer = loop_.after(kLeave, [this, at = slot.at] { slots_[at].executor->process().signal(SIGKILL); });
  }

  void gone(Slot& slot, const ExitStatus& status) {
    const State was = slot.state;
    const PythonJobPtr job = std::exchange(slot.job, nullptr);
    slot.timer.reset();
    loop_.post([old = std::shared_ptr<PythonExecutor>(std::move(slot.executor))] {});  // we are below it on the stack
    slot.state = State::absent;
    const std::string how = status.signal != 0 ? "was killed by signal " + std::to_string(status.signal)
                                               : "exited with code " + std::to_string(status.code);
    if (was == State::starting) {
      --status_.starting;
      std::string why = "it " + how;
      if (!slot.errors.empty()) {
        const std::size_t end = slot.errors.find_last_not_of("\r\n ");
        const std::size_t line = end == std::string::npos ? end : slot.errors.rfind('\n', end);
        why += ": " + slot.errors.substr(line == std::string::npos ? 0 : line + 1, 300);
        while (!why.empty() && why.back() == '\n') why.pop_back();
      }
      start_failed(slot, why);
      return;
    }
    if (was == State::busy && job) {
      ++status_.died;
      pb::TaskResult result;
      if (const std::string told = told_leftovers(status.leftovers); !told.empty())
        host_.log(job->run.fence.task, job->run.fence.attempt, pb::STREAM_SYSTEM, told);
      const bool oom = status.signal == SIGKILL && !slot.killed && oom_kills() > oom_seen_;
      if (!job->over_memory.empty()) {
        result = failure(pb::FAILURE_OUT_OF_MEMORY, job->over_memory);
      } else if (oom) {
        result = failure(pb::FAILURE_OUT_OF_MEMORY, "The Python process was killed by the kernel for want of memory.");
      } else if (status.signal == SIGKILL && !slot.killed) {
        result = failure(pb::FAILURE_ENGINE,
                         "The Python process was killed by signal 9 (out of memory?) while it ran the task.");
      } else {
        result = failure(pb::FAILURE_ENGINE, "The Python process " + how + " while it ran the task.");
      }
      result.set_exit_code(status.shell_code());
      result.set_cpu_us(static_cast<std::uint64_t>(status.cpu.count()));
      result.set_max_rss_bytes(status.max_rss);
      launch(slot);
      end(job, std::move(result));
      return;
    }
    launch(slot);
  }

  void end(const PythonJobPtr& job, pb::TaskResult result) {
    if (std::exchange(job->over, true)) return;  // it has ended: later answers find it so
    const AttemptKey attempt = key(*job);
    jobs_.erase(attempt);
    if (const auto it = std::find(ready_.begin(), ready_.end(), job); it != ready_.end()) ready_.erase(it);
    if (!job->waits.empty()) loop_.post([job] {});  // one of its waits may be below us on the stack
    host_.ended(attempt.task, attempt.attempt, std::move(result));
  }

  net::Loop& loop_;
  EngineHost& host_;
  Blobs& blobs_;
  const Guardian* guardian_;
  PythonOptions options_;
  std::vector<Slot> slots_;
  std::unordered_map<AttemptKey, PythonJobPtr, AttemptKeyHash> jobs_;
  std::deque<PythonJobPtr> ready_;
  Status status_;
  Prng prng_;
  SystemClock clock_;
  int failures_ = 0;
  std::uint64_t oom_seen_ = 0;  // read when an executor starts: too dear to read for each task
  bool closing_ = false;
};

}  // namespace

std::unique_ptr<PythonEngine> make_python_engine(net::Loop& loop, EngineHost& host, Blobs& blobs,
                                                 const Guardian* guardian, PythonOptions options) {
  return std::make_unique<Python>(loop, host, blobs, guardian, std::move(options));
}

}  // namespace grange::worker
