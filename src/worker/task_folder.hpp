// The folder of one command task: made fresh, filled from blobs, read back without following a link, removed. Blocking: for the disk thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

Result<> make_folder(const std::string& folder);  // empty afterwards, 0700
void remove_folder(const std::string& folder);
// Copies `source` to folder/path; `path` was checked by safe_relative and nothing of the task has run yet.
Result<> put_in(const std::string& folder, const std::string& path, const std::string& source, std::uint32_t mode);

struct TakenFile { Fd fd; Bytes bytes = 0; std::uint32_t mode = 0; std::string sha256; };
// Opens folder/path, a plain file, through no link, and reads its hash.
Result<TakenFile> take_out(const std::string& folder, const std::string& path);

// "{}" and "{index}" in one pass: what an argument holds is not looked at again.
std::string substitute(std::string_view text, std::string_view argument, std::string_view index);

}  // namespace grange::worker
