#include "server/worker_codec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "server/api/validate.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kModels = 1000;
constexpr Bytes kManifest = 1 * MiB;
constexpr std::uint64_t kLongestLife = 100ull * 366 * 24 * 3600 * 1000;

void refuse_result(queue::ResultReport& report, core::FailureClass failure, bool permanent, std::string why) {
  report.ok = false;
  report.permanent = permanent;
  report.failure = failure;
  report.stage = report.body.stage = core::Stage::upload;  // it ran; its result did not arrive
  report.body.value.clear();
  report.body.value_sha256.clear();
  report.body.files.clear();
  report.body.blobs.clear();
  report.body.message = std::move(why);
}

// Those that its owner names, and those of its services that fit the machine. A service's word on the context counts;
// of two services, that of the one which can do more.
void add_models(const pb::Manifest& manifest, core::Capacity& out) {
  std::map<std::string, std::uint32_t> of_services;
  const auto add = [&](const std::string& name, std::uint32_t context) {
    if (!valid_name(name) || of_services.size() >= kModels) return;  // a service calls its models what it likes
    const auto [it, fresh] = of_services.emplace(name, context);
    if (!fresh && it->second != 0) it->second = context == 0 ? 0 : std::max(it->second, context);
  };
  for (const pb::Service& service : manifest.services()) {
    if (service.state() == "down") continue;
    for (const pb::Model& model : service.models()) {
      if (model.fit() == "FAIL" && model.max_context() == 0) continue;
      add(model.name(), model.max_context());
      constexpr std::string_view latest = ":latest";  // Ollama's name for "no tag given"
      if (service.kind() == "ollama" && model.name().ends_with(latest))
        add(model.name().substr(0, model.name().size() - latest.size()), model.max_context());
    }
  }
  for (const std::string& model : manifest.models()) of_services.emplace(model, 0);
  for (const auto& [name, context] : of_services) {
    out.models.push_back(name);
    out.contexts.push_back(context);
  }
}

}  // namespace

Fence to_fence(const pb::Fence& fence) {
  return {.task = {fence.task()}, .attempt = fence.attempt(), .epoch = fence.epoch()};
}
Fence to_fence(const pb::Held& held) {
  return {.task = {held.task()}, .attempt = held.attempt(), .epoch = held.epoch()};
}

Result<core::Capacity> to_capacity(const pb::Manifest& manifest) {
  if (manifest.ByteSizeLong() > kManifest)
    return Error{ErrorClass::too_large, fmt::format("A manifest may have {} MiB.", kManifest / MiB)};
  core::Capacity out;
  out.slots = std::clamp<std::uint32_t>(manifest.slots(), 1, limits::kWindow);
  out.cpus_milli = manifest.cpus_milli() == 0 ? out.slots * 1000 : manifest.cpus_milli();
  out.gpus_milli = static_cast<std::uint32_t>(std::min(manifest.gpus_size(), 1024)) * 1000;
  for (const pb::Gpu& gpu : manifest.gpus()) {
    if (out.gpu_memory == 0 || gpu.memory_bytes() < out.gpu_memory) out.gpu_memory = gpu.memory_bytes();
  }
  out.memory = manifest.memory_bytes();
  out.disk = manifest.disk_bytes();
  for (const std::string& engine : manifest.engines()) {
    if (!valid_name(engine))
      return Error{ErrorClass::invalid_argument, "The manifest names an engine that cannot be one."};
    out.engines.push_back(engine);
    if (engine == "python") out.engines.emplace_back(kPythonJson);
  }
  if (!manifest.pool().empty()) {
    if (!valid_name(manifest.pool()))
      return Error{ErrorClass::invalid_argument, "The manifest names a pool that cannot be one."};
    out.pool = manifest.pool();
  }
  if (static_cast<std::size_t>(manifest.models_size()) > kModels)
    return Error{ErrorClass::invalid_argument, fmt::format("The manifest may name {} models.", kModels)};
  for (const std::string& model : manifest.models()) {
    if (!valid_name(model))
      return Error{ErrorClass::invalid_argument, "The manifest names a model that cannot be one."};
  }
  add_models(manifest, out);
  out.life = Millis{static_cast<std::int64_t>(std::min<std::uint64_t>(manifest.life_ms(), kLongestLife))};
  if (out.engines.size() > 64 || manifest.labels_size() > static_cast<int>(limits::kLabels)) {
    return Error{ErrorClass::invalid_argument, "The manifest has too many engines or labels."};
  }
  for (const auto& [key, value] : manifest.labels()) {
    if (!valid_name(key) || value.size() > limits::kNameBytes)
      return Error{ErrorClass::invalid_argument, "The manifest has a label that cannot be one."};
    out.labels.emplace_back(key, value);
  }
  std::sort(out.engines.begin(), out.engines.end());
  out.engines.erase(std::unique(out.engines.begin(), out.engines.end()), out.engines.end());
  std::sort(out.labels.begin(), out.labels.end());
  return out;
}

