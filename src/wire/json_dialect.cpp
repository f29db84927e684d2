#include "wire/json_dialect.hpp"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/stream_parser.hpp>
#include <cmath>
#include <iterator>

#include "base/limits.hpp"

namespace grange::wire {
namespace {

Error bad(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

// Strings, and numbers where an id is wanted: both are common among JSON clients.
Result<std::string> text_field(const json::object& object, std::string_view key, std::string_view where,
                               std::size_t most = limits::kNameBytes) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return std::string();
  if (value->is_int64() || value->is_uint64()) return json::serialize(*value);
  if (!value->is_string()) return bad(fmt::format("\"{}{}\" must be a string.", where, key));
  const json::string& text = value->get_string();
  if (text.size() > most)
    return bad(fmt::format("\"{}{}\" may have at most {} bytes; it has {}.", where, key, most, text.size()));
  return std::string(text.data(), text.size());
}

Result<std::optional<std::uint64_t>> count_field(const json::object& data, std::string_view key) {
  const json::value* value = data.if_contains(key);
  if (value == nullptr || value->is_null()) return std::optional<std::uint64_t>{};
  if (value->is_uint64()) return std::optional<std::uint64_t>{value->get_uint64()};
  if (value->is_int64() && value->get_int64() >= 0)
    return std::optional<std::uint64_t>{static_cast<std::uint64_t>(value->get_int64())};
  return bad(fmt::format("\"data.{}\" must be a whole number, 0 or more.", key));
}

Result<bool> flag_field(const json::object& data, std::string_view key) {
  const json::value* value = data.if_contains(key);
  if (value == nullptr || value->is_null()) return false;
  if (!value->is_bool()) return bad(fmt::format("\"data.{}\" must be true or false.", key));
  return value->get_bool();
}

double number_field(const json::object& data, std::string_view key, double fallback) {
  const json::value* value = data.if_contains(key);
  if (value == nullptr || !value->is_number()) return fallback;
  return value->to_number<double>();
}

bool from_hex(std::string_view text, std::string& out) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  if (text.size() % 2 != 0) return false;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return false;
    out.push_back(static_cast<char>(high * 16 + low));
  }
  return true;
}

Result<JsonTaskRef> read_ref(const JsonMessage& message) {
  JsonTaskRef ref;
  auto task = text_field(message.data, "task_id", "data.");
  if (!task) return std::move(task).error();
  ref.task = std::move(*task);
  auto attempt = count_field(message.data, "attempt");
  if (!attempt) return std::move(attempt).error();
  if (attempt->has_value()) {
    if (**attempt > UINT32_MAX) return bad("\"data.attempt\" is too large.");
    ref.attempt = static_cast<std::uint32_t>(**attempt);
  }
  auto epoch = count_field(message.data, "epoch");
  if (!epoch) return std::move(epoch).error();
  ref.epoch = *epoch;
  return ref;
}

}  // namespace

const std::vector<std::pair<std::string_view, JsonKind>>& json_types() {
  static const std::vector<std::pair<std::string_view, JsonKind>> types = {
      {"submit_job", JsonKind::submit_job},
      {"get_job_status", JsonKind::get_job_status},
      {"get_results", JsonKind::get_results},
      {"get_job_result", JsonKind::get_results},
      {"cancel_job", JsonKind::cancel_job},
      {"register_worker", JsonKind::register_worker},
      {"worker_ready", JsonKind::register_worker},
      {"task_request", JsonKind::task_request},
      {"task_result", JsonKind::task_result},
      {"result_submit", JsonKind::task_result},
      {"worker_failure", JsonKind::task_failure},
      {"task_error", JsonKind::task_failure},
      {"progress_update", JsonKind::progress},
      {"task_progress", JsonKind::progress},
      {"heartbeat", JsonKind::heartbeat},
      {"worker_heartbeat", JsonKind::heartbeat},
      {"ping", JsonKind::ping},
      {"pong", JsonKind::pong},
      {"subscribe", JsonKind::subscribe},
      {"unsubscribe", JsonKind::unsubscribe},
  };
  return types;
}

Result<json::value> parse_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = limits::kJsonDepth;
  json::error_code error;
  json::stream_parser parser(json::storage_ptr{}, options);
  const std::size_t read = parser.write_some(text.data(), text.size(), error);
  if (!error && read == text.size()) parser.finish(error);
  if (error == json::error::too_deep)
    return bad(fmt::format("The JSON is nested deeper than {} levels.", limits::kJsonDepth));
  if (error == json::error::incomplete) return bad("The JSON ends before it is complete.");
  if (error || read != text.size()) {
    return bad(fmt::format("This is not JSON: it goes wrong after byte {}{}{}.", read, error ? ": " : "",
                           error ? error.message() : ""));
  }
  return parser.release();
}

