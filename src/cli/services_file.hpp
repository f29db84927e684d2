// The file in which the owner of a machine says which services its worker keeps running.
#pragma once

#include <string>
#include <vector>

#include "worker/services/care_spec.hpp"

namespace grange::cli {

// Its text, as TOML; `folder`: where relative folders begin.
Result<std::vector<worker::CareSpec>> parse_services(std::string_view text, const std::string& folder);
// `file` as given by a person; "": DATA/services.toml, when it is there. Throws Exit.
std::vector<worker::CareSpec> read_services_file(const std::string& file, const std::string& data);
// The path of that file; "": there is none.
std::string services_file(const std::string& file, const std::string& data);

}  // namespace grange::cli
