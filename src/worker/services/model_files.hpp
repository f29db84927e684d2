// The worker's own store of model files: DATA/models/<folder>/<name>. Blocking, but for the names.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ai/fit.hpp"
#include "base/result.hpp"
#include "wire/frames.hpp"

namespace grange::worker {

namespace pb = wire::pb;

inline constexpr std::string_view kPart = ".part";           // a file that is not whole yet
inline constexpr std::string_view kPartNote = ".part.json";  // and where the rest of it is to be had

struct ModelFile {
  pb::Model model;  // its name is "<folder>/<name>"
  std::optional<ai::ModelFacts> facts;
};
// At most `most`, by name. `facts` are of GGUF files.
std::vector<ModelFile> list_model_files(const std::string& root, std::size_t most);

// Of a GGUF file, from its head.
std::optional<ai::ModelFacts> facts_of_file(const std::string& path);

// root/<folder>/<name>, when both are safe: no "..", nothing hidden, and no name that the store itself uses.
Result<std::string> model_path(const std::string& root, std::string_view folder, std::string_view name);
// "gguf" or "checkpoints", by the name's ending; "other".
std::string default_folder(std::string_view name);

}  // namespace grange::worker
