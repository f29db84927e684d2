// The races that go on, and what ties their jobs together. Each is a RunState; here are its clock, its store, its files
// and those who follow it. The jobs are ordinary ones: after a restart they go on, and so does the race.
#pragma once

#include "server/runs/preflight.hpp"
#include "server/runs/run_files.hpp"
#include "server/runs/run_state.hpp"
#include "server/runs/run_summary.hpp"

namespace grange::server {

// A run as it is shown: live, or as it was kept.
struct RunLook {
  json::object metadata;
  json::object summary;
};

struct RunPorts {
  // Runs on the store's own thread; answers on the Loop.
  std::function<void(std::function<Result<>(store::Store&)>, std::function<void(Result<>)>)> on_store;
};

class RunBook {
 public:
  RunBook(Services& services, Operations& operations, RunPorts ports);
  // At start: those that had not ended, with what is known of their jobs.
  Result<> load(store::Reader& reader);

  struct Started {
    std::string run_id;
    std::uint64_t next_event = 0;  // follow from here, and nothing is missed
    json::object preflight;
  };
  void start(const Principal& who, RunSpec spec, Done<Started> done);
  void check(const Principal& who, RunSpec spec, Done<json::object> done);
  void look(const Principal& who, const std::string& id, Done<RunLook> done);
  void list(const Principal& who, store::RunFilter filter, Done<json::array> done);
  // Against others of the same kind; none named: the newest earlier ones of the same settings.
  void compare(const Principal& who, const std::string& id, std::vector<std::string> with, Done<json::object> done);
  // Answers when the run has ended and is kept, or after `patience`; at once when it does not go on.
  void wait(const std::string& id, Millis patience, std::function<void()> done);
  void cancel(const Principal& who, const std::string& id, const std::string& reason, Done<Unit> done);
  void remove(const Principal& who, const std::string& id, Done<Unit> done);  // conflict while it goes on
  void forget_all();                                                          // `db clear`
  void forget_beyond(std::uint64_t keep);                                     // of those that ended
  std::string events_file(const std::string& id) const { return files_.folder(id) + "/events.ndjson"; }

  // What happens on the farm.
  void began(Fence fence);
  bool said(Fence fence, const std::string& type, const std::string& data);  // false: of no race
  void deliver(const queue::Delivery& delivery);
  void tick(Now now);
  std::size_t live() const { return live_.size(); }

 private:
  struct Live {
    RunState state;
    std::string lines;  // of events.ndjson, not written yet
    Bytes written = 0;
    bool full = false;
    bool unsaved = false, saving = false;  // it has ended
    std::map<std::uint64_t, std::function<void()>> waiting;
  };
  struct Place {
    std::string run;
    std::size_t machine = 0;
    std::uint32_t phase = 0;
    std::uint32_t reading = 0;  // results that are blobs, being read
    bool over = false;          // the job
  };
  void facts(std::function<void(Result<std::vector<WorkerFacts>>)> done);
  void look_at_lanes(Instant now);  // run_lanes.cpp
  void submit(const std::string& id, std::function<void(Result<>)> done);
  void happened(const std::string& id, const RunEvent& event);
  void tell(Live& run, const Tell& what);
  void lifecycle(Live& run, std::string_view type);
  void outcome(const Place& place, const queue::Ended& ended);
  void over(const std::string& id);
  void keep(const std::string& id);
  Result<std::vector<RunEvent>> replay(store::Reader& reader, const RunState& run, Bytes& room) const;
  void save(const Live& run, std::function<void(Result<>)> done);
  void index(const Live& run);
  void flush(Live& run);

  Services& s_;
  Operations& operations_;
  RunPorts ports_;
  RunFiles files_;
  std::map<std::string, std::unique_ptr<Live>> live_;
  std::unordered_map<JobNo, Place> jobs_;
  Instant looked_{}, looked_at_lanes_{};
  bool looking_at_lanes_ = false;
  std::uint64_t last_wait_ = 0;
};

// The record of a run as the store keeps it.
std::string write_record(const RunState& run, const std::string& winner = {});
std::optional<RunState> read_record(const store::RunRow& row);  // nullopt: it is none

inline constexpr Bytes kRaceResult = 4 * MiB;  // of one request, that figures are read from
// too_large: more than `most`, or than a result of a race may have. Not on the loop's thread, it may be long.
Result<json::value> read_result(const store::BlobStore& blobs, const std::string& sha256, Bytes most = kRaceResult);

run_events::TaskOver task_over(std::size_t machine, std::uint32_t phase, TaskId task, core::TaskEnd end,
                               core::FailureClass failure, std::uint64_t run_us, const core::ResultBody* body);

}  // namespace grange::server
