// How things look in JSON, for REST, the JSON dialect and events alike.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "core/views.hpp"
#include "server/api/operations.hpp"
#include "server/task_output.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {

namespace json = boost::json;

json::value time_json(WallMs t);  // null when 0
json::object job_json(const JobFigures& job);

struct TaskLook {
  std::uint32_t index = 0;
  std::string status = "pending";
  Attempt attempt = 0;
  std::string worker_id, second_worker_id, message;
  core::FailureClass failure{};
  core::Stage stage{};
  std::optional<std::int32_t> exit_code;         // of a command that ended
  std::optional<TaskOutput::Progress> progress;  // the last that was told, while it runs
  std::uint64_t run_us = 0;
  WallMs ended_at{}, retry_at{};
};
json::object task_json(const std::string& job_id, const TaskLook& task);

// A result's value as JSON. Reads a blob when it is small; on a reader's thread.
struct ValueLook {
  json::value value;     // JSON, or text
  std::string base64;    // when it is neither
  bool in_blob = false;  // too large to show: fetch the blob
};
ValueLook look_at_value(pb::Encoding encoding, const core::ResultBody& body, const store::BlobStore& blobs);
json::object outcome_json(pb::Encoding encoding, const store::OutcomeRow& row, const std::string& worker_id,
                          const store::BlobStore& blobs);
std::string_view encoding_name(pb::Encoding encoding);

json::object log_json(const std::string& job_id, const store::StoredLog& log);
json::object worker_json(const store::WorkerRow& row, const std::optional<core::WorkerView>& live,
                         const std::optional<WorkerFigures>& figures, WallMs now);
json::object load_json(const WorkerLoad& load);
json::object failure_json(const store::FailureRow& row, const std::string& job_id, const std::string& worker_id);

// The core knows workers by number: "worker 3" and "the largest worker, 3," become what people call it.
std::string name_workers(const std::string& text, const std::function<std::string(WorkerNo)>& name);
// What people know of workers and the core does not, of those that an explanation names.
struct WorkerWords {
  std::string name;               // "": it has none but its id
  std::vector<std::string> down;  // its services that do not answer: "ollama is down: …"
};
using WorkerWordsMap = std::unordered_map<WorkerNo, WorkerWords>;
WorkerWordsMap words_of(const std::vector<store::WorkerRow>& rows);
json::object explanation_json(const core::Explanation& e, const std::string& job_id, const WorkerHub& workers,
                              const WorkerWordsMap& words);
json::object user_json(const core::UserView& user);
json::object policy_json(const core::PolicyView& policy);
json::object dead_json(const DeadLook& dead);
json::object schedule_json(const store::ScheduleRow& row);
// next_event: where to follow events from, taken before what is shown was read.
json::object stats_json(const Services& s, const store::Totals& totals, const core::FarmView& view,
                        const std::string& policy, std::uint64_t next_event);
std::string_view shown_user(std::string_view user);  // "" is anonymous

std::string error_body(const Error& error);  // {"error":{"code":..,"message":..,"details":{}}}

}  // namespace grange::server
