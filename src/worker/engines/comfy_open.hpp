// Prompts that wait or run on a ComfyUI for this worker, on disk: after a crash the next worker takes them back.
#pragma once

#include <map>
#include <string>

namespace grange::worker {

class ComfyOpen {
 public:
  explicit ComfyOpen(std::string file);                                     // reads what an earlier one left
  const std::map<std::string, std::string>& left() const { return open_; }  // URL by prompt
  void add(const std::string& prompt_id, const std::string& url);
  void remove(const std::string& prompt_id);

 private:
  void save() const;
  std::string file_;
  std::map<std::string, std::string> open_;
};

}  // namespace grange::worker
