// The gateway's routes, and the lists of models in both dialects.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "server/api/rest.hpp"
#include "server/api/rest_machines.hpp"
#include "server/gateway/gateway.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

using gateway::Dialect;

// One model, wherever it is.
struct Listed {
  const pb::Model* model = nullptr;  // of the first that has it
  std::string kind;                  // of that service
  std::string version;
  json::array places;
  bool loaded = false;
  std::uint64_t loaded_bytes = 0, gpu_bytes = 0;
  WallMs since{INT64_MAX};  // the first worker that has it was first seen
};

std::map<std::string, Listed> list_models(const gateway::Board& board) {
  std::map<std::string, Listed> out;
  for (const auto& [id, place] : board.places()) {
    if (place.service.state() == "down") continue;
    for (const pb::Model& model : place.service.models()) {
      Listed& one = out[model.name()];
      if (one.model == nullptr) {
        one.model = &model;
        one.kind = place.service.kind();
      }
      one.loaded = one.loaded || model.loaded();
      one.since.ms = std::min(one.since.ms, place.since.ms);
      one.loaded_bytes = std::max<std::uint64_t>(one.loaded_bytes, model.loaded_bytes());
      one.gpu_bytes = std::max<std::uint64_t>(one.gpu_bytes, model.gpu_bytes());
      one.places.push_back(json::object{{"worker_id", place.worker_id},
                                        {"service", place.service.name()},
                                        {"kind", place.service.kind()},
                                        {"state", place.service.state()},
                                        {"loaded", model.loaded()},
                                        {"fit", model.fit().empty() ? "UNKNOWN" : model.fit()},
                                        {"good_context", model.good_context()},
                                        {"max_context", model.max_context()}});
    }
  }
  return out;
}

json::object openai_model(const std::string& name, const Listed& listed, std::int64_t since) {
  return {{"id", name},
          {"object", "model"},
          {"created", since},
          {"owned_by", "grange"},
          {"grange", json::object{{"kind", listed.model->kind()},
                                  {"context", listed.model->context()},
                                  {"bytes", listed.model->bytes()},
                                  {"loaded", listed.loaded},
                                  {"places", listed.places}}}};
}

json::object ollama_model(const std::string& name, const Listed& listed) {
  const pb::Model& model = *listed.model;
  return {{"name", name},
          {"model", name},
          {"modified_at", iso_time(listed.since)},
          {"size", model.bytes()},
          {"digest", model.digest()},
          {"details", gateway::ollama_details(model)}};
}

}  // namespace

void Rest::pass_on(RestCallPtr call) {
  const gateway::Passed* route = gateway::passed(call->request().path);
  if (route == nullptr) return call->fail({ErrorClass::not_found, "There is nothing at this path."});
  s_.gateway->serve(call->exchange, call->who, *route);
}

void Rest::list_v1_models(RestCallPtr call) {
  json::array data;
  for (const auto& [name, listed] : list_models(s_.gateway->board()))
    data.push_back(openai_model(name, listed, s_.started_at.ms / 1000));
  call->answer(200, json::object{{"object", "list"}, {"data", std::move(data)}});
}

void Rest::get_v1_model(RestCallPtr call) {
  const std::string& name = call->path["model"];
  const auto all = list_models(s_.gateway->board());
  auto it = all.find(name);
  if (it == all.end()) {
    it = std::find_if(all.begin(), all.end(),
                      [&](const auto& one) { return gateway::plain_name(one.first) == gateway::plain_name(name); });
  }
  if (it != all.end()) return call->answer(200, openai_model(it->first, it->second, s_.started_at.ms / 1000));
  std::vector<std::string_view> names;
  for (const auto& [known, listed] : all) names.push_back(known);
  const std::string_view near = nearest(name, names);
  const std::string shown = cut_utf8(is_utf8(name) ? name : "?", 256);
  const gateway::Fault fault{
      404, "invalid_request_error", "model_not_found",
      fmt::format("model \"{}\" not found.{}", shown, near.empty() ? "" : fmt::format(" Did you mean \"{}\"?", near))};
  call->answer_text(404, "application/json", gateway::fault_body(Dialect::openai, fault));
}

// What Ollama says at its root: its command line asks for that first.
void Rest::get_ollama(RestCallPtr call) {
  call->answer_text(200, "text/plain; charset=utf-8", "Ollama is running");
}

void Rest::get_ollama_tags(RestCallPtr call) {
  json::array models;
  for (const auto& [name, listed] : list_models(s_.gateway->board())) models.push_back(ollama_model(name, listed));
  call->answer(200, json::object{{"models", std::move(models)}});
}

