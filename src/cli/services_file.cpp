#include "cli/services_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cli/exit.hpp"
#include "cli/job_file.hpp"
#include "server/api/job_keys.hpp"
#include "worker/spawn.hpp"

namespace grange::cli {
namespace {

using server::Keys;
using worker::CareSpec;

constexpr std::size_t kServicesText = 1 * MiB;

bool read_words(Keys& keys, std::string_view key, std::vector<std::string>& out) {
  const json::array* list = keys.list(key);
  if (list == nullptr) return false;
  for (const json::value& word : *list) {
    if (!word.is_string()) return keys.wrong(key, "must be a list of strings");
    out.emplace_back(word.get_string());
  }
  return true;
}

void read_time(Keys& keys, std::string_view key, Millis& out) {
  std::uint64_t ms = 0;
  if (!keys.duration(key, ms)) return;
  if (ms > 86'400'000) {
    keys.wrong(key, "must be at most a day");
    return;
  }
  out = Millis{static_cast<std::int64_t>(ms)};
}

Result<CareSpec> read_one(const json::object& table, std::size_t number, const std::string& folder) {
  CareSpec out;
  Keys keys(table, fmt::format("service {}: ", number));
  keys.text("name", out.name);
  keys.text("kind", out.kind);
  keys.text("url", out.url);
  read_words(keys, "command", out.command);
  keys.strings("env", out.env);
  keys.text("cwd", out.cwd);
  read_words(keys, "after", out.after);
  keys.text("health", out.health);
  read_time(keys, "start_timeout", out.start_timeout);
  read_time(keys, "stop_timeout", out.stop_timeout);
  read_time(keys, "hang_timeout", out.hang_timeout);
  std::int64_t restarts = out.restarts;
  keys.integer("restarts", 0, 1000, restarts);
  out.restarts = static_cast<std::uint32_t>(restarts);
  if (std::uint64_t bytes = 0; keys.bytes("memory", bytes)) {
    out.memory = bytes;
    if (bytes < MiB) keys.wrong("memory", "must be at least 1MiB; give it a unit, such as \"8GiB\"");
  }
  if (out.name.empty()) keys.wrong("name", "is missing");
  if (out.kind.empty()) keys.wrong("kind", "is missing: ollama, llamacpp, openai, comfyui or other");
  if (out.url.empty()) keys.wrong("url", "is missing, such as \"http://127.0.0.1:11434\"");
  if (out.command.empty()) keys.wrong("command", "is missing: a list such as [\"ollama\", \"serve\"]");
  if (auto fine = keys.finish("a service"); !fine) return std::move(fine).error();
  const std::filesystem::path cwd(out.cwd);
  if (cwd.is_relative()) out.cwd = out.cwd.empty() ? folder : (std::filesystem::path(folder) / cwd).string();
  return out;
}

Result<std::string> read_file(const std::string& path) {
  const worker::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat about {};
  if (!file || ::fstat(file.get(), &about) != 0)
    return Error{ErrorClass::not_found, fmt::format("cannot be read: {}.", std::strerror(errno))};
  // What stands in it is run. The open file is judged: its path may name another one by now.
  const bool ours = about.st_uid == ::geteuid() || about.st_uid == 0;
  if (!S_ISREG(about.st_mode) || !ours || (about.st_mode & 022) != 0)
    return Error{ErrorClass::forbidden,
                 fmt::format("is not used: others could write commands into it. Run: chmod go-w {}", path)};
  std::string text(static_cast<std::size_t>(about.st_size) < kServicesText ? static_cast<std::size_t>(about.st_size)
                                                                           : kServicesText + 1,
                   '\0');
  const ssize_t size = ::read(file.get(), text.data(), text.size());
  text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  if (text.size() > kServicesText) return Error{ErrorClass::too_large, "is longer than 1 MiB."};
  return text;
}

}  // namespace

Result<std::vector<CareSpec>> parse_services(std::string_view text, const std::string& folder) {
  auto read = toml_to_json(text);
  if (!read) return std::move(read).error();
  Keys keys(read->get_object(), "");
  std::vector<CareSpec> all;
  if (const json::array* list = keys.list("service")) {
    for (const json::value& one : *list) {
      if (!one.is_object()) return Error{ErrorClass::invalid_argument, "each service must be a table: [[service]]."};
      auto spec = read_one(one.get_object(), all.size() + 1, folder);
      if (!spec) return std::move(spec).error();
      all.push_back(std::move(*spec));
    }
  }
  if (auto fine = keys.finish("a services file"); !fine) return std::move(fine).error();
  return worker::checked_care(std::move(all));
}

std::string services_file(const std::string& file, const std::string& data) {
  if (!file.empty()) return file;
  const std::string usual = data + "/services.toml";
  std::error_code error;
  return std::filesystem::exists(usual, error) ? usual : "";
}

std::vector<CareSpec> read_services_file(const std::string& file, const std::string& data) {
  const std::string path = services_file(file, data);
  if (path.empty()) return {};
  auto text = read_file(path);
  if (!text) throw Exit{kUsage, fmt::format("The services file {} {}", path, text.error().message)};
  const std::filesystem::path whole = std::filesystem::absolute(path);
  auto all = parse_services(*text, whole.parent_path().string());
  if (!all) throw Exit{kUsage, fmt::format("The services file {}: {}", path, all.error().message)};
  return std::move(*all);
}

}  // namespace grange::cli
