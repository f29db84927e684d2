// What several commands do with a job.
#pragma once

#include "cli/rest.hpp"

namespace grange::cli {

json::value get_job(Rest& rest, const std::string& id);  // throws Exit not_found
bool job_ended(const json::value& job);

// Waits until the job ended, with a progress line on a terminal, over lost connections. `limit` 0: for ever.
// Answers the last that was seen of the job.
json::value wait_for(Rest& rest, const std::string& id, Millis limit);
// What `wait` and `submit --wait` say at the end, on stderr when it went wrong; the exit code.
int tell_end(const json::value& job);

// Calls `each` with every result in index order.
void each_result(Rest& rest, const std::string& id, const std::function<void(const json::value&)>& each);

}  // namespace grange::cli
