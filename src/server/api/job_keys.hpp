// Reads a JSON object of a job file key by key.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <optional>
#include <vector>

#include "server/api/job_file.hpp"

namespace grange::server {

namespace json = boost::json;

// The first thing that is wrong is kept, so that the reading code stays a plain list of keys.
class Keys {
 public:
  Keys(const json::object& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json::value* find(std::string_view key) {
    known_.push_back(key);
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  bool text(std::string_view key, std::string& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_string()) return wrong(key, "must be a string");
    out = std::string(value->get_string());
    return true;
  }
  bool integer(std::string_view key, std::int64_t least, std::int64_t most, std::int64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    std::int64_t number = 0;
    if (value->is_int64()) {
      number = value->get_int64();
    } else if (value->is_uint64()) {
      number = static_cast<std::int64_t>(std::min<std::uint64_t>(value->get_uint64(), INT64_MAX));
    } else if (value->is_double() && std::abs(value->get_double()) <= 9007199254740992.0 &&
               value->get_double() == std::floor(value->get_double())) {
      number = static_cast<std::int64_t>(value->get_double());  // 1e6, as people write it
    } else {
      return wrong(key, "must be a whole number");
    }
    if (number < least || number > most) return wrong(key, fmt::format("must be from {} to {}", least, most));
    out = number;
    return true;
  }
  bool flag(std::string_view key, bool& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_bool()) return wrong(key, "must be true or false");
    out = value->get_bool();
    return true;
  }
  // A number, in units of 1/scale.
  bool number(std::string_view key, double scale, double most, std::uint64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_number()) return wrong(key, "must be a number");
    const double n = value->to_number<double>();
    if (!(n >= 0) || n > most) return wrong(key, fmt::format("must be from 0 to {}", most));
    out = static_cast<std::uint64_t>(std::llround(n * scale));
    return true;
  }
  bool duration(std::string_view key, std::uint64_t& ms) { return unit(key, 1000, read_duration_ms, ms); }
  bool bytes(std::string_view key, std::uint64_t& out) { return unit(key, 1, read_bytes, out); }
  // A duration that the wire keeps in 32 bits; 0 is not one.
  bool duration32(std::string_view key, std::uint32_t& ms) {
    std::uint64_t wide = 0;
    if (!duration(key, wide)) return false;
    if (wide == 0 || wide > UINT32_MAX) return wrong(key, "must be above 0 and below 49 days");
    ms = static_cast<std::uint32_t>(wide);
    return true;
  }
  // "2026-12-01T08:00:00Z", or seconds since 1970.
  bool time(std::string_view key, std::uint64_t& ms) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (value->is_number()) return duration(key, ms);
    if (!value->is_string()) return wrong(key, "must be a time, such as \"2026-12-01T08:00:00Z\"");
    auto result = read_time_ms(value->get_string());
    if (!result) {
      fail(std::move(result).error().with_context(fmt::format("\"{}{}\"", where_, key)));
      return false;
    }
    ms = *result;
    return true;
  }
  template <class Map>
  bool strings(std::string_view key, Map& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_object()) return wrong(key, "must be a table of strings");
    return strings(value->get_object(), key, out);
  }
  template <class Map>
  bool strings(const json::object& from, std::string_view key, Map& out, std::string_view but = {}) {
    for (const auto& [name, one] : from) {
      if (!but.empty() && std::string_view(name) == but) continue;
      if (one.is_string()) {
        out[std::string(name)] = std::string(one.get_string());
      } else if (one.is_number() || one.is_bool()) {
        out[std::string(name)] = json::serialize(one);
      } else {
        return wrong(key, fmt::format("must be a table of strings; \"{}\" is none", std::string_view(name)));
      }
    }
    return true;
  }
  const json::object* object(std::string_view key) {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->is_object()) return &value->get_object();
    wrong(key, "must be a table");
    return nullptr;
  }
  const json::array* list(std::string_view key) {
    const json::value* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->is_array()) return &value->get_array();
    wrong(key, "must be a list");
    return nullptr;
  }
  bool wrong(std::string_view key, std::string_view why) {
    if (!error_) error_ = Error{ErrorClass::invalid_argument, fmt::format("\"{}{}\" {}.", where_, key, why)};
    return false;
  }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }
  // The verdict, once all keys were asked for.
  Result<> finish(std::string_view of = "a job") {
    if (error_) return std::move(*error_);
    for (const auto& [key, value] : object_) {
      const std::string_view name = key;
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      const std::string_view near = nearest(name, known_);
      return Error{ErrorClass::invalid_argument,
                   fmt::format("\"{}{}\" is not a key of {}{}", where_, name, of,
                               near.empty() ? "." : fmt::format(". Did you mean \"{}\"?", near)),
                   json::serialize(json::object{{"key", where_ + std::string(name)}})};
    }
    return {};
  }

 private:
  bool unit(std::string_view key, double scale, Result<std::uint64_t> (*read)(std::string_view), std::uint64_t& out) {
    const json::value* value = find(key);
    if (value == nullptr) return false;
    if (value->is_number()) {
      const double n = value->to_number<double>();
      if (!(n >= 0) || n * scale > 9e15) return wrong(key, "is out of range");
      out = static_cast<std::uint64_t>(std::llround(n * scale));
      return true;
    }
    if (!value->is_string()) return wrong(key, "must be a number or a text with a unit");
    auto result = read(value->get_string());
    if (!result) {
      fail(std::move(result).error().with_context(fmt::format("\"{}{}\"", where_, key)));
      return false;
    }
    out = *result;
    return true;
  }

  const json::object& object_;
  std::string where_;
  std::vector<std::string_view> known_;
  std::optional<Error> error_;
};

// As the API writes a duration.
inline json::value in_seconds(std::uint64_t ms) {
  return static_cast<double>(ms) / 1000.0;
}

// Parts of a job that have a file of their own (job_needs.cpp, job_times.cpp).
void read_engines(Keys& keys, pb::JobSpec& spec);  // the tables of engines; "command" is not one
void read_requirements(Keys& keys, pb::Requirements& needs);
void read_alternatives(Keys& keys, pb::JobSpec& spec);
void read_retry(Keys& keys, pb::JobSpec& spec);
void read_order(Keys& keys, JobFile& file);  // what it waits for, when it runs, and beside what

void write_engines(const pb::JobSpec& spec, json::object& out);  // those of AI work
json::object write_requirements(const pb::Requirements& needs, bool whole);
void write_retry(const pb::Retry& retry, json::object& out);
void write_order(const pb::JobSpec& spec, json::object& out);

}  // namespace grange::server
