// Reading JSON that others wrote: nothing throws, what is not there or of another type is absent.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace grange::ai {

namespace json = boost::json;

// Any bytes; nothing when they are not JSON, or nested more than 100 deep.
std::optional<json::value> parse_json(std::string_view text);

// The member `key` when `from` is an object that has one of that type, else nothing.
const json::value* member(const json::value& from, std::string_view key);
const json::value* member(const json::object& from, std::string_view key);
const json::object* object_at(const json::object& from, std::string_view key);
const json::array* array_at(const json::object& from, std::string_view key);
std::optional<std::string_view> text_at(const json::object& from, std::string_view key);
std::optional<bool> flag_at(const json::object& from, std::string_view key);
// Numbers of each JSON kind; only finite ones.
std::optional<double> number_at(const json::object& from, std::string_view key);
std::optional<double> number_of(const json::value& value);
// A whole number from 0 to 2^64-1, also when it is written as 3.0.
std::optional<std::uint64_t> count_at(const json::object& from, std::string_view key);
std::optional<std::uint64_t> count_of(const json::value& value);

// A figure, or null where there is none.
json::value or_null(const std::optional<double>& value);
json::value or_null(const std::optional<std::uint64_t>& value);

}  // namespace grange::ai
