// What tasks say while they run: log lines and progress. Goes to the log store and to events, never through the queue.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <unordered_map>

#include "server/services.hpp"

namespace grange::server {

class TaskOutput {
 public:
  explicit TaskOutput(Services& services) : s_(services) {}

  // Appends; a full log store makes lines wait here, up to a bound, and what is lost beyond it is said in the log
  // itself.
  void log(store::LogLine line);
  void flush();                 // hands what was logged to the store; called when a message was read, and on ticks
  bool holds(JobNo job) const;  // lines of it wait here, because the store takes none
  void started(Fence fence, WorkerNo worker);  // an event, when somebody follows tasks
  // What an engine shows of a running attempt (data: a JSON object), when somebody follows it.
  void event(Fence fence, WorkerNo worker, const std::string& type, std::uint64_t time_us, const std::string& data);
  void progress(Fence fence, WorkerNo worker, double done, double total, const std::string& text);
  struct Progress {
    double done = 0, total = 0;
    std::string text;
  };
  // The last that this attempt told. Only the newest tellers are kept; whether the attempt still runs, the queue knows.
  std::optional<Progress> progress_of(TaskId task, Attempt attempt) const;
  void tick();  // ten times a second

  // Called (soon, coalesced) after lines of a job were handed to the store.
  std::uint64_t on_logs(JobNo job, std::function<void()> call);
  void off_logs(JobNo job, std::uint64_t id);
  // A task of the job ended: a follower of its log may be at its end.
  void task_ended(JobNo job) {
    if (!listeners_.empty() && listeners_.contains(job)) fresh_[job] = true;
  }

 private:
  struct Latest {
    Fence fence;
    WorkerNo worker;
    double done = 0, total = 0;
    std::string text;
  };
  Services& s_;
  std::vector<store::LogLine> waiting_;
  Bytes waiting_bytes_ = 0;
  std::unordered_map<TaskId, std::uint64_t> lost_;  // lines of a task that found no room
  std::unordered_map<JobNo, std::map<std::uint64_t, std::function<void()>>> listeners_;
  std::unordered_map<JobNo, bool> fresh_;        // jobs with new lines since the last tick
  std::unordered_map<TaskId, Latest> progress_;  // of this tenth of a second
  struct Kept {
    Attempt attempt = 0;
    Progress progress;
    std::list<TaskId>::iterator place;
  };
  std::unordered_map<TaskId, Kept> kept_;  // the last of each task
  std::list<TaskId> recent_;               // of kept_, the newest first
  std::uint64_t last_id_ = 0;
};

}  // namespace grange::server
