#include "fold.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace grange::sim {

void Fold::apply(const std::vector<core::Record>& records) {
  for (const core::Record& record : records) {
    if (const auto* a = std::get_if<core::JobAdded>(&record)) {
      Job& job = jobs_[a->job];
      job.header = a->header;
      job.progress.job = a->job;
      job.progress.count = a->header.count;
    } else if (const auto* p = std::get_if<core::JobProgressed>(&record)) {
      jobs_[p->job].progress = *p;
    } else if (const auto* k = std::get_if<core::TaskKept>(&record)) {
      jobs_[k->task.job()].kept[k->task.index()] = *k;
    } else if (const auto* e = std::get_if<core::TaskEnded>(&record)) {
      Job& job = jobs_[e->task.job()];
      job.outcomes[e->task.index()] = *e;
      job.kept.erase(e->task.index());
    } else if (const auto* x = std::get_if<core::JobExtended>(&record)) {
      if (!x->key.empty()) jobs_[x->job].extends[x->key] = x->first + x->count;
    } else if (const auto* r = std::get_if<core::TaskReopened>(&record)) {
      jobs_[r->task.job()].outcomes.erase(r->task.index());
    } else if (const auto* u = std::get_if<core::UserSet>(&record)) {
      users_[u->user] = u->limits;
    } else if (const auto* f = std::get_if<core::FarmSet>(&record)) {
      paused_ = f->paused;
    }
  }
}

std::string Fold::differs(store::Reader& reader) const {
  auto there = reader.jobs({.state = std::nullopt, .before = std::nullopt, .skip = 0, .limit = limits::kPage});
  if (!there) return "jobs cannot be read: " + there.error().message;
  for (const store::JobRow& row : *there) {
    if (!jobs_.contains(row.job))
      return fmt::format("job {} is in the store and in no committed record", row.job.value);
  }
  for (const auto& [no, job] : jobs_) {
    auto row = reader.job(no);
    if (!row || !*row) return fmt::format("job {} is not in the store", no.value);
    const store::JobRow& r = **row;
    const core::JobProgressed& p = job.progress;
    if (r.state != p.state || r.count != p.count || r.next_index != p.next_index || r.counts != p.counts ||
        r.open != p.open || r.opened != p.opened || r.paused != p.paused)
      return fmt::format("job {}: the store has {} {}+{}+{} of {} from {}{}, the records {} {}+{}+{} of {} from {}{}",
                         no.value, core::name(r.state), r.counts.completed, r.counts.failed, r.counts.cancelled,
                         r.count, r.next_index, r.paused ? " paused" : "", core::name(p.state), p.counts.completed,
                         p.counts.failed, p.counts.cancelled, p.count, p.next_index, p.paused ? " paused" : "");
    auto outcomes = reader.outcomes(no, 0, limits::kPage, false);
    if (!outcomes) return "outcomes cannot be read: " + outcomes.error().message;
    if (outcomes->size() != std::min<std::size_t>(job.outcomes.size(), limits::kPage))
      return fmt::format("job {}: {} outcomes in the store, {} in the records", no.value, outcomes->size(),
                         job.outcomes.size());
    for (const auto& o : *outcomes) {
      const auto it = job.outcomes.find(o.task.index());
      if (it == job.outcomes.end() || it->second.end != o.end || it->second.attempt != o.attempt ||
          it->second.failure != o.failure)
        return fmt::format("task {}/{}: the store's outcome is not the recorded one", no.value, o.task.index());
    }
    for (const auto& [key, total] : job.extends) {
      const auto known = reader.find_extend(no, key);
      if (!known || *known != total)
        return fmt::format("job {}: the store does not know what was added with key {}", no.value, key);
    }
    auto kept = reader.kept(no);
    if (!kept) return "kept tasks cannot be read: " + kept.error().message;
    if (kept->size() != job.kept.size())
      return fmt::format("job {}: {} kept tasks in the store, {} in the records", no.value, kept->size(),
                         job.kept.size());
    for (const auto& k : *kept) {
      const auto it = job.kept.find(k.task.index());
      if (it == job.kept.end() || it->second.attempt != k.attempt || it->second.parked != k.parked ||
          it->second.requeue != k.requeue || it->second.failures != k.failures || it->second.ready_at != k.ready_at)
        return fmt::format("task {}/{}: what the store keeps of it is not what was recorded", no.value, k.task.index());
    }
  }
  return {};
}

std::string Fold::differs(const core::Farm& farm) const {
  std::size_t live = 0;
  for (const auto& [no, job] : jobs_) {
    const auto view = farm.job(no);
    if (core::ended(job.progress.state)) {
      if (view) return fmt::format("job {} has ended and is live again", no.value);
      continue;
    }
    live += 1;
    if (!view) return fmt::format("job {} is not in the core", no.value);
    if (view->counts != job.progress.counts || view->count != job.progress.count ||
        view->is_paused != job.progress.paused || view->open != job.progress.open ||
        view->next_index != job.progress.next_index)
      return fmt::format("job {}: the core has {}+{}+{} of {} from {}, the records {}+{}+{} of {} from {}", no.value,
                         view->counts.completed, view->counts.failed, view->counts.cancelled, view->count,
                         view->next_index, job.progress.counts.completed, job.progress.counts.failed,
                         job.progress.counts.cancelled, job.progress.count, job.progress.next_index);
    for (const auto& [index, kept] : job.kept) {
      const auto task = farm.task(TaskId::of(no, index));
      if (!task) return fmt::format("task {}/{} is kept and not in the core", no.value, index);
      if (task->attempt != kept.attempt)
        return fmt::format("task {}/{}: attempt {} in the core, {} recorded", no.value, index, task->attempt,
                           kept.attempt);
      if ((task->state == core::LiveState::paused) != kept.parked)
        return fmt::format("task {}/{} is {} after the restart, and was {}paused", no.value, index,
                           core::name(task->state), kept.parked ? "" : "not ");
    }
  }
  if (farm.view().live_jobs != live)
    return fmt::format("{} jobs are live in the core, {} in the records", farm.view().live_jobs, live);
  if (farm.view().paused != paused_) return "the farm's pause was forgotten";
  for (const auto& [user, limits] : users_) {
    const auto users = farm.users();
    const auto it = std::find_if(users.begin(), users.end(), [&](const core::UserView& v) { return v.user == user; });
    if (limits == core::UserLimits{}) continue;
    if (it == users.end() || it->limits != limits) return fmt::format("the limits of \"{}\" were forgotten", user);
  }
  return {};
}

}  // namespace grange::sim
