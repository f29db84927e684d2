// Secrets from a file: lines NAME=value, as an environment would hold them, in a file that only its owner can read. Its
// path is in GRANGE_SECRETS.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace grange::worker {

Result<std::map<std::string, std::string>> read_secrets(const std::string& path);

// From the file of GRANGE_SECRETS, read anew each time: a key may be changed. One that others can read is not used, and
// that is logged.
std::optional<std::string> secret_from_file(const std::string& name);

}  // namespace grange::worker
