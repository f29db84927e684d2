// The second, simple model. It is told only what clients and workers saw, each request being ok, refused or unknown,
// and knows what must never follow from that. The S-numbers are in sim/README.md.
#pragma once

#include <map>
#include <optional>
#include <set>

#include "grange/v1/wire.pb.h"
#include "store/store.hpp"
#include "world.hpp"

namespace grange::sim {

namespace pb = ::grange::v1;

// What a client wanted, as it knows itself.
struct Parent {
  std::string key;
  bool one = false;
  std::uint32_t index = 0;
  bool each = false;
};
struct Wanted {
  std::string key;
  pb::JobSpec spec;
  std::vector<Parent> after;
  bool satisfiable = true;
};

class Auditor {
 public:
  explicit Auditor(World& world) : world_(world) {}

  // ---- what clients do and see
  void wants(const Wanted& job);                      // before the first submit of it leaves
  void submitted(const std::string& key, JobNo job);  // ok
  void wants_more(const std::string& key, std::uint32_t count);
  void wants_cancel(const std::string& key, std::optional<std::uint32_t> index);
  void cancelled(const std::string& key, std::optional<std::uint32_t> index);  // ok
  void wants_retry(const std::string& key);
  void wants_pause(const std::string& key, bool pause);
  void paused(const std::string& key);  // ok
  void outcome(JobNo job, const pb::Outcome& outcome);
  void job_ended(JobNo job, const pb::JobStatus& status);

  // ---- what workers see and do. worker: the actor; a liar is one, too
  void spec(std::uint32_t worker, const pb::SpecOrder& order);
  void assigned(std::uint32_t worker, const Fence& fence, Instant sent);
  void started(std::uint32_t worker, const Fence& fence);
  void given_up(std::uint32_t worker, const Fence& fence);  // returned, preempted, disowned or crashed
  void result(std::uint32_t worker, const pb::TaskResult& result);
  void acknowledged(std::uint32_t worker, const pb::ResultAck& ack);
  void lease_lost(std::uint32_t worker);  // the server says so
  // Something was done to this worker, or its connection: its leases may end from now on.
  void disturbed(std::uint32_t worker) { disturbed_[worker] = world_.mono(); }
  void all_disturbed() { all_disturbed_ = world_.mono(); }

  // ---- against the store, after each restart and at the end
  void check_store(store::Reader& reader);
  // All that is satisfiable has ended, and its clients know. Empty: yes; else what is missing.
  std::string unfinished(store::Reader& reader);

  std::size_t jobs() const { return jobs_.size(); }
  std::uint64_t results_accepted() const { return accepted_; }
  const Wanted* wanted(const std::string& key) const;
  JobNo number(const std::string& key) const;

 private:
  struct Try {
    std::uint32_t worker = 0;
    Attempt attempt = 0;
    LeaseEpoch epoch = 0;
    Instant at{};
    bool started = false, over = false;
    bool said_ok = false, said_failed = false;
    bool acked = false;
    std::set<std::string> values;  // a liar says several
    Instant said_at{};             // the first
  };
  struct Outcome {
    pb::TaskEnd end{};
    pb::FailureClass failure{};
    Attempt attempt = 0;
    Instant seen{};
  };
  struct Task {
    std::vector<Try> tries;
    std::optional<Outcome> outcome;
    // An ok result whose ack arrived; its value, if its holder said one only.
    std::optional<std::pair<Attempt, std::optional<std::string>>> accepted;
    std::uint32_t failures = 0;  // accepted failures since it was last reopened
    Instant cancel_wanted{}, cancel_acked{};
    bool any_ok = false;  // some worker said ok at some time
  };
  struct Job {
    Wanted wanted;
    JobNo no;  // 0: nobody knows yet
    std::uint32_t most = 0;
    Instant cancel_wanted{}, cancel_acked{}, retry_wanted{}, pause_acked{}, resume_wanted{};
    bool pause_wanted = false;
    std::map<std::uint32_t, Task> tasks;
    std::optional<pb::JobStatus> ended;
    bool odd() const { return wanted.spec.nodes() > 1 || wanted.spec.speculation().on(); }
  };
  Job& job(const std::string& key);
  Job* job(JobNo no);
  void number(Job& job, JobNo no, const char* who);
  Try* find(Task& task, std::uint32_t worker, Attempt attempt, LeaseEpoch epoch);
  void check_parents(const Job& child, std::uint32_t index);
  bool quiet_since(std::uint32_t worker, Instant t) const;
  Instant last_cancel(const Job& job, const Task& task) const { return std::max(job.cancel_acked, task.cancel_acked); }

  World& world_;
  std::map<std::string, Job> jobs_;
  std::map<JobNo, std::string> names_;
  std::map<LeaseEpoch, std::pair<std::uint32_t, TaskId>> epochs_;
  std::map<std::uint32_t, Instant> disturbed_;
  Instant all_disturbed_{};
  std::uint64_t accepted_ = 0;
};

std::string label(TaskId task);

}  // namespace grange::sim
