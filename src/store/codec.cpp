#include "store/codec.hpp"

namespace grange::store {
namespace {

// Numbers are on disk: never reuse one.
enum Tag : std::uint64_t { message = 1, traceback, exit_code, files, value_sha256, queued_us, cpu_us, max_rss, blob };

std::uint64_t zigzag(std::int32_t v) {
  return (static_cast<std::uint32_t>(v) << 1) ^ static_cast<std::uint32_t>(v >> 31);
}
std::int32_t unzigzag(std::uint64_t v) {
  const auto u = static_cast<std::uint32_t>(v);
  return static_cast<std::int32_t>((u >> 1) ^ (~(u & 1) + 1));
}

}  // namespace

std::string pack_request(const core::Request& request) {
  std::string out;
  Packer p(out);
  p.number(request.cpus_milli);
  p.number(request.gpus_milli);
  p.number(request.memory);
  p.number(request.disk);
  p.bytes(request.engine);
  p.number(request.labels.size());
  for (const auto& [key, value] : request.labels) {
    p.bytes(key);
    p.bytes(value);
  }
  return out;
}

bool unpack_request(std::string_view packed, core::Request& request) {
  Unpacker u(packed);
  request.cpus_milli = static_cast<std::uint32_t>(u.number());
  request.gpus_milli = static_cast<std::uint32_t>(u.number());
  request.memory = u.number();
  request.disk = u.number();
  request.engine = u.bytes();
  const std::uint64_t labels = u.number();
  request.labels.clear();
  for (std::uint64_t i = 0; i < labels && u.ok(); ++i) {
    std::string key(u.bytes());
    request.labels.emplace_back(std::move(key), u.bytes());
  }
  return u.ok() && u.done();
}

std::string pack_sizes(const std::vector<std::uint32_t>& sizes) {
  std::string out;
  Packer p(out);
  for (std::size_t i = 0; i < sizes.size();) {
    std::size_t end = i + 1;
    while (end < sizes.size() && sizes[end] == sizes[i]) ++end;
    p.number(sizes[i]);
    p.number(end - i);
    i = end;
  }
  return out;
}

bool unpack_sizes(std::string_view packed, std::uint32_t count, std::vector<std::uint32_t>& sizes) {
  Unpacker u(packed);
  sizes.clear();
  sizes.reserve(count);
  while (!u.done()) {
    const std::uint64_t size = u.number();
    const std::uint64_t run = u.number();
    if (!u.ok() || size > UINT32_MAX || run > count - sizes.size()) return false;
    sizes.insert(sizes.end(), static_cast<std::size_t>(run), static_cast<std::uint32_t>(size));
  }
  return u.ok() && sizes.size() == count;
}

void pack_extra(const core::ResultBody& body, std::string& out) {
  out.clear();
  Packer p(out);
  const auto text = [&](Tag tag, const std::string& value) {
    if (value.empty()) return;
    p.number(tag);
    p.bytes(value);
  };
  const auto number = [&](Tag tag, std::uint64_t value) {
    if (value == 0) return;
    p.number(tag);
    p.number(value);
  };
  number(exit_code, zigzag(body.exit_code));
  number(queued_us, body.queued_us);
  number(cpu_us, body.cpu_us);
  number(max_rss, body.max_rss_bytes);
  text(value_sha256, body.value_sha256);
  text(files, body.files);
  for (const auto& sha : body.blobs) text(blob, sha);
  text(message, body.message);
  text(traceback, body.traceback);
}

bool unpack_extra(std::string_view packed, bool with_traceback, core::ResultBody& body) {
  Unpacker u(packed);
  while (!u.done()) {
    switch (u.number()) {
      case exit_code:
        body.exit_code = unzigzag(u.number());
        break;
      case queued_us:
        body.queued_us = u.number();
        break;
      case cpu_us:
        body.cpu_us = u.number();
        break;
      case max_rss:
        body.max_rss_bytes = u.number();
        break;
      case value_sha256:
        body.value_sha256 = u.bytes();
        break;
      case files:
        body.files = u.bytes();
        break;
      case blob:
        body.blobs.emplace_back(u.bytes());
        break;
      case message:
        body.message = u.bytes();
        break;
      case traceback:
        with_traceback ? void(body.traceback = u.bytes()) : void(u.bytes());
        break;
      default:
        return false;
    }
  }
  return u.ok();
}

}  // namespace grange::store
