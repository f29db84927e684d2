#include "worker/engines/argument.hpp"

#include "ai/json.hpp"
#include "base/utf8.hpp"

namespace grange::worker {

namespace json = boost::json;

namespace {

Result<json::value> from_parent(const TaskInput::Parent& parent) {
  if (parent.encoding == pb::ENCODING_PICKLE)
    return wrong_argument(
        "The result of a Python job with pickled values cannot be read here: give that job the encoding "
        "\"json\".");
  if (auto value = ai::parse_json(parent.value)) {
    if (!value->is_object()) return std::move(*value);
    const auto text = ai::text_at(value->get_object(), "text");
    return text ? json::value(json::string(*text)) : std::move(*value);
  }
  if (!is_utf8(parent.value)) return wrong_argument("The result of the parent task is neither JSON nor text.");
  return json::value(json::string(parent.value));
}

}  // namespace

Result<json::value> argument_of(const TaskInput& input) {
  if (!input.args.empty()) {
    auto value = ai::parse_json(input.args);
    if (!value) return wrong_argument("The task's argument is not JSON.");
    json::array* list = value->if_array();
    if (list == nullptr) return std::move(*value);
    if (list->size() == 1) return std::move(list->front());
    if (list->size() > 1)
      return wrong_argument("Such a task takes one argument; this one has " + std::to_string(list->size()) + ".");
  }
  json::array all;
  for (const TaskInput::Parent& one : input.parents) {
    auto value = from_parent(one);
    if (!value) return value.error();
    all.push_back(std::move(*value));
  }
  if (all.empty()) return json::value();
  if (all.size() == 1) return std::move(all.front());
  return json::value(std::move(all));
}

}  // namespace grange::worker
