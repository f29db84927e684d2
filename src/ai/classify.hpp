// What an engine's error means: one of a few classes, and what a person can do about it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace grange::ai {

enum class EngineError {
  cuda_unsupported_arch,  // the build has no code for this GPU
  oom,
  missing_checkpoint,  // a file that a ComfyUI workflow names
  missing_model,
  context_overflow,
  driver_too_old,
  missing_node,  // a ComfyUI node type that is not installed
  loading,
  busy,
  rate_limited,
  auth,
  unknown,
};

std::string_view name(EngineError error);  // in snake case, as in events and in TaskResult.exception

// An error body, read in each shape that the services write.
struct ErrorBody {
  std::string message;  // the whole text when the body has no known shape; never empty unless the body is
  std::string type;     // "exceed_context_size_error", "value_not_in_list", "torch.OutOfMemoryError"
  std::string code;     // "model_not_found", "503"
  std::string input;    // ComfyUI: the input that a node refused ("ckpt_name")
  std::string value;    // ComfyUI: and what it was given
  std::string node;     // ComfyUI: class of that node
  std::optional<std::uint64_t> prompt_tokens, context;  // of a context overflow
};
// Total on any bytes: Ollama {"error":"text"}, llama.cpp and OpenAI {"error":{message,type,code}}, ComfyUI {error,
// node_errors} and its execution_error message, Replicate's problem and prediction, RunPod's {error}. Else the text as
// it stands, cut to 2,000 bytes of valid UTF-8.
ErrorBody read_error(std::string_view body);
std::string error_text(std::string_view body);  // read_error(body).message

struct Classified {
  EngineError error = EngineError::unknown;
  std::string name;             // name(error)
  std::string text;             // what the service said
  std::string advice;           // a sentence: what a person can do, with the numbers of the text
  bool permanent = false;       // another try on this machine cannot help
  bool retry_elsewhere = true;  // another machine may well do it

  std::string sentence() const;  // text and advice: the message of a failed task
};

// service_kind: ollama | llamacpp | openai | comfyui | replicate | runpod, or "". http_status: 0 where there was none
// (an error inside a stream, a WebSocket message, a line of a log). text: the body, a message of it, or a log's line.
Classified classify(std::string_view service_kind, int http_status, std::string_view text);

}  // namespace grange::ai
