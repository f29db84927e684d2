// Small values packed into one BLOB column: LEB128 integers and length-prefixed bytes. What is read back is our own,
// but a damaged file must not harm: `Unpacker` never reads past its end and says whether all was well.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bodies.hpp"
#include "core/records.hpp"
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
  // Only what is not empty, after a number that says what it is.
  void tagged(std::uint64_t tag, std::uint64_t v) {
    if (v == 0) return;
    number(tag);
    number(v);
  }
  void tagged(std::uint64_t tag, std::string_view b) {
    if (b.empty()) return;
    number(tag);
    bytes(b);
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
  std::uint32_t u32() {
    const std::uint64_t v = number();
    if (v > UINT32_MAX) ok_ = false;
    return static_cast<std::uint32_t>(v);
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

// Small numbers of either sign stay short.
inline std::uint64_t zigzag(std::int64_t v) {
  return (static_cast<std::uint64_t>(v) << 1) ^ static_cast<std::uint64_t>(v >> 63);
}
inline std::int64_t unzigzag(std::uint64_t v) {
  return static_cast<std::int64_t>((v >> 1) ^ (~(v & 1) + 1));
}

// Blobs of version 1 of the schema are still read.
std::string pack_request(const core::Request& request);
bool unpack_request(std::string_view packed, core::Request& request);

// What of a header has no column of its own. Empty when all of it is as by default.
std::string pack_more(const core::JobHeader& header);
bool unpack_more(std::string_view packed, core::JobHeader& header);

// Failures by class, a byte each, as one number.
std::uint64_t pack_failures(const core::FailureCounts& failures);
core::FailureCounts unpack_failures(std::uint64_t packed);

// Sizes as (size, run) pairs: arguments of one array are mostly alike.
std::string pack_sizes(const std::vector<std::uint32_t>& sizes);
bool unpack_sizes(std::string_view packed, std::uint32_t count, std::vector<std::uint32_t>& sizes);

// Everything of a result but its inline value. Empty when there is nothing to say, which is the common case. `out` is
// replaced.
void pack_extra(const core::ResultBody& body, std::string& out);
bool unpack_extra(std::string_view packed, bool with_traceback, core::ResultBody& body);

}  // namespace grange::store
