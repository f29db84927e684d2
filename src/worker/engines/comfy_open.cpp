#include "worker/engines/comfy_open.hpp"

#include <unistd.h>

#include <fstream>

namespace grange::worker {

ComfyOpen::ComfyOpen(std::string file) : file_(std::move(file)) {
  std::ifstream in(file_);
  std::string id, url;
  while (open_.size() < 10'000 && in >> id >> url) {
    if (id.size() == 36) open_[id] = url;
  }
}

void ComfyOpen::add(const std::string& prompt_id, const std::string& url) {
  open_[prompt_id] = url;
  save();
}

void ComfyOpen::remove(const std::string& prompt_id) {
  if (open_.erase(prompt_id) > 0) save();
}

// A worker may be killed at any time, its machine is not: no fsync.
void ComfyOpen::save() const {
  if (open_.empty()) {
    ::unlink(file_.c_str());
    return;
  }
  const std::string next = file_ + ".new";
  std::ofstream out(next, std::ios::trunc);
  for (const auto& [id, url] : open_) out << id << ' ' << url << '\n';
  out.close();
  if (out) ::rename(next.c_str(), file_.c_str());
}

}  // namespace grange::worker
