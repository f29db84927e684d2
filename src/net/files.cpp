#include "net/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace grange::net {

namespace {

Error file_error(const std::string& what) {
  const bool full = errno == ENOSPC || errno == EDQUOT;
  const auto cls = full ? ErrorClass::storage_full : errno == ENOENT ? ErrorClass::not_found : ErrorClass::io;
  return {cls, what + ": " + std::strerror(errno) + (full ? ". Make room on the disk and try again." : "")};
}

}  // namespace

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

std::uint64_t File::size() const {
  struct stat s {};
  return ::fstat(fd_, &s) == 0 ? static_cast<std::uint64_t>(s.st_size) : 0;
}

Result<InFile> InFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return file_error("Cannot read " + path);
  return InFile(fd);
}

std::size_t InFile::read(char* into, std::size_t n, std::uint64_t at) const {
  for (;;) {
    const auto got = ::pread(fd_, into, n, static_cast<off_t>(at));
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return 0;
  }
}

Result<OutFile> OutFile::open(const std::string& path, std::uint64_t offset) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return file_error("Cannot write " + path);
  OutFile file(fd);
  if (::ftruncate(fd, static_cast<off_t>(offset)) != 0 || ::lseek(fd, static_cast<off_t>(offset), SEEK_SET) < 0) {
    return file_error("Cannot write " + path);
  }
  return file;
}

Result<Unit> OutFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file_error("Cannot write a received file");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace grange::net
