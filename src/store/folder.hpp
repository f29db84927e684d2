// The data folder: made private to its user, held by one server at a time, and asked how much room its disk has.
#pragma once

#include <string>
#include <utility>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::store {

Result<> make_folder(const std::string& path);      // 0700, with its parents; fine when it is there
Result<> sync_folder(const std::string& path);      // names in it are on disk after this
Result<Bytes> free_space(const std::string& path);  // for this user

// flock on FOLDER/lock: gone with the process, however it ends.
class FolderLock {
 public:
  static Result<FolderLock> take(const std::string& folder);
  FolderLock() = default;
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FolderLock();

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace grange::store
