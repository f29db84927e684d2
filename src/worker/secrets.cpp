#include "worker/secrets.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <spdlog/spdlog.h>

#include "worker/spawn.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kMost = 64 * KiB;

std::string trimmed(std::string text) {
  const char* const space = " \t\r";
  text.erase(0, std::min(text.find_first_not_of(space), text.size()));
  text.erase(text.find_last_not_of(space) + 1);
  return text;
}

}  // namespace

Result<std::map<std::string, std::string>> read_secrets(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat about {};
  if (!file || ::fstat(file.get(), &about) != 0)
    return Error{ErrorClass::io, "Cannot read the secrets in " + path + ": " + std::strerror(errno) + "."};
  // The open file is judged: its path may name another one by now.
  const bool ours = about.st_uid == ::geteuid() || about.st_uid == 0;
  if (!S_ISREG(about.st_mode) || !ours || (about.st_mode & 077) != 0)
    return Error{ErrorClass::forbidden,
                 "The secrets in " + path + " are not used: others can read them. Run: chmod 600 " + path};
  std::string text(kMost, '\0');
  const ssize_t size = ::read(file.get(), text.data(), text.size());
  text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string line = trimmed(text.substr(0, end));
    text.erase(0, end + 1);
    if (line.empty() || line.front() == '#') continue;
    if (line.starts_with("export ")) line = trimmed(line.substr(7));
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    std::string value = trimmed(line.substr(equals + 1));
    const bool quoted =
        value.size() >= 2 && value.front() == value.back() && (value.front() == '"' || value.front() == '\'');
    if (quoted) value = value.substr(1, value.size() - 2);
    out[trimmed(line.substr(0, equals))] = std::move(value);
  }
  return out;
}

std::optional<std::string> secret_from_file(const std::string& name) {
  const char* const path = std::getenv("GRANGE_SECRETS");
  if (path == nullptr || *path == '\0') return std::nullopt;
  auto all = read_secrets(path);
  if (!all) {
    static bool said = false;
    if (!std::exchange(said, true)) spdlog::error("{}", all.error().message);
    return std::nullopt;
  }
  const auto it = all->find(name);
  if (it == all->end() || it->second.empty()) return std::nullopt;
  return it->second;
}

}  // namespace grange::worker
