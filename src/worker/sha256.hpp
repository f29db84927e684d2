#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace grange::worker {

// SHA-256 as 64 lower-case hex characters, in one go or piece by piece.
std::string sha256(std::string_view bytes);
bool valid_sha256(std::string_view hex);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::string_view bytes);
  std::string hex();  // once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "0a1b..." -> bytes; the hex was checked.
std::string unhex(std::string_view hex);

}  // namespace grange::worker
