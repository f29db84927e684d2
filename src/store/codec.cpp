#include "store/codec.hpp"

namespace grange::store {
namespace {

// Numbers are on disk: never reuse one.
namespace result_tag {
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
}  // namespace result_tag

// What came to a request after its labels. On disk, too.
namespace request_tag {
enum Tag : std::uint64_t { gpu_memory = 1, model, pool, min_life, negated, context };
}  // namespace request_tag

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
  p.tagged(request_tag::gpu_memory, request.gpu_memory);
  p.tagged(request_tag::model, request.model);
  p.tagged(request_tag::pool, request.pool);
  p.tagged(request_tag::min_life, zigzag(request.min_life.count()));
  p.tagged(request_tag::context, request.context);
  for (std::size_t i = 0; i < request.labels.size(); ++i) {
    if (!request.labels[i].negate) continue;
    p.number(request_tag::negated);
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
      case request_tag::gpu_memory:
        request.gpu_memory = u.number();
        break;
      case request_tag::model:
        request.model = u.bytes();
        break;
      case request_tag::pool:
        request.pool = u.bytes();
        break;
      case request_tag::min_life:
        request.min_life = Millis{unzigzag(u.number())};
        break;
      case request_tag::context:
        request.context = u.u32();
        break;
      case request_tag::negated: {
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
  p.tagged(result_tag::exit_code, zigzag(body.exit_code));
  p.tagged(result_tag::stage, static_cast<std::uint64_t>(body.stage));
  p.tagged(result_tag::queued_us, body.queued_us);
  p.tagged(result_tag::cpu_us, body.cpu_us);
  p.tagged(result_tag::max_rss, body.max_rss_bytes);
  p.tagged(result_tag::value_sha256, body.value_sha256);
  p.tagged(result_tag::files, body.files);
  for (const auto& sha : body.blobs) p.tagged(result_tag::blob, sha);
  p.tagged(result_tag::exception, body.exception);
  p.tagged(result_tag::message, body.message);
  p.tagged(result_tag::traceback, body.traceback);
}

bool unpack_extra(std::string_view packed, bool with_traceback, core::ResultBody& body) {
  Unpacker u(packed);
  while (!u.done()) {
    switch (u.number()) {
      case result_tag::exit_code:
        body.exit_code = static_cast<std::int32_t>(unzigzag(u.number()));
        break;
      case result_tag::queued_us:
        body.queued_us = u.number();
        break;
      case result_tag::cpu_us:
        body.cpu_us = u.number();
        break;
      case result_tag::max_rss:
        body.max_rss_bytes = u.number();
        break;
      case result_tag::value_sha256:
        body.value_sha256 = u.bytes();
        break;
      case result_tag::files:
        body.files = u.bytes();
        break;
      case result_tag::blob:
        body.blobs.emplace_back(u.bytes());
        break;
      case result_tag::exception:
        body.exception = u.bytes();
        break;
      case result_tag::stage: {
        const std::uint64_t at = u.number();
        if (at > static_cast<std::uint64_t>(core::Stage::upload)) return false;
        body.stage = static_cast<core::Stage>(at);
        break;
      }
      case result_tag::message:
        body.message = u.bytes();
        break;
      case result_tag::traceback:
        with_traceback ? void(body.traceback = u.bytes()) : void(u.bytes());
        break;
      default:
        return false;
    }
  }
  return u.ok();
}

}  // namespace grange::store
