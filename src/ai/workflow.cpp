#include "ai/workflow.hpp"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <set>

#include "ai/json.hpp"
#include "ai/llm_request.hpp"
#include "ai/words.hpp"

namespace grange::ai {
namespace {

constexpr std::size_t kPictureTextBytes = 100'000;
constexpr std::uint32_t kSide = 16'384;

// Other names that people know a parameter by.
std::string_view usual_key(std::string_view key) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kOther = {
      {{"sampler_name", "sampler"},
       {"cfg_scale", "cfg"},
       {"guidance", "cfg"},
       {"negative_prompt", "negative"},
       {"ckpt_name", "checkpoint"},
       {"batch_size", "batch"},
       {"noise_seed", "seed"}}};
  for (const auto& [other, usual] : kOther) {
    if (key == other) return usual;
  }
  return key;
}

Result<Unit> read_text(std::string_view key, const json::value& value, std::string& into) {
  if (!value.is_string()) return wrong("'" + std::string(key) + "' of a picture must be a text.");
  if (value.get_string().size() > kPictureTextBytes)
    return wrong("'" + std::string(key) + "' of a picture is too long.");
  into = std::string(value.get_string());
  return {};
}

template <class T>
Result<Unit> read_count(std::string_view key, const json::value& value, std::uint64_t least, std::uint64_t most,
                        T& into) {
  const auto count = count_of(value);
  if (!count || *count < least || *count > most) {
    return wrong("'" + std::string(key) + "' of a picture must be a whole number from " + std::to_string(least) +
                 " to " + std::to_string(most) + ".");
  }
  into = static_cast<T>(*count);
  return {};
}

Result<Unit> read_number(std::string_view key, const json::value& value, double most, double& into) {
  const auto number = number_of(value);
  if (!number || *number < 0 || *number > most) {
    return wrong("'" + std::string(key) + "' of a picture must be a number from 0 to " +
                 std::to_string(static_cast<int>(most)) + ".");
  }
  into = *number;
  return {};
}

Result<Unit> read_param(std::string_view key, const json::value& value, ImageParams& out) {
  const std::string_view k = usual_key(key);
  if (value.is_null()) return {};
  if (k == "checkpoint") return read_text(key, value, out.checkpoint);
  if (k == "prompt") return read_text(key, value, out.prompt);
  if (k == "negative") return read_text(key, value, out.negative);
  if (k == "sampler") return read_text(key, value, out.sampler);
  if (k == "scheduler") return read_text(key, value, out.scheduler);
  if (k == "seed") {
    if (value.is_int64() && value.get_int64() == -1) return {};  // "any", as other programs say it
    out.seed_given = true;
    return read_count(key, value, 0, UINT64_MAX, out.seed);
  }
  if (k == "steps") return read_count(key, value, 1, 1000, out.steps);
  if (k == "width") return read_count(key, value, 16, kSide, out.width);
  if (k == "height") return read_count(key, value, 16, kSide, out.height);
  if (k == "batch") return read_count(key, value, 1, 64, out.batch);
  if (k == "cfg") return read_number(key, value, 100, out.cfg);
  if (k == "denoise") return read_number(key, value, 1, out.denoise);
  return wrong(
      "A picture has no parameter '" + std::string(key) +
      "': it has checkpoint, prompt, negative, seed, steps, cfg, sampler, scheduler, denoise, width, height and "
      "batch.");
}

Result<Unit> read_params(const json::object& from, ImageParams& out) {
  for (const auto& [key, value] : from) {
    if (auto read = read_param(key, value, out); !read.ok()) return read;
  }
  return {};
}

json::array link(std::string_view node, int output) {
  return {node, output};
}

json::object node(std::string_view klass, json::object inputs) {
  return {{"class_type", klass}, {"inputs", std::move(inputs)}};
}

// ["4", 0]: what another node puts out.
const json::array* as_link(const json::value& input) {
  const json::array* list = input.if_array();
  if (list == nullptr || list->size() != 2 || !list->front().is_string() || !list->back().is_int64()) return nullptr;
  return list;
}

const json::object* inputs_of(const json::value& one) {
  const json::object* object = one.if_object();
  return object == nullptr ? nullptr : object_at(*object, "inputs");
}

std::string_view node_class(const json::value& one) {
  const json::object* object = one.if_object();
  return object == nullptr ? std::string_view{} : text_at(*object, "class_type").value_or("");
}

}  // namespace

