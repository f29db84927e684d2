#include "store/codec.hpp"

namespace grange::store {
namespace {

// Numbers are on disk: never reuse one.
enum Tag : std::uint64_t {
  message = 1,
  traceback,
  exit_code,
  files,
  value_sha256,
  queued_us,
  cpu_us,
  max_rss,
  blob,
  exception,
  stage
};

// What came to a request after its labels. On disk, too.
enum RequestTag : std::uint64_t { gpu_memory = 1, model, pool, min_life, negated, context };

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
  for (const core::LabelRule& label : request.labels) {
    p.bytes(label.key);
    p.bytes(label.value);
  }
  p.tagged(gpu_memory, request.gpu_memory);
  p.tagged(model, request.model);
  p.tagged(pool, request.pool);
  p.tagged(min_life, zigzag(request.min_life.count()));
  p.tagged(context, request.context);
  for (std::size_t i = 0; i < request.labels.size(); ++i) {
    if (!request.labels[i].negate) continue;
    p.number(negated);
    p.number(i);
  }
  return out;
}

bool unpack_request(std::string_view packed, core::Request& request) {
  Unpacker u(packed);
  request = {};
  request.cpus_milli = u.u32();
  request.gpus_milli = u.u32();
  request.memory = u.number();
  request.disk = u.number();
  request.engine = u.bytes();
  const std::uint64_t labels = u.number();
  for (std::uint64_t i = 0; i < labels && u.ok(); ++i) {
    core::LabelRule& label = request.labels.emplace_back();
    label.key = u.bytes();
    label.value = u.bytes();
  }
  while (!u.done()) {
    switch (u.number()) {
      case gpu_memory:
        request.gpu_memory = u.number();
        break;
      case model:
        request.model = u.bytes();
        break;
      case pool:
        request.pool = u.bytes();
        break;
      case min_life:
        request.min_life = Millis{unzigzag(u.number())};
        break;
      case context:
        request.context = u.u32();
        break;
      case negated: {
        const std::uint64_t at = u.number();
        if (at >= request.labels.size()) return false;
        request.labels[static_cast<std::size_t>(at)].negate = true;
        break;
      }
      default:
        return false;
    }
  }
  return u.ok();
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
  p.tagged(exit_code, zigzag(body.exit_code));
  p.tagged(stage, static_cast<std::uint64_t>(body.stage));
  p.tagged(queued_us, body.queued_us);
  p.tagged(cpu_us, body.cpu_us);
  p.tagged(max_rss, body.max_rss_bytes);
  p.tagged(value_sha256, body.value_sha256);
  p.tagged(files, body.files);
  for (const auto& sha : body.blobs) p.tagged(blob, sha);
  p.tagged(exception, body.exception);
  p.tagged(message, body.message);
  p.tagged(traceback, body.traceback);
}

bool unpack_extra(std::string_view packed, bool with_traceback, core::ResultBody& body) {
  Unpacker u(packed);
  while (!u.done()) {
    switch (u.number()) {
      case exit_code:
        body.exit_code = static_cast<std::int32_t>(unzigzag(u.number()));
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
      case exception:
        body.exception = u.bytes();
        break;
      case stage: {
        const std::uint64_t at = u.number();
        if (at > static_cast<std::uint64_t>(core::Stage::upload)) return false;
        body.stage = static_cast<core::Stage>(at);
        break;
      }
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
