#include "server/api/rest_machines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "server/api/job_keys.hpp"
#include "server/api/machine_hosts.hpp"
#include "server/api/rest.hpp"
#include "server/gateway/routing.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "store/blobs.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kSynced = 100;  // models of one question

// The named ones; none named: all that are connected and for which `fits` holds.
template <class Fits>
Result<std::vector<const ModelHost*>> hosts_for(const std::vector<std::string>& names, const ModelHosts& all,
                                                Fits fits) {
  std::vector<const ModelHost*> out;
  for (const std::string& name : names) {
    auto one = host_called(name, all);
    if (!one) return std::move(one).error();
    if (std::find(out.begin(), out.end(), *one) == out.end()) out.push_back(*one);
  }
  if (!names.empty()) return out;
  for (const ModelHost& one : all) {
    if (one.connected && fits(one)) out.push_back(&one);
  }
  return out;
}

// A list of texts, or one text with commas.
bool name_list(Keys& keys, std::string_view key, std::vector<std::string>& out) {
  const json::value* value = keys.find(key);
  if (value == nullptr) return false;
  if (value->is_string()) {
    const std::string_view all = value->get_string();
    for (std::size_t at = 0; at <= all.size();) {
      const std::size_t end = std::min(all.find(',', at), all.size());
      if (end > at) out.emplace_back(all.substr(at, end - at));
      if (out.size() > limits::kWorkers) return keys.wrong(key, fmt::format("may have {} names", limits::kWorkers));
      at = end + 1;
    }
    return true;
  }
  const json::array* list = value->if_array();
  const bool good = list != nullptr &&
                    std::all_of(list->begin(), list->end(), [](const json::value& one) { return one.is_string(); });
  if (!good) return keys.wrong(key, "must be a list of names");
  if (list->size() > limits::kWorkers) return keys.wrong(key, fmt::format("may have {} names", limits::kWorkers));
  for (const json::value& one : *list) out.emplace_back(one.get_string());
  return true;
}

void wanted_workers(Keys& keys, std::vector<std::string>& out) {
  for (const std::string_view key : {"workers", "machines"}) name_list(keys, key, out);
}

// Where a file comes from: a URL, or a blob of the farm.
struct Source {
  std::string url, sha256;
  bool any() const { return !url.empty() || !sha256.empty(); }
};

Source read_source(Keys& keys) {
  Source out;
  for (const std::string_view key : {"source", "from", "url"}) {
    std::string text;
    if (!keys.text(key, text) || text.empty() || text == "ollama") continue;
    if (text.starts_with("http://") || text.starts_with("https://")) {
      out.url = text;
    } else if (store::is_sha256(text)) {
      out.sha256 = text;
    } else {
      keys.wrong(key, "must be an http:// or https:// URL, or the SHA-256 of a blob of the farm");
    }
  }
  if (std::string sha; keys.text("sha256", sha) && !sha.empty()) {
    if (!store::is_sha256(sha)) keys.wrong("sha256", "must be 64 lower-case hexadecimal characters");
    out.sha256 = sha;
  }
  return out;
}

// "a.safetensors" of "https://files/a.safetensors?x=1"
std::string file_in(const std::string& url) {
  const std::string path = url.substr(0, url.find_first_of("?#"));
  return path.substr(path.rfind('/') + 1);
}

void with_source(json::object& models, const Source& source) {
  if (!source.url.empty()) models["url"] = source.url;
  if (!source.sha256.empty()) models["sha256"] = source.sha256;
}

bool same_model_there(std::string_view kind, std::string_view there, std::string_view wanted) {
  if (gateway::plain_name(there) == gateway::plain_name(wanted)) return true;
  return kind == "files" && there.substr(there.rfind('/') + 1) == wanted;
}

bool can_remove(const ModelHost& host, std::string_view model, const std::string& service) {
  for (const pb::Service& one : host.manifest.services()) {
    if ((one.kind() != "ollama" && one.kind() != "files") || (!service.empty() && one.name() != service)) continue;
    for (const pb::Model& there : one.models()) {
      if (same_model_there(one.kind(), there.name(), model)) return true;
    }
  }
  return false;
}

bool resettable(const pb::Service& service) {
  const std::string& kind = service.kind();
  return kind == "ollama" || kind == "llamacpp" || kind == "openai" || kind == "comfyui";
}