void fill(boost::json::value& value, std::string_view with) {
  if (value.is_string()) {
    const std::string_view text = value.get_string();
    if (text.find("{}") != std::string_view::npos) value = filled(text, with);
  } else if (value.is_array()) {
    for (json::value& one : value.get_array()) fill(one, with);
  } else if (value.is_object()) {
    for (auto& [key, one] : value.get_object()) fill(one, with);
  }
}

Result<ImageParams> read_image_params(std::string_view params_json, const boost::json::value& argument) {
  ImageParams out;
  if (!params_json.empty()) {
    const auto parsed = parse_json(params_json);
    if (!parsed || !parsed->is_object()) return wrong("The parameters of a picture must be a JSON object.");
    if (auto read = read_params(parsed->get_object(), out); !read.ok()) return std::move(read).error();
  }
  if (argument.is_object()) {
    if (auto read = read_params(argument.get_object(), out); !read.ok()) return std::move(read).error();
  } else {
    const std::string given = as_text(argument);
    if (overfills(out.prompt, given) || overfills(out.negative, given)) {
      return wrong("With the argument in place of each {} the prompt of the picture is too long.");
    }
    out.prompt = out.prompt.empty() ? given : filled(out.prompt, given);
    out.negative = filled(out.negative, given);
  }
  if (out.checkpoint.empty()) return wrong("A picture needs the name of a checkpoint.");
  if (out.prompt.empty()) return wrong("A picture needs a prompt.");
  if (out.width % 8 != 0 || out.height % 8 != 0) {
    return wrong("Width and height of a picture must be multiples of 8, not " + std::to_string(out.width) + " by " +
                 std::to_string(out.height) + ".");
  }
  if (std::uint64_t{out.width} * out.height * out.batch > kImagePixels) {
    return wrong("A picture of " + std::to_string(out.width) + " by " + std::to_string(out.height) + ", " +
                 std::to_string(out.batch) + " at once, is more than 64 megapixels: make it smaller.");
  }
  return out;
}

boost::json::object to_json(const ImageParams& p) {
  return {{"checkpoint", p.checkpoint}, {"prompt", p.prompt}, {"negative", p.negative}, {"seed", p.seed},
          {"steps", p.steps},           {"cfg", p.cfg},       {"sampler", p.sampler},   {"scheduler", p.scheduler},
          {"denoise", p.denoise},       {"width", p.width},   {"height", p.height},     {"batch", p.batch}};
}

boost::json::object txt2img(const ImageParams& p) {
  return {{"3", node("KSampler", {{"seed", p.seed},
                                  {"steps", p.steps},
                                  {"cfg", p.cfg},
                                  {"sampler_name", p.sampler},
                                  {"scheduler", p.scheduler},
                                  {"denoise", p.denoise},
                                  {"model", link("4", 0)},
                                  {"positive", link("6", 0)},
                                  {"negative", link("7", 0)},
                                  {"latent_image", link("5", 0)}})},
          {"4", node("CheckpointLoaderSimple", {{"ckpt_name", p.checkpoint}})},
          {"5", node("EmptyLatentImage", {{"width", p.width}, {"height", p.height}, {"batch_size", p.batch}})},
          {"6", node("CLIPTextEncode", {{"text", p.prompt}, {"clip", link("4", 1)}})},
          {"7", node("CLIPTextEncode", {{"text", p.negative}, {"clip", link("4", 1)}})},
          {"8", node("VAEDecode", {{"samples", link("3", 0)}, {"vae", link("4", 2)}})},
          {"9", node("SaveImage", {{"filename_prefix", "grange"}, {"images", link("8", 0)}})}};
}

