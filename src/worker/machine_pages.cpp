#include "worker/machine_pages.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"

namespace grange::worker {
namespace {

namespace json = boost::json;

json::object model_shown(const pb::Model& model) {
  json::object out{{"name", model.name()},
                   {"kind", model.kind()},
                   {"bytes", model.bytes()},
                   {"quantization", model.quantization()},
                   {"family", model.family()},
                   {"parameters", model.parameters()},
                   {"context", model.context()},
                   {"loaded", model.loaded()},
                   {"loaded_bytes", model.loaded_bytes()},
                   {"gpu_bytes", model.gpu_bytes()},
                   {"digest", model.digest()},
                   {"fit", model.fit().empty() ? "UNKNOWN" : model.fit()},
                   {"good_context", model.good_context()},
                   {"max_context", model.max_context()}};
  const auto numbers = ai::parse_json(model.fit_json());
  out["fit_numbers"] = numbers && numbers->is_object() ? *numbers : json::value(nullptr);
  return out;
}

template <class List>
json::array words(const List& list) {
  json::array out;
  for (const auto& one : list) out.emplace_back(one);
  return out;
}

}  // namespace

std::string capabilities_json(const std::string& worker_id, const std::string& name, const pb::Manifest& m) {
  json::array gpus, services, models;
  for (const pb::Gpu& gpu : m.gpus())
    gpus.push_back(json::object{{"name", gpu.name()}, {"memory_bytes", gpu.memory_bytes()}, {"uuid", gpu.uuid()}});
  for (const pb::Service& service : m.services()) {
    json::array names;
    for (const pb::Model& model : service.models()) {
      names.emplace_back(model.name());
      json::object one = model_shown(model);
      one["service"] = service.name();
      one["service_kind"] = service.kind();
      models.push_back(std::move(one));
    }
    services.push_back(json::object{{"name", service.name()},
                                    {"kind", service.kind()},
                                    {"state", service.state()},
                                    {"version", service.version()},
                                    {"note", service.note()},
                                    {"parallel", service.parallel()},
                                    {"managed", service.managed()},
                                    {"care", service.care()},
                                    {"restarts", service.restarts()},
                                    {"last_error", service.last_error()},
                                    {"models", std::move(names)}});
  }
  json::object labels;
  for (const auto& [key, value] : m.labels()) labels[key] = value;
  return json::serialize(json::object{{"worker_id", worker_id},
                                      {"name", name},
                                      {"version", m.version()},
                                      {"hardware", json::object{{"hostname", m.hostname()},
                                                                {"os", m.os()},
                                                                {"cpu_model", m.cpu_model()},
                                                                {"cpus", m.cpus_milli() / 1000.0},
                                                                {"memory_bytes", m.memory_bytes()},
                                                                {"disk_bytes", m.disk_bytes()},
                                                                {"gpus", std::move(gpus)}}},
                                      {"slots", m.slots()},
                                      {"engines", words(m.engines())},
                                      {"python_version", m.python_version()},
                                      {"pool", m.pool().empty() ? std::string("standard") : m.pool()},
                                      {"labels", std::move(labels)},
                                      {"services", std::move(services)},
                                      {"models", std::move(models)},
                                      {"notes", words(m.notes())}});
}

void LoadHistory::add(WallMs at, const pb::Heartbeat& beat) {
  samples_.emplace_back(at, beat);
  if (samples_.size() > kSamples) samples_.pop_front();
}

// What was not measured is null.
std::string LoadHistory::json() const {
  json::array out;
  for (const auto& [at, beat] : samples_) {
    json::object one{{"time_ms", at.ms},
                     {"cpu_percent", beat.cpu_percent()},
                     {"memory_used_bytes", beat.memory_used_bytes()},
                     {"disk_free_bytes", beat.disk_free_bytes()},
                     {"running", beat.running()},
                     {"backlog", beat.backlog()}};
    const auto put = [](json::object& to, const char* key, bool has, auto value) {
      to[key] = has ? json::value(value) : json::value(nullptr);
    };
    put(one, "network_in_bytes_per_s", beat.has_network_in_bytes_per_s(), beat.network_in_bytes_per_s());
    put(one, "network_out_bytes_per_s", beat.has_network_out_bytes_per_s(), beat.network_out_bytes_per_s());
    put(one, "disk_read_bytes_per_s", beat.has_disk_read_bytes_per_s(), beat.disk_read_bytes_per_s());
    put(one, "disk_write_bytes_per_s", beat.has_disk_write_bytes_per_s(), beat.disk_write_bytes_per_s());
    put(one, "temperature_c", beat.has_temperature_c(), beat.temperature_c());
    json::array gpus;
    for (const pb::GpuLoad& gpu : beat.gpus()) {
      json::object load;
      put(load, "percent", gpu.has_percent(), gpu.percent());
      put(load, "memory_used_bytes", gpu.has_memory_used_bytes(), gpu.memory_used_bytes());
      put(load, "temperature_c", gpu.has_temperature_c(), gpu.temperature_c());
      gpus.push_back(std::move(load));
    }
    one["gpus"] = std::move(gpus);
    out.push_back(std::move(one));
  }
  json::object all{{"samples", std::move(out)}};
  all["now"] = samples_.empty() ? json::value(nullptr) : all["samples"].get_array().back();
  return json::serialize(all);
}

}  // namespace grange::worker
