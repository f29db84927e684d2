#include "worker/engines/llm_task.hpp"

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"
#include "base/utf8.hpp"
#include "worker/engines/argument.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

bool is_message(const json::value& value) {
  return value.is_object() && ai::text_at(value.get_object(), "role").has_value();
}

// Nothing: there is none.
Result<std::optional<json::value>> given_of(const std::string& args) {
  if (args.empty()) return std::optional<json::value>();
  auto value = ai::parse_json(args);
  if (!value) return wrong_argument("The task's argument is not JSON.");
  json::array* list = value->if_array();
  if (list == nullptr) return std::optional<json::value>(std::move(*value));
  if (list->empty()) return std::optional<json::value>();
  if (std::all_of(list->begin(), list->end(), is_message)) return std::optional<json::value>(std::move(*value));
  if (list->size() == 1) return std::optional<json::value>(std::move(list->front()));
  return wrong_argument("An llm task takes one argument: a prompt, a list of messages, or an object; this one has " +
                        std::to_string(list->size()) + ".");
}

Result<json::value> prompt_of_parent(const TaskInput::Parent& parent) {
  if (parent.encoding == pb::ENCODING_PICKLE)
    return wrong_argument(
        "The result of a Python job with pickled values cannot be the prompt of an llm job: give that job the "
        "encoding \"json\".");
  if (auto value = ai::parse_json(parent.value)) {
    if (!value->is_object()) return std::move(*value);
    const auto text = ai::text_at(value->get_object(), "text");
    if (text && !value->get_object().contains("prompt")) return json::value(json::string(*text));
    return std::move(*value);
  }
  if (!is_utf8(parent.value)) return wrong_argument("The result of the parent task is neither JSON nor text.");
  return json::value(json::string(parent.value));
}

Result<std::optional<json::value>> from_parents(const std::vector<TaskInput::Parent>& parents) {
  json::array all;
  for (const TaskInput::Parent& one : parents) {
    auto value = prompt_of_parent(one);
    if (!value) return value.error();
    all.push_back(std::move(*value));
  }
  if (all.empty()) return std::optional<json::value>();
  if (all.size() == 1) return std::optional<json::value>(std::move(all.front()));
  const bool texts = std::all_of(all.begin(), all.end(), [](const json::value& v) { return v.is_string(); });
  if (!texts) return std::optional<json::value>(json::value(std::move(all)));
  std::string joined;
  for (const json::value& one : all) joined += (joined.empty() ? "" : "\n\n") + std::string(one.get_string());
  return std::optional<json::value>(json::value(json::string(joined)));
}

std::string with_index(std::string text, std::uint32_t index) {
  constexpr std::string_view kWord = "{index}";
  for (std::size_t at = 0; (at = text.find(kWord, at)) != std::string::npos;)
    text.replace(at, kWord.size(), std::to_string(index));
  return text;
}

struct Parts {
  std::string prompt, system, options;
  json::value argument;
};

Result<> override_with(const json::object& object, Parts& parts) {
  for (const auto& [key, value] : object) {
    const bool known = key == "prompt" || key == "messages" || key == "system" || key == "options";
    if (!known)
      return wrong_argument("The task's argument has a key \"" + std::string(key).substr(0, 100) +
                            "\"; an object may have prompt, messages, system and options.");
  }
  if (const json::value* system = object.if_contains("system")) {
    if (!system->is_string()) return wrong_argument("\"system\" in the task's argument must be a text.");
    parts.system = std::string(system->get_string());
  }
  if (const json::value* options = object.if_contains("options")) {
    if (!options->is_object()) return wrong_argument("\"options\" in the task's argument must be an object.");
    json::object merged;
    if (!parts.options.empty()) {
      auto base = ai::parse_json(parts.options);
      if (!base || !base->is_object()) return wrong_argument("The job's options are not an object.");
      merged = std::move(base->get_object());
    }
    for (const auto& [key, value] : options->get_object()) merged[key] = value;
    parts.options = json::serialize(merged);
  }
  const json::value* prompt = object.if_contains("prompt");
  const json::value* messages = object.if_contains("messages");
  if (prompt != nullptr && messages != nullptr) return wrong_argument("Give a prompt or messages, not both.");
  if (messages != nullptr && !messages->is_array()) return wrong_argument("\"messages\" must be a list.");
  if (const json::value* said = prompt != nullptr ? prompt : messages) parts.argument = *said;
  return {};
}

}  // namespace

Result<ai::LlmCall> read_llm_task(const pb::LlmSpec& spec, std::uint32_t index, const TaskInput& input) {
  auto given = given_of(input.args);
  if (!given) return given.error();
  if (!*given) {
    given = from_parents(input.parents);
    if (!given) return given.error();
  }
  Parts parts{with_index(spec.prompt(), index), with_index(spec.system(), index), spec.options_json(), nullptr};
  if (*given) {
    json::value& value = **given;
    if (is_message(value)) {
      parts.argument = json::array{value};
    } else if (json::object* object = value.if_object()) {
      if (auto ok = override_with(*object, parts); !ok) return ok.error();
    } else {
      parts.argument = std::move(value);
    }
    // What is given is the prompt, unless the spec's has a place for it.
    if (!parts.argument.is_null() && parts.prompt.find("{}") == std::string::npos &&
        parts.system.find("{}") == std::string::npos)
      parts.prompt.clear();
  }
  return ai::read_call(spec.op(), spec.model(), parts.prompt, parts.system, parts.options, parts.argument);
}

}  // namespace grange::worker