Result<boost::json::object> read_workflow(std::string_view text, const boost::json::value& argument) {
  if (text.size() > kWorkflowBytes) return wrong("The workflow is larger than 4 MiB.");
  auto parsed = parse_json(text);
  if (!parsed || !parsed->is_object()) return wrong("The workflow must be a JSON object of nodes.");
  json::object* graph = &parsed->get_object();
  if (array_at(*graph, "nodes") != nullptr) {
    return wrong("This is a workflow as ComfyUI's editor saves it: export it with \"Save (API Format)\".");
  }
  if (json::value* inside = graph->if_contains("prompt"); inside != nullptr && inside->is_object()) {
    if (!inside->get_object().contains("class_type")) graph = &inside->get_object();
  }
  if (graph->empty()) return wrong("The workflow has no nodes.");
  if (graph->size() > kWorkflowNodes) return wrong("The workflow has more than 5,000 nodes.");
  for (const auto& [id, one] : *graph) {
    const std::string at = "Node '" + std::string(id) + "' of the workflow ";
    const json::object* inputs = inputs_of(one);
    if (node_class(one).empty() || inputs == nullptr) return wrong(at + "needs a class_type and inputs.");
    for (const auto& [key, input] : *inputs) {
      const json::array* to = as_link(input);
      if (to != nullptr && !graph->contains(to->front().get_string())) {
        return wrong(at + "takes '" + std::string(key) + "' from node '" + std::string(to->front().get_string()) +
                     "', which is not there.");
      }
    }
  }
  const std::string given = as_text(argument);
  if (overfills(text, given)) return wrong("With the argument in place of each {} the workflow is too large.");
  for (auto& [id, one] : *graph) fill(one.get_object()["inputs"], given);
  return json::object(std::move(*graph));
}

std::size_t vary_seeds(boost::json::object& workflow, std::uint64_t by) {
  std::size_t varied = 0;
  for (auto& [id, one] : workflow) {
    json::value* inputs = one.is_object() ? one.get_object().if_contains("inputs") : nullptr;
    if (inputs == nullptr || !inputs->is_object()) continue;
    for (const std::string_view key : {"seed", "noise_seed"}) {
      json::value* seed = inputs->get_object().if_contains(key);
      const auto count = seed == nullptr ? std::nullopt : count_of(*seed);
      if (!count) continue;
      *seed = *count + by;
      ++varied;
    }
  }
  return varied;
}

std::vector<ModelUse> models_used(const boost::json::object& workflow) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kInputs = {
      {{"ckpt_name", "checkpoints"},
       {"unet_name", "diffusion_models"},
       {"vae_name", "vae"},
       {"lora_name", "loras"},
       {"clip_name", "text_encoders"},
       {"clip_name1", "text_encoders"},
       {"clip_name2", "text_encoders"},
       {"clip_name3", "text_encoders"},
       {"clip_name4", "text_encoders"},
       {"control_net_name", "controlnet"},
       {"style_model_name", "style_models"},
       {"gligen_name", "gligen"},
       {"hypernetwork_name", "hypernetworks"},
       {"model_name", "upscale_models"}}};
  std::vector<ModelUse> out;
  for (const auto& [id, one] : workflow) {
    const json::object* inputs = inputs_of(one);
    if (inputs == nullptr) continue;
    for (const auto& [input, folder] : kInputs) {
      const auto name = text_at(*inputs, input);
      if (!name || name->empty()) continue;
      const std::string_view klass = node_class(one);
      std::string_view where = folder;
      if (klass == "CLIPVisionLoader") where = "clip_vision";
      if (input == "model_name" && klass != "UpscaleModelLoader") continue;  // any node may have an input of that name
      out.push_back({std::string(id), std::string(klass), std::string(input), std::string(*name), std::string(where)});
    }
  }
  return out;
}

std::vector<std::string> output_nodes(const boost::json::object& workflow) {
  std::vector<std::string> known, last;
  std::set<std::string, std::less<>> taken;
  for (const auto& [id, one] : workflow) {
    const json::object* inputs = inputs_of(one);
    if (inputs == nullptr) continue;
    for (const auto& [key, input] : *inputs) {
      if (const json::array* to = as_link(input)) taken.emplace(to->front().get_string());
    }
  }
  for (const auto& [id, one] : workflow) {
    const std::string_view klass = node_class(one);
    if (klass.substr(0, 4) == "Save" || klass.substr(0, 7) == "Preview" || klass == "VHS_VideoCombine") {
      known.emplace_back(id);
    }
    if (!taken.contains(std::string_view(id))) last.emplace_back(id);
  }
  return known.empty() ? last : known;
}

}  // namespace grange::ai
