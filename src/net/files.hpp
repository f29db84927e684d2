// Files that bodies come from and go to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace grange::net {

class File {
 public:
  File(File&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  File& operator=(File&&) = delete;
  ~File();
  std::uint64_t size() const;

 protected:
  explicit File(int fd) : fd_(fd) {}
  int fd_;
};

class InFile : public File {
 public:
  static Result<InFile> open(const std::string& path);
  std::size_t read(char* into, std::size_t n, std::uint64_t at) const;  // 0: end, or it cannot be read

 private:
  using File::File;
};

class OutFile : public File {
 public:
  static Result<OutFile> open(const std::string& path, std::uint64_t offset);  // made if need be, and cut at `offset`
  Result<Unit> write(std::string_view bytes);

 private:
  using File::File;
};

}  // namespace grange::net
