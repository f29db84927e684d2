// What to do when no worker meets a demand: what was meant, most likely, and the command that helps.
#include <algorithm>

#include "core/explain_parts.hpp"
#include "core/explain_words.hpp"

namespace grange::core::explaining {
namespace {

// What stands on all workers under one heading; each once.
template <class Take>
std::vector<std::string> offered(const Farm::State& s, Take take) {
  std::vector<std::string> out;
  for (const auto& [no, w] : s.workers) {
    for (const std::string& one : take(w->capacity)) out.push_back(one);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<std::string> texts_of(const Capacity& c, const LabelRule& rule) {
  std::vector<std::string> out;
  for (const auto& [key, value] : c.labels) {
    if (key == kPinned) continue;
    out.push_back(rule.value == "*" ? key : key + "=" + value);
  }
  return out;
}

std::string meant(std::string_view word, const std::vector<std::string>& known) {
  const std::string near = words::nearest(word, known);
  return near.empty() ? "" : " Did you mean '" + near + "'?";
}

std::string for_model(const Farm::State& s, const Request& r) {
  const auto known = offered(s, [](const Capacity& c) { return c.models; });
  std::string out = meant(r.model, known);
  // A checkpoint comes from somewhere; only Ollama knows where from by the name alone.
  if (r.engine.starts_with("image")) return out + " Get it with: grange models sync " + r.model + " --url URL";
  std::string to = "NAME";
  for (const LabelRule& rule : r.labels) {
    if (rule.key == kPinned && !rule.negate) to = rule.value;
  }
  return out + " Get it with: grange models sync " + r.model + " --workers " + to;
}

std::string for_engine(const Farm::State& s, const Request& r) {
  const std::string near = meant(r.engine, offered(s, [](const Capacity& c) { return c.engines; }));
  if (r.engine == "llm" || r.engine == "image")
    return near + " Start " + (r.engine == "llm" ? "Ollama or llama.cpp's server" : "ComfyUI") +
           " beside a worker; it is found at its usual port, or named with: grange worker --service KIND=URL";
  if (r.engine.starts_with("remote:"))
    return near +
           " A worker offers it that has the service's key in its environment, or a service of this name: "
           "grange worker --service NAME:KIND=URL";
  return near;
}

}  // namespace

std::string next_step(const Farm::State& s, const Request& r, const Reason& why) {
  if (why.code == "model") return for_model(s, r);
  if (why.code == "model_fit")
    return why.have > 0 ? " Ask for less: num_ctx = " + std::to_string(why.have) + "." : std::string();
  if (why.code == "engine") return for_engine(s, r);
  if (why.code == "pool") {
    return meant(r.pool, offered(s, [](const Capacity& c) { return std::vector{c.pool}; }));
  }
  if (why.code != "label") return "";
  for (const LabelRule& rule : r.labels) {
    if (rule.negate || rule.key == kPinned) continue;
    const auto known = offered(s, [&](const Capacity& c) { return texts_of(c, rule); });
    const std::string asked = rule.value == "*" ? rule.key : rule.key + "=" + rule.value;
    if (std::find(known.begin(), known.end(), asked) != known.end()) continue;
    if (const std::string near = meant(asked, known); !near.empty()) return near;
  }
  return "";
}

}  // namespace grange::core::explaining
