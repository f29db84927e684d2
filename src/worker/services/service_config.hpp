// Which services a worker is told of: by option, by GRANGE_SERVICES, and by keys in its environment.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace grange::worker {

struct ServiceConfig {
  std::string name;  // "": its kind
  std::string kind;
  std::string url;  // no slash at the end, and no /v1 (of RunPod no /v2)
  std::string key;
};

// "kind=url" or "name:kind=url". Kinds: ollama, llamacpp, openai, comfyui, remote-openai, replicate, runpod.
Result<ServiceConfig> parse_service(std::string_view text);

using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment process_environment();

// The value of NAME, or the first line of the file that NAME_FILE says.
std::string secret(const Environment& environment, const std::string& name);

// The key of a configured service: GRANGE_SERVICE_KEY_<NAME> (upper case, "_" for all but letters and digits); of a
// remote one else the variable that its own tools read.
std::string key_of(const Environment& environment, const ServiceConfig& service);

// OPENAI_API_KEY, REPLICATE_API_TOKEN and RUNPOD_API_KEY make a remote service each.
std::vector<ServiceConfig> services_by_key(const Environment& environment);
// "a=b,c:d=e"
std::vector<std::string> split_list(std::string_view text);

bool is_remote(std::string_view kind);

}  // namespace grange::worker
