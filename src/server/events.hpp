// Numbered facts that people and programs follow. A ring keeps the newest; a follower is a cursor into it, so a slow
// one costs nothing: it catches up from the ring, or is told of a gap and takes a snapshot again.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/limits.hpp"
#include "base/units.hpp"

namespace grange::server {

enum class Topic : std::uint8_t { jobs, tasks, workers, system, runs, alerts };
std::string_view name(Topic topic);

struct Fact {
  std::uint64_t number = 0;
  Topic topic{};
  JobNo job{};  // 0: of no job
  std::string job_id;
  std::string run = {};   // of a race: its id
  std::string type = {};  // "job_progress"
  std::string json = {};  // {"event":N,"topic":..,"type":..,"job_id":..,"time":..,"data":{..}}
};

// "jobs", "tasks", "workers", "system", "runs", "alerts", "job:7" (jobs and tasks facts of one job), "run:ID" (all of
// one race). Empty: everything but tasks.
struct Topics {
  bool jobs = false, tasks = false, workers = false, system = false, runs = false, alerts = false;
  std::vector<std::string> job_refs = {}, run_refs = {};
  bool wants(const Fact& fact) const;
  // nullopt: a name that is none of these; `bad` gets it.
  static std::optional<Topics> parse(const std::vector<std::string>& names, std::string& bad);
};

class Events {
 public:
  struct Sink {
    std::function<bool(const Fact&)> fact;        // false: taken, but hold back until writable()
    std::function<bool(std::uint64_t next)> gap;  // what lies before `next` is not here any more
    // Instead of `fact`, for who keeps it a while.
    std::function<bool(const std::shared_ptr<const Fact>&)> keep = {};
  };
  using Follower = std::uint64_t;

  explicit Events(std::uint64_t first_number, std::size_t kept = limits::kEventsKept)
      : next_(first_number), kept_(kept) {}

  void publish(Topic topic, JobNo job, const std::string& job_id, std::string_view type, std::string_view data_json,
               WallMs at, const std::string& run = {});
  // From number `from` on; nullopt: from now on. nullopt: too many followers.
  std::optional<Follower> follow(Topics topics, std::optional<std::uint64_t> from, Sink sink);
  void writable(Follower follower);
  void unfollow(Follower follower);
  // Does anybody listen to what single tasks do (of this job)? Facts that are too many to be kept for nobody ask first.
  bool tasks_followed() const { return task_followers_ > 0; }
  bool tasks_followed(JobNo job, const std::string& job_id) const;
  std::uint64_t next() const { return next_; }
  std::size_t followers() const { return followers_.size(); }

 private:
  struct State {
    Topics topics;
    std::shared_ptr<const Sink> sink;  // held while it is called: it may unfollow in there
    std::uint64_t cursor = 0;
    bool held = false;
    bool busy = false;  // its sink is being called: it may unfollow or become writable in there
  };
  void catch_up(Follower id);
  static bool of_tasks(const Topics& topics) {
    return topics.tasks || !topics.job_refs.empty() || !topics.run_refs.empty();
  }

  std::uint64_t next_;
  std::size_t kept_;
  std::deque<std::shared_ptr<const Fact>> ring_;
  std::map<Follower, State> followers_;
  Follower last_follower_ = 0;
  std::size_t task_followers_ = 0;
};

}  // namespace grange::server
