// What services say of themselves, read. Pure, total on any bytes, and bounded: more models than kModels are not
// listed, names longer than kName are left out.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ai/fit.hpp"
#include "wire/frames.hpp"

namespace grange::worker {

namespace pb = wire::pb;

inline constexpr std::size_t kModels = 1000;  // of one service
inline constexpr std::size_t kName = 256;

// Ollama. Each says nothing when the answer is not Ollama's.
std::optional<std::string> ollama_version(std::string_view body);
bool ollama_tags(std::string_view body, pb::Service& into);    // its models
void ollama_loaded(std::string_view body, pb::Service& into);  // /api/ps: marks those in memory

// llama.cpp's server.
enum class Health { ready, loading, other };
Health llamacpp_health(int status, std::string_view body);
struct LlamacppProps {
  std::uint32_t slots = 0, context = 0;
  std::string version, model_path;
  bool router = false, sleeping = false;
};
std::optional<LlamacppProps> llamacpp_props(std::string_view body);

// /v1/models of llama.cpp, vLLM and others.
struct OpenAiModels {
  std::vector<pb::Model> models;
  std::map<std::string, ai::ModelFacts> facts;  // of those that say something of themselves
  std::map<std::string, std::string> files;     // llama.cpp: the file that a model is named after
  std::string owner;                            // of the first: "llamacpp", "vllm"
};
std::optional<OpenAiModels> openai_models(std::string_view body);
std::optional<std::vector<pb::Model>> lmstudio_models(std::string_view body);  // /api/v0/models
std::optional<std::string> vllm_version(std::string_view body);

// ComfyUI.
bool comfyui_stats(std::string_view body, pb::Service& into);        // version, note
bool comfyui_checkpoints(std::string_view body, pb::Service& into);  // /object_info/CheckpointLoaderSimple

// "x" and "x:latest" are one, and a model file may be named without its folder or ".gguf".
bool same_model(std::string_view kind, std::string_view listed, std::string_view asked);

}  // namespace grange::worker
