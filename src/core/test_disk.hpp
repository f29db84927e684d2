// The store as a fold of the records, as simple as can be: what the core must be rebuilt from.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/farm.hpp"

namespace grange::core {

struct Disk {
  struct Job {
    JobHeader header;
    JobProgressed progress;
  };
  std::map<JobNo, Job> jobs;
  std::map<TaskId, TaskEnded> outcomes;
  std::map<TaskId, TaskKept> kept;
  std::map<std::string, UserLimits> users;
  std::set<WorkerNo> connected;
  std::map<WorkerNo, WorkerQuarantined> quarantines;
  std::set<WorkerNo> paused_workers;
  FarmSet farm_set;

  void fold(const Effects& effects) {
    for (const Record& record : effects.records) std::visit([&](const auto& r) { add(r); }, record);
  }
  void add(const JobAdded& r) {
    jobs[r.job] = {r.header, {.job = r.job, .counts = {}, .count = r.header.count, .open = r.header.open}};
  }
  void add(const JobProgressed& r) { jobs.at(r.job).progress = r; }
  void add(const TaskKept& r) { kept[r.task] = r; }
  void add(const TaskEnded& r) {
    ASSERT_FALSE(outcomes.contains(r.task)) << "a task has one accepted outcome";
    outcomes[r.task] = r;
    kept.erase(r.task);
  }
  void add(const TaskReopened& r) { ASSERT_EQ(outcomes.erase(r.task), 1u); }
  void add(const AttemptFailed&) {}
  void add(const CheckpointKept&) {}
  void add(const WorkerSeen& r) {
    if (r.connected) {
      connected.insert(r.worker);
    } else {
      connected.erase(r.worker);
    }
  }
  void add(const JobExtended& r) { ASSERT_TRUE(r.count > 0 || !r.key.empty()); }
  void add(const JobCancelled&) {}
  void add(const WorkerQuarantined& r) { quarantines[r.worker] = r; }
  void add(const WorkerMarked& r) {
    if (r.paused) {
      paused_workers.insert(r.worker);
    } else {
      paused_workers.erase(r.worker);
    }
  }
  void add(const UserSet& r) { users[r.user] = r.limits; }
  void add(const FarmSet& r) { farm_set = r; }

  static std::uint32_t count(const Job& job) { return job.progress.count; }

  std::unique_ptr<Farm> load(FarmOptions options, Now now) const {
    auto farm = std::make_unique<Farm>(std::move(options));
    for (const auto& [no, job] : jobs) {
      if (ended(job.progress.state)) continue;
      std::vector<std::uint32_t> open, skipped;
      for (std::uint32_t i = 0; i < count(job); ++i) {
        const bool done = outcomes.contains(TaskId::of(no, i));
        if (i < job.progress.next_index && !done) open.push_back(i);
        if (i >= job.progress.next_index && done) skipped.push_back(i);
      }
      farm->load_job(no, job.header, job.progress, open, skipped);
    }
    for (const auto& [id, row] : kept) farm->load_task(row, now);
    for (const auto& [name, limits] : users) farm->load_user({name, limits});
    farm->load_farm(farm_set);
    for (const auto& [no, row] : quarantines) farm->load_quarantine(row, now);
    for (const auto no : paused_workers) farm->load_paused(no);
    for (const auto no : connected) farm->load_expected(no);
    farm->loaded(now);
    return farm;
  }

  // As the queue finds it in the store at a submit.
  std::vector<Parent> parents(const JobHeader& header) const {
    std::vector<Parent> out;
    for (const Dependency& d : header.after) {
      Parent p;
      if (const auto it = jobs.find(d.job); it != jobs.end()) {
        p.ended = ended(it->second.progress.state);
        p.succeeded = it->second.progress.state == JobState::completed;
        const std::uint32_t last = d.each ? header.count : d.index + 1;  // 0: the whole job
        for (std::uint32_t i = 0; i < last; ++i) {
          const auto o = outcomes.find(TaskId::of(d.job, i));
          // Of an ended job it was cancelled as a range, or there is no such task.
          if (o == outcomes.end() ? p.ended : o->second.end != TaskEnd::completed) p.ended_badly.emplace_back(i, i + 1);
        }
      }
      out.push_back(std::move(p));
    }
    return out;
  }

  RetryTasks retry(JobNo no) const {
    RetryTasks event{no, {}, {}};
    const Job& job = jobs.at(no);
    for (const auto& [id, o] : outcomes) {
      if (id.job() == no && o.end != TaskEnd::completed) event.tasks.push_back({id.index(), o.end, o.attempt});
    }
    if (!ended(job.progress.state)) return event;
    event.ended = RetryTasks::Reopen{job.header, job.progress, {}};
    for (const auto& [id, o] : outcomes) {
      if (id.job() == no && id.index() >= job.progress.next_index) event.ended->skipped.push_back(id.index());
    }
    return event;
  }
};

}  // namespace grange::core