void Rest::get_ollama_ps(RestCallPtr call) {
  json::array models;
  for (const auto& [name, listed] : list_models(s_.gateway->board())) {
    if (!listed.loaded) continue;
    json::object one = ollama_model(name, listed);
    one["size"] = listed.loaded_bytes;
    one["size_vram"] = listed.gpu_bytes;
    models.push_back(std::move(one));
  }
  call->answer(200, json::object{{"models", std::move(models)}});
}

// The oldest that is here: what it can do, all can.
void Rest::get_ollama_version(RestCallPtr call) {
  const auto parts = [](const std::string& version) {
    std::vector<std::uint64_t> out;
    std::uint64_t number = 0;
    for (const char c : version + ".") {
      if (c >= '0' && c <= '9') {
        number = number * 10 + static_cast<std::uint64_t>(c - '0');
      } else {
        out.push_back(std::exchange(number, 0));
      }
    }
    return out;
  };
  std::string oldest;
  for (const auto& [id, place] : s_.gateway->board().places()) {
    const std::string& version = place.service.version();
    if (place.service.kind() != "ollama" || version.empty()) continue;
    if (oldest.empty() || parts(version) < parts(oldest)) oldest = version;
  }
  call->answer(200, json::object{{"version", oldest.empty() ? "0.0.0" : cut_utf8(oldest, 64)}});
}

void Rest::get_gateway(RestCallPtr call) {
  call->answer(200, s_.gateway->figures());
}

std::vector<Route> gateway_routes() {
  const auto post = [](std::string_view pattern, std::string_view summary, std::string_view request) {
    return Route{"POST", pattern, Action::use_models, "gateway", summary, {}, request, "ModelAnswer", &Rest::pass_on};
  };
  std::vector<Route> all = {
      post("/v1/chat/completions", "OpenAI's chat, answered by the worker that fits best; stream: server-sent events",
           "ModelRequest"),
      post("/v1/completions", "OpenAI's completion of a prompt", "ModelRequest"),
      post("/v1/embeddings", "OpenAI's embeddings; encoding_format float or base64", "ModelRequest"),
      {"GET",
       "/v1/models",
       Action::list_models,
       "gateway",
       "The models of all workers, in OpenAI's form; grange: where each one is",
       {},
       "",
       "ModelList",
       &Rest::list_v1_models},
      {"GET",
       "/v1/models/{model}",
       Action::list_models,
       "gateway",
       "One model; its name may have slashes",
       {{"model", "string", "The model's name"}},
       "",
       "ModelEntry",
       &Rest::get_v1_model},
      {"GET",
       "/ollama",
       Action::list_models,
       "gateway",
       "What Ollama says at its root",
       {},
       "",
       "text",
       &Rest::get_ollama},
      post("/ollama/api/chat",
           "Ollama's chat; newline-delimited JSON unless stream is false. A model on another service is asked there, "
           "and its "
           "answer told as Ollama would",
           "ModelRequest"),
      post("/ollama/api/generate", "Ollama's completion of a prompt", "ModelRequest"),
      post("/ollama/api/embed", "Ollama's embeddings", "ModelRequest"),
      post("/ollama/api/embeddings", "Ollama's embeddings of one prompt, as older clients ask for them",
           "ModelRequest"),
      post("/ollama/api/show", "What Ollama tells of one model", "ModelRequest"),
      {"GET",
       "/ollama/api/tags",
       Action::list_models,
       "gateway",
       "The models of all workers, in Ollama's form",
       {},
       "",
       "OllamaModels",
       &Rest::get_ollama_tags},
      {"GET",
       "/ollama/api/ps",
       Action::list_models,
       "gateway",
       "The models that are in memory",
       {},
       "",
       "OllamaModels",
       &Rest::get_ollama_ps},
      {"GET",
       "/ollama/api/version",
       Action::list_models,
       "gateway",
       "The version of the oldest Ollama that is here",
       {},
       "",
       "OllamaVersion",
       &Rest::get_ollama_version},
      {"GET",
       "/api/gateway",
       Action::see_stats,
       "gateway",
       "What goes through the gateway: streams, tokens by principal and model since the server's start, the newest "
       "requests",
       {},
       "",
       "Gateway",
       &Rest::get_gateway},
  };
  all.push_back({"GET",
                 "/api/gateway/usage",
                 Action::see_stats,
                 "gateway",
                 "What went through the gateway by day (UTC), principal and model; kept over restarts",
                 {{"days", "integer", "So many days, today among them; up to 400, 30 when left out"},
                  {"principal", "string", "Only of this one"},
                  {"model", "string", "Only of this one"}},
                 "",
                 "Usage",
                 &Rest::get_usage});
  for (Route& route : machine_routes()) all.push_back(std::move(route));
  for (Route& route : service_routes()) all.push_back(std::move(route));
  return all;
}

}  // namespace grange::server
