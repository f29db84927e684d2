#include "worker/services/model_files.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "ai/gguf.hpp"
#include "base/utf8.hpp"
#include "worker/job.hpp"

namespace grange::worker {

namespace fs = std::filesystem;

namespace {

constexpr Bytes kFirstRead = 1 * MiB;
constexpr Bytes kHead = 64 * MiB;  // the longest head that is read
constexpr std::size_t kFileName = 200;

}  // namespace

std::optional<ai::ModelFacts> facts_of_file(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || error) return std::nullopt;
  const Bytes size = fs::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) return std::nullopt;
  std::string head;
  Bytes want = std::min(kFirstRead, size);
  for (;;) {
    const std::size_t had = head.size();
    head.resize(static_cast<std::size_t>(want));
    in.read(head.data() + had, static_cast<std::streamsize>(head.size() - had));
    if (static_cast<std::size_t>(in.gcount()) != head.size() - had) return std::nullopt;
    const ai::GgufRead read = ai::read_gguf(head);
    if (read.state == ai::GgufRead::State::bad) return std::nullopt;
    const bool enough = read.state != ai::GgufRead::State::need_more;
    if (enough && (read.state == ai::GgufRead::State::whole || want >= size || want >= kHead))
      return ai::facts_of(read.head, size);
    const Bytes next = std::min({std::max(read.need, want * 2), size, kHead});
    if (next <= want) return enough ? std::optional(ai::facts_of(read.head, size)) : std::nullopt;
    want = next;
  }
}

std::vector<ModelFile> list_model_files(const std::string& root, std::size_t most) {
  std::vector<ModelFile> out;
  std::error_code error;
  auto all = fs::recursive_directory_iterator(root, fs::directory_options::skip_permission_denied, error);
  for (; !error && all != fs::recursive_directory_iterator(); all.increment(error)) {
    if (out.size() >= most) break;
    std::error_code ignored;
    const fs::path& path = all->path();
    const std::string name = path.lexically_relative(root).generic_string();
    if (all.depth() > 8 || !all->is_regular_file(ignored) || all->is_symlink(ignored)) continue;
    if (name.size() > 256 || !is_utf8(name) || name.ends_with(kPart) || name.ends_with(kPartNote) ||
        path.filename().string().starts_with('.'))
      continue;
    ModelFile file;
    file.model.set_name(name);
    file.model.set_bytes(all->file_size(ignored));
    if (name.ends_with(".gguf")) {
      file.model.set_kind("llm");
      file.facts = facts_of_file(path.string());
      if (file.facts) file.facts->name = name;
    } else if (name.ends_with(".safetensors") || name.ends_with(".ckpt")) {
      file.model.set_kind("checkpoint");
    }
    out.push_back(std::move(file));
  }
  std::sort(out.begin(), out.end(),
            [](const ModelFile& a, const ModelFile& b) { return a.model.name() < b.model.name(); });
  return out;
}

Result<std::string> model_path(const std::string& root, std::string_view folder, std::string_view name) {
  const auto bad = [&](const std::string& why) {
    return Error{ErrorClass::invalid_argument, "\"" + std::string(folder.substr(0, 100)) + "/" +
                                                   std::string(name.substr(0, 100)) +
                                                   "\" cannot be the name of a model file: " + why};
  };
  if (name.empty() || name.size() > kFileName) return bad("it needs 1 to 200 bytes.");
  if (name.find('/') != std::string_view::npos || name.find('\\') != std::string_view::npos)
    return bad("its folder goes into \"folder\".");
  if (name.ends_with(kPart) || name.ends_with(kPartNote)) return bad("this ending is used for files on their way.");
  const std::string relative = std::string(folder) + "/" + std::string(name);
  if (!is_utf8(relative)) return bad("it is not UTF-8.");
  if (auto safe = safe_relative(relative); !safe) return bad(safe.error().message);
  for (std::size_t at = 0; at != std::string::npos; at = relative.find('/', at + 1)) {
    if (relative[at == 0 ? 0 : at + 1] == '.') return bad("no part of it may begin with a dot.");
  }
  if (std::any_of(relative.begin(), relative.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }))
    return bad("it has control characters.");
  return root + "/" + relative;
}

std::string default_folder(std::string_view name) {
  if (name.ends_with(".gguf")) return "gguf";
  if (name.ends_with(".safetensors") || name.ends_with(".ckpt")) return "checkpoints";
  return "other";
}

}  // namespace grange::worker
