// A job file on its way to the server: read, checked, overridden by flags, its files uploaded.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/job_file.hpp"
#include "cli/rest.hpp"

namespace CLI {
class App;
}

namespace grange::cli {

// The flags that say the same as keys of a job file, and win over them.
struct JobFlags {
  std::string name, key, timeout, memory, gpu_memory, pool, not_before, start_in, deadline, finish_in, unique, user,
      when;
  std::vector<std::string> env, after, retry_on;
  std::int64_t count = -1, retries = -1, nodes = -1, max_running = -1;
  int priority = 0;
  double cpus = -1, gpus = -1, weight = -1;
  bool has_priority = false, speculate = false, open = false;
};
std::shared_ptr<JobFlags> add_job_flags(CLI::App& sub);
// Throws Exit for what cannot be meant.
void apply(const JobFlags& flags, json::object& job);

// "exception:ValueError=0" -> {on: "exception", type: "ValueError", max_attempts: 1}
Result<json::object> parse_retry_on(std::string_view text);

std::string read_text(const std::string& file);  // "-": stdin; throws Exit
// The folder that paths in this file are relative to.
std::string folder_of(const std::string& file);
// Keys checked, args_file read. Throws Exit.
json::object read_job(const std::string& file);
// The same for a job that stands in a file with others.
void settle_job(json::object& job, const std::string& folder);
// With --follow and --wait left to the caller: uploads its files, which must exist.
void upload_job(Rest& rest, json::object& job, const std::string& folder);

}  // namespace grange::cli
