#include "cli/job_file.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/limits.hpp"
#include "cli/suggest.hpp"

namespace grange::cli {
namespace {

Error bad(std::string message) {
  return {ErrorClass::invalid_argument, std::move(message)};
}

const std::vector<std::string> kKeys = {
    "name", "engine", "command", "script", "count", "args", "args_file", "env", "files_in", "files_out", "stdin",
    "priority", "retries", "retry", "timeout", "cpus", "memory", "gpus", "disk", "labels", "user", "key", "fail_fast",
    "builtin", "python", "llm", "image", "compute", "remote", "models", "model", "id", "encoding", "function",
    // what a task needs
    "gpu_memory", "needs_model", "context", "pool", "min_life", "any_of", "nodes",
    // when, after what, beside what
    "after", "when", "not_before", "start_in", "deadline", "finish_in", "open", "weight", "max_running", "speculate",
    "result_ttl", "grace", "unique", "stages"};

std::string hex(const unsigned char* bytes, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string resolve(const std::string& folder, const std::string& path) {
  return std::filesystem::path(path).is_absolute() || folder.empty() ? path : folder + "/" + path;
}

}  // namespace

Result<json::object> parse_job(std::string_view text, const std::string& name) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos)
    return bad(name + " is empty; a job file needs at least: command = [\"echo\", \"hello\"]");
  const bool is_json = ends_with(name, ".json") || (!ends_with(name, ".toml") && text[first] == '{');
  json::value value;
  if (is_json) {
    json::stream_parser parser({}, {});
    boost::system::error_code ec;
    std::size_t used = parser.write_some(text.data(), text.size(), ec);
    if (!ec && parser.done() && text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
      ec = json::error::extra_data;
    if (!ec) parser.finish(ec);
    if (ec) {
      const auto line =
          std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(used, text.size())), '\n') + 1;
      return bad(fmt::format("{} is not valid JSON: line {}: {}.", name, line, ec.message()));
    }
    value = parser.release();
  } else {
    Result<json::value> parsed = toml_to_json(text);
    if (!parsed.ok()) return bad(fmt::format("{} is not valid TOML: {}.", name, parsed.error().message));
    value = std::move(parsed).value();
  }
  if (!value.is_object()) return bad(name + " must hold one object with the job's keys, such as \"command\".");
  return value.get_object();
}

Result<> check_keys(const json::object& job) {
  for (const auto& member : job) {
    const std::string key(member.key());
    if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
    const std::string near = nearest(key, kKeys);
    return bad(fmt::format(
        "A job file has no key \"{}\"{}", key,
        near.empty() ? "; `grange submit --help` lists the keys." : fmt::format("; did you mean \"{}\"?", near)));
  }
  return {};
}

Result<> read_args_file(json::object& job, const std::string& folder) {
  const json::value* name = job.if_contains("args_file");
  if (name == nullptr) return {};
  if (!name->is_string()) return bad("\"args_file\" must be the name of a file with one argument a line.");
  if (job.contains("args")) return bad("A job takes \"args\" or \"args_file\", not both.");
  const std::string path = resolve(folder, std::string(name->get_string()));
  std::ifstream file(path, std::ios::binary);
  if (!file) return bad(fmt::format("The args_file {} cannot be read: {}.", path, std::strerror(errno)));
  json::array args;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    args.emplace_back(line);
  }
  if (args.empty()) return bad(fmt::format("The args_file {} has no line; it needs one argument a line.", path));
  if (args.size() > limits::kTasksPerJob) {
    return bad(fmt::format("The args_file {} has {} lines; a job has at most {} tasks.", path, args.size(),
                           limits::kTasksPerJob));
  }
  job.erase("args_file");
  job["args"] = std::move(args);
  return {};
}

bool safe_path(std::string_view path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != std::string_view::npos) return false;
  for (const auto& part : std::filesystem::path(path)) {
    if (part == ".." || part.empty()) return false;
  }
  return true;
}

Result<std::vector<FileIn>> files_in(const json::object& job, const std::string& folder) {
  std::vector<FileIn> out;
  const json::value* files = job.if_contains("files_in");
  if (files == nullptr) return out;
  if (!files->is_array()) return bad("\"files_in\" must be a list of file names, or of {path, source}.");
  for (const json::value& entry : files->get_array()) {
    FileIn file;
    if (entry.is_string()) {
      file.source = entry.get_string();
      // A path that leads out of the folder cannot keep its place in the task's folder.
      file.path = safe_path(file.source) ? file.source : std::filesystem::path(file.source).filename().string();
    } else if (entry.is_object()) {
      const json::value* path = entry.get_object().if_contains("path");
      const json::value* source = entry.get_object().if_contains("source");
      if (path == nullptr || !path->is_string())
        return bad("Each of \"files_in\" needs a \"path\": its name in the task's folder.");
      file.path = path->get_string();
      if (source == nullptr && entry.get_object().contains("sha256")) continue;  // on the server already
      file.source = source != nullptr && source->is_string() ? std::string(source->get_string()) : file.path;
    } else {
      return bad("\"files_in\" must be a list of file names, or of {path, source}.");
    }
    if (!safe_path(file.path)) {
      return bad(fmt::format("\"{}\" of files_in must be a relative path inside the task's folder.", file.path));
    }
    file.source = resolve(folder, file.source);
    std::error_code ec;
    const auto status = std::filesystem::status(file.source, ec);
    if (!std::filesystem::exists(status))
      return bad(fmt::format("The file {} of files_in does not exist.", file.source));
    if (!std::filesystem::is_regular_file(status)) {
      return bad(
          fmt::format("{} of files_in is not a file; name each file, or pack the folder with tar.", file.source));
    }
    out.push_back(std::move(file));
  }
  return out;
}

Result<std::string> file_sha256(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return Error{ErrorClass::io, fmt::format("The file {} cannot be read: {}.", file, std::strerror(errno))};
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::string buffer(1 << 20, '\0');
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) return Error{ErrorClass::io, fmt::format("The file {} cannot be read to its end.", file)};
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest, &size);
  return hex(digest, size);
}

std::string random_hex(std::size_t bytes) {
  std::vector<unsigned char> random(bytes);
  GRANGE_ASSERT(RAND_bytes(random.data(), static_cast<int>(bytes)) == 1);
  return hex(random.data(), random.size());
}

}  // namespace grange::cli