json::object place_json(const ModelHost& host, const pb::Service& service, const pb::Model& model) {
  return {{"worker_id", host.id},
          {"worker_name", host.name},
          {"connected", host.connected},
          {"service", service.name()},
          {"service_kind", service.kind()},
          {"state", service.state()},
          {"bytes", model.bytes()},
          {"loaded", model.loaded()},
          {"fit", model.fit().empty() ? "UNKNOWN" : model.fit()},
          {"good_context", model.good_context()},
          {"max_context", model.max_context()}};
}

// All models of all workers, each once.
json::array all_models(const ModelHosts& hosts) {
  std::map<std::pair<std::string, std::string>, json::object> all;
  for (const ModelHost& host : hosts) {
    for (const pb::Service& service : host.manifest.services()) {
      for (const pb::Model& model : service.models()) {
        json::object& one = all[{model.name(), model.kind()}];
        if (one.empty()) {
          one = {{"name", model.name()},
                 {"kind", model.kind()},
                 {"bytes", model.bytes()},
                 {"family", model.family()},
                 {"parameters", model.parameters()},
                 {"quantization", model.quantization()},
                 {"context", model.context()},
                 {"digest", model.digest()},
                 {"loaded", false},
                 {"where", json::array()}};
        }
        if (model.loaded() && host.connected) one["loaded"] = true;
        one["where"].get_array().push_back(place_json(host, service, model));
      }
    }
  }
  json::array out;
  for (auto& [key, one] : all) out.push_back(std::move(one));
  return out;
}

void answer_jobs(const RestCallPtr& call, json::array jobs) {
  call->answer(201, json::object{{"jobs", std::move(jobs)}});
}

struct SyncAsked {
  std::vector<std::string> workers;
  struct One {
    std::string model;
    Source source;
  };
  std::vector<One> models;
  std::string folder, service;
};

// {"model" or "models", "source", "sha256", "folder", "service", "workers"}
Result<SyncAsked> read_sync(const json::object& body) {
  SyncAsked out;
  Keys keys(body, "");
  wanted_workers(keys, out.workers);
  std::vector<std::string> names;
  for (const std::string_view key : {"model", "models"}) name_list(keys, key, names);
  const Source source = read_source(keys);
  keys.text("folder", out.folder);
  keys.text("service", out.service);
  if (names.empty() && !source.url.empty() && !file_in(source.url).empty()) names.push_back(file_in(source.url));
  if (names.empty())
    keys.wrong("model", "is missing: name a model as Ollama knows it, or a file's name beside its \"source\"");
  if (names.size() > 1 && source.any()) keys.wrong("source", "is of one file: name one model with it");
  if (names.size() > kSynced) keys.wrong("models", fmt::format("may have {} names", kSynced));
  if (!source.any() && !out.folder.empty()) keys.wrong("folder", "goes with a \"source\"");
  for (std::string& name : names) out.models.push_back({std::move(name), source});
  if (auto fine = keys.finish("a sync of models"); !fine) return std::move(fine).error();
  return out;
}

SyncAsked::One read_checkpoint(Keys& keys) {
  SyncAsked::One out;
  for (const std::string_view key : {"checkpoint", "model", "name"}) keys.text(key, out.model);
  out.source = read_source(keys);
  if (out.model.empty() && !out.source.url.empty()) out.model = file_in(out.source.url);
  if (out.model.empty()) keys.wrong("checkpoint", "is missing: name the file, such as \"sd_xl_base_1.0.safetensors\"");
  if (!out.source.any()) keys.wrong("source", "is missing: say where the file comes from, a URL or a blob's SHA-256");
  return out;
}

// {"checkpoints": [{"name", "source", "sha256"}], "workers"}, or one without a list.
Result<SyncAsked> read_checkpoints(const json::object& body) {
  SyncAsked out;
  out.folder = "checkpoints";
  Keys keys(body, "");
  wanted_workers(keys, out.workers);
  keys.text("folder", out.folder);
  const json::array* list = keys.list("checkpoints");
  if (list == nullptr) {
    out.models.push_back(read_checkpoint(keys));
  } else if (list->empty() || list->size() > kSynced) {
    keys.wrong("checkpoints", fmt::format("must be a list of 1 to {}", kSynced));
  } else {
    for (const json::value& one : *list) {
      if (!one.is_object()) {
        keys.wrong("checkpoints", "must be a list of tables: {\"name\", \"source\", \"sha256\"}");
        break;
      }
      Keys inner(one.get_object(), "checkpoints.");
      out.models.push_back(read_checkpoint(inner));
      if (auto fine = inner.finish("a checkpoint"); !fine) keys.fail(std::move(fine).error());
    }
  }
  if (auto fine = keys.finish("a sync of checkpoints"); !fine) return std::move(fine).error();
  return out;
}

