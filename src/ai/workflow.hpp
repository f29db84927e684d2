// ComfyUI's graphs in API form: made from parameters, or any that a user brings.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace grange::ai {

struct ImageParams {
  std::string checkpoint;
  std::string prompt;
  std::string negative;
  std::uint64_t seed = 0;
  bool seed_given = false;
  std::uint32_t steps = 20;  // 1..1000
  double cfg = 7.0;          // 0..100
  std::string sampler = "euler";
  std::string scheduler = "normal";
  double denoise = 1.0;       // 0..1
  std::uint32_t width = 512;  // 16..16384, a multiple of 8
  std::uint32_t height = 512;
  std::uint32_t batch = 1;  // 1..64
};

inline constexpr std::uint64_t kImagePixels = 64ull * 1024 * 1024;  // width * height * batch
inline constexpr std::size_t kWorkflowNodes = 5000;
inline constexpr std::size_t kWorkflowBytes = 4u << 20;

// Keys as in ImageSpec.params_json; "sampler_name", "cfg_scale", "negative_prompt", "ckpt_name" and "batch_size" are
// understood too. A key that is not known is an error that names it. "{}" in prompts stands for the argument; with no
// prompt the argument is it. An argument that is an object overrides the parameters of the same names.
Result<ImageParams> read_image_params(std::string_view params_json, const boost::json::value& argument);
boost::json::object to_json(const ImageParams& params);

// Node "3" samples, "9" saves, as in ComfyUI's own example.
boost::json::object txt2img(const ImageParams& params);

// Checks the form: an object of nodes, each with class_type and inputs, links that lead to nodes. A graph saved for
// ComfyUI's editor ({"nodes":[…]}) is refused with what to do. {"prompt":{…}} is taken as its inside.
Result<boost::json::object> read_workflow(std::string_view text, const boost::json::value& argument);

// A picture that is asked for again with the same seed comes from ComfyUI's cache in no time. Adds `by` to each input
// "seed" and "noise_seed" that is a number; how many there were.
std::size_t vary_seeds(boost::json::object& workflow, std::uint64_t by);

// A file that a node names.
struct ModelUse {
  std::string node;    // id
  std::string klass;   // class_type
  std::string input;   // "ckpt_name"
  std::string name;    // "sdxl.safetensors"
  std::string folder;  // of ComfyUI's models: "checkpoints", "loras", "vae" …
};
std::vector<ModelUse> models_used(const boost::json::object& workflow);

// Ids of nodes that put something out: by their class, or (where none is known) those that no other takes from.
std::vector<std::string> output_nodes(const boost::json::object& workflow);

// Every "{}" in every text of `value` replaced.
void fill(boost::json::value& value, std::string_view with);

}  // namespace grange::ai
