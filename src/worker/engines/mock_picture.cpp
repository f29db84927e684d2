#include "worker/engines/mock_picture.hpp"

#include <zlib.h>

#include <algorithm>

namespace grange::worker {

namespace {

void put_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
}

void put_chunk(std::string& out, const std::string& kind, const std::string& bytes) {
  put_u32(out, static_cast<std::uint32_t>(bytes.size()));
  const std::string body = kind + bytes;
  out += body;
  put_u32(out, static_cast<std::uint32_t>(
                   ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()))));
}

}  // namespace

std::string mock_picture(std::uint32_t width, std::uint32_t height, std::uint64_t seed) {
  width = std::clamp(width, 1u, kMockSide);
  height = std::clamp(height, 1u, kMockSide);
  std::string rows;
  for (std::uint32_t y = 0; y < height; ++y) {
    rows += '\0';  // no filter
    for (std::uint32_t x = 0; x < width; ++x) {
      rows += static_cast<char>(x * 255 / width);
      rows += static_cast<char>(y * 255 / height);
      rows += static_cast<char>(seed & 0xFF);
    }
  }
  uLongf size = ::compressBound(static_cast<uLong>(rows.size()));
  std::string packed(size, '\0');
  ::compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()),
             static_cast<uLong>(rows.size()));
  packed.resize(size);
  std::string head;
  put_u32(head, width);
  put_u32(head, height);
  head += std::string("\x08\x02\0\0\0", 5);  // 8 bits, RGB
  std::string out("\x89PNG\r\n\x1a\n", 8);
  put_chunk(out, "IHDR", head);
  put_chunk(out, "IDAT", packed);
  put_chunk(out, "IEND", "");
  return out;
}

}  // namespace grange::worker