std::vector<ModelOrder> orders_of(const SyncAsked& asked, const std::vector<const ModelHost*>& hosts) {
  std::vector<ModelOrder> out;
  for (const ModelHost* host : hosts) {
    for (const SyncAsked::One& one : asked.models) {
      json::object models{{"op", one.source.any() ? "fetch" : "pull"}, {"model", one.model}};
      with_source(models, one.source);
      if (!asked.folder.empty()) models["folder"] = asked.folder;
      if (!asked.service.empty()) models["service"] = asked.service;
      out.push_back({host, one.model, std::move(models)});
    }
  }
  return out;
}

}  // namespace

void Rest::get_machine_models(RestCallPtr call) {
  read_hosts(s_, call, [call](const ModelHosts& all) {
    const std::string wanted = call->query("worker");
    if (wanted.empty()) return call->answer(200, json::object{{"models", all_models(all)}});
    ModelHosts some;
    for (const ModelHost& one : all) {
      if (one.id == wanted || one.name == wanted) some.push_back(one);
    }
    if (some.empty()) return call->fail(host_not_found(wanted, all));
    call->answer(200, json::object{{"models", all_models(some)}});
  });
}

void Rest::sync_models(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  auto asked = read_sync(*body);
  if (!asked) return call->fail(asked.error());
  read_hosts(s_, call, [this, call, asked = std::move(*asked)](const ModelHosts& all) {
    const bool pull = !asked.models.front().source.any();
    const auto can = [&](const ModelHost& one) { return !pull || one.service("ollama", asked.service) != nullptr; };
    auto hosts = hosts_for(asked.workers, all, can);
    if (!hosts) return call->fail(hosts.error());
    for (const ModelHost* one : *hosts) {
      if (can(*one)) continue;
      return call->fail(
          {ErrorClass::conflict,
           fmt::format("The worker \"{}\" reaches no Ollama{} to pull with. Give a \"source\": a URL, or "
                       "the SHA-256 of a blob of the farm.",
                       one->shown(), asked.service.empty() ? "" : " called \"" + cut_utf8(asked.service, 80) + "\"")});
    }
    if (hosts->empty())
      return call->fail({ErrorClass::conflict,
                         pull
                             ? "No connected worker reaches an Ollama to pull with. Start one, or give a \"source\": a "
                               "URL, or the SHA-256 of a blob of the farm."
                             : "No worker is connected. Start one with: grange worker --server URL"});
    send_orders(operations_, call, orders_of(asked, *hosts),
                [call](json::array jobs) { answer_jobs(call, std::move(jobs)); });
  });
}

void Rest::sync_checkpoints(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  auto asked = read_checkpoints(*body);
  if (!asked) return call->fail(asked.error());
  read_hosts(s_, call, [this, call, asked = std::move(*asked)](const ModelHosts& all) {
    auto hosts = hosts_for(asked.workers, all, [](const ModelHost& one) { return one.service("comfyui") != nullptr; });
    if (!hosts) return call->fail(hosts.error());
    if (hosts->empty())
      return call->fail({ErrorClass::conflict,
                         "No connected worker reaches a ComfyUI. Start one, or name the \"workers\" that are to have "
                         "the file."});
    send_orders(operations_, call, orders_of(asked, *hosts),
                [call](json::array jobs) { answer_jobs(call, std::move(jobs)); });
  });
}

void Rest::remove_model(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  if (const std::string some = call->query("workers"); !some.empty()) body->emplace("workers", some);
  Keys keys(*body, "");
  std::vector<std::string> workers;
  wanted_workers(keys, workers);
  std::string service, folder;
  keys.text("service", service);
  keys.text("folder", folder);
  if (auto fine = keys.finish("a removal"); !fine) return call->fail(fine.error());
  const std::string model = call->path["model"];
  read_hosts(s_, call, [this, call, workers, service, folder, model](const ModelHosts& all) {
    auto hosts = hosts_for(workers, all, [&](const ModelHost& one) { return can_remove(one, model, service); });
    if (!hosts) return call->fail(hosts.error());
    for (const ModelHost* one : *hosts) {
      if (can_remove(*one, model, service)) continue;
      return call->fail(
          {ErrorClass::not_found, fmt::format("The worker \"{}\" has no \"{}\" in its Ollama or among its own files.",
                                              one->shown(), cut_utf8(model, 256))});
    }
    if (hosts->empty()) {
      std::vector<std::string> names;
      for (const ModelHost& one : all) {
        for (const pb::Service& there : one.manifest.services()) {
          if (there.kind() != "ollama" && there.kind() != "files") continue;
          for (const pb::Model& known : there.models()) names.emplace_back(gateway::plain_name(known.name()));
        }
      }
      return call->fail({ErrorClass::not_found,
                         fmt::format("No connected worker has \"{}\" in Ollama or among its own files.{} See: grange "
                                     "models ls",
                                     cut_utf8(model, 256), did_you_mean(model, names))});
    }
    std::vector<ModelOrder> orders;
    for (const ModelHost* one : *hosts) {
      json::object models{{"op", "remove"}, {"model", model}};
      if (!service.empty()) models["service"] = service;
      if (!folder.empty()) models["folder"] = folder;
      orders.push_back({one, model, std::move(models)});
    }
    send_orders(operations_, call, orders, [call](json::array jobs) { answer_jobs(call, std::move(jobs)); });
  });
}

