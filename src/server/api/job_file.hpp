// The job file: what `grange submit` and POST /api/jobs take. JSON here; the command line turns TOML into the same
// JSON.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <optional>
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
  std::string id;                    // the client's own id of the job, or ""
  Millis start_in{0}, finish_in{0};  // times that count from the moment it is taken in
};

// Form only: keys, types, units. What a job may be is said by validate.hpp.
Result<JobFile> read_job_file(std::string_view text);
Result<JobFile> read_job_file(const boost::json::object& file);

// The arguments of tasks, one a value. positional: as JSON lists of a Python function's arguments.
Result<std::vector<core::ArgumentPage>> read_args(const boost::json::array& args, bool positional);

// The file back. `args` only when they are given.
boost::json::object write_job_file(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>* pages);

// "2026-12-01T08:00:00Z", seconds and their fraction may be left out; "+01:00" instead of Z -> milliseconds since 1970.
Result<std::uint64_t> read_time_ms(std::string_view text);
// "90", "1.5s", "10m", "2h", "1d" -> milliseconds; "512MiB", "2 GiB", "1000", "1.5GB" -> bytes.
Result<std::uint64_t> read_duration_ms(std::string_view text);
Result<std::uint64_t> read_bytes(std::string_view text);
// As core::name() says it. nullopt: there is no such class.
std::optional<core::FailureClass> read_failure_class(std::string_view text);
// The known word that is nearest to `word`, or "" when none is near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& known);

// Pages of at most about 1 MiB from one argument a task. An argument above limits::kInline is the caller's to make a
// blob of.
std::vector<core::ArgumentPage> make_pages(const std::vector<std::string>& args);

}  // namespace grange::server
