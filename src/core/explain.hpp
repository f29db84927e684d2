// Why a task waits, in words and numbers. Copies, like all views.
#pragma once

#include <string>
#include <vector>

#include "core/types.hpp"

namespace grange::core {

// One thing that holds work back, or one demand that a worker does not meet.
struct Reason {
  std::string code;  // "memory", "label", "quota_running", "dependency", …: the list is in docs/explain.md
  std::string text;  // one sentence for a person, with the numbers
  std::int64_t have = 0, need = 0;
  WallMs until{};  // when it changes by itself; 0: not by time alone
};

struct WorkerFit {
  WorkerNo worker;
  bool could = false;             // once it is free, out of quarantine, or not avoided any more
  bool now = false;               // there is room this moment
  std::uint32_t alternative = 0;  // of the requests, the one that it meets (0: the first)
  std::vector<Reason> why = {};   // of not `now`
};

struct Explanation {
  JobNo job{};
  std::uint32_t index = Dependency::kAll;
  std::string state = {};               // of the task, or of the job
  std::string summary = {};             // one sentence: what it waits for first
  std::vector<Reason> waits = {};       // quota, fairness, dependency, rate, pause, back-off, deadline…
  std::vector<WorkerFit> workers = {};  // at most kExplainWorkers, those that come nearest first
  std::uint32_t workers_in_all = 0, workers_could = 0, workers_now = 0;
  std::uint64_t tasks_before = 0;  // of the same or a higher order, that are to be taken first; an estimate
  WallMs next_change{};            // the soonest `until`; 0: none known
};

struct UserView {
  std::string user;
  UserLimits limits;
  std::uint64_t queued = 0;
  std::uint32_t running = 0, cpus_milli = 0, gpus_milli = 0, jobs = 0;
  double usage = 0;  // resource-seconds used, decayed, over weight: who has less is served first
  double share = 0;  // of what is held now, 0..1
};

struct PolicyView {
  std::string name;
  bool active = false;
  std::uint64_t assigned = 0;               // tasks handed out under it
  std::uint64_t completed = 0, failed = 0;  // attempts that ended under it
  Micros active_for{0};
};

}  // namespace grange::core
