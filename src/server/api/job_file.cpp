#include "server/api/job_file.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <cmath>

#include "base/limits.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

namespace json = boost::json;

Error bad(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

// Reads an object key by key. The first thing that is wrong is kept, so that the reading code stays a plain list of
// keys.
class Keys {
 public:
  Keys(const json::object& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json::value* find(std::string_view key) {
    known_.push_back(key);
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  bool text(std::string_view key, std::string& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_string()) return wrong(key, "must be a string");
    out = std::string(value->get_string());
    return true;
  }
  bool integer(std::string_view key, std::int64_t least, std::int64_t most, std::int64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    std::int64_t number = 0;
    if (value->is_int64()) {
      number = value->get_int64();
    } else if (value->is_uint64()) {
      number = static_cast<std::int64_t>(std::min<std::uint64_t>(value->get_uint64(), INT64_MAX));
    } else {
      return wrong(key, "must be a whole number");
    }
    if (number < least || number > most) return wrong(key, fmt::format("must be from {} to {}", least, most));
    out = number;
    return true;
  }
  bool flag(std::string_view key, bool& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_bool()) return wrong(key, "must be true or false");
    out = value->get_bool();
    return true;
  }
  // A number, in units of 1/scale.
  bool number(std::string_view key, double scale, double most, std::uint64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_number()) return wrong(key, "must be a number");
    const double n = value->to_number<double>();
    if (!(n >= 0) || n > most) return wrong(key, fmt::format("must be from 0 to {}", most));
    out = static_cast<std::uint64_t>(std::llround(n * scale));
    return true;
  }
  bool duration(std::string_view key, std::uint64_t& ms) { return unit(key, 1000, read_duration_ms, ms); }
  bool bytes(std::string_view key, std::uint64_t& out) { return unit(key, 1, read_bytes, out); }
  template <class Map>
  bool strings(std::string_view key, Map& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_object()) return wrong(key, "must be a table of strings");
    for (const auto& [name, one] : value->get_object()) {
      if (one.is_string()) {
        out[std::string(name)] = std::string(one.get_string());
      } else if (one.is_number() || one.is_bool()) {
        out[std::string(name)] = json::serialize(one);
      } else {
        return wrong(key, fmt::format("must be a table of strings; \"{}\" is none", std::string_view(name)));
      }
    }
    return true;
  }
  const json::object* object(std::string_view key) {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->is_object()) return &value->get_object();
    wrong(key, "must be a table");
    return nullptr;
  }
  const json::array* list(std::string_view key) {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->is_array()) return &value->get_array();
    wrong(key, "must be a list");
    return nullptr;
  }
  bool wrong(std::string_view key, std::string_view why) {
    if (!error_) error_ = bad(fmt::format("\"{}{}\" {}.", where_, key, why));
    return false;
  }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }
  // The verdict, once all keys were asked for.
  Result<> finish() {
    if (error_) return std::move(*error_);
    for (const auto& [key, value] : object_) {
      const std::string_view name = key;
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      const std::string_view near = nearest(name, known_);
      return Error{ErrorClass::invalid_argument,
                   fmt::format("\"{}{}\" is not a key of a job{}", where_, name,
                               near.empty() ? "." : fmt::format(". Did you mean \"{}\"?", near)),
                   json::serialize(json::object{{"key", where_ + std::string(name)}})};
    }
    return {};
  }

 private:
  bool unit(std::string_view key, double scale, Result<std::uint64_t> (*read)(std::string_view), std::uint64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (value->is_number()) {
      const double n = value->to_number<double>();
      if (!(n >= 0) || n * scale > 9e15) return wrong(key, "is out of range");
      out = static_cast<std::uint64_t>(std::llround(n * scale));
      return true;
    }
    if (!value->is_string()) return wrong(key, "must be a number or a text with a unit");
    auto result = read(value->get_string());
    if (!result) {
      fail(std::move(result).error().with_context(fmt::format("\"{}{}\"", where_, key)));
      return false;
    }
    out = *result;
    return true;
  }

  const json::object& object_;
  std::string where_;
  std::vector<std::string_view> known_;
  std::optional<Error> error_;
};

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

