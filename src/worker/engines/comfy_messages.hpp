// What ComfyUI says, by WebSocket and by HTTP. Pure, and total on any bytes.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace grange::worker {

struct ComfyEvent {
  enum class Type {
    other,
    status,  // of its queue
    started,
    cached,     // `nodes` are taken from its cache
    executing,  // `node`; "": the prompt is through
    progress,
    executed,
    succeeded,
    interrupted,
    failed,
    preview,
  };
  Type type = Type::other;
  std::string prompt_id;  // "": it is not said
  std::string node;
  std::vector<std::string> nodes;
  double value = 0, max = 0;
  std::string error;  // failed: JSON with exception_type, exception_message, node_type
  std::string mime;   // preview
  std::string image;
};
ComfyEvent read_comfy(std::string_view message, bool binary);

struct ComfyFile {
  std::string node, filename, subfolder, type;
};
// The answer of /history/{id}. None: it is not there (yet).
struct ComfyHistory {
  bool ok = false, interrupted = false;
  std::string error;             // not ok: as in ComfyEvent
  std::vector<ComfyFile> files;  // "output" ones; those of previews only where there are no others
  std::vector<std::string> cached;
  std::optional<double> seconds;  // from its start to its end, by the service's clock
};
std::optional<ComfyHistory> read_history(std::string_view body, const std::string& prompt_id);

// The answer of /queue.
enum class ComfyPlace { absent, pending, running };
struct ComfyQueue {
  ComfyPlace place = ComfyPlace::absent;
  std::size_t ahead = 0;  // pending: that run or come before it
};
std::optional<ComfyQueue> read_queue(std::string_view body, const std::string& prompt_id);  // none: it is no queue

// What /object_info says that an input of a node may be; none: it is not a choice, or not there.
std::optional<std::vector<std::string>> choices_of(std::string_view object_info, const std::string& klass,
                                                   const std::string& input);

struct PictureSize {
  std::uint32_t width = 0, height = 0;
};
std::optional<PictureSize> size_of_png(std::string_view bytes);

}  // namespace grange::worker
