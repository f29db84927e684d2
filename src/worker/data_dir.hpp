// The worker's data folder: one worker at a time, a lasting id, a cache, and folders for tasks.
#pragma once

#include <string>

#include "base/result.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

struct DataDir {
  std::string path, worker_id;
  Fd lock;
  std::string cache() const { return path + "/cache"; }
  std::string tasks() const { return path + "/tasks"; }
  std::string executors() const { return path + "/executors"; }
};

// conflict: another worker uses it.
Result<DataDir> open_data_dir(const std::string& path);
std::string random_id(std::size_t bytes);  // hex

}  // namespace grange::worker
