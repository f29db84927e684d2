// Blobs as a worker needs them: fetched once into DATA/cache and verified, held in memory while they are small and in
// use, and put on the server before a result names them. The server being away is waited out; what cannot get better is
// an error at once.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/prng.hpp"
#include "net/http_client.hpp"
#include "worker/sha256.hpp"

namespace grange::worker {

using SharedBytes = std::shared_ptr<const std::string>;

class Blobs {
 public:
  struct Options {
    std::string server_url, token, folder;  // folder: DATA/cache
    Bytes memory = 64 * MiB;
    Bytes disk = 8 * GiB;
    int patience = 60;  // tries while the server is away
  };
  Blobs(net::Loop& loop, Options options, std::uint64_t seed);
  ~Blobs();

  // Destroyed: cancelled, the callback does not come. A callback may come before the function returns.
  struct Wait {
    virtual ~Wait() = default;
  };
  using WaitPtr = std::unique_ptr<Wait>;

  [[nodiscard]] WaitPtr bytes(const std::string& sha, std::function<void(Result<SharedBytes>)> done);
  [[nodiscard]] WaitPtr file(const std::string& sha,
                             std::function<void(Result<std::string>)> done);  // a path in the cache: do not change it
  [[nodiscard]] WaitPtr put(std::string bytes, std::function<void(Result<std::string>)> done);  // its SHA-256
  [[nodiscard]] WaitPtr put_file(std::string path, std::string sha, std::function<void(Result<std::string>)> done);
  // Named code: its SHA-256.
  [[nodiscard]] WaitPtr model(const std::string& name, std::function<void(Result<std::string>)> done);
  // Already here, in memory.
  SharedBytes at_hand(const std::string& sha);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace grange::worker
