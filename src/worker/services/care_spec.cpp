#include "worker/services/care_spec.hpp"

#include <algorithm>

#include "worker/services/service_config.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kCareWords = 1024, kCareText = 64 * KiB;

Error bad_care(const std::string& name, const std::string& why) {
  return {ErrorClass::invalid_argument, "The service \"" + name.substr(0, 64) + "\": " + why};
}

std::string health_path(const std::string& kind) {
  if (kind == "ollama") return "/api/version";
  if (kind == "llamacpp") return "/health";
  if (kind == "comfyui") return "/system_stats";
  return kind == "openai" ? "/v1/models" : "/";
}

std::size_t care_place(const std::vector<CareSpec>& all, const std::string& name) {
  const auto it = std::find_if(all.begin(), all.end(), [&](const CareSpec& one) { return one.name == name; });
  return static_cast<std::size_t>(it - all.begin());
}

// Does `from` wait for `to`, directly or not?
bool waits_for(const std::vector<CareSpec>& all, std::size_t from, std::size_t to) {
  std::vector<std::size_t> left{from};
  std::vector<bool> seen(all.size());
  while (!left.empty()) {
    const std::size_t at = left.back();
    left.pop_back();
    for (const std::string& name : all[at].after) {
      const std::size_t next = care_place(all, name);
      if (next == to) return true;
      if (!seen[next]) left.push_back(next);
      seen[next] = true;
    }
  }
  return false;
}

Result<> check_one(CareSpec& one) {
  // The same rules as for a service that is only found; "other" is one that nobody asks for models.
  auto found = parse_service(one.name + ":" + (one.kind == "other" ? "openai" : one.kind) + "=" + one.url);
  if (!found) return std::move(found).error();
  if (is_remote(one.kind)) return bad_care(one.name, "a remote service has no command on this machine.");
  if (one.name == "files") return bad_care(one.name, "the name \"files\" is taken by the worker's own models.");
  if (one.kind != "other") one.url = found->url;
  while (one.url.ends_with('/')) one.url.pop_back();
  if (one.command.empty() || one.command.front().empty())
    return bad_care(one.name, "it needs a command, such as [\"ollama\", \"serve\"].");
  std::size_t bytes = 0;
  for (const std::string& word : one.command) bytes += word.size() + 1;
  for (const auto& [key, value] : one.env) bytes += key.size() + value.size() + 2;
  if (one.command.size() > kCareWords || one.env.size() > kCareWords || bytes > kCareText)
    return bad_care(one.name, "its command and its environment are too long.");
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  bool nul = std::any_of(one.command.begin(), one.command.end(), has_nul) || has_nul(one.cwd);
  for (const auto& [key, value] : one.env) {
    nul = nul || has_nul(key) || has_nul(value);
    if (key.empty() || key.find('=') != std::string::npos)
      return bad_care(one.name, "\"" + key + "\" cannot be the name of an environment variable.");
    if (key.starts_with("GRANGE_")) return bad_care(one.name, "the variable \"" + key + "\" is the worker's own.");
  }
  if (nul) return bad_care(one.name, "no text of it may hold a zero byte.");
  if (one.health.empty()) one.health = health_path(one.kind);
  const bool plain = std::all_of(one.health.begin(), one.health.end(), [](char c) { return c > ' ' && c < 127; });
  if (!one.health.starts_with('/') || !plain || one.health.size() > 1024)
    return bad_care(one.name, "its health must be a path, such as \"/health\".");
  if (one.start_timeout.count() <= 0 || one.stop_timeout.count() <= 0)
    return bad_care(one.name, "start_timeout and stop_timeout must be above 0.");
  return {};
}

}  // namespace

Result<std::vector<CareSpec>> checked_care(std::vector<CareSpec> all) {
  if (all.size() > kCareServices)
    return Error{ErrorClass::invalid_argument,
                 "A worker keeps " + std::to_string(kCareServices) + " services; there are more in the file."};
  for (CareSpec& one : all) {
    if (auto fine = check_one(one); !fine) return std::move(fine).error();
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (care_place(all, all[i].name) != i) return bad_care(all[i].name, "two have this name.");
    for (const std::string& other : all[i].after) {
      if (care_place(all, other) == all.size())
        return bad_care(all[i].name, "\"after\" names \"" + other.substr(0, 64) + "\", which is not in the file.");
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (waits_for(all, i, i)) return bad_care(all[i].name, "by \"after\" it waits for itself.");
  }
  return all;
}

std::vector<CareRule> care_rules(const std::vector<CareSpec>& all) {
  std::vector<CareRule> out;
  for (const CareSpec& one : all) {
    CareRule& rule = out.emplace_back();
    rule.name = one.name;
    for (const std::string& other : one.after) rule.after.push_back(care_place(all, other));
    rule.start_timeout = one.start_timeout;
    rule.stop_timeout = one.stop_timeout;
    rule.hang_timeout = one.hang_timeout;
    rule.restarts = one.restarts;
  }
  return out;
}

}  // namespace grange::worker
