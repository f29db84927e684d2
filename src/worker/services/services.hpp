// The AI services of a machine: found by configuration and by probing, watched, with their models and how these fit.
// The worker's own model files are listed as one more, of the kind "files", that is never ready to answer.
// All on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ai/fit.hpp"
#include "net/http_client.hpp"
#include "wire/frames.hpp"
#include "worker/resources.hpp"

namespace grange::worker {

namespace pb = wire::pb;

// The label by which a task is sent to one worker: its id.
inline constexpr std::string_view kWorkerLabel = "grange.worker";

struct ServiceInfo {
  std::string url;    // "http://127.0.0.1:11434", no slash at the end
  std::string key;    // secret; never shown; "": none
  pb::Service shown;  // name, kind, state, models
};

class Keeper;

struct ServicesOptions {
  std::vector<std::string> configured;  // "kind=url" or "name:kind=url"; GRANGE_SERVICES is added by make_services
  bool probe = true;
  std::string folder;  // the worker's own model files: DATA/models
  ai::MachineFacts machine;
  Millis every{5'000};       // between two looks at a service
  Keeper* keeper = nullptr;  // of those that the worker starts itself; outlives the Services
};

class Services {
 public:
  virtual ~Services() = default;
  virtual void start() = 0;
  virtual const std::vector<ServiceInfo>& list() const = 0;
  // One of these kinds, of this name ("": any), that is not down and has this model ("": any). Ready before loading,
  // the model loaded before only present. Ollama's "x" and "x:latest" are one.
  virtual std::optional<ServiceInfo> find(const std::vector<std::string_view>& kinds, std::string_view name,
                                          std::string_view model) const = 0;
  virtual void look_again() = 0;  // now: something was changed
  virtual void on_change(std::function<void()> changed) = 0;
  virtual const std::string& folder() const = 0;  // of the worker's own model files
  virtual Keeper* keeper() { return nullptr; }    // null: it keeps none
};

std::unique_ptr<Services> make_services(net::Loop& loop, net::HttpClient& http, ServicesOptions options);

// What jobs of this kind of service ask for: "llm" of ollama, llamacpp and openai, "image" of comfyui, "models" of
// files, "" (none) of other; of those that a key is held for "remote:openai", "remote:replicate", "remote:runpod".
// OpenAI's own is of the kind "remote-openai", so that no job for a local model is ever sent to it, and billed.
std::string engine_of(std::string_view kind);

// What `find` chooses from, best first.
std::vector<ServiceInfo> ranked(const std::vector<ServiceInfo>& all, const std::vector<std::string_view>& kinds,
                                std::string_view name, std::string_view model);

ai::MachineFacts machine_facts(const Resources& resources);

}  // namespace grange::worker
