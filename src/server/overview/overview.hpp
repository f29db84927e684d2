// What the dashboard's first page shows, gathered as it happens: a sample of the farm each second, what machines say of
// their load, failures of the last hour, and who waits or was lost.
#pragma once

#include <deque>
#include <map>
#include <unordered_map>

#include "core/explain.hpp"
#include "server/api/views.hpp"
#include "server/overview/attention.hpp"
#include "server/overview/history.hpp"
#include "server/services.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {

// What one heartbeat said.
struct LoadSample {
  WallMs at{};
  double cpu_percent = 0;
  Bytes memory_used = 0;
  WorkerLoad load;
};

class Overview {
 public:
  // As RunPorts: work on the store's own thread, between two commits.
  using OnStore = std::function<void(std::function<Result<>(store::Store&)>, std::function<void(Result<>)>)>;
  Overview(Services& services, OnStore on_store) : s_(services), on_store_(std::move(on_store)) {}

  Result<> load(store::Reader& reader);
  void deliver(const queue::Delivery& delivery);
  void tick(Now now);
  void keep();  // writes what is not on disk yet
  void worker_said(WorkerNo worker, const WorkerFigures& figures);

  const History& history() const { return history_; }
  const std::unordered_map<WorkerNo, std::deque<LoadSample>>& loads() const { return loads_; }
  // Live jobs with tasks that wait and none at a worker, since when.
  const std::unordered_map<JobNo, Instant>& idle() const { return idle_; }
  void waits(JobNo job);  // it was known to, before the start
  // The whole page as text; made at most once a second, whoever asks.
  void text(std::function<void(Result<std::shared_ptr<const std::string>>)> done);

 private:
  struct Look;
  void sample(Now now, const core::FarmView& view);
  void measure(FarmSample& sample) const;
  void look_at_waiting(Look& look, Now now) const;
  void build(Look& look);
  void answer(Result<std::shared_ptr<const std::string>> text);

  Services& s_;
  const OnStore on_store_;
  History history_;
  // sampling
  Instant sampled_{}, kept_{};
  bool sampling_ = false;
  queue::QueueCounters before_;
  // what happened
  struct Minute {
    std::int64_t minute = 0;
    std::map<core::FailureClass, std::uint64_t> failures;
  };
  std::deque<Minute> failures_;
  std::unordered_map<JobNo, Instant> idle_;
  std::deque<std::pair<JobNo, WallMs>> failed_jobs_;
  struct Lost {
    WallMs at{};
    std::uint32_t requeued = 0;
  };
  std::map<WorkerNo, Lost> lost_;
  std::unordered_map<WorkerNo, std::deque<LoadSample>> loads_;
  Instant swept_{};
  // the page
  std::shared_ptr<const std::string> text_;
  Instant made_{};
  std::vector<std::function<void(Result<std::shared_ptr<const std::string>>)>> waiting_;
  std::uint64_t dead_ = 0;
  Instant dead_counted_{};
};

}  // namespace grange::server
