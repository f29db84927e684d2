#include "server/overview/attention.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace grange::server {
namespace {

std::string n_of(std::uint64_t n, std::string_view what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}
const std::string& called(const std::string& name, const std::string& id) {
  return name.empty() ? id : name;
}
int weight_of(const Attention& a) {
  return a.severity == "error" ? 0 : a.severity == "warn" ? 1 : 2;
}

}  // namespace

bool waits_on_purpose(const core::Explanation& why) {
  if (why.waits.empty()) return true;
  const std::string& code = why.waits.front().code;
  return code == "dependency" || code == "not_before" || code.starts_with("paused") || code == "open" ||
         code == "recovering" || code == "backoff" || code == "siblings" || code == "no_worker";
}

std::string span_words(Millis span) {
  const auto seconds = std::max<std::int64_t>(0, span.count() / 1000);
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 7200) return fmt::format("{} min", seconds / 60);
  return fmt::format("{} h", seconds / 3600);
}

std::vector<Attention> attention(const AttentionLook& look) {
  std::vector<Attention> out;
  if (look.storage_full) {
    out.push_back({"storage_full", "error", "The disk is full",
                   "New work is refused until there is room in the data folder. What was accepted is safe."});
  }
  if (look.workers == 0) {
    const bool waits = look.unfinished_tasks > 0;
    out.push_back({"no_workers", waits ? "error" : "info", "No worker is connected",
                   waits ? fmt::format("{} {} for one. Add a machine.", n_of(look.unfinished_tasks, "task"),
                                       look.unfinished_tasks == 1 ? "waits" : "wait")
                   : look.ever_had_workers ? "All machines have left. Work that is submitted now waits for one."
                                           : "Add a machine, and submit work to it."});
  }
  if (look.paused) {
    out.push_back(
        {"farm_paused", "warn", "The queue is paused", "Nothing new starts until it is resumed; what runs goes on."});
  }
  for (const auto& job : look.waiting) {
    out.push_back({"job_waits", job.hopeless ? "error" : "info",
                   fmt::format("{} has waited for {}", called(job.name, job.job_id), span_words(job.since)), job.why,
                   job.job_id});
  }
  for (const auto& worker : look.quarantined) {
    out.push_back({"worker_quarantined",
                   "warn",
                   fmt::format("{} is in quarantine", called(worker.name, worker.id)),
                   fmt::format("It failed {} in a row that others could do, and gets nothing new for {}.",
                               n_of(worker.number, "task"), span_words(worker.span)),
                   {},
                   worker.id});
  }
  for (const auto& worker : look.lost) {
    out.push_back({"worker_lost",
                   "warn",
                   fmt::format("{} was lost", called(worker.name, worker.id)),
                   fmt::format("It was last heard of {} ago{}", span_words(worker.span),
                               worker.number == 0 ? std::string(".")
                                                  : "; " + n_of(worker.number, "task") + " it held went to others."),
                   {},
                   worker.id});
  }
  for (const auto& job : look.failed) {
    out.push_back({"job_failed", "warn",
                   fmt::format("{} failed {} ago", called(job.name, job.job_id), span_words(job.ago)),
                   fmt::format("{} of {} failed.", job.failed, n_of(job.total, "task")), job.job_id});
  }
  if (look.dead_letters > 0) {
    out.push_back({"dead_letters", "info",
                   fmt::format("{}{} ended as failed", look.more_dead_letters ? "More than " : "",
                               n_of(look.dead_letters, "task")),
                   "They are kept with their messages, and can run again."});
  }
  out.insert(out.end(), look.alerts.begin(), look.alerts.end());
  std::stable_sort(out.begin(), out.end(),
                   [](const Attention& a, const Attention& b) { return weight_of(a) < weight_of(b); });
  return out;
}

}  // namespace grange::server
