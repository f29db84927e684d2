// Job files: TOML or JSON, the same keys, turned into the JSON that the server takes.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace grange::cli {

namespace json = boost::json;

// TOML in, JSON out; dates become strings. The error names line and column.
Result<json::value> toml_to_json(std::string_view text);

// `name` decides by its ending; any other name, "-" too, by the first character that is not space.
Result<json::object> parse_job(std::string_view text, const std::string& name);

// Unknown keys, with the nearest known one.
Result<> check_keys(const json::object& job);

// Replaces `args_file` by `args`: one a line, without its line end; a last empty line does not count. `folder`: what
// paths are relative to.
Result<> read_args_file(json::object& job, const std::string& folder);

// A file that goes to the tasks.
struct FileIn {
  std::string path;    // in the task's folder
  std::string source;  // on this machine
};
Result<std::vector<FileIn>> files_in(const json::object& job, const std::string& folder);
// A path inside a task's folder: relative, no "..".
bool safe_path(std::string_view path);

// SHA-256 of a file, in hex.
Result<std::string> file_sha256(const std::string& file);
std::string random_hex(std::size_t bytes);

}  // namespace grange::cli
