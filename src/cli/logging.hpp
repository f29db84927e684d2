// Where the log of a server or worker goes: stderr, for people or as one JSON object a line.
#pragma once

#include <string>

namespace grange::cli {

// Throws Exit for an unknown format or level.
void log_to_stderr(const std::string& format, const std::string& level);

}  // namespace grange::cli
