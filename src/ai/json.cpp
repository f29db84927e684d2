#include "ai/json.hpp"

#include <boost/json/parse.hpp>
#include <cmath>

namespace grange::ai {

std::optional<json::value> parse_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = 100;
  json::error_code error;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error) return std::nullopt;
  return value;
}

const json::value* member(const json::object& from, std::string_view key) {
  return from.if_contains(key);
}

const json::value* member(const json::value& from, std::string_view key) {
  const json::object* object = from.if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}

const json::object* object_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}

const json::array* array_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? nullptr : value->if_array();
}

std::optional<std::string_view> text_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return std::string_view(value->get_string());
}

std::optional<bool> flag_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  if (value == nullptr || !value->is_bool()) return std::nullopt;
  return value->get_bool();
}

std::optional<double> number_of(const json::value& value) {
  if (value.is_int64()) return static_cast<double>(value.get_int64());
  if (value.is_uint64()) return static_cast<double>(value.get_uint64());
  if (value.is_double() && std::isfinite(value.get_double())) return value.get_double();
  return std::nullopt;
}

std::optional<double> number_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? std::nullopt : number_of(*value);
}

std::optional<std::uint64_t> count_of(const json::value& value) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64()) {
    if (value.get_int64() < 0) return std::nullopt;
    return static_cast<std::uint64_t>(value.get_int64());
  }
  if (!value.is_double()) return std::nullopt;
  const double number = value.get_double();
  if (!(number >= 0 && number < 0x1.0p64) || number != std::floor(number)) return std::nullopt;
  return static_cast<std::uint64_t>(number);
}

std::optional<std::uint64_t> count_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value == nullptr ? std::nullopt : count_of(*value);
}

json::value or_null(const std::optional<double>& value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return *value;
}

json::value or_null(const std::optional<std::uint64_t>& value) {
  if (!value) return nullptr;
  return *value;
}

}  // namespace grange::ai
