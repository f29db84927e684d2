#include "server/api/job_file.hpp"

#include "base/limits.hpp"
#include "server/api/bad.hpp"
#include "server/api/job_keys.hpp"
#include "server/api/validate.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

void read_files_in(Keys& keys, pb::CommandSpec& command) {
  const json::array* files = keys.list("files_in");
  if (files == nullptr) return;
  for (const json::value& one : *files) {
    if (!one.is_object()) {
      keys.wrong("files_in",
                 "must hold {path, sha256, bytes, mode} here: upload each file with PUT /api/blobs/SHA256 first "
                 "(grange submit does it for you)");
      return;
    }
    Keys file(one.get_object(), "files_in.");
    pb::FileIn& in = *command.add_files_in();
    file.text("path", *in.mutable_path());
    file.text("sha256", *in.mutable_sha256());
    std::uint64_t bytes = 0;
    if (file.bytes("bytes", bytes)) in.set_bytes(bytes);
    std::int64_t mode = 0;
    if (file.integer("mode", 0, 0777, mode)) in.set_mode(static_cast<std::uint32_t>(mode));
    if (auto result = file.finish(); !result) {
      keys.fail(std::move(result).error());
      return;
    }
  }
}

void read_command(Keys& keys, pb::JobSpec& spec) {
  const json::value* command = keys.find("command");
  std::string script;
  const bool has_script = keys.text("script", script);
  pb::CommandSpec out;
  if (command != nullptr && has_script) {
    keys.wrong("script", "and \"command\" exclude each other");
  } else if (has_script || (command != nullptr && command->is_string())) {
    *out.add_argv() = has_script ? script : std::string(command->get_string());
    out.set_shell(true);
  } else if (command != nullptr && command->is_array()) {
    for (const json::value& part : command->get_array()) {
      if (part.is_string()) {
        *out.add_argv() = std::string(part.get_string());
      } else if (part.is_number()) {
        *out.add_argv() = json::serialize(part);
      } else {
        keys.wrong("command", "must hold strings");
        break;
      }
    }
  } else if (command != nullptr) {
    keys.wrong("command", "must be a list of strings, or one string for /bin/sh");
  }
  const bool has_env = keys.strings("env", *out.mutable_env());
  read_files_in(keys, out);
  if (const json::array* files = keys.list("files_out"); files != nullptr) {
    for (const json::value& one : *files) {
      if (!one.is_string()) {
        keys.wrong("files_out", "must hold strings");
        break;
      }
      *out.add_files_out() = std::string(one.get_string());
    }
  }
  std::string input;
  if (keys.text("stdin", input)) out.set_stdin(std::move(input));
  const bool any = command != nullptr || has_script;
  if (!any && (has_env || out.files_in_size() > 0 || out.files_out_size() > 0 || !out.stdin().empty())) {
    keys.wrong("command", "is missing; \"env\", \"stdin\", \"files_in\" and \"files_out\" belong to one");
  }
  if (any) *spec.mutable_command() = std::move(out);
}

void read_encoding(Keys& keys, pb::JobSpec& spec) {
  std::string model;
  if (keys.text("model", model)) spec.mutable_python()->set_model(std::move(model));
  std::string encoding;
  if (keys.text("encoding", encoding)) {
    if (encoding == "json") {
      spec.set_encoding(pb::ENCODING_JSON);
    } else if (encoding == "pickle") {
      spec.set_encoding(pb::ENCODING_PICKLE);
    } else if (encoding == "raw") {
      spec.set_encoding(pb::ENCODING_RAW);
    } else {
      keys.wrong("encoding", "must be \"json\", \"pickle\" or \"raw\"");
    }
  }
}

Result<std::string> argument(const json::value& value, bool positional) {
  if (positional) return value.is_array() ? json::serialize(value) : json::serialize(json::array{value});
  if (value.is_string()) return std::string(value.get_string());
  if (value.is_object() || value.is_null()) return bad("\"args\" may hold strings, numbers and lists.");
  return json::serialize(value);
}

}  // namespace

Result<std::vector<core::ArgumentPage>> read_args(const json::array& args, bool positional) {
  if (args.size() > limits::kTasksPerJob) {
    return Error{ErrorClass::too_large,
                 fmt::format("\"args\" holds {} values; a job may have {} tasks.", args.size(), limits::kTasksPerJob)};
  }
  std::vector<std::string> list;
  list.reserve(args.size());
  for (const json::value& one : args) {
    auto text = argument(one, positional);
    if (!text) return std::move(text).error();
    list.push_back(std::move(*text));
  }
  return make_pages(list);
}

Result<JobFile> read_job_file(std::string_view text) {
  auto value = wire::parse_json(text);
  if (!value) return std::move(value).error();
  if (!value->is_object()) return bad("A job is a JSON object, such as {\"command\": [\"echo\", \"hello\"]}.");
  return read_job_file(value->get_object());
}

Result<JobFile> read_job_file(const json::object& file) {
  JobFile out;
  pb::JobSpec& spec = out.spec;
  Keys keys(file, "");
  keys.text("name", *spec.mutable_name());
  keys.text("engine", *spec.mutable_engine());
  keys.text("id", out.id);
  keys.text("key", *spec.mutable_key());
  keys.text("user", *spec.mutable_user());
  read_command(keys, spec);
  read_engines(keys, spec);
  read_encoding(keys, spec);
  read_retry(keys, spec);
  read_requirements(keys, *spec.mutable_requirements());
  read_alternatives(keys, spec);
  read_order(keys, out);
  std::int64_t number = 0;
  if (keys.integer("priority", limits::kPriorityMin, limits::kPriorityMax, number))
    spec.set_priority(static_cast<std::int32_t>(number));
  std::uint64_t ms = 0;
  if (keys.duration("timeout", ms)) {
    if (ms == 0 || ms > UINT32_MAX) keys.wrong("timeout", "must be above 0 and below 49 days");
    spec.set_time_limit_ms(static_cast<std::uint32_t>(ms));
  }
  bool flag = false;
  if (keys.flag("fail_fast", flag)) spec.set_fail_fast(flag);
  const bool counted = keys.integer("count", 1, limits::kTasksPerJob, number);
  if (counted) spec.set_count(static_cast<std::uint32_t>(number));
  const json::array* args = keys.list("args");
  if (keys.find("args_file") != nullptr) {
    keys.wrong("args_file", "is read by `grange submit`; over REST put the lines into \"args\"");
  }
  if (auto result = keys.finish(); !result) return std::move(result).error();
  if (spec.engine().empty()) spec.set_engine(implied_engine(spec));
  if ((spec.has_python() || is_ai_engine(spec.engine())) && spec.encoding() == pb::ENCODING_UNSPECIFIED)
    spec.set_encoding(pb::ENCODING_JSON);
  if (args != nullptr) {
    if (args->empty()) return bad("\"args\" is empty: a job has at least one task.");
    if (counted && spec.count() != args->size()) {
      return bad(fmt::format("\"count\" is {}, but \"args\" holds {} values. Leave \"count\" out.", spec.count(),
                             args->size()));
    }
    auto pages = read_args(*args, spec.encoding() == pb::ENCODING_JSON);
    if (!pages) return std::move(pages).error();
    spec.set_count(static_cast<std::uint32_t>(args->size()));
    out.pages = std::move(*pages);
  }
  if (spec.count() == 0) spec.set_count(1);
  return out;
}

}  // namespace grange::server
