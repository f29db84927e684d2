// How fast a disk takes and gives one big file.
#pragma once

#include <string>

#include "compute/control.hpp"

namespace grange::compute {

inline constexpr Bytes kDiskBytes = 256 * MiB;
inline constexpr Bytes kDiskLargest = 64 * GiB;

struct DiskOptions {
  std::string folder;
  Bytes n = 0;                   // of the file; 0: kDiskBytes
  Bytes leave_free = 256 * MiB;  // on the disk, beside the file
};

struct DiskResult {
  Bytes n = 0;
  double write_mb_per_s = 0;  // with the last byte on the disk; 10^6 bytes
  double read_mb_per_s = 0;
  bool direct = false;  // read past the cache; else it may have been read from memory
  double seconds = 0;
  bool right = false;  // what was read is what was written
};

// The file has no name once it is open: it is gone with this call, or with the process.
Result<DiskResult> disk_speed(const DiskOptions& options, Control& control);

}  // namespace grange::compute
