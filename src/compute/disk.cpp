#include "compute/disk.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/prng.hpp"

namespace grange::compute {

namespace {

constexpr std::size_t kBlock = MiB;
constexpr Bytes kSync = 16 * MiB;  // so much at a time, so that a stop need not wait for more

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Error failed(const std::string& what) {
  const int why = errno;
  return Error{why == ENOSPC || why == EDQUOT ? ErrorClass::storage_full : ErrorClass::io,
               what + ": " + std::strerror(why) + "."};
}

int open_scratch(const std::string& folder) {
  const int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string path = folder + "/disk-XXXXXX";
  const int named = mkostemp(path.data(), O_CLOEXEC);
  if (named >= 0) unlink(path.c_str());
  return named;
}

struct Freed {
  void operator()(std::uint8_t* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<std::uint8_t[], Freed>;

// Block i of the file: noise, which no disk can make smaller, with its number in each 4 KiB.
void stamp(std::uint8_t* block, std::uint64_t number) {
  for (std::size_t at = 0; at < kBlock; at += 4 * KiB) std::memcpy(block + at, &number, sizeof number);
}

bool put(int fd, const std::uint8_t* from, std::size_t size) {
  while (size > 0) {
    const ssize_t did = write(fd, from, size);
    if (did < 0 && errno == EINTR) continue;
    if (did <= 0) return false;
    from += did;
    size -= static_cast<std::size_t>(did);
  }
  return true;
}

// What it could read of `size`; < 0: an error.
ssize_t get(int fd, std::uint8_t* to, std::size_t size) {
  std::size_t have = 0;
  while (have < size) {
    const ssize_t did = read(fd, to + have, size - have);
    if (did < 0 && errno == EINTR) continue;
    if (did < 0) return -1;
    if (did == 0) break;
    have += static_cast<std::size_t>(did);
  }
  return static_cast<ssize_t>(have);
}

}  // namespace

Result<DiskResult> disk_speed(const DiskOptions& options, Control& control) {
  DiskResult result;
  result.n = options.n == 0 ? kDiskBytes : options.n;
  if (result.n > kDiskLargest)
    return Error{ErrorClass::invalid_argument, "disk takes a file of up to " + std::to_string(kDiskLargest) +
                                                   " bytes, not " + std::to_string(result.n) + "."};
  result.n = (result.n + kBlock - 1) / kBlock * kBlock;
  struct statvfs disk {};
  if (statvfs(options.folder.c_str(), &disk) != 0) return failed("The folder " + options.folder + " cannot be used");
  const Bytes room = Bytes{disk.f_bavail} * disk.f_frsize;
  if (room < result.n + options.leave_free)
    return Error{ErrorClass::storage_full, "The disk has " + std::to_string(room / MiB) + " MiB free; a file of " +
                                               std::to_string(result.n / MiB) +
                                               " MiB would fill it. Take a smaller n or make room."};
  const File file(open_scratch(options.folder));
  if (file.fd() < 0) return failed("No file can be made in " + options.folder);
  const auto aligned = [] { return Buffer(static_cast<std::uint8_t*>(std::aligned_alloc(4 * KiB, kBlock))); };
  const Buffer block = aligned(), back = aligned();
  if (!block || !back) return Error{ErrorClass::too_large, "There is not enough memory for a buffer."};
  Prng prng(1);
  for (std::size_t at = 0; at < kBlock; at += 8) {
    const std::uint64_t noise = prng.next();
    std::memcpy(block.get() + at, &noise, 8);
  }
  const double start = control.seconds();
  for (Bytes at = 0; at < result.n; at += kBlock) {
    if (!control.go_on()) return control.outcome().error();
    stamp(block.get(), at / kBlock);
    if (!put(file.fd(), block.get(), kBlock)) return failed("The scratch file cannot be written");
    if ((at + kBlock) % kSync == 0 && fdatasync(file.fd()) != 0) return failed("The scratch file cannot be stored");
    control.report(0.5 * static_cast<double>(at) / static_cast<double>(result.n), 0);
  }
  if (fsync(file.fd()) != 0) return failed("The scratch file cannot be stored");
  const double written = control.seconds();
  (void)posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  const std::string again = "/proc/self/fd/" + std::to_string(file.fd());
  const File direct(open(again.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  int from = direct.fd();
  result.direct = from >= 0;
  if (result.direct && get(from, back.get(), kBlock) != static_cast<ssize_t>(kBlock)) result.direct = false;
  if (!result.direct) from = file.fd();
  if (lseek(from, 0, SEEK_SET) != 0) return failed("The scratch file cannot be read");
  const double reading = control.seconds();
  result.right = true;
  for (Bytes at = 0; at < result.n; at += kBlock) {
    if (!control.go_on()) return control.outcome().error();
    if (get(from, back.get(), kBlock) < 0) return failed("The scratch file cannot be read");
    stamp(block.get(), at / kBlock);
    if (std::memcmp(block.get(), back.get(), kBlock) != 0) result.right = false;
    control.report(0.5 + 0.5 * static_cast<double>(at) / static_cast<double>(result.n), 0);
  }
  const double end = control.seconds();
  const double megabytes = static_cast<double>(result.n) / 1e6;
  result.write_mb_per_s = megabytes / std::max(written - start, 1e-9);
  result.read_mb_per_s = megabytes / std::max(end - reading, 1e-9);
  result.seconds = end - start;
  return result;
}

}  // namespace grange::compute
