// What a job may be. One place, whichever door it came in by.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/bodies.hpp"
#include "core/types.hpp"
#include "grange/v1/wire.pb.h"

namespace grange::server {

namespace pb = ::grange::v1;

// Python jobs whose arguments and results are JSON run on any worker with Python, and on workers of the JSON dialect,
// which offer only this.
inline constexpr std::string_view kPythonJson = "python+json";

struct BlobFacts {
  std::function<bool(const std::string& sha256)> exists;
};

// Fills in defaults and refuses what makes no sense, with a sentence that names the field. not_found names a blob that
// is not here.
Result<> validate_job(pb::JobSpec& spec, const std::string& id, const std::vector<core::ArgumentPage>& pages,
                      const BlobFacts& blobs);

// The arguments of `count` tasks: pages without gaps, sizes that add up, blobs that are here. No pages: no arguments.
Result<> check_pages(std::uint32_t count, const std::vector<core::ArgumentPage>& pages, const BlobFacts& blobs);
// What a worker must have, and what a job may wait for (validate_needs.cpp).
Result<> check_requirements(const pb::Requirements& needs);
Result<> check_order(const pb::JobSpec& spec);
Result<> check_times(const pb::JobSpec& spec);  // of these, the two that a submit may say as "from now"
// What a job is called when nobody gave it a name: its function, its program, its script's first line.
std::string default_name(const pb::JobSpec& spec);

// Engines of AI work (job_engines.cpp). check_ai_engine fills in what such a job needs of a worker: the model, its
// context; and clears the tables of other engines.
std::string implied_engine(const pb::JobSpec& spec);  // by the table that it has; ""
bool is_ai_engine(std::string_view engine);
Result<> check_ai_engine(pb::JobSpec& spec);
std::string ai_name(const pb::JobSpec& spec);
std::string needed_engine(const pb::JobSpec& spec);  // what a worker must offer: "llm", "llm-mock", "remote:openai"

// Of a spec that was found valid, with its dependencies' numbers filled in.
core::JobHeader make_header(const pb::JobSpec& spec);
// SHA-256 over spec and arguments: tells a repeat from a conflict.
std::string job_digest(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>& pages);
std::vector<std::string> page_blobs(const std::vector<core::ArgumentPage>& pages);
std::vector<std::string> job_blobs(const pb::JobSpec& spec, const std::vector<core::ArgumentPage>& pages);
std::string serialize_stably(const pb::JobSpec& spec);  // map fields in order

// Relative, without "..", ".", empty parts or NUL: stays inside the task's folder.
bool safe_path(std::string_view path);
// A name that people may choose: 1..kNameBytes of printable UTF-8.
bool valid_name(std::string_view name);
bool valid_user(std::string_view name);
std::string user_rule();  // what that asks for, for people
// A job's own id: like a name, of [0-9A-Za-z_.:@-], not digits alone (those are job numbers).
bool valid_job_id(std::string_view id);

}  // namespace grange::server