void label_as(core::Capacity& capacity, const std::string& worker_id) {
  std::erase_if(capacity.labels, [](const auto& one) { return one.first == kWorkerLabel; });
  capacity.labels.emplace_back(kWorkerLabel, worker_id);
  std::sort(capacity.labels.begin(), capacity.labels.end());
}

queue::ResultReport to_report(pb::TaskResult& result, const store::BlobStore& blobs) {
  queue::ResultReport report;
  report.fence = {.task = {result.task()}, .attempt = result.attempt(), .epoch = result.epoch()};
  report.ok = result.ok();
  report.permanent = !result.ok() && result.permanent();
  report.run_us = result.run_us();
  core::ResultBody& body = report.body;
  if (!result.ok()) {
    const int failure = static_cast<int>(result.failure());
    report.failure = failure > 0 && failure <= static_cast<int>(core::FailureClass::cancelled)
                         ? static_cast<core::FailureClass>(failure)
                         : core::FailureClass::engine;
    const int stage = static_cast<int>(result.stage());
    if (stage > 0 && stage <= static_cast<int>(core::Stage::upload)) report.stage = static_cast<core::Stage>(stage);
    body.stage = report.stage;
    // Of an engine it is the class of what went wrong: "missing_model".
    if (report.failure == core::FailureClass::exception || report.failure == core::FailureClass::engine ||
        report.failure == core::FailureClass::out_of_memory) {
      report.exception = cut_utf8(std::move(*result.mutable_exception()), limits::kNameBytes);
      body.exception = report.exception;
    }
  }
  if (!result.value().empty()) body.value = std::move(*result.mutable_value());
  if (!result.message().empty()) body.message = cut_utf8(std::move(*result.mutable_message()), limits::kMessageBytes);
  if (!result.traceback().empty())
    body.traceback = cut_utf8(std::move(*result.mutable_traceback()), limits::kTracebackBytes);
  body.exit_code = result.exit_code();
  body.queued_us = result.queued_us();
  body.cpu_us = result.cpu_us();
  body.max_rss_bytes = result.max_rss_bytes();
  if (body.value.size() > limits::kInline) {
    if (result.ok()) {
      refuse_result(report, core::FailureClass::refused, true,
                    fmt::format("The result came inline with {} bytes; above {} it must be uploaded as a blob.",
                                body.value.size(), limits::kInline));
    } else {
      body.value.clear();  // a pickled exception that large: message and traceback stay
    }
    return report;
  }
  const auto here = [&](const std::string& sha256) {
    return store::is_sha256(sha256) && blobs.size(sha256).has_value();
  };
  if (!result.value_sha256().empty()) {
    if (!here(result.value_sha256())) {
      if (result.ok())
        refuse_result(report, core::FailureClass::engine, false,
                      "The result's blob " + cut_utf8(result.value_sha256(), 64) + " did not reach the server.");
      return report;
    }
    body.value_sha256 = result.value_sha256();
    body.blobs.push_back(body.value_sha256);
  }
  if (result.files_size() > 0) {
    if (static_cast<std::size_t>(result.files_size()) > limits::kFilesPerTask) {
      refuse_result(report, core::FailureClass::refused, true,
                    fmt::format("A task may have {} files out.", limits::kFilesPerTask));
      return report;
    }
    pb::TaskResult only;
    for (const pb::FileOut& file : result.files()) {
      if (!safe_path(file.path()) || !here(file.sha256())) {
        if (result.ok())
          refuse_result(report, core::FailureClass::engine, false,
                        "The file \"" + cut_utf8(file.path(), 256) + "\" did not reach the server.");
        return report;
      }
      body.blobs.push_back(file.sha256());
    }
    only.mutable_files()->Swap(result.mutable_files());
    body.files = only.SerializeAsString();
  }
  return report;
}

pb::FailureClass to_wire(core::FailureClass failure) {
  return static_cast<pb::FailureClass>(failure);
}

}  // namespace grange::server