void Rest::reset_worker(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  std::string service;
  keys.text("service", service);
  if (auto fine = keys.finish("a reset"); !fine) return call->fail(fine.error());
  read_hosts(s_, call, [this, call, service](const ModelHosts& all) {
    auto host = host_called(call->path["id"], all);
    if (!host) return call->fail(host.error());
    std::vector<std::string> names;
    bool there = false;
    for (const pb::Service& one : (*host)->manifest.services()) {
      if (!resettable(one)) continue;
      names.push_back(one.name());
      there = there || (service.empty() ? one.state() != "down" : one.name() == service);
    }
    if (!there)
      return call->fail(
          {service.empty() ? ErrorClass::conflict : ErrorClass::not_found,
           service.empty() ? fmt::format("The worker \"{}\" reaches no service that could be reset.", (*host)->shown())
                           : fmt::format("The worker \"{}\" has no service called \"{}\".{} {}", (*host)->shown(),
                                         cut_utf8(service, 80), did_you_mean(service, names),
                                         names.empty() ? "It reaches none." : "It has " + joined(names) + ".")});
    json::object models{{"op", "reset"}};
    if (!service.empty()) models["service"] = service;
    send_orders(operations_, call, {{*host, service, std::move(models)}}, [call](json::array jobs) {
      const json::object& one = jobs.front().get_object();
      call->answer(201, json::object{{"job_id", one.at("job_id")}, {"worker_id", one.at("worker_id")}});
    });
  });
}

std::vector<Route> machine_routes() {
  const Action see = Action::list_models, make = Action::change_machines;
  const auto post = [make](std::string_view pattern, std::string_view summary, std::vector<RouteParam> params,
                           std::string_view request, std::string_view response, void (Rest::*handler)(RestCallPtr)) {
    return Route{"POST", pattern, make, "models", summary, std::move(params), request, response, handler};
  };
  const std::string_view sync = "Bring models to workers, a job each: pulled through Ollama, or a file from a source";
  const std::string_view reset = "Unload all that a worker's AI services hold, and wait until they are ready: a job";
  const RouteParam id{"id", "string", "The worker's id, or its name"};
  return {
      {"GET",
       "/api/models",
       see,
       "models",
       "The AI models of all workers: where each is, whether it is loaded, and how it fits",
       {{"worker", "string", "Only of this one, by id or name"}},
       "",
       "MachineModels",
       &Rest::get_machine_models},
      post("/api/models/sync", sync, {}, "ModelSync", "ModelJobs", &Rest::sync_models),
      post("/models/sync", sync, {}, "ModelSync", "ModelJobs", &Rest::sync_models),
      post("/api/comfy/sync_checkpoints", "Bring checkpoints to the workers with a ComfyUI, a job each", {},
           "CheckpointSync", "ModelJobs", &Rest::sync_checkpoints),
      {"DELETE",
       "/api/models/{model}",
       make,
       "models",
       "Remove a model from Ollama or from the workers' own files, a job each; its name may have slashes",
       {{"model", "string", "As GET /api/models shows it"},
        {"workers", "string",
         "From these, by id or name, with commas; or as a list in the body. All that have it when "
         "left out"}},
       "ModelRemoval",
       "ModelJobs",
       &Rest::remove_model},
      post("/api/workers/{id}/reset", reset, {id}, "ModelReset", "ResetJob", &Rest::reset_worker),
      post("/api/agents/{id}/reset", reset, {id}, "ModelReset", "ResetJob", &Rest::reset_worker),
  };
}

}  // namespace grange::server
