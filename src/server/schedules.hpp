// Jobs that are submitted again and again. Each run has the idempotency key "schedule:NAME:TIME": it is submitted first
// and written down after, so a crash between the two repeats a submit that is answered with the job that is there. No
// run is lost, and none is made twice.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/cron.hpp"
#include "store/store.hpp"

namespace grange::server {

// What it needs of the rest of the server. Answers come on the Loop, at once or later.
struct SchedulePorts {
  std::function<WallMs()> now;
  std::function<void(Millis)> wake;  // call look() after so long; a later call replaces an earlier one
  struct Submitted {
    std::string job_id;
    bool existed = false;
  };
  std::function<void(const store::ScheduleRow&, const std::string& key, std::function<void(Result<Submitted>)>)> submit;
  std::function<void(const std::string& job_id, std::function<void(bool)>)> has_ended;  // or is gone
  std::function<void(store::ScheduleRow, std::function<void(Result<>)>)> save;
  std::function<void(const std::string& name, std::function<void(Result<>)>)> drop;
  std::function<void(std::string_view type, const store::ScheduleRow&)> tell;
};

class Schedules {
 public:
  using Row = store::ScheduleRow;
  explicit Schedules(SchedulePorts ports) : ports_(std::move(ports)) {}

  void load(std::vector<Row> rows);
  // Submits what is due, and asks to be woken for the next.
  void look();

  std::vector<Row> list() const;
  Result<Row> find(const std::string& name) const;
  // Adds or replaces: what was counted so far stays. `row` needs name, cron, file, user and the three flags.
  void put(Row row, std::function<void(Result<Row>)> done);
  void drop(const std::string& name, std::function<void(Result<>)> done);
  void set_paused(const std::string& name, bool paused, std::function<void(Result<Row>)> done);
  // One run now, whatever the calendar says.
  void run(const std::string& name, std::function<void(Result<SchedulePorts::Submitted>)> done);
  std::size_t size() const { return schedules_.size(); }

 private:
  struct Schedule {
    Row row;
    core::Cron cron;
    std::uint64_t generation = 0;  // an answer to an older one is of no use
    bool busy = false;
    WallMs retry_at{};
  };
  Schedule* current(const std::string& name, std::uint64_t generation);
  void due(Schedule& schedule, WallMs now);
  void submit(Schedule& schedule);
  void submitted(Schedule& schedule, WallMs time, Result<SchedulePorts::Submitted> answer);
  void leave_out(Schedule& schedule, WallMs now);
  void save(const Row& row);
  void arm();

  SchedulePorts ports_;
  std::map<std::string, Schedule> schedules_;
  std::uint64_t generations_ = 0;
};

}  // namespace grange::server
