// Small values packed into one BLOB column: LEB128 integers and length-prefixed bytes. What is read back is our own,
// but a damaged file must not harm: `Unpacker` never reads past its end and says whether all was well.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bodies.hpp"
#include "core/types.hpp"

namespace grange::store {

class Packer {
 public:
  explicit Packer(std::string& out) : out_(out) {}
  void number(std::uint64_t v) {
    while (v >= 0x80) {
      out_.push_back(static_cast<char>(v | 0x80));
      v >>= 7;
    }
    out_.push_back(static_cast<char>(v));
  }
  void bytes(std::string_view b) {
    number(b.size());
    out_.append(b);
  }

 private:
  std::string& out_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view in) : in_(in) {}
  bool done() const { return in_.empty() || !ok_; }
  bool ok() const { return ok_; }
  std::uint64_t number() {
    std::uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (in_.empty()) break;
      const auto byte = static_cast<unsigned char>(in_.front());
      in_.remove_prefix(1);
      v |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return v;
    }
    ok_ = false;
    return 0;
  }
  std::string_view bytes() {
    const std::uint64_t size = number();
    if (!ok_ || size > in_.size()) {
      ok_ = false;
      return {};
    }
    const auto b = in_.substr(0, static_cast<std::size_t>(size));
    in_.remove_prefix(b.size());
    return b;
  }

 private:
  std::string_view in_;
  bool ok_ = true;
};

std::string pack_request(const core::Request& request);
bool unpack_request(std::string_view packed, core::Request& request);

// Sizes as (size, run) pairs: arguments of one array are mostly alike.
std::string pack_sizes(const std::vector<std::uint32_t>& sizes);
bool unpack_sizes(std::string_view packed, std::uint32_t count, std::vector<std::uint32_t>& sizes);

// Everything of a result but its inline value. Empty when there is nothing to say, which is the common case. `out` is
// replaced.
void pack_extra(const core::ResultBody& body, std::string& out);
bool unpack_extra(std::string_view packed, bool with_traceback, core::ResultBody& body);

}  // namespace grange::store