Result<JsonMessage> decode_json(std::string_view text) {
  if (text.size() > limits::kFrame) {
    return Error{ErrorClass::too_large, fmt::format("A message may have at most {} bytes.", limits::kFrame)};
  }
  auto value = parse_json(text);
  if (!value) return std::move(value).error();
  json::object* object = value->if_object();
  if (object == nullptr)
    return bad("A message must be a JSON object: {\"type\": ..., \"job_id\": ..., \"data\": {...}}.");
  auto type = text_field(*object, "type", "");
  if (!type) return std::move(type).error();
  if (type->empty()) return bad("The message has no \"type\".");
  JsonMessage message;
  bool known = false;
  for (const auto& [name, kind] : json_types()) {
    if (name == *type) {
      message.kind = kind;
      known = true;
      break;
    }
  }
  if (!known) {
    json::array names;
    for (const auto& [name, kind] : json_types()) names.emplace_back(name);
    const json::object details{{"type", *type}, {"known", std::move(names)}};
    return Error{ErrorClass::invalid_argument, "The message type \"" + *type + "\" is not known here.",
                 json::serialize(details)};
  }
  message.type = std::move(*type);
  auto job_id = text_field(*object, "job_id", "");
  if (!job_id) return std::move(job_id).error();
  message.job_id = std::move(*job_id);
  auto worker_id = text_field(*object, "worker_id", "");
  if (!worker_id) return std::move(worker_id).error();
  message.worker_id = std::move(*worker_id);
  if (json::value* data = object->if_contains("data"); data != nullptr && !data->is_null()) {
    if (!data->is_object()) return bad("\"data\" must be an object.");
    message.data = std::move(data->get_object());
  }
  // Some clients put the id into data.
  if (message.job_id.empty()) {
    auto inner = text_field(message.data, "job_id", "data.");
    if (!inner) return std::move(inner).error();
    message.job_id = std::move(*inner);
  }
  if (message.worker_id.empty()) {
    auto inner = text_field(message.data, "worker_id", "data.");
    if (!inner) return std::move(inner).error();
    message.worker_id = std::move(*inner);
  }
  return message;
}

Result<JsonSubmit> read_submit(const JsonMessage& message) {
  JsonSubmit out;
  out.job_id = message.job_id;
  const json::value* code = message.data.if_contains("func_code");
  if (code == nullptr || !code->is_string() || code->get_string().empty()) {
    return bad("\"data.func_code\" is missing: the function, pickled by cloudpickle, as hexadecimal text.");
  }
  if (!from_hex(code->get_string(), out.code)) {
    return bad("\"data.func_code\" is not hexadecimal. Send cloudpickle.dumps(function).hex().");
  }
  const json::value* args = message.data.if_contains("args_list");
  if (args == nullptr || !args->is_array()) {
    return bad("\"data.args_list\" must be a list that holds one inner list of arguments for each task.");
  }
  const json::array& list = args->get_array();
  if (list.empty()) return bad("\"data.args_list\" is empty: a job has at least one task.");
  if (list.size() > limits::kTasksPerJob) {
    return Error{ErrorClass::too_large,
                 fmt::format("\"data.args_list\" has {} tasks; a job may have {}.", list.size(), limits::kTasksPerJob)};
  }
  auto total = count_field(message.data, "total_tasks");
  if (!total) return std::move(total).error();
  if (total->has_value() && **total != list.size()) {
    return bad(
        fmt::format("\"data.total_tasks\" is {}, but \"data.args_list\" holds {} inner lists.", **total, list.size()));
  }
  out.args.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_array()) {
      return bad(fmt::format("\"data.args_list[{}]\" is not a list: give each task's arguments as an inner list.", i));
    }
    out.args.push_back(json::serialize(list[i]));
  }
  auto name = text_field(message.data, "name", "data.");
  if (!name) return std::move(name).error();
  out.name = std::move(*name);
  auto user = text_field(message.data, "user", "data.");
  if (!user) return std::move(user).error();
  out.user = std::move(*user);
  if (const json::value* priority = message.data.if_contains("priority"); priority != nullptr && !priority->is_null()) {
    if (!priority->is_int64()) return bad("\"data.priority\" must be a whole number.");
    out.priority = priority->get_int64();
  }
  auto retries = count_field(message.data, "max_attempts");
  if (!retries) return std::move(retries).error();
  out.max_attempts = *retries;
  if (const json::value* timeout = message.data.if_contains("timeout"); timeout != nullptr && !timeout->is_null()) {
    if (!timeout->is_number() || !(timeout->to_number<double>() > 0) || timeout->to_number<double>() > 4'000'000) {
      return bad("\"data.timeout\" must be a number of seconds above 0.");
    }
    out.time_limit_ms = static_cast<std::uint64_t>(timeout->to_number<double>() * 1000);
  }
  auto fail_fast = flag_field(message.data, "fail_fast");
  if (!fail_fast) return std::move(fail_fast).error();
  out.fail_fast = *fail_fast;
  auto ack = flag_field(message.data, "ack");
  if (!ack) return std::move(ack).error();
  out.ack = *ack;
  return out;
}

