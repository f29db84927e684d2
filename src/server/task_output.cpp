#include "server/task_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {
constexpr Bytes kWaitingBytes = 16 * MiB;
constexpr std::size_t kProgress = 1000;        // tasks whose progress is told in one tenth of a second
constexpr std::size_t kProgressKept = 10'000;  // tasks whose last progress is remembered

double finite(double d) {
  return d == d && d > -1e300 && d < 1e300 ? d : 0.0;
}

}  // namespace

void TaskOutput::log(store::LogLine line) {
  const Bytes bytes = line.data.size() + 64;
  if (waiting_bytes_ + bytes > kWaitingBytes) {
    ++lost_[line.task];
    return;
  }
  if (const auto it = lost_.find(line.task); it != lost_.end()) {
    waiting_.push_back({.task = line.task,
                        .attempt = line.attempt,
                        .stream = 3,
                        .at = line.at,
                        .data = fmt::format(
                            "{} pieces of output were lost here: the server's disk could not keep up.\n", it->second)});
    lost_.erase(it);
  }
  waiting_bytes_ += bytes;
  if (listeners_.contains(line.task.job())) fresh_[line.task.job()] = true;
  waiting_.push_back(std::move(line));
}

void TaskOutput::flush() {
  if (waiting_.empty()) return;
  if (!s_.logs->append(std::move(waiting_))) return;  // full: nothing was taken; the tick tries again
  waiting_.clear();
  waiting_bytes_ = 0;
}

bool TaskOutput::holds(JobNo job) const {
  return std::any_of(waiting_.begin(), waiting_.end(),
                     [job](const store::LogLine& line) { return line.task.job() == job; });
}

void TaskOutput::started(Fence fence, WorkerNo worker) {
  if (!s_.events->tasks_followed()) return;
  s_.jobs->with(fence.task.job(), [this, fence, worker](Result<JobMetaPtr> meta) {
    if (!meta || !s_.events->tasks_followed((*meta)->job, (*meta)->id)) return;
    const std::uint32_t index = fence.task.index();
    s_.events->publish(Topic::tasks, (*meta)->job, (*meta)->id, "task_started",
                       fmt::format(R"({{"task":{},"index":{},"attempt":{},"worker_id":{}}})",
                                   wire::quoted((*meta)->id + "/" + std::to_string(index)), index, fence.attempt,
                                   wire::quoted(s_.workers->name_of(worker))),
                       s_.clock.now().wall);
  });
}

void TaskOutput::event(Fence fence, WorkerNo worker, const std::string& type, std::uint64_t time_us,
                       const std::string& data) {
  if (!s_.events->tasks_followed()) return;
  s_.jobs->with(fence.task.job(), [this, fence, worker, type, time_us, data](Result<JobMetaPtr> meta) {
    if (!meta || !s_.events->tasks_followed((*meta)->job, (*meta)->id)) return;
    const std::uint32_t index = fence.task.index();
    s_.events->publish(
        Topic::tasks, (*meta)->job, (*meta)->id, type,
        fmt::format(R"({{"task":{},"index":{},"attempt":{},"worker_id":{},"t_ms":{:.3f},"payload":{}}})",
                    wire::quoted((*meta)->id + "/" + std::to_string(index)), index, fence.attempt,
                    wire::quoted(s_.workers->name_of(worker)), static_cast<double>(time_us) / 1000, data),
        s_.clock.now().wall);
  });
}

void TaskOutput::progress(Fence fence, WorkerNo worker, double done, double total, const std::string& text) {
  const auto [it, fresh] = kept_.try_emplace(fence.task);
  if (fresh) {
    recent_.push_front(fence.task);
    it->second.place = recent_.begin();
  } else {
    recent_.splice(recent_.begin(), recent_, it->second.place);
  }
  it->second.attempt = fence.attempt;
  it->second.progress = {.done = finite(done), .total = finite(total), .text = text};
  // It may have been cut inside a character.
  for (int i = 0; i < 3 && !is_utf8(it->second.progress.text); ++i) it->second.progress.text.pop_back();
  if (kept_.size() > kProgressKept) {
    kept_.erase(recent_.back());
    recent_.pop_back();
  }
  if (progress_.size() >= kProgress && !progress_.contains(fence.task)) return;
  progress_[fence.task] = {.fence = fence, .worker = worker, .done = done, .total = total, .text = text};
}

std::optional<TaskOutput::Progress> TaskOutput::progress_of(TaskId task, Attempt attempt) const {
  const auto it = kept_.find(task);
  if (it == kept_.end() || it->second.attempt != attempt) return std::nullopt;
  return it->second.progress;
}

void TaskOutput::tick() {
  flush();
  // Nobody is woken for lines that are not in the store yet: they would be missed, and an end told before them.
  auto fresh = std::exchange(fresh_, {});
  for (const auto& [job, yes] : fresh) {
    if (holds(job)) {
      fresh_[job] = true;
      continue;
    }
    const auto it = listeners_.find(job);
    if (it == listeners_.end()) continue;
    const auto calls = it->second;
    for (const auto& [id, call] : calls) call();
  }
  const auto progress = std::move(progress_);
  progress_.clear();
  for (const auto& [task, p] : progress) {
    s_.jobs->with(task.job(), [this, p = p](Result<JobMetaPtr> meta) {
      if (!meta) return;
      const std::uint32_t index = p.fence.task.index();
      const std::string name = (*meta)->id + "/" + std::to_string(index);
      const std::string data =
          fmt::format(R"({{"task":{},"index":{},"attempt":{},"worker_id":{},"done":{},"total":{},"text":{}}})",
                      wire::quoted(name), index, p.fence.attempt, wire::quoted(s_.workers->name_of(p.worker)),
                      finite(p.done), finite(p.total), wire::quoted(p.text));
      s_.events->publish(Topic::tasks, (*meta)->job, (*meta)->id, "task_progress", data, s_.clock.now().wall);
    });
  }
}

std::uint64_t TaskOutput::on_logs(JobNo job, std::function<void()> call) {
  listeners_[job].emplace(++last_id_, std::move(call));
  return last_id_;
}

void TaskOutput::off_logs(JobNo job, std::uint64_t id) {
  const auto it = listeners_.find(job);
  if (it == listeners_.end()) return;
  it->second.erase(id);
  if (it->second.empty()) listeners_.erase(it);
}

}  // namespace grange::server
