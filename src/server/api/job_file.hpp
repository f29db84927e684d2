// The job file: what `grange submit` and POST /api/jobs take. JSON here; the command line turns TOML into the same
// JSON.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/bodies.hpp"
#include "grange/v1/wire.pb.h"

namespace grange::server {

namespace pb = ::grange::v1;

struct JobFile {
  pb::JobSpec spec;
  std::vector<core::ArgumentPage> pages;
  std::string id;  // the client's own id of the job, or ""
};

// Form only: keys, types, units. What a job may be is said by validate.hpp.
Result<JobFile> read_job_file(std::string_view text);
Result<JobFile> read_job_file(const boost::json::object& file);

// The file back. `args` only when they are given.
boost::json::object write_job_file(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>* pages);

// "90", "1.5s", "10m", "2h", "1d" -> milliseconds; "512MiB", "2 GiB", "1000", "1.5GB" -> bytes.
Result<std::uint64_t> read_duration_ms(std::string_view text);
Result<std::uint64_t> read_bytes(std::string_view text);
// The known word that is nearest to `word`, or "" when none is near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& known);

// Pages of at most about 1 MiB from one argument a task. An argument above limits::kInline is the caller's to make a
// blob of.
std::vector<core::ArgumentPage> make_pages(const std::vector<std::string>& args);

}  // namespace grange::server