Result<JsonTaskEnd> read_task_end(const JsonMessage& message) {
  JsonTaskEnd end;
  auto ref = read_ref(message);
  if (!ref) return std::move(ref).error();
  end.ref = std::move(*ref);
  end.ok = message.kind == JsonKind::task_result;
  if (end.ok) {
    const json::value* result = message.data.if_contains("result");
    end.result = result == nullptr ? "null" : json::serialize(*result);
    return end;
  }
  for (const std::string_view key : {"error", "message"}) {
    const json::value* value = message.data.if_contains(key);
    if (value == nullptr || value->is_null()) continue;
    end.message = value->is_string() ? std::string(value->get_string()) : json::serialize(*value);
    break;
  }
  if (end.message.empty()) end.message = "The worker reported a failure and gave no message.";
  if (const json::value* trace = message.data.if_contains("traceback"); trace != nullptr && trace->is_string()) {
    end.traceback = std::string(trace->get_string());
  }
  auto permanent = flag_field(message.data, "permanent");
  if (!permanent) return std::move(permanent).error();
  end.permanent = *permanent;
  return end;
}

Result<JsonProgress> read_progress(const JsonMessage& message) {
  JsonProgress out;
  auto ref = read_ref(message);
  if (!ref) return std::move(ref).error();
  out.ref = std::move(*ref);
  out.done = number_field(message.data, "done",
                          number_field(message.data, "progress_percent", number_field(message.data, "progress", 0)));
  const bool percent = message.data.contains("progress_percent");
  out.total = number_field(message.data, "total", percent ? 100 : 0);
  auto text = text_field(message.data, "text", "data.", limits::kMessageBytes);
  if (!text) return std::move(text).error();
  out.text = std::move(*text);
  return out;
}

std::string quoted(std::string_view text) {
  return json::serialize(json::string_view(text.data(), text.size()));
}

namespace {

void write_text(const json::value& value, bool data, std::string& out) {
  switch (value.kind()) {
    case json::kind::double_: {
      const double number = value.get_double();
      if (!std::isfinite(number)) {
        out += "null";
        return;
      }
      const std::size_t from = out.size();
      fmt::format_to(std::back_inserter(out), "{}", number);
      if (data && out.find_first_of(".e", from) == std::string::npos) out += ".0";
      return;
    }
    case json::kind::object: {
      char before = '{';
      for (const auto& member : value.get_object()) {
        out += before;
        out += quoted(member.key());
        out += ':';
        write_text(member.value(), data || member.key() == "value", out);
        before = ',';
      }
      out += before == '{' ? "{}" : "}";
      return;
    }
    case json::kind::array: {
      char before = '[';
      for (const json::value& element : value.get_array()) {
        out += before;
        write_text(element, data, out);
        before = ',';
      }
      out += before == '[' ? "[]" : "]";
      return;
    }
    default:
      out += json::serialize(value);
  }
}

}  // namespace

std::string json_text(const json::value& value) {
  std::string out;
  write_text(value, false, out);
  return out;
}

std::string json_frame(std::string_view type, std::string_view job_id, std::string_view worker_id,
                       std::string_view data_json) {
  return fmt::format(R"({{"type":{},"job_id":{},"worker_id":{},"data":{}}})", quoted(type),
                     job_id.empty() ? "null" : quoted(job_id), worker_id.empty() ? "null" : quoted(worker_id),
                     data_json.empty() ? std::string_view("{}") : data_json);
}

std::string json_error(const Error& error, std::string_view job_id) {
  return json_frame("error", job_id, "",
                    fmt::format(R"({{"code":{},"message":{},"details":{}}})", quoted(code(error.cls)),
                                wire::quoted(error.message), error.details.empty() ? "{}" : error.details));
}

std::string json_assign(const JsonAssign& a) {
  return json_frame(
      "assign_task", a.job_id, a.worker_id,
      fmt::format(R"({{"task_id":{},"func_code":"{}","task_args":{},"attempt":{},"epoch":{},"function":{}}})",
                  wire::quoted(a.task), a.code_hex, a.args_json.empty() ? "[]" : a.args_json, a.attempt, a.epoch,
                  wire::quoted(a.function)));
}

}  // namespace grange::wire
