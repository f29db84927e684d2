#include "worker/services/service_config.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "net/url.hpp"
#include "worker/resources.hpp"
#include "worker/secrets.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kNameBytes = 64;
constexpr std::size_t kUrlBytes = 2048;
constexpr std::array<std::string_view, 7> kServiceKinds{"ollama",        "llamacpp",  "openai", "comfyui",
                                                        "remote-openai", "replicate", "runpod"};

struct Remote {
  std::string_view kind, name, key, url_variable, url;
};
constexpr std::array<Remote, 3> kRemotes{
    {{"remote-openai", "openai-cloud", "OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com"},
     {"replicate", "replicate", "REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL", "https://api.replicate.com"},
     {"runpod", "runpod", "RUNPOD_API_KEY", "RUNPOD_ENDPOINT_BASE_URL", "https://api.runpod.ai"}}};

bool plain_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
  });
}

std::string without_blanks(std::string_view text) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return std::string(text);
}

// Where its routes begin: what is typed often ends in the "/v1" that they begin with, RunPod's in "/v2".
std::string base_url(std::string_view kind, std::string_view url) {
  const auto drop = [&](std::string_view tail) {
    if (url.ends_with(tail)) url.remove_suffix(tail.size());
  };
  while (url.ends_with('/')) url.remove_suffix(1);
  drop("/v1");
  if (kind == "runpod") drop("/v2");
  while (url.ends_with('/')) url.remove_suffix(1);
  return std::string(url);
}

Error bad_service(std::string_view text, const std::string& why) {
  return Error{ErrorClass::invalid_argument, "Service \"" + std::string(text.substr(0, 200)) + "\": " + why};
}

}  // namespace

bool is_remote(std::string_view kind) {
  return std::any_of(kRemotes.begin(), kRemotes.end(), [&](const Remote& one) { return one.kind == kind; });
}

Result<ServiceConfig> parse_service(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos)
    return bad_service(text, "write KIND=URL, such as ollama=http://127.0.0.1:11434, or NAME:KIND=URL.");
  ServiceConfig out;
  std::string_view left = text.substr(0, equals);
  if (const std::size_t colon = left.find(':'); colon != std::string_view::npos) {
    out.name = without_blanks(left.substr(0, colon));
    left.remove_prefix(colon + 1);
    if (!plain_name(out.name)) return bad_service(text, "its name may have letters, digits and .-_ only.");
  }
  out.kind = without_blanks(left);
  if (std::find(kServiceKinds.begin(), kServiceKinds.end(), out.kind) == kServiceKinds.end()) {
    std::string all;
    for (const std::string_view kind : kServiceKinds) all += (all.empty() ? "" : ", ") + std::string(kind);
    return bad_service(text, "there is no kind \"" + out.kind.substr(0, kNameBytes) + "\"; there are " + all + ".");
  }
  out.url = without_blanks(text.substr(equals + 1));
  // What stands before an @ is a password, and would be seen by all who list processes. It is not repeated here.
  const std::size_t authority = out.url.find("://");
  if (authority != std::string::npos) {
    const std::size_t path = out.url.find_first_of("/?#", authority + 3);
    if (out.url.substr(0, path).find('@') != std::string::npos) {
      return Error{ErrorClass::invalid_argument, "Service \"" + out.kind +
                                                     "\": a URL with a password in it can be seen by others; put the "
                                                     "key into GRANGE_SERVICE_KEY_<NAME> instead."};
    }
  }
  if (out.url.size() > kUrlBytes) return bad_service(text, "its URL is too long.");
  if (auto url = net::parse_url(out.url); !url || (url->scheme != "http" && url->scheme != "https"))
    return bad_service(text, "it needs a URL such as http://127.0.0.1:11434.");
  if (out.url.find_first_of("?#") != std::string::npos) return bad_service(text, "its URL must have no query.");
  out.url = base_url(out.kind, out.url);
  return out;
}

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return secret_from_file(name);
    return std::string(value);
  };
}

std::string secret(const Environment& environment, const std::string& name) {
  if (const auto value = environment(name)) return without_blanks(*value);
  if (const auto file = environment(name + "_FILE")) {
    const std::string text = read_text(*file, 64 * KiB);
    return without_blanks(std::string_view(text).substr(0, text.find('\n')));
  }
  return {};
}

std::string key_of(const Environment& environment, const ServiceConfig& service) {
  std::string variable = "GRANGE_SERVICE_KEY_";
  for (const char c : service.name.empty() ? service.kind : service.name) {
    const auto byte = static_cast<unsigned char>(c);
    variable += std::isalnum(byte) != 0 ? static_cast<char>(std::toupper(byte)) : '_';
  }
  std::string key = secret(environment, variable);
  for (const Remote& one : kRemotes) {
    if (key.empty() && one.kind == service.kind) key = secret(environment, std::string(one.key));
  }
  return key;
}

std::vector<ServiceConfig> services_by_key(const Environment& environment) {
  std::vector<ServiceConfig> out;
  for (const Remote& one : kRemotes) {
    const std::string key = secret(environment, std::string(one.key));
    if (key.empty()) continue;
    std::string url(one.url);
    if (const auto other = environment(std::string(one.url_variable))) {
      if (auto parsed = parse_service(std::string(one.kind) + "=" + *other)) url = parsed->url;
    }
    out.push_back({std::string(one.name), std::string(one.kind), url, key});
  }
  return out;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    std::string one = without_blanks(text.substr(0, comma));
    if (!one.empty()) out.push_back(std::move(one));
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return out;
}

}  // namespace grange::worker
