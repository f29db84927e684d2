// How ready work is kept: level > shape > users by fair order > jobs by fair order. A shape that fits nowhere is
// skipped with all that wait in it, in one step.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "core/types.hpp"

namespace grange::core {

struct Job;
struct User;

// What the planner tells apart: the requests of a job in order, and on how many workers at once.
using ShapeId = Id<struct ShapeTag, std::uint32_t>;
struct Shape {
  std::vector<RequestId> requests;
  std::uint32_t nodes = 1;
  std::uint32_t jobs = 0;            // live
  mutable std::uint64_t closed = 0;  // by this plan: fits nowhere
  // Enough workers could ever run it: what was found for that fleet.
  mutable bool could = false;
  mutable std::uint64_t could_fleet = 0;
  mutable Instant could_until{};
  mutable bool hopeless = false;  // no worker that is known could ever run it
  mutable std::uint64_t hopeless_fleet = 0;
};

// Fair order is start-time fair queueing on resource-seconds over weight: `used` is what ended, and what is out counts
// at its job's measured mean while it is out. Who comes back from idling is lifted to where the others are.
struct ReadyQueue {
  std::set<std::pair<double, JobNo>> jobs;
  double key = 0;  // of the flow in Level::users
  bool placed = false;
};
struct Flow {  // one user at one level
  User* user = nullptr;
  double used = 0;       // over the user's weight
  double in_flight = 0;  // over no weight
  std::uint32_t holds = 0;
  std::uint32_t members = 0;             // live jobs that are counted here
  double job_time = 0;                   // `used` of the job of it that was served last
  std::map<ShapeId, ReadyQueue> queues;  // of ready jobs
  mutable std::uint64_t plan_no = 0;
  mutable double planned = 0;  // this plan's further use, over its weight
};

struct Level {
  std::map<std::uint32_t, Flow> flows;                                  // by user number
  std::map<ShapeId, std::set<std::pair<double, std::uint32_t>>> users;  // with ready jobs of the shape
  double time = 0;                                                      // `used` of the flow that was served last
  std::uint32_t members = 0;
};

// Room that is kept for work that waited too long: the workers that it will run on take nothing of its level or lower.
struct Reservation {
  JobNo job;
  std::uint8_t alternative = 0;
  std::vector<WorkerNo> workers;
  bool needless = false;  // all of them run this job already
};

// The planner's own marks on a job and on a user, valid while plan_no is the current plan's.
struct PlanNote {
  std::uint64_t plan_no = 0;
  std::uint32_t taken = 0;     // of its ready tasks
  std::uint32_t picky = 0;     // of these, such as avoid workers
  std::uint64_t picky_at = 0;  // they had their turn in this tier
  double planned = 0;          // further use, over its weight
};
struct UserNote {
  std::uint64_t plan_no = 0;
  std::uint64_t tasks = 0, cpus_milli = 0, gpus_milli = 0;
  std::uint32_t starts = 0;
};

struct PolicyBook {
  std::uint64_t assigned = 0, completed = 0, failed = 0;
  Micros active_for{0};
};

}  // namespace grange::core
