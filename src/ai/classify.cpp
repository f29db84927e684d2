#include "ai/classify.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "ai/words.hpp"

namespace grange::ai {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

bool has(std::string_view text, std::initializer_list<std::string_view> needles) {
  return std::any_of(needles.begin(), needles.end(),
                     [&](std::string_view needle) { return text.find(needle) != std::string_view::npos; });
}

// The first whole number at or after `needle`.
std::optional<std::uint64_t> number_after(std::string_view text, std::string_view needle) {
  std::size_t at = text.find(needle);
  if (at == std::string_view::npos) return std::nullopt;
  at = text.find_first_of("0123456789", at + needle.size());
  if (at == std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  for (int digits = 0; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, ++digits) {
    if (digits == 18) return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(text[at] - '0');
  }
  return value;
}

// "tried to allocate 2.50 GiB", "allocating 512.00 MiB on device": the amount as the engine wrote it.
std::string amount(std::string_view text) {
  for (const std::string_view needle :
       {"allocate ", "allocating ", "requires more system memory (", "buffer of size "}) {
    std::size_t at = text.find(needle);
    if (at == std::string_view::npos) continue;
    at += needle.size();
    const std::size_t begin = at;
    while (at < text.size() && ((text[at] >= '0' && text[at] <= '9') || text[at] == '.')) ++at;
    if (at == begin) continue;
    std::string_view unit = text.substr(at, 4);
    if (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    for (const std::string_view known : {"gib", "mib", "kib", "gb", "mb"}) {
      if (unit.substr(0, known.size()) != known) continue;
      std::string out(text.substr(begin, at - begin));
      out += known == "gib"   ? " GiB"
             : known == "mib" ? " MiB"
             : known == "kib" ? " KiB"
             : known == "gb"  ? " GB"
                              : " MB";
      return out;
    }
  }
  return {};
}

bool is_oom(std::string_view type, std::string_view text) {
  const std::size_t last = text.find_last_of('\n');
  if (has(last == std::string_view::npos ? text : text.substr(last), {"retrying without pipeline parallelism"})) {
    return false;
  }
  return has(type, {"outofmemoryerror"}) ||
         has(text,
             {"out of memory", "out of device memory", "cudamalloc failed", "hipmalloc failed", "failed to allocate",
              "allocation failed", "not enough memory", "insufficient memory", "vk_error_out_of_device_memory",
              "erroroutofmemory", "ran out of memory on your gpu", "requires more system memory"});
}

bool names_a_model_file(std::string_view input) {
  return is_one_of(input, {"ckpt_name", "unet_name", "vae_name", "lora_name", "clip_name", "clip_name1", "clip_name2",
                           "clip_name3", "control_net_name", "style_model_name", "model_name", "gligen_name"});
}

bool is_overflow(const ErrorBody& body, std::string_view text) {
  return body.type == "exceed_context_size_error" || body.code == "context_length_exceeded" ||
         has(text,
             {"exceeds the available context size", "maximum context length", "context length exceeded",
              "exceeds the context window", "exceed the context window", "input length exceeds", "prompt is too long"});
}

bool is_missing_model(std::string_view kind, int status, const ErrorBody& body, std::string_view text) {
  if (body.code == "model_not_found") return true;
  if (has(text, {"model"}) && has(text, {"not found, try pulling it first", "does not exist"})) return true;
  if (status != 404 && status != 0) return false;
  if (kind == "ollama") return has(text, {"model"}) && has(text, {"not found"});
  return has(text, {"model '", "model \"", "model `", "model not found"}) && has(text, {"not found"});
}

EngineError class_of(std::string_view kind, int status, const ErrorBody& body, std::string_view text) {
  const std::string type = lower(body.type);
  if (has(text, {"no kernel image is available"})) return EngineError::cuda_unsupported_arch;
  if (has(text, {"cuda driver version is insufficient", "nvidia driver on your system is too old", "driver is too old",
                 "driver too old", "forward compatibility was attempted"})) {
    return EngineError::driver_too_old;
  }
  if (is_oom(type, text)) return EngineError::oom;
  if ((type == "value_not_in_list" && names_a_model_file(body.input)) ||
      has(text, {"could not find checkpoint", "checkpoint not found", "no such checkpoint"})) {
    return EngineError::missing_checkpoint;
  }
  if (kind == "comfyui" || kind.empty()) {
    // Without the node's own entry only its text is left: "ckpt_name: 'x' not in [...]".
    if (has(text, {"_name: "}) && has(text, {" not in [", " not in (list of length"})) {
      const std::size_t end = text.find("_name: ");
      const std::size_t begin = text.find_last_of(" :\n", end);
      const std::size_t first = begin == std::string_view::npos ? 0 : begin + 1;
      if (names_a_model_file(text.substr(first, end + 5 - first))) return EngineError::missing_checkpoint;
    }
    if (type == "missing_node_type" ||
        (type == "invalid_prompt" && has(text, {"does not exist", "class_type", "not found"}))) {
      return EngineError::missing_node;
    }
  }
  if (is_overflow(body, text)) return EngineError::context_overflow;
  if (is_missing_model(kind, status, body, text)) return EngineError::missing_model;
  if (status == 401 || status == 403 || type == "authentication_error" || type == "permission_error" ||
      is_one_of(body.code, {"invalid_api_key", "401", "403"}) ||
      has(text, {"invalid api key", "incorrect api key", "unauthenticated", "unauthorized"})) {
    return EngineError::auth;
  }
  if (has(text, {"loading model", "model is loading"}) || is_one_of(body.code, {"model_loading"}) ||
      type == "model_loading") {
    return EngineError::loading;
  }
  // Ollama answers 503 when its own queue is full, and a farm beside it may try again at once elsewhere.
  if (has(text, {"server busy", "maximum pending requests", "no slot available", "server is overloaded",
                 "engine is overloaded"})) {
    return EngineError::busy;
  }
  if (status == 429 || is_one_of(body.code, {"rate_limit_exceeded", "insufficient_quota", "429"}) ||
      has(text, {"rate limit", "too many requests", "was throttled"})) {
    return kind == "llamacpp" || kind == "comfyui" ? EngineError::busy : EngineError::rate_limited;
  }
  if (status == 503 || body.code == "503" || type == "unavailable_error") return EngineError::busy;
  return EngineError::unknown;
}

std::string quoted_name(std::string_view text) {
  for (const char quote : {'\'', '"', '`'}) {
    const std::size_t begin = text.find(quote);
    if (begin == std::string_view::npos) continue;
    const std::size_t end = text.find(quote, begin + 1);
    if (end != std::string_view::npos && end - begin > 1 && end - begin < 200) {
      return std::string(text.substr(begin + 1, end - begin - 1));
    }
  }
  return {};
}

std::string overflow_advice(const ErrorBody& body, std::string_view text) {
  auto tokens = body.prompt_tokens;
  auto context = body.context;
  if (!tokens) tokens = number_after(text, "request (");
  if (!tokens) tokens = number_after(text, "resulted in");
  if (!tokens) tokens = number_after(text, "you requested");
  if (!context) context = number_after(text, "context size (");
  if (!context) context = number_after(text, "maximum context length is");
  std::string out = "Shorten the prompt, ask for fewer tokens, or give the model a longer context (num_ctx)";
  if (tokens && context) {
    out += ": the request has " + std::to_string(*tokens) + " tokens, the context " + std::to_string(*context);
  } else if (context) {
    out += ": it has " + std::to_string(*context) + " tokens";
  }
  return out + ".";
}

std::string driver_advice(std::string_view text) {
  std::string out = "Update the NVIDIA driver of this machine";
  if (const auto found = number_after(text, "found version"))
    out += " (the build says version " + std::to_string(*found) + ")";
  return out +
         ": builds with CUDA 12.8 need at least 570 on cards before Volta and 550 on newer ones; or install an older "
         "build of the service.";
}

std::string advice_of(const Classified& c, std::string_view kind, int status, const ErrorBody& body,
                      std::string_view text) {
  switch (c.error) {
    case EngineError::cuda_unsupported_arch:
      return "This build has no code for this GPU: install one made for its CUDA architecture (for PyTorch, the newest "
             "release for your CUDA version), or run on the CPU.";
    case EngineError::oom: {
      const std::string asked = amount(text);
      return (asked.empty() ? std::string() : "It asked for " + asked + ". ") +
             (kind == "comfyui" ? "Use a smaller picture, batch or checkpoint, or free the GPU from other programs."
                                : "Use a smaller model, quantisation or context, or free the GPU from other programs.");
    }
    case EngineError::missing_checkpoint: {
      const std::string file = !body.value.empty() ? body.value : quoted_name(body.message);
      return "Put " + (file.empty() ? std::string("the file") : "'" + file + "'") +
             " on this machine with `grange models sync`, or choose one that `grange models ls` shows.";
    }
    case EngineError::missing_model: {
      const std::string model = quoted_name(body.message);
      return "Get " + (model.empty() ? std::string("the model") : "'" + model + "'") +
             " with `grange models sync`, or choose one that `grange models ls` shows.";
    }
    case EngineError::context_overflow:
      return overflow_advice(body, text);
    case EngineError::driver_too_old:
      return driver_advice(text);
    case EngineError::missing_node: {
      const std::string node = !body.node.empty() ? body.node : quoted_name(body.message);
      return "Install the custom node that brings " + (node.empty() ? std::string("this class") : "'" + node + "'") +
             " into ComfyUI and restart it, or take it out of the workflow.";
    }
    case EngineError::loading:
      return "The service still loads the model: try again in a moment.";
    case EngineError::busy:
      return "The service has all the work that it takes: try again later, or on another machine.";
    case EngineError::rate_limited:
      if (c.permanent) return "The account has no credit left: check its plan and billing.";
      return "The service limits how often it is asked: wait as long as it says, or lower the number of tasks at once.";
    case EngineError::auth:
      return status == 403 ? "The key may not do this: check its rights and the service's settings."
                           : "Check the service's key in the worker's environment or secret file.";
    case EngineError::unknown:
      break;
  }
  if (status == 404) return "Check the service's address and version: it does not know this path.";
  if (c.permanent) return "Change the request as the service says: the same one would be refused again.";
  return "Look at the service's own log; the task may succeed at another try.";
}

}  // namespace

std::string_view name(EngineError error) {
  static constexpr std::array<std::string_view, 12> kNames = {"cuda_unsupported_arch",
                                                              "oom",
                                                              "missing_checkpoint",
                                                              "missing_model",
                                                              "context_overflow",
                                                              "driver_too_old",
                                                              "missing_node",
                                                              "loading",
                                                              "busy",
                                                              "rate_limited",
                                                              "auth",
                                                              "unknown"};
  return kNames[static_cast<std::size_t>(error)];
}

std::string Classified::sentence() const {
  if (text.empty()) return advice;
  const char last = text.back();
  return text + (last == '.' || last == '!' || last == '?' ? " " : ". ") + advice;
}

Classified classify(std::string_view service_kind, int http_status, std::string_view text) {
  const ErrorBody body = read_error(text);
  const std::string low = lower(body.message);
  Classified out;
  out.error = class_of(service_kind, http_status, body, low);
  out.name = name(out.error);
  out.text = body.message;
  if (out.text.empty() && http_status != 0)
    out.text = "The service answered with status " + std::to_string(http_status);
  const bool remote = is_one_of(service_kind, {"replicate", "runpod"}) || body.code == "insufficient_quota";
  switch (out.error) {
    case EngineError::cuda_unsupported_arch:
    case EngineError::missing_checkpoint:
    case EngineError::missing_model:
    case EngineError::context_overflow:
    case EngineError::driver_too_old:
    case EngineError::missing_node:
    case EngineError::auth:
      out.permanent = true;
      break;
    case EngineError::oom:
    case EngineError::loading:
    case EngineError::busy:
      break;
    case EngineError::rate_limited:
      out.permanent = body.code == "insufficient_quota" || has(low, {"billing", "exceeded your current quota"});
      out.retry_elsewhere = !remote && !out.permanent;  // elsewhere it is the same account
      break;
    case EngineError::unknown:
      out.permanent = http_status >= 400 && http_status < 500 && http_status != 408 && http_status != 409 &&
                      http_status != 425 && http_status != 499;
      out.retry_elsewhere = !out.permanent || http_status == 404;
      break;
  }
  out.advice = advice_of(out, service_kind, http_status, body, low);
  return out;
}

}  // namespace grange::ai
