#include "worker/data_dir.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "worker/resources.hpp"

namespace grange::worker {

namespace fs = std::filesystem;

std::string random_id(std::size_t bytes) {
  std::string raw(bytes, '\0'), out;
  for (std::size_t got = 0; got < bytes;) {
    const ssize_t n = ::getrandom(raw.data() + got, bytes - got, 0);
    if (n > 0) got += static_cast<std::size_t>(n);
  }
  for (const char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

Result<DataDir> open_data_dir(const std::string& path) {
  if (path.empty())
    return Error{ErrorClass::invalid_argument, "A worker needs a data folder: give one with --data DIR."};
  DataDir dir;
  std::error_code error;
  fs::create_directories(path, error);
  dir.path = fs::absolute(path, error).string();
  const auto failed = [&](const std::string& what, int code) {
    return Error{ErrorClass::io,
                 "The data folder " + dir.path + " cannot be used: " + what + ": " + std::strerror(code)};
  };
  dir.lock = Fd(::open((dir.path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!dir.lock) return failed("lock", errno);
  if (::flock(dir.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string owner = read_text(dir.path + "/lock", 64);
    owner.erase(std::remove(owner.begin(), owner.end(), '\n'), owner.end());
    return Error{ErrorClass::conflict, "The data folder " + dir.path + " is in use by another worker" +
                                           (owner.empty() ? "" : " (process " + owner + ")") +
                                           ". Stop that one, or give this one a folder of its own with --data DIR."};
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(dir.lock.get(), 0) != 0 || ::pwrite(dir.lock.get(), pid.data(), pid.size(), 0) < 0)
    return failed("lock", errno);

  const std::string id_file = dir.path + "/worker_id";
  dir.worker_id = read_text(id_file, 128);
  while (!dir.worker_id.empty() && std::isspace(static_cast<unsigned char>(dir.worker_id.back())) != 0)
    dir.worker_id.pop_back();
  if (dir.worker_id.empty()) {
    dir.worker_id = "w-" + random_id(8);
    const std::string text = dir.worker_id + "\n";
    const Fd file(::open((id_file + ".new").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file || ::write(file.get(), text.data(), text.size()) < 0 || ::fsync(file.get()) != 0 ||
        ::rename((id_file + ".new").c_str(), id_file.c_str()) != 0) {
      return failed("worker_id", errno);
    }
  }
  for (const std::string& left_over : {dir.tasks(), dir.executors()}) fs::remove_all(left_over, error);
  for (const std::string& folder : {dir.cache(), dir.tasks(), dir.executors()}) {
    fs::create_directories(folder, error);
    if (error) return failed(folder, error.value());
    fs::permissions(folder, fs::perms::owner_all, error);
  }
  return dir;
}

}  // namespace grange::worker
