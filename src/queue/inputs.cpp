#include "queue/inputs.hpp"

#include "base/limits.hpp"

namespace grange::queue {
namespace {

// Results are read in pieces of so many: at kInline each, what is in memory at once stays small.
constexpr std::uint32_t kRows = 64;

std::string missing(const std::string& what, bool kept) {
  return "This task wants the result of " + what + " as an input, which " +
         (kept ? "did not succeed. Retry that one first." : "is no longer kept. Submit both again.");
}
std::string shown(TaskId task) {
  return "task " + std::to_string(task.job().value) + "/" + std::to_string(task.index());
}

}  // namespace

void Inputs::added(JobNo job, const core::JobHeader& header) {
  auto wanted = std::make_shared<Wanted>();
  for (const auto& d : header.after) {
    if (d.pass) wanted->from.push_back(d);
  }
  if (wanted->from.empty()) return;
  wanted->when = header.when;
  const std::lock_guard lock(mutex_);
  jobs_[job] = std::move(wanted);
  jobs_wanting_.store(jobs_.size(), std::memory_order_relaxed);
}

void Inputs::ended(JobNo job) {
  if (!any()) return;
  const std::lock_guard lock(mutex_);
  jobs_.erase(job);
  jobs_wanting_.store(jobs_.size(), std::memory_order_relaxed);
}

void Inputs::begin() {
  whole_.clear();
  whole_bytes_ = handed_out_ = 0;
}

Inputs::Filled Inputs::fill(TaskId task, std::vector<Input>& inputs, std::string& why) {
  std::shared_ptr<const Wanted> wanted;
  {
    const std::lock_guard lock(mutex_);
    const auto it = jobs_.find(task.job());
    if (it == jobs_.end()) return Filled::yes;
    wanted = it->second;
  }
  if (handed_out_ >= limits::kInputsAtOnce) {
    why = "many inputs are handed out at once";
    return Filled::later;
  }
  // Where all had to succeed, each result is there; elsewhere a task may have ended without one, or not at all yet.
  const bool must = wanted->when == core::When::all_succeeded;
  Gathered got;
  for (const auto& d : wanted->from) {
    const bool one_task = d.each || d.index != core::Dependency::kAll;
    const auto filled =
        one_task ? one(TaskId::of(d.job, d.each ? task.index() : d.index), must, got, why) : all(d.job, must, got, why);
    if (filled != Filled::yes) return filled;
    if (got.inputs.size() > limits::kInputs) return too_many(got.inputs.size(), why);
    if (got.bytes > limits::kInputsBytes) return too_big(why);
  }
  handed_out_ += got.bytes;
  inputs = std::move(got.inputs);
  return Filled::yes;
}

Inputs::Filled Inputs::one(TaskId parent, bool must, Gathered& into, std::string& why) {
  auto rows = reader_->outcomes(parent.job(), parent.index(), 1, true);
  if (!rows.ok()) {
    why = rows.error().message;
    return Filled::later;
  }
  Input& input = into.inputs.emplace_back();
  input.task = parent;
  const bool ended = !rows->empty() && rows->front().task == parent;
  if (!ended || rows->front().end != core::TaskEnd::completed) {
    if (!must) return Filled::yes;
    why = missing(shown(parent), ended);
    return Filled::never;
  }
  auto& body = rows->front().body;
  input.value = std::move(body.value);
  input.sha256 = std::move(body.value_sha256);
  into.bytes += input.value.size();
  return Filled::yes;
}

Inputs::Filled Inputs::all(JobNo parent, bool must, Gathered& into, std::string& why) {
  auto known = whole_.find(parent);
  if (known == whole_.end()) {
    auto row = reader_->job(parent);
    if (!row.ok()) {
      why = row.error().message;
      return Filled::later;
    }
    if (!*row && must) {
      why = missing("job " + std::to_string(parent.value), false);
      return Filled::never;
    }
    const std::uint32_t count = *row ? (*row)->count : 0;
    if (count > limits::kInputs) return too_many(count, why);
    Gathered got;
    got.inputs.resize(count);
    for (std::uint32_t i = 0; i < count; ++i) got.inputs[i].task = TaskId::of(parent, i);
    std::uint32_t from = 0, completed = 0;
    for (bool more = count > 0; more;) {
      auto rows = reader_->outcomes(parent, from, kRows, true);
      if (!rows.ok()) {
        why = rows.error().message;
        return Filled::later;
      }
      more = rows->size() == kRows;
      for (auto& r : *rows) {
        from = r.task.index() + 1;
        if (r.end != core::TaskEnd::completed || r.task.index() >= count) continue;
        Input& input = got.inputs[r.task.index()];
        input.value = std::move(r.body.value);
        input.sha256 = std::move(r.body.value_sha256);
        got.bytes += input.value.size();
        completed += 1;
      }
      if (got.bytes > limits::kInputsBytes) return too_big(why);
    }
    if (must && completed < count) {
      why = missing("every task of job " + std::to_string(parent.value), true);
      return Filled::never;
    }
    if (whole_bytes_ > limits::kInputsAtOnce) whole_.clear(), whole_bytes_ = 0;
    whole_bytes_ += got.bytes;
    known = whole_.emplace(parent, std::move(got)).first;
  }
  into.inputs.insert(into.inputs.end(), known->second.inputs.begin(), known->second.inputs.end());
  into.bytes += known->second.bytes;
  return Filled::yes;
}

Inputs::Filled Inputs::too_many(std::uint64_t count, std::string& why) {
  why = "This task would get " + std::to_string(count) + " results as inputs; at most " +
        std::to_string(limits::kInputs) + " are possible. Gather them in steps: tasks that each take a part.";
  return Filled::never;
}

Inputs::Filled Inputs::too_big(std::string& why) {
  why = "The results that this task would get as inputs are more than " + std::to_string(limits::kInputsBytes / MiB) +
        " MiB in all. Pass fewer, gather them in steps, or hand them on as files.";
  return Filled::never;
}

}  // namespace grange::queue
