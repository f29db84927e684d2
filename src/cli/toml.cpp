// toml++ is slow to compile: it stays in this file.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <boost/json.hpp>
#include <sstream>

#include "cli/job_file.hpp"

namespace grange::cli {
namespace {

json::value convert(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    json::object out;
    for (const auto& [key, value] : *table) out[key.str()] = convert(value);
    return out;
  }
  if (const auto* array = node.as_array()) {
    json::array out;
    out.reserve(array->size());
    for (const auto& value : *array) out.push_back(convert(value));
    return out;
  }
  if (const auto* text = node.as_string()) return json::string(text->get());
  if (const auto* integer = node.as_integer()) return integer->get();
  if (const auto* real = node.as_floating_point()) return real->get();
  if (const auto* flag = node.as_boolean()) return flag->get();
  std::ostringstream text;
  node.visit([&](const auto& value) {
    if constexpr (toml::is_date<decltype(value)> || toml::is_time<decltype(value)> ||
                  toml::is_date_time<decltype(value)>) {
      text << value.get();
    }
  });
  return json::string(text.str());
}

}  // namespace

Result<json::value> toml_to_json(std::string_view text) {
  try {
    return convert(toml::parse(text));
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    return Error{ErrorClass::invalid_argument,
                 fmt::format("line {}, column {}: {}", at.line, at.column, error.description())};
  }
}

}  // namespace grange::cli
