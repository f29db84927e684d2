// Matching waiting work with workers, private to the core. Levels from the highest; in a level users, then their jobs,
// by fair order; workers by the policy's score.
//
// Two tiers. First what fits into free resources; then a backlog, up to each worker's window, so that no worker waits a
// round trip. A shape of work that fits nowhere is closed for the rest of the plan: it never hides what stands behind
// it, and however much of it waits costs nothing.
#pragma once

#include <optional>

#include "core/fit.hpp"

namespace grange::core {

class Planner {
 public:
  Planner(Farm::State& state, Now now, Prng& prng);
  Plan run();

 private:
  enum class Tier { free, backlog };

  // Workers by score, for one request and kind. Scores only grow while a plan goes on, so an old one is a lower bound.
  struct Bench {
    struct Entry {
      policy::Score score;
      std::uint32_t spare = 0, version = 0;
      bool kept = false;  // for lesser work: taken when nothing else is left, or it would never get empty
      friend bool operator>(const Entry& a, const Entry& b) {
        if (a.kept != b.kept) return a.kept;
        if (a.score != b.score) return a.score > b.score;
        return a.spare > b.spare;
      }
    };
    RequestId request;
    std::uint32_t kind = 0;
    std::vector<Entry> heap;
  };

  // One user's ready jobs of one shape, while a level is served.
  struct Pair {
    Flow* flow = nullptr;
    ShapeId shape;
    std::set<std::pair<double, JobNo>>::const_iterator next, end;
    std::vector<std::pair<double, JobNo>> again;  // a heap: served already, or lifted
    bool fresh = true;
  };
  struct Entry {
    double user_tag = 0;
    std::uint32_t user = 0;
    double job_tag = 0;
    JobNo job;
    std::uint32_t pair = 0;
    friend bool operator>(const Entry& a, const Entry& b) {
      return std::tie(a.user_tag, a.user, a.job_tag, a.job) > std::tie(b.user_tag, b.user, b.job_tag, b.job);
    }
  };
  struct Cursor {
    std::set<std::pair<double, std::uint32_t>>::const_iterator next, end;
  };

  // plan.cpp: who is next
  void run_tier(Tier tier);
  void run_level(Level& level, Tier tier);
  bool open(const Shape& shape) const { return shape.closed != stamp(); }
  std::uint64_t stamp() const { return s_.plan_no * 2 + (tier_ == Tier::backlog ? 1 : 0); }
  bool hopeless(const Shape& shape) const;
  void next_user(Level& level, ShapeId shape);
  void push(std::uint32_t pair);
  std::optional<std::pair<double, JobNo>> head(const Pair& pair) const;
  void pop_job(Pair& pair);
  void serve(const Entry& entry, std::uint32_t rounds);
  double user_tag(const Flow& flow) const;
  double job_tag(const Job& job, const Flow& flow) const;
  std::uint32_t chunk(const Pair& pair, const Job& job, double user, double mine, std::uint32_t rounds) const;
  std::uint64_t room() const;
  std::uint32_t quota(const Job& job, const Request& request) const;  // how many more of its tasks, by request
  void wake_for_start(const User& user);
  UserNote& note(const User& user) const;
  PlanNote& note(const Job& job) const;
  std::uint64_t tier_mark() const { return tier_ == Tier::backlog ? 2 : 1; }

  // plan_place.cpp: where it goes
  Bench& bench(RequestId request, const Job& job);
  Bench& backlog_bench(RequestId request);
  policy::Score score(const Spare& spare, std::uint32_t kind) const;
  // These return how many of n found a place. `task`: that one, which avoids some workers.
  std::uint32_t place(const Job& job, std::uint32_t n, const Task* task);
  std::uint32_t place_free(const Job& job, std::uint8_t alternative, std::uint32_t n, const Task* task);
  std::uint32_t place_backlog(const Job& job, std::uint8_t alternative, std::uint32_t n, const Task* task);
  std::uint32_t place_picky(const Job& job);
  bool small(const Worker& w, const Request& r) const;
  bool another_could(const Job& job, const Task& task) const;
  bool avoids(const Task* task, const Spare& s) const {
    return task != nullptr && !any_worker_ && task->avoids(s.worker->no);
  }
  Bench::Entry entry(std::uint32_t spare, const Bench& bench) const;
  static bool outdated(const Bench::Entry& entry, const Spare& s) {
    return entry.version != s.version || entry.kept != s.kept;
  }
  bool barred(const Spare& spare, const Job& job) const;
  bool kept_for_any(WorkerNo no) const;
  bool displaces(const Job& job, int lowest) const;
  void grant(const Job& job, std::uint8_t alternative, Spare& spare, std::uint32_t n, const Task* task);
  void book(const Job& job, const Request& request, std::uint32_t n);

  // plan_gangs.cpp: room for what needs much of it
  std::uint32_t place_gangs(const Job& job, std::uint32_t n);
  bool place_gang(const Job& job, std::uint8_t alternative, const Task* task);
  std::vector<const Task*> waiting_there(const Worker& w) const;
  bool may_take_back(const Task& t) const;
  void check_reservations();
  void serve_reserved(int at);
  void starved(const Job& job);
  bool reserve(const Job& job, Reservation& out) const;
  void keep(const Reservation& r, int at, bool on);

  // plan_spare.cpp: what to do with what is left
  void take_back_for_idle();
  Spare* elsewhere(const Worker& w, const Task& task, std::map<RequestId, std::size_t>& from);
  Spare* behind(const Worker& w, std::size_t left, const Task& task, const std::vector<Spare*>& woken);
  void take_back_for_waiting();
  void second_attempts();
  void stragglers(Job& job);
  bool second_attempt(const Job& job, const Task& task);  // false: nothing of its kind fits anywhere
  void wake_at(Instant at) { s_.plan_wake = std::min(s_.plan_wake, at); }

  Farm::State& s_;
  Now now_;
  Prng& prng_;
  std::vector<Spare> spares_;
  std::uint64_t uses_;
  Tier tier_ = Tier::free;
  int at_ = 0;              // the level that is served
  std::uint64_t room_ = 0;  // of all workers, in tasks
  std::map<std::pair<std::uint32_t, std::uint32_t>, Bench> benches_;
  std::map<std::uint32_t, Bench> backlog_benches_;
  mutable std::map<std::pair<ShapeId, int>, bool> displaces_;
  std::vector<Pair> pairs_;
  std::vector<Entry> heap_;
  std::map<ShapeId, Cursor> cursors_;
  bool serving_reserved_ = false;
  std::vector<TaskId> picked_;
  bool any_worker_ = false;  // the task that is placed has nowhere else to go
  // The first work that found every window full: for it backlog may be taken back.
  const Job* unplaced_ = nullptr;
  std::uint32_t unplaced_count_ = 0, asked_ = 0;
  int unplaced_at_ = 0;
  Plan plan_;
};

}  // namespace grange::core