void read_retry(Keys& keys, pb::JobSpec& spec) {
  std::int64_t retries = 0;
  if (keys.integer("retries", 0, limits::kMaxAttempts - 1, retries)) {
    spec.mutable_retry()->set_max_attempts(static_cast<std::uint32_t>(retries) + 1);
  }
  const json::object* retry = keys.object("retry");
  if (retry == nullptr) return;
  Keys inner(*retry, "retry.");
  std::int64_t number = 0;
  std::uint64_t ms = 0;
  if (inner.integer("max_attempts", 1, limits::kMaxAttempts, number))
    spec.mutable_retry()->set_max_attempts(static_cast<std::uint32_t>(number));
  if (inner.duration("base_seconds", ms))
    spec.mutable_retry()->set_base_ms(static_cast<std::uint32_t>(std::min<std::uint64_t>(ms, UINT32_MAX)));
  if (inner.duration("cap_seconds", ms))
    spec.mutable_retry()->set_cap_ms(static_cast<std::uint32_t>(std::min<std::uint64_t>(ms, UINT32_MAX)));
  if (inner.integer("crash_limit", 1, limits::kMaxAttempts, number))
    spec.mutable_retry()->set_crash_limit(static_cast<std::uint32_t>(number));
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

void read_requirements(Keys& keys, pb::JobSpec& spec) {
  std::uint64_t number = 0;
  pb::Requirements& needs = *spec.mutable_requirements();
  if (keys.number("cpus", 1000, 4096, number)) needs.set_cpus_milli(static_cast<std::uint32_t>(number));
  if (keys.number("gpus", 1000, 1024, number)) needs.set_gpus_milli(static_cast<std::uint32_t>(number));
  if (keys.bytes("memory", number)) needs.set_memory_bytes(number);
  if (keys.bytes("disk", number)) needs.set_disk_bytes(number);
  keys.strings("labels", *needs.mutable_labels());
}

void read_engines(Keys& keys, pb::JobSpec& spec) {
  if (const json::object* builtin = keys.object("builtin"); builtin != nullptr) {
    Keys inner(*builtin, "builtin.");
    pb::BuiltinSpec& out = *spec.mutable_builtin();
    inner.text("op", *out.mutable_op());
    std::int64_t ms = 0;
    if (inner.integer("ms", 0, UINT32_MAX, ms)) out.set_ms(static_cast<std::uint32_t>(ms));
    inner.text("message", *out.mutable_message());
    bool permanent = false;
    if (inner.flag("permanent", permanent)) out.set_permanent(permanent);
    if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
  }
  if (const json::object* python = keys.object("python"); python != nullptr) {
    Keys inner(*python, "python.");
    pb::PythonSpec& out = *spec.mutable_python();
    inner.text("code_sha256", *out.mutable_code_sha256());
    inner.text("function", *out.mutable_function());
    inner.text("model", *out.mutable_model());
    if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
  }
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
  read_retry(keys, spec);
  read_requirements(keys, spec);
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
  if (spec.engine().empty())
    spec.set_engine(spec.has_command()   ? "command"
                    : spec.has_python()  ? "python"
                    : spec.has_builtin() ? "builtin"
                                         : "");
  if (spec.has_python() && spec.encoding() == pb::ENCODING_UNSPECIFIED) spec.set_encoding(pb::ENCODING_JSON);
  if (args != nullptr) {
    if (args->empty()) return bad("\"args\" is empty: a job has at least one task.");
    if (counted && spec.count() != args->size()) {
      return bad(fmt::format("\"count\" is {}, but \"args\" holds {} values. Leave \"count\" out.", spec.count(),
                             args->size()));
    }
    if (args->size() > limits::kTasksPerJob) {
      return Error{ErrorClass::too_large, fmt::format("\"args\" holds {} values; a job may have {} tasks.",
                                                      args->size(), limits::kTasksPerJob)};
    }
    std::vector<std::string> list;
    list.reserve(args->size());
    for (const json::value& one : *args) {
      auto text = argument(one, spec.encoding() == pb::ENCODING_JSON);
      if (!text) return std::move(text).error();
      list.push_back(std::move(*text));
    }
    spec.set_count(static_cast<std::uint32_t>(list.size()));
    out.pages = make_pages(list);
  }
  if (spec.count() == 0) spec.set_count(1);
  return out;
}

json::object write_job_file(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>* pages) {
  json::object out;
  const auto text = [&out](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  const auto map = [](const auto& from) {
    json::object to;
    for (const auto& [key, value] : from) to[key] = value;
    return to;
  };
  text("name", spec.name());
  text("engine", spec.engine());
  out["count"] = spec.count();
  if (spec.has_command()) {
    const pb::CommandSpec& command = spec.command();
    if (command.shell()) {
      out["script"] = command.argv_size() > 0 ? command.argv(0) : std::string();
    } else {
      json::array argv;
      for (const std::string& part : command.argv()) argv.emplace_back(part);
      out["command"] = std::move(argv);
    }
    if (command.env_size() > 0) out["env"] = map(command.env());
    if (command.files_in_size() > 0) {
      json::array files;
      for (const pb::FileIn& file : command.files_in()) {
        files.push_back(json::object{
            {"path", file.path()}, {"sha256", file.sha256()}, {"bytes", file.bytes()}, {"mode", file.mode()}});
      }
      out["files_in"] = std::move(files);
    }
    if (command.files_out_size() > 0) {
      json::array files;
      for (const std::string& file : command.files_out()) files.emplace_back(file);
      out["files_out"] = std::move(files);
    }
    if (!command.stdin().empty())
      out["stdin"] = is_utf8(command.stdin()) ? command.stdin() : to_base64(command.stdin());
  }
  if (spec.has_python()) {
    json::object python;
    if (!spec.python().code_sha256().empty()) python["code_sha256"] = spec.python().code_sha256();
    if (!spec.python().function().empty()) python["function"] = spec.python().function();
    if (!spec.python().model().empty()) python["model"] = spec.python().model();
    out["python"] = std::move(python);
    out["encoding"] = spec.encoding() == pb::ENCODING_JSON ? "json" : "pickle";
  }
  if (spec.has_builtin()) {
    json::object builtin{{"op", spec.builtin().op()}};
    if (spec.builtin().ms() != 0) builtin["ms"] = spec.builtin().ms();
    if (!spec.builtin().message().empty()) builtin["message"] = spec.builtin().message();
    if (spec.builtin().permanent()) builtin["permanent"] = true;
    out["builtin"] = std::move(builtin);
  }
  if (spec.priority() != 0) out["priority"] = spec.priority();
  if (spec.has_retry()) {
    json::object retry;
    if (spec.retry().max_attempts() != 0) retry["max_attempts"] = spec.retry().max_attempts();
    if (spec.retry().base_ms() != 0) retry["base_seconds"] = spec.retry().base_ms() / 1000.0;
    if (spec.retry().cap_ms() != 0) retry["cap_seconds"] = spec.retry().cap_ms() / 1000.0;
    if (spec.retry().crash_limit() != 0) retry["crash_limit"] = spec.retry().crash_limit();
    if (!retry.empty()) out["retry"] = std::move(retry);
  }
  if (spec.time_limit_ms() != 0) out["timeout"] = spec.time_limit_ms() / 1000.0;
  const pb::Requirements& needs = spec.requirements();
  if (needs.cpus_milli() != 0) out["cpus"] = needs.cpus_milli() / 1000.0;
  if (needs.gpus_milli() != 0) out["gpus"] = needs.gpus_milli() / 1000.0;
  if (needs.memory_bytes() != 0) out["memory"] = needs.memory_bytes();
  if (needs.disk_bytes() != 0) out["disk"] = needs.disk_bytes();
  if (needs.labels_size() > 0) out["labels"] = map(needs.labels());
  text("user", spec.user());
  text("key", spec.key());
  if (spec.fail_fast()) out["fail_fast"] = true;
  if (pages != nullptr && !pages->empty()) {
    json::array args;
    for (const core::ArgumentPage& page : *pages) {
      std::size_t at = 0;
      for (const std::uint32_t size : page.sizes) {
        const std::size_t bytes = size == core::ArgumentPage::kBlobSize ? 64 : size;
        const std::string_view one = std::string_view(page.bytes).substr(at, bytes);
        at += bytes;
        if (spec.encoding() == pb::ENCODING_JSON && size != core::ArgumentPage::kBlobSize) {
          auto value = wire::parse_json(one);
          args.push_back(value ? std::move(*value) : json::value(nullptr));
        } else {
          args.emplace_back(is_utf8(one) ? std::string(one) : to_base64(one));
        }
      }
    }
    out["args"] = std::move(args);
  }
  return out;
}

}  // namespace grange::server
