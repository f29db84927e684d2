#include "worker/services/answers.hpp"

#include <algorithm>
#include <set>

#include "ai/gguf.hpp"
#include "ai/json.hpp"

namespace grange::worker {

namespace {

using ai::array_at;
using ai::count_at;
using ai::flag_at;
using ai::object_at;
using ai::parse_json;
using ai::text_at;
namespace json = boost::json;

constexpr std::size_t kText = 128;  // of a version, a family and the like

// Cut where a character ends.
std::string clipped(std::string_view text, std::size_t most) {
  if (text.size() > most) {
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
    text = text.substr(0, most);
  }
  return std::string(text);
}
std::string clipped_text(const json::object& from, std::string_view key) {
  return clipped(text_at(from, key).value_or(""), kText);
}
std::uint32_t number32(const json::object& from, std::string_view key) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(count_at(from, key).value_or(0), UINT32_MAX));
}

std::optional<json::object> object_of(std::string_view body) {
  auto value = parse_json(body);
  if (!value || !value->is_object()) return std::nullopt;
  return std::move(value->get_object());
}

bool usable_name(std::string_view name) {
  return !name.empty() && name.size() <= kName &&
         std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

bool says_embedding(const json::object& entry, std::string_view family) {
  if (const json::array* can = array_at(entry, "capabilities")) {
    bool embeds = false, talks = false;
    for (const json::value& one : *can) {
      embeds = embeds || (one.is_string() && one.get_string() == "embedding");
      talks = talks || (one.is_string() && one.get_string() == "completion");
    }
    if (embeds || talks) return embeds && !talks;
  }
  return family.ends_with("bert");
}

// A path of its host is no name for people; the file's own name is.
std::string base_name(std::string_view path) {
  const std::size_t slash = path.find_last_of("/\\");
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

}  // namespace

std::optional<std::string> ollama_version(std::string_view body) {
  const auto object = object_of(body);
  if (!object) return std::nullopt;
  const auto version = text_at(*object, "version");
  if (!version || version->empty()) return std::nullopt;
  return clipped(*version, kText);
}

bool ollama_tags(std::string_view body, pb::Service& into) {
  const auto object = object_of(body);
  const json::array* models = object ? array_at(*object, "models") : nullptr;
  if (models == nullptr) return false;
  std::set<std::string> seen;
  for (const json::value& value : *models) {
    if (!value.is_object() || static_cast<std::size_t>(into.models_size()) >= kModels) continue;
    const json::object& entry = value.get_object();
    const auto name = text_at(entry, "name") ? text_at(entry, "name") : text_at(entry, "model");
    if (!name || !usable_name(*name) || !seen.insert(std::string(*name)).second) continue;
    pb::Model& model = *into.add_models();
    model.set_name(std::string(*name));
    model.set_bytes(count_at(entry, "size").value_or(0));
    model.set_digest(clipped_text(entry, "digest"));
    if (const json::object* details = object_at(entry, "details")) {
      model.set_family(clipped_text(*details, "family"));
      model.set_parameters(clipped_text(*details, "parameter_size"));
      model.set_quantization(clipped_text(*details, "quantization_level"));
      model.set_context(number32(*details, "context_length"));
    }
    model.set_kind(says_embedding(entry, model.family()) ? "embedding" : "llm");
  }
  return true;
}

void ollama_loaded(std::string_view body, pb::Service& into) {
  const auto object = object_of(body);
  const json::array* models = object ? array_at(*object, "models") : nullptr;
  if (models == nullptr) return;
  std::map<std::string_view, pb::Model*> by_name;
  for (pb::Model& model : *into.mutable_models()) by_name[model.name()] = &model;
  for (const json::value& value : *models) {
    if (!value.is_object()) continue;
    const json::object& entry = value.get_object();
    const auto name = text_at(entry, "name") ? text_at(entry, "name") : text_at(entry, "model");
    const auto it = by_name.find(name.value_or(""));
    if (it == by_name.end()) continue;
    it->second->set_loaded(true);
    it->second->set_loaded_bytes(count_at(entry, "size").value_or(0));
    it->second->set_gpu_bytes(std::min(count_at(entry, "size_vram").value_or(0), it->second->loaded_bytes()));
  }
}

Health llamacpp_health(int status, std::string_view body) {
  const auto object = object_of(body);
  if (!object) return Health::other;
  if (status == 200 && text_at(*object, "status") == "ok") return Health::ready;
  if (status == 503) {
    const json::object* error = object_at(*object, "error");
    if (error != nullptr && text_at(*error, "type") == "unavailable_error") return Health::loading;
    // Before 2025 it said so in the status.
    if (text_at(*object, "status") == "loading model") return Health::loading;
  }
  return Health::other;
}

std::optional<LlamacppProps> llamacpp_props(std::string_view body) {
  const auto object = object_of(body);
  if (!object) return std::nullopt;
  const json::object* settings = object_at(*object, "default_generation_settings");
  const bool router = text_at(*object, "role") == "router";
  if (!router && (settings == nullptr || !count_at(*object, "total_slots"))) return std::nullopt;
  LlamacppProps out;
  out.router = router;
  out.slots = std::min<std::uint32_t>(number32(*object, "total_slots"), 65'536);
  if (settings != nullptr) out.context = number32(*settings, "n_ctx");
  out.version = clipped_text(*object, "build_info");
  out.model_path = clipped(text_at(*object, "model_path").value_or(""), 4096);
  out.sleeping = flag_at(*object, "is_sleeping").value_or(false);
  return out;
}

std::optional<OpenAiModels> openai_models(std::string_view body) {
  const auto object = object_of(body);
  const json::array* data = object ? array_at(*object, "data") : nullptr;
  if (data == nullptr || text_at(*object, "object") != "list") return std::nullopt;
  OpenAiModels out;
  std::set<std::string> seen;
  for (const json::value& value : *data) {
    if (!value.is_object()) return std::nullopt;
    if (out.models.size() >= kModels) break;
    const json::object& entry = value.get_object();
    const auto id = text_at(entry, "id");
    if (!id) return std::nullopt;
    const std::string owner = clipped_text(entry, "owned_by");
    if (out.owner.empty()) out.owner = owner;
    pb::Model model;
    std::string name(*id);
    const bool file = owner == "llamacpp" && name.ends_with(".gguf");
    if (file) name = base_name(name);
    if (!usable_name(name) || !seen.insert(name).second) continue;
    if (file) out.files[name] = std::string(*id);
    model.set_name(name);
    model.set_kind("llm");
    model.set_loaded(owner == "llamacpp" || owner == "vllm");
    if (const json::object* status = object_at(entry, "status"))  // of a llama.cpp that serves several
      model.set_loaded(text_at(*status, "value") == "loaded");
    model.set_context(number32(entry, "max_model_len"));  // vLLM
    if (const json::object* meta = object_at(entry, "meta")) {
      ai::ModelFacts facts = ai::facts_of_meta(*meta);
      facts.name = name;
      model.set_bytes(facts.weights);
      model.set_context(facts.context_length);
      if (model.loaded()) model.set_loaded_bytes(facts.weights);
      out.facts[name] = std::move(facts);
    }
    out.models.push_back(std::move(model));
  }
  return out;
}

std::optional<std::vector<pb::Model>> lmstudio_models(std::string_view body) {
  const auto object = object_of(body);
  const json::array* data = object ? array_at(*object, "data") : nullptr;
  if (data == nullptr || text_at(*object, "object") != "list") return std::nullopt;
  std::vector<pb::Model> out;
  for (const json::value& value : *data) {
    if (!value.is_object()) return std::nullopt;
    const json::object& entry = value.get_object();
    const auto id = text_at(entry, "id");
    const auto state = text_at(entry, "state");
    if (!id || !state) return std::nullopt;
    if (!usable_name(*id) || out.size() >= kModels) continue;
    pb::Model model;
    model.set_name(std::string(*id));
    model.set_kind(text_at(entry, "type") == "embeddings" ? "embedding" : "llm");
    model.set_loaded(state == "loaded");
    model.set_quantization(clipped_text(entry, "quantization"));
    model.set_family(clipped_text(entry, "arch"));
    model.set_context(number32(entry, "max_context_length"));
    out.push_back(std::move(model));
  }
  return out;
}

std::optional<std::string> vllm_version(std::string_view body) {
  return ollama_version(body);  // the same shape
}

bool comfyui_stats(std::string_view body, pb::Service& into) {
  const auto object = object_of(body);
  const json::object* system = object ? object_at(*object, "system") : nullptr;
  const json::array* devices = object ? array_at(*object, "devices") : nullptr;
  if (system == nullptr || devices == nullptr) return false;
  if (!text_at(*system, "comfyui_version") && !text_at(*system, "python_version")) return false;
  into.set_version(clipped_text(*system, "comfyui_version"));
  if (!devices->empty() && devices->front().is_object())
    into.set_note(clipped(text_at(devices->front().get_object(), "name").value_or(""), kText));
  return true;
}

bool comfyui_checkpoints(std::string_view body, pb::Service& into) {
  const auto object = object_of(body);
  const json::object* node = object ? object_at(*object, "CheckpointLoaderSimple") : nullptr;
  const json::object* input = node != nullptr ? object_at(*node, "input") : nullptr;
  const json::object* required = input != nullptr ? object_at(*input, "required") : nullptr;
  const json::array* spec = required != nullptr ? array_at(*required, "ckpt_name") : nullptr;
  if (spec == nullptr || spec->empty()) return false;
  const json::array* names = spec->front().if_array();
  if (names == nullptr && spec->front() == "COMBO" && spec->size() > 1 && (*spec)[1].is_object())
    names = array_at((*spec)[1].get_object(), "options");
  if (names == nullptr) return false;
  std::set<std::string> seen;
  for (const json::value& value : *names) {
    if (!value.is_string() || static_cast<std::size_t>(into.models_size()) >= kModels) continue;
    const std::string name(value.get_string());
    if (!usable_name(name) || !seen.insert(name).second) continue;
    pb::Model& model = *into.add_models();
    model.set_name(name);
    model.set_kind("checkpoint");
  }
  return true;
}

bool same_model(std::string_view kind, std::string_view listed, std::string_view asked) {
  if (asked.empty() || listed == asked) return true;
  const auto drop = [](std::string_view text, std::string_view tail) {
    return text.ends_with(tail) ? text.substr(0, text.size() - tail.size()) : text;
  };
  if (kind == "ollama") return drop(listed, ":latest") == drop(asked, ":latest");
  if (kind == "llamacpp") return drop(listed, ".gguf") == drop(base_name(asked), ".gguf");
  return false;
}

}  // namespace grange::worker
