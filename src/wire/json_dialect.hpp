// The JSON dialect: text frames {type, job_id, worker_id, data} with the message names of the seeds. Bytes <-> values,
// total on any input.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace grange::wire {

namespace json = boost::json;

// Names that mean the same share a kind: result_submit is task_result, task_error is worker_failure.
enum class JsonKind {
  submit_job,
  get_job_status,
  get_results,
  cancel_job,
  register_worker,
  task_request,
  task_result,
  task_failure,
  progress,
  heartbeat,
  ping,
  pong,
  subscribe,
  unsubscribe,
};
const std::vector<std::pair<std::string_view, JsonKind>>& json_types();

struct JsonMessage {
  JsonKind kind{};
  std::string type;    // as it was sent
  std::string job_id;  // "" when absent
  std::string worker_id;
  json::object data;
};

// One parser with our limits on depth. invalid_argument says where the text stops being JSON.
Result<json::value> parse_json(std::string_view text);
Result<JsonMessage> decode_json(std::string_view text);

struct JsonSubmit {
  std::string job_id;             // "" : the server chooses
  std::string code;               // bytes of func_code
  std::vector<std::string> args;  // one JSON list a task
  std::string name, user;
  std::int64_t priority = 0;
  std::optional<std::uint64_t> max_attempts;
  std::optional<std::uint64_t> time_limit_ms;
  bool fail_fast = false;
  bool ack = false;  // wants job_accepted before the job_result
};
Result<JsonSubmit> read_submit(const JsonMessage& message);

// What a worker says about an attempt. What it leaves out, the session's own record fills in.
struct JsonTaskRef {
  std::string task;  // "7/3", or "" when left out
  std::optional<std::uint32_t> attempt;
  std::optional<std::uint64_t> epoch;
};
struct JsonTaskEnd {
  JsonTaskRef ref;
  bool ok = true;
  std::string result;  // JSON
  std::string message, traceback;
  bool permanent = false;
};
Result<JsonTaskEnd> read_task_end(const JsonMessage& message);
struct JsonProgress {
  JsonTaskRef ref;
  double done = 0, total = 0;
  std::string text;
};
Result<JsonProgress> read_progress(const JsonMessage& message);

// server -> peer. `data` and `*_json` are JSON already.
std::string json_frame(std::string_view type, std::string_view job_id, std::string_view worker_id,
                       std::string_view data_json);
std::string json_error(const Error& error, std::string_view job_id);
struct JsonAssign {
  std::string job_id, worker_id, task, function, code_hex, args_json;
  std::uint32_t attempt = 0;
  std::uint64_t epoch = 0;
};
std::string json_assign(const JsonAssign& assign);
std::string quoted(std::string_view text);  // as a JSON string
// Numbers as people write them: 0, 9.713. What stands under "value" is somebody's data: there 1.0 stays 1.0.
std::string json_text(const json::value& value);

}  // namespace grange::wire
