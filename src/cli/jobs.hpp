// What several commands do with a job.
#pragma once

#include <filesystem>

#include "cli/job_file.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"

namespace grange::cli {

json::value get_job(Rest& rest, const std::string& id);  // throws Exit not_found
bool job_ended(const json::value& job);

// Waits until the job ended, with a progress line on a terminal, over lost connections. `limit` 0: for ever.
// Answers the last that was seen of the job.
json::value wait_for(Rest& rest, const std::string& id, Millis limit);
// What `wait` and `submit --wait` say at the end, on stderr when it went wrong; the exit code.
int tell_end(Rest& rest, const json::value& job);

// Uploads `files`, and writes job["files_in"] as the server wants it.
void upload_files(Rest& rest, json::object& job, const std::vector<FileIn>& files);
// Stores the files of one result below `folder`; how many.
std::size_t download_files(Rest& rest, const json::value& result, const std::filesystem::path& folder);
void make_folder(const std::filesystem::path& folder);

// One task as the server shows it; throws Exit not_found.
json::value get_task(Rest& rest, const TaskRef& task);
std::string task_word(const json::value& task);  // why it failed, or how far it is; may be empty
// For commands that take jobs only: "7/3" is answered with what to write.
std::string whole_job(const std::string& name, const char* command);

// Calls `each` with every result in index order.
void each_result(Rest& rest, const std::string& id, const std::function<void(const json::value&)>& each);

}  // namespace grange::cli
