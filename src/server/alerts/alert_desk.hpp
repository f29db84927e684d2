// Alerts of this farm: looks each second at what the server knows, keeps what changes, and tells who wants to hear.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>

#include <boost/json/object.hpp>

#include "core/explain.hpp"
#include "core/views.hpp"
#include "server/alerts/alert_waits.hpp"
#include "server/alerts/alert_webhook.hpp"
#include "server/alerts/alerts.hpp"
#include "server/gateway/routing.hpp"
#include "server/overview/attention.hpp"
#include "server/services.hpp"

namespace grange::server {

// The Loop's thread only.
class AlertDesk {
 public:
  // As RunPorts: work on the store's own thread, between two commits.
  using OnStore = std::function<void(std::function<Result<>(store::Store&)>, std::function<void(Result<>)>)>;
  AlertDesk(Services& services, OnStore on_store);

  Result<> load(store::Reader& reader);
  void deliver(const queue::Delivery& delivery);
  void forget_jobs() { failed_.clear(); }                                            // the database was cleared
  void offered(const std::string& worker_id, const gateway::ServiceList& services);  // by a worker's manifest
  void sampled(Now now, const core::FarmView& view);                                 // each second
  // What is not on disk yet; the store is nobody else's then.
  void keep_in(store::Store& store);

  const AlertState& state() const { return state_; }
  std::vector<Attention> attention() const;  // open ones that the first page does not look at itself
  boost::json::object alert_json(const Alert& alert) const;
  boost::json::object rule_json(AlertKind kind) const;
  boost::json::object webhook_json() const;
  std::string metrics() const;

  // Answered when it is on disk.
  void choose(AlertKind kind, AlertChoice choice, std::function<void(Result<>)> done);
  void silence(std::uint64_t id, Millis length, bool whole_kind, std::function<void(Result<Alert>)> done);

 private:
  struct Slow;  // a look that asks the core
  struct LostWorker {
    WallMs at{};
    std::uint32_t requeued = 0;
    std::string said = {};  // of one that was lost before the start
  };
  struct FailedJob {
    WallMs at{};
    std::uint32_t failed = 0, total = 0;
    std::string id, name;  // "": not known yet
  };
  struct WaitLook {
    Instant at{};  // 0: not looked at yet
    bool on_purpose = false;
    std::string subject = {}, shown = {}, why = {};  // "": not known, or of no use
  };
  struct Figures {
    Instant at;
    std::uint64_t completed = 0, failed = 0;
  };

  // alert_look.cpp
  void look_slowly(Now now, const core::FarmView& view);
  void looked(const Slow& slow);
  AlertLook fast_look(Now now, const core::FarmView& view);
  void see_machines(AlertLook& out, const std::vector<core::WorkerView>& workers);
  void see_services(AlertLook& out);
  void see_figures(AlertLook& out, Now now);
  void see_waiting(AlertLook& out, const Slow& slow);
  std::vector<JobNo> waiting_to_explain(Now now, const core::FarmView& view);
  std::optional<Micros> waited(JobNo job, Now now) const;  // nullopt: it does not wait any more
  void measure_disk();
  void learn_name(JobNo job);
  std::string called(WorkerNo worker);  // its name, or its id

  void changed(std::vector<AlertChange> changes, Now now);
  void publish(std::string_view type, const boost::json::object& data) const;
  void write();

  Services& s_;
  const OnStore on_store_;
  AlertState state_;
  std::unique_ptr<AlertWebhook> webhook_;  // null: nobody
  // what is to be written
  std::map<std::uint64_t, store::AlertRow> dirty_;
  bool writing_ = false;
  Instant tried_{};
  // what was seen
  std::map<WorkerNo, LostWorker> lost_;
  std::map<JobNo, FailedJob> failed_;
  std::unordered_map<WorkerNo, std::string> names_;
  std::set<std::pair<std::string, std::string>> were_ready_;  // worker, service
  std::map<std::string, WorkerNo> speaks_for_;                // host -> the worker whose figures are the machine's
  std::unordered_map<JobNo, WaitLook> waits_;      // what was said of those that wait; it holds until it is said anew
  std::unordered_map<JobNo, WallMs> waits_since_;  // of alerts that were open when the server started
  std::size_t workers_ = 0;                        // when last looked
  std::deque<Figures> figures_;
  std::optional<double> disk_free_percent_;
  Bytes disk_free_ = 0;
  Instant looked_{}, disk_asked_{}, names_asked_{};
  bool looking_ = false, want_names_ = false;
  AlertLook slow_;  // what the last slow look saw
};

}  // namespace grange::server
