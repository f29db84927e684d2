#include "store/folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace grange::store {
namespace {

Error cannot(std::string_view what, const std::string& path, int err) {
  const auto cls = err == ENOSPC || err == EDQUOT ? ErrorClass::storage_full : ErrorClass::io;
  return Error{
      cls,
      fmt::format(
          "Cannot {} {} ({}). Choose another data folder, or make this one writable for the user that runs Grange.",
          what, path, std::strerror(err)),
      {}};
}

}  // namespace

Result<> make_folder(const std::string& path) {
  struct stat st {};
  for (std::size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) == 0) continue;
    const int err = errno;
    if (::stat(part.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) continue;
    return cannot("make the folder", path, err == EEXIST ? ENOTDIR : err);
  }
  if (::access(path.c_str(), W_OK | X_OK) != 0) return cannot("write to the folder", path, errno);
  return {};
}

Result<> sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return cannot("open the folder", path, errno);
  const int rc = ::fsync(fd);
  const int err = errno;
  ::close(fd);
  if (rc != 0) return cannot("sync the folder", path, err);
  return {};
}

Result<Bytes> free_space(const std::string& path) {
  struct statvfs vfs {};
  if (::statvfs(path.c_str(), &vfs) != 0) return cannot("ask for the free space of", path, errno);
  return Bytes{vfs.f_bavail} * vfs.f_frsize;
}

Result<FolderLock> FolderLock::take(const std::string& folder) {
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return cannot("open", path, errno);
  FolderLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return cannot("lock", path, errno);
    char pid[32] = {};
    const ssize_t n = ::pread(fd, pid, sizeof pid - 1, 0);
    std::string holder(pid, n > 0 ? static_cast<std::size_t>(n) : 0);
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return Error{ErrorClass::unavailable,
                 fmt::format("Data folder {} is in use by the Grange server with process id {}. Stop that one first, "
                             "or choose another folder.",
                             folder, holder.empty() ? "unknown" : holder),
                 {}};
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    // The lock itself holds; only the number that a second server would show is missing. A full disk must not stop a
    // start.
  }
  return lock;
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace grange::store
