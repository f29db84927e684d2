#include "worker/job.hpp"

#include "base/limits.hpp"
#include "worker/leftovers.hpp"

namespace grange::worker {

namespace {

Kind builtin_kind(const std::string& op) {
  if (op == "noop" || op.empty()) return Kind::noop;
  if (op == "echo") return Kind::echo;
  if (op == "sleep") return Kind::sleep;
  if (op == "fail") return Kind::fail;
  return Kind::refused;
}

std::string command_refusal(const pb::CommandSpec& command) {
  if (command.argv().empty() || command.argv(0).empty()) return "The job has no command to run.";
  if (static_cast<std::size_t>(command.argv_size()) > limits::kArgv) return "The command has too many arguments.";
  for (const std::string& word : command.argv()) {
    if (word.find('\0') != std::string::npos) return "The command holds a NUL byte.";
  }
  for (const auto& [key, value] : command.env()) {
    if (key.empty() || key.find('=') != std::string::npos || key.find('\0') != std::string::npos ||
        value.find('\0') != std::string::npos) {
      return "The environment variable \"" + key +
             "\" cannot be set: a name has no \"=\" and nothing holds a NUL byte.";
    }
    if (key == kMark) return "The environment variable \"" + key + "\" is the worker's own.";
  }
  if (static_cast<std::size_t>(command.files_in_size() + command.files_out_size()) > limits::kFilesPerTask) {
    return "A task may have at most " + std::to_string(limits::kFilesPerTask) + " files.";
  }
  for (const pb::FileIn& file : command.files_in()) {
    if (auto safe = safe_relative(file.path()); !safe) return "files_in: " + safe.error().message;
  }
  for (const std::string& path : command.files_out()) {
    if (auto safe = safe_relative(path); !safe) return "files_out: " + safe.error().message;
  }
  return {};
}

Need need_of(const pb::Requirements& asks) {
  return {1,
          asks.cpus_milli() == 0 ? 1000 : asks.cpus_milli(),
          asks.gpus_milli(),
          asks.memory_bytes(),
          asks.disk_bytes(),
          asks.gpu_memory_bytes()};
}

}  // namespace

JobInfo read_job(const pb::SpecOrder& order) {
  JobInfo info;
  info.job = JobNo{order.job()};
  info.id = order.job_id().empty() ? std::to_string(order.job()) : order.job_id();
  info.spec = order.spec();
  const pb::JobSpec& spec = info.spec;
  info.needs.push_back(need_of(spec.requirements()));
  for (const pb::Requirements& other : spec.any_of()) {
    if (info.needs.size() <= limits::kAlternatives) info.needs.push_back(need_of(other));
  }
  info.grace = std::chrono::duration_cast<Micros>(Millis{spec.grace_ms()});
  info.time_limit = std::chrono::duration_cast<Micros>(Millis{spec.time_limit_ms()});
  if (spec.engine() == "builtin") {
    info.kind = builtin_kind(spec.builtin().op());
    if (info.kind == Kind::refused) {
      info.refusal =
          "This worker has no builtin \"" + spec.builtin().op() + "\"; there are noop, echo, sleep and fail.";
    }
  } else if (spec.engine() == "command") {
    info.refusal = command_refusal(spec.command());
    if (info.refusal.empty()) info.kind = Kind::command;
  } else if (spec.engine() == "python") {
    if (spec.python().code_sha256().empty() && spec.python().model().empty()) {
      info.refusal = "The job names no Python code: neither code_sha256 nor model.";
    } else if (spec.encoding() != pb::ENCODING_PICKLE && spec.encoding() != pb::ENCODING_JSON) {
      info.refusal = "Arguments of a Python job are pickle or JSON.";
    } else {
      info.kind = Kind::python;
    }
  } else if (spec.engine() == "compute") {
    info.kind = Kind::compute;
  } else if (spec.engine() == "llm") {
    info.kind = Kind::llm;
  } else if (spec.engine() == "image") {
    info.kind = Kind::image;
  } else if (spec.engine() == "remote") {
    info.kind = Kind::remote;
  } else if (spec.engine() == "models") {
    info.kind = Kind::models;
  } else {
    info.refusal = "This worker has no engine \"" + spec.engine() + "\"; is the server newer than the worker?";
  }
  return info;
}

Result<> safe_relative(std::string_view path) {
  const auto bad = [&](const char* why) {
    return Error{ErrorClass::invalid_argument, "\"" + std::string(path.substr(0, 200)) + "\" " + why};
  };
  if (path.empty()) return bad("is empty");
  if (path.size() > 4096) return bad("is too long");
  if (path.find('\0') != std::string_view::npos) return bad("holds a NUL byte");
  if (path.front() == '/') return bad("is absolute; paths are relative to the task's folder");
  std::size_t from = 0;
  while (from <= path.size()) {
    const std::size_t to = std::min(path.find('/', from), path.size());
    const std::string_view part = path.substr(from, to - from);
    if (part.empty() || part == "." || part == "..") return bad("leads out of the task's folder or has an empty part");
    if (part.size() > 255) return bad("has a part that is too long");
    from = to + 1;
  }
  return {};
}

}  // namespace grange::worker
