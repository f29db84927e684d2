// Bytes named by their SHA-256, as files. A blob is whole, checked and on disk before its name is used. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::store {

std::string sha256_hex(std::string_view bytes);
bool is_sha256(std::string_view text);  // 64 lower-case hex characters

class BlobStore {
 public:
  static Result<std::unique_ptr<BlobStore>> open(const std::string& directory);
  virtual ~BlobStore() = default;
  virtual std::optional<Bytes> size(const std::string& sha256) const = 0;  // nullopt: not here
  virtual std::string path(const std::string& sha256) const = 0;           // where it is or would be
  virtual Result<std::string> put(std::string_view bytes) = 0;             // -> sha256
  virtual Result<std::string> get(
      const std::string& sha256) const = 0;  // not_found; storage_damaged when its bytes do not match
  // Resumable upload: a part file by name; `received` tells where to go on; `finish` checks, syncs and renames
  // (invalid_argument: other hash).
  virtual std::string part_path(const std::string& sha256) const = 0;
  virtual Bytes received(const std::string& sha256) const = 0;
  virtual Result<> finish(const std::string& sha256) = 0;
  virtual Result<> remove(const std::string& sha256) = 0;
  // Removes blobs older than `grace` that `in_use` does not know, and stale parts. Returns how many.
  virtual Result<std::uint64_t> sweep(Millis grace, const std::function<bool(const std::string&)>& in_use) = 0;
};

}  // namespace grange::store
