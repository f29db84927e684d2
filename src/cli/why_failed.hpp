// Why a job failed, for the sentence at the end of a command.
#pragma once

#include <string>

#include "cli/rest.hpp"

namespace grange::cli {

// "task 7/0: engine_error (missing_model): …", of the first that failed; "" when nobody says. Never throws.
std::string first_failure(Rest& rest, const std::string& job);
// The same from an outcome: class, kind, message.
std::string failure_words(const json::value& result);

}  // namespace grange::cli
